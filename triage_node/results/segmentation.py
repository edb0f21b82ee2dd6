"""Masks -> Segmentation objects on the very grid of the source: BINARY (PS3.3 A.51) or label maps (PS3.3 A.86).

Lesions in one object and lungs in another: some viewers give up on an object of more than 400 frames. BINARY objects
are read everywhere; a label map holds all segments of a slice in one frame and takes a thirtieth of the room.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.color import CIELabColor
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from triage_node import __version__, codes
from triage_node.conformance import CT_IMAGE_STORAGE
from triage_node.explicit import raw_sequence
from triage_node.identity import LABEL_MAPS
from triage_node.results import envelope, frames
from triage_node.study import LEFT_LUNG, NOT_FOR_DIAGNOSTIC_USE, RIGHT_LUNG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.sr.coding import Code

    from triage_node.identity import ResultIdentity, ResultKind
    from triage_node.results.frames import MaskOf, Slices
    from triage_node.results.source import Source
    from triage_node.study import Findings, Model, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment before it is numbered."""

    value: int  # in the label map
    label: str
    category: Code
    type: Code
    modifier: Code | None
    color: tuple[float, float, float]  # CIELab: L* 0..100, a* and b* -128..127
    tracking: str


LESION = Segment(
    value=1,
    label="Lung lesion",
    category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
    type=codes.INFILTRATE,
    modifier=None,
    color=(58.0, 62.0, 48.0),  # warm red
    tracking="lesions",
)
# Where the method tells them apart: two segments that do not overlap, since several viewers cannot show such that do
# and since more frames would be too many for others. All segments of the lesion object together are the whole lesion.
LESION_CLASSES = (
    Segment(
        value=1,
        label="Lung lesion: ground glass opacity",
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        type=codes.GROUND_GLASS_OPACITY,
        modifier=None,
        color=(76.0, 18.0, 68.0),  # amber
        tracking="ground glass",
    ),
    Segment(
        value=2,
        label="Lung lesion: consolidation",
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        type=codes.LUNG_CONSOLIDATION,
        modifier=None,
        color=(58.0, 62.0, 48.0),  # warm red
        tracking="consolidation",
    ),
)
LUNGS = (
    Segment(
        value=RIGHT_LUNG,
        label="Right lung",
        category=codes.ANATOMICAL_STRUCTURE,
        type=codes.LUNG,
        modifier=codes.RIGHT,
        color=(72.0, -22.0, -28.0),  # light blue
        tracking="right lung",
    ),
    Segment(
        value=LEFT_LUNG,
        label="Left lung",
        category=codes.ANATOMICAL_STRUCTURE,
        type=codes.LUNG,
        modifier=codes.LEFT,
        color=(80.0, -38.0, 36.0),  # light green
        tracking="left lung",
    ),
)


Masks = tuple[tuple[Segment, "Slices"], ...]  # the segments of an object that have a voxel, packed


def lesions(findings: Findings) -> Masks:
    """The lesion object's: one segment, or one for each class that was found; their union is the whole lesion."""
    found, dense = findings.lesions, findings.consolidation
    if dense is None:
        masks = [(LESION, lambda z: found[z])]
    else:
        ground_glass, consolidation = LESION_CLASSES
        masks = [(ground_glass, lambda z: found[z] > dense[z]), (consolidation, lambda z: found[z] & dense[z])]
    return _packed(masks, len(found))


def lungs(findings: Findings) -> Masks:
    """The lungs object's: a segment for every lung that was found, numbered from 1 without a gap (PS3.3 C.8.20.2)."""
    labels = findings.lungs
    right, left = LUNGS
    masks = [(right, lambda z: labels[z] == RIGHT_LUNG), (left, lambda z: labels[z] == LEFT_LUNG)]
    return _packed(masks, len(labels))


def _packed(masks: Sequence[tuple[Segment, MaskOf]], depth: int) -> Masks:
    found = ((segment, frames.packed(mask_of, depth)) for segment, mask_of in masks)
    return tuple((segment, bits) for segment, bits in found if bits)


def tracking_uid(identity: ResultIdentity, tracking: str) -> str:
    """Of a segment, and of the report's group that measures it."""
    return identity.uid(f"tracking {tracking}")


def dataset(
    kind: ResultKind,
    masks: Masks,
    volume: Volume,
    model: Model,
    source: Source,
    identity: ResultIdentity,
) -> Dataset | None:
    """The object of `masks`; None where no segment has a voxel, since a segmentation needs at least one frame.

    highdicom makes it for one slice; the frames of all take the place of that slice's.
    """
    if not masks:
        return None
    rows, columns = volume.hounsfield.shape[1:]
    label_map = kind in LABEL_MAPS
    date, time = envelope.moment(source, identity)
    measures = _measures(source, volume)
    sample = np.zeros((1, rows, columns), np.uint8)
    sample.flat[: len(masks)] = range(1, len(masks) + 1)
    made = Segmentation(
        source_images=[_stand_in(source, volume, measures[0])],
        pixel_array=sample,
        segmentation_type=SegmentationTypeValues.LABELMAP if label_map else SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(n, s, model, identity) for n, (s, _) in enumerate(masks, start=1)],
        series_instance_uid=identity.uid(f"{kind} series"),
        series_number=envelope.KINDS[kind].series_number,
        sop_instance_uid=identity.uid(kind),
        instance_number=1,
        manufacturer=envelope.MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=model.version,
        device_serial_number=identity.ae_title,
        content_description=NOT_FOR_DIAGNOSTIC_USE,
        content_label="LUNGS" if kind in ("lungs", "lung map") else "LESIONS",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=deepcopy(measures),
        content_date=date,
        content_time=time,
    )
    _as_in_source(made, source, measures, identity.uid(f"{kind} dimensions"))
    envelope.stamp(made, kind, source, identity, model)
    segments = [bits for _, bits in masks]
    if label_map:
        _put_label_map(made, segments, source, (rows, columns))
    else:
        _put_frames(made, segments, source, rows * columns)
    return made


