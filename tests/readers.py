"""What readers draw on a series: contours as an RT Structure Set, masks as a Segmentation of another program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import highdicom
import numpy as np
import pydicom
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from tests.builders import uid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from pydicom.sr.coding import Code

    from triage_node.study import Volume

Points = list[tuple[float, float]]  # (row, column) indices of a polygon's corners


def outline(mask: npt.NDArray[np.generic]) -> list[Points]:
    """Rectangles around the runs of a slice's mask [y, x]: together they cover its pixels and no others."""
    found: list[Points] = []
    for row, line in enumerate(np.asarray(mask, dtype=bool)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        for first, beyond in edges.reshape(-1, 2):
            top, bottom, left, right = row - 0.5, row + 0.5, first - 0.5, beyond - 0.5
            found.append([(top, left), (top, right), (bottom, right), (bottom, left)])
    return found


def outlines(mask: npt.NDArray[np.generic]) -> list[tuple[int, Points]]:
    """The outline of every slice of a mask [z, y, x]."""
    return [(z, points) for z, plane in enumerate(mask) for points in outline(plane)]


def structure_set(
    on: Volume, regions: Mapping[str, Sequence[tuple[int, Points]]], *, series: str | None = None
) -> FileDataset:
    """An RT Structure Set with a region for each name, contour by contour: slice index and corners.

    `series` makes it refer to another series than the volume's.
    """
    first = pydicom.dcmread(on.instances[0].path, stop_before_pixels=True)
    dataset = _file(RTStructureSetStorage, first, key=sorted(regions), modality="RTSTRUCT")
    dataset.StructureSetLabel = "LUNGS"
    referenced = Dataset()
    referenced.SeriesInstanceUID = series or first.SeriesInstanceUID
    study = Dataset()
    study.RTReferencedSeriesSequence = [referenced]
    frame = Dataset()
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=4):
        roi = Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        dataset.StructureSetROISequence.append(roi)
        drawn = Dataset()
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [_contour(on, z, points) for z, points in contours]
        dataset.ROIContourSequence.append(drawn)
    return dataset


def segmentation(
    on: Volume,
    masks: Mapping[str, npt.NDArray[np.generic]],
    *,
    kind: SegmentationTypeValues = SegmentationTypeValues.BINARY,
    types: Mapping[str, Code] | None = None,
    automatic: bool = False,
    key: str = "reader",
) -> FileDataset:
    """A Segmentation with a segment for each label, as another program writes it; masks [z, y, x] on the volume."""
    images = [pydicom.dcmread(instance.path) for instance in on.instances]
    how = SegmentAlgorithmTypeValues.AUTOMATIC if automatic else SegmentAlgorithmTypeValues.MANUAL
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="viewer", version="1", family=codes.DCM.ArtificialIntelligence
    )
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=(types or {}).get(label, codes.SCT.Tissue),
            algorithm_type=how,
            algorithm_identification=algorithm if automatic else None,
        )
        for number, label in enumerate(masks, start=1)
    ]
    pixels = np.stack([np.asarray(mask) for mask in masks.values()], axis=-1)
    if kind is SegmentationTypeValues.LABELMAP:
        labels = np.zeros(pixels.shape[:3], dtype=np.uint8)
        for number in range(pixels.shape[-1]):
            labels[pixels[..., number] > 0] = number + 1
        pixels = labels
    return Segmentation(
        source_images=images,
        pixel_array=pixels if kind is SegmentationTypeValues.FRACTIONAL else pixels.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=uid("segmentation series", key),
        series_number=77,
        sop_instance_uid=uid("segmentation", key, images[0].SeriesInstanceUID),
        instance_number=1,
        manufacturer="VIEWER",
        manufacturer_model_name="viewer",
        software_versions="1",
        device_serial_number="1",
    )


def save(dataset: Dataset, path: Path) -> Path:
    """Write a Part 10 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _contour(on: Volume, z: int, points: Points) -> Dataset:
    column, row = on.affine_lps_mm[:3, 0], on.affine_lps_mm[:3, 1]
    places = [on.slice_positions_mm[z] + r * row + c * column for r, c in points]
    item = Dataset()
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{value:.9g}" for place in places for value in place]
    return item


def _file(sop_class: str, first: Dataset, *, key: object, modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid(modality, key, first.SeriesInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = first.StudyInstanceUID, uid(modality, key, "series")
    dataset.PatientID, dataset.PatientName = first.PatientID, first.PatientName
    dataset.Modality = modality
    return dataset