def _put_frames(dataset: Dataset, segments: list[Slices], source: Source, cells: int) -> None:
    """The frames of every segment in place of those that are there."""
    places = frames.places(segments)
    group_of = frames.groups_of(source)
    groups = [group_of(z, (n, places[z]), n) for n, bits in enumerate(segments, start=1) for z in bits]
    dataset[Tag("PerFrameFunctionalGroupsSequence")] = raw_sequence("PerFrameFunctionalGroupsSequence", groups)
    dataset.NumberOfFrames = len(groups)
    dataset.PixelData = frames.pixel_data([frame for bits in segments for frame in bits.values()], cells)
    dataset["PixelData"].VR = "OB"


def _put_label_map(dataset: Dataset, segments: list[Slices], source: Source, shape: tuple[int, int]) -> None:
    """One frame for each slice, the segments' numbers its pixel values, compressed by JPEG-LS without loss."""
    places = frames.places(segments)
    group_of = frames.groups_of(source)
    groups = [group_of(z, (place,), None) for z, place in places.items()]
    dataset[Tag("PerFrameFunctionalGroupsSequence")] = raw_sequence("PerFrameFunctionalGroupsSequence", groups)
    dataset.NumberOfFrames = len(groups)
    dataset.PixelData = encapsulate([frames.jpeg_ls(frames.labelled(segments, z, shape)) for z in places])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelPaddingValue"].VR = "US"
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless


def _stand_in(source: Source, volume: Volume, measures: Dataset) -> Dataset:
    """The first slice as a single-frame header of its own, so that every kind of source is encoded in one way.

    Patient, study and references are put in at the end.
    """
    slice_ = source.slices[0]
    header = Dataset()
    header.SOPClassUID = CT_IMAGE_STORAGE
    header.SOPInstanceUID = slice_.sop_instance_uid
    header.StudyInstanceUID = source.study_instance_uid
    header.SeriesInstanceUID = source.series_instance_uid
    header.FrameOfReferenceUID = source.frame_of_reference_uid
    header.Modality = "CT"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(header, keyword, "")
    header.StudyDate = header.StudyTime = None
    header.Rows, header.Columns = volume.hounsfield.shape[1:]
    header.ImagePositionPatient = list(slice_.position)
    header.ImageOrientationPatient = list(slice_.orientation)
    header.PixelSpacing = measures.PixelSpacing
    header.SliceThickness = measures.SliceThickness
    return header


def _describe(number: int, segment: Segment, model: Model, identity: ResultIdentity) -> SegmentDescription:
    item = SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=segment.category,
        segmented_property_type=segment.type,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name,
            version=model.version,
            family=codes.algorithm_family(model.name),
            source=envelope.MANUFACTURER,
        ),
        tracking_uid=tracking_uid(identity, segment.tracking),
        tracking_id=segment.label,
        anatomic_regions=[codes.LUNG] if segment.type is not codes.LUNG else None,
        display_color=CIELabColor(*segment.color),
    )
    item.SegmentDescription = f"{NOT_FOR_DIAGNOSTIC_USE}. {segment.label} by {model.name} {__version__}"[:64]
    if segment.modifier is not None:
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept.from_code(segment.modifier)]
    return item


def _measures(source: Source, volume: Volume) -> PixelMeasuresSequence:
    first = source.slices[0]
    spacing_mm = volume.spacing_zyx_mm[0]
    measures = PixelMeasuresSequence(
        pixel_spacing=[float(value) for value in first.pixel_spacing],
        slice_thickness=float(first.thickness or spacing_mm),
    )
    measures[0].PixelSpacing = list(first.pixel_spacing)
    if first.thickness is not None:
        measures[0].SliceThickness = first.thickness
    if np.ptp(volume.slice_thicknesses_mm) < 0.01 * spacing_mm:
        measures[0].SpacingBetweenSlices = round(spacing_mm, 6)
    return measures


def _as_in_source(dataset: Dataset, source: Source, measures: PixelMeasuresSequence, organization: str) -> None:
    """Put the source's own references and decimal strings in place of the stand-ins' and of highdicom's guesses."""
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(source.slices[0].orientation)
    shared.PixelMeasuresSequence = measures
    if "SegmentIdentificationSequence" in shared:
        del (
            shared.SegmentIdentificationSequence
        )  # of one segment alone it may be shared, but readers look in the frames
    envelope.refer(dataset, source.instances)
