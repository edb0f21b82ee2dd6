"""A folder of DICOM: the CT series that was drawn on, and the lungs and lesions that were drawn in it.

Readers' masks come as Segmentation objects or as RT Structure Sets. What a region is, is told by its code (lungs) or by
its name; names are compared without case, hyphens and underscores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from training import layout, segments, sources, structures
from training.published import Unusable
from triage_node import volume
from triage_node.config import AnalysisSection
from triage_node.conformance import CT_SOP_CLASSES

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from training.preparation import Arrays
    from training.segments import Segment
    from triage_node.study import Mask, Series, Volume

LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
DRAWINGS = {SegmentationStorage, LABEL_MAP_SEGMENTATION, RTStructureSetStorage}

# what pydicom and numpy raise for an object that lacks what it must have or whose pixels cannot be decoded
MALFORMED = (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError, NotImplementedError)

# SNOMED CT, and what it was called before
LUNG_CODES = {"39607008", "T-28000"}
RIGHT_CODES, RIGHT_MODIFIERS = {"3341006", "T-28100"}, {"24028007", "G-A100"}
LEFT_CODES, LEFT_MODIFIERS = {"44029006", "T-28500"}, {"7771000", "G-A101"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What regions are called, in the form of `plain`."""

    right: frozenset[str] = frozenset({"lung r", "lung rt", "lung right", "right lung", "r lung", "rt lung"})
    left: frozenset[str] = frozenset({"lung l", "lung lt", "lung left", "left lung", "l lung", "lt lung"})
    lungs: frozenset[str] = frozenset({"lung", "lungs", "lungs total", "lung total", "both lungs", "lungs both"})
    lesions: frozenset[str] = frozenset({
        "lesion", "lesions", "lung lesion", "lung lesions", "infection", "infiltrate", "infiltrates", "opacity",
        "opacities", "pneumonia", "covid 19", "covid 19 lesion", "covid 19 lesions",
    })  # fmt: skip
    ground_glass: frozenset[str] = frozenset({"ggo", "ground glass", "ground glass opacity", "ground glass opacities"})
    consolidation: frozenset[str] = frozenset({"consolidation", "consolidations"})

    def kind_of(self, name: str) -> str | None:
        """The field that has the name."""
        kinds = ("right", "left", "lungs", "lesions", "ground_glass", "consolidation")
        return next((kind for kind in kinds if plain(name) in getattr(self, kind)), None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """What was drawn on a series, on its voxels [z, y, x]."""

    lungs: Mask | None = None
    lesions: npt.NDArray[np.uint8] | None = None  # 1 ground glass or not told apart, 2 consolidation
    classes: bool = False  # whether 1 and 2 were told apart
    ignored: tuple[str, ...] = ()  # names of regions that are neither, or that a program drew


@dataclass(slots=True, kw_only=True)
class _Regions:
    """Masks by kind; a kind that was drawn nowhere has none, one without a voxel has an empty one."""

    masks: dict[str, Mask] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def add(self, kind: str, mask: Mask) -> None:
        self.masks[kind] = self.masks[kind] | mask if kind in self.masks else mask


def plain(name: str) -> str:
    """Lung_Left, LUNG-LEFT and 'Lung  left' -> 'lung left'."""
    return " ".join(re.split(r"[^a-z0-9]+", name.casefold())).strip()


def read(folder: Path) -> tuple[Volume, list[Dataset]]:
    """The CT series of a folder that was drawn on, otherwise its largest, and the objects drawn on it.

    Raises Unusable, or Refused with the reason why the series cannot be read.
    """
    series, drawings = [], []
    for study in volume.study_in(folder):
        for one in study.series:
            classes = {instance.sop_class_uid for instance in one.instances}
            if classes & set(CT_SOP_CLASSES):
                series.append(one)
            elif classes & DRAWINGS:
                drawings += [pydicom.dcmread(instance.path) for instance in one.instances]
    if not series:
        raise Unusable(f"expected a CT series below {folder}")
    size = {one.key.series_instance_uid: len(one.instances) for one in series}
    drawn_on = {uid for drawing in drawings for uid in drawn_series(drawing)} & set(size)
    chosen = max(series, key=lambda one: (one.key.series_instance_uid in drawn_on, len(one.instances)))
    return volume.read(chosen, AnalysisSection()), [one for one in drawings if _belongs(one, chosen)]


def drawn_series(drawing: Dataset) -> set[str]:
    """Series Instance UIDs that a Segmentation or a Structure Set refers to."""
    found = {str(item.SeriesInstanceUID) for item in drawing.get("ReferencedSeriesSequence", [])}
    for frame in drawing.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            found |= {str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence", [])}
    return found


def drawn(on: Volume, drawings: list[Dataset], names: Names | None = None, *, also_automatic: bool = False) -> Drawn:
    """The lungs and lesions of all drawings together.

    Contours and segments of the same organ are mostly conversions of each other: where there are contours they count
    alone. What a program drew alone is no truth to learn from and counts with `also_automatic` only. Raises Unusable.
    """
    names = names or Names()
    by_contours, by_segments = _Regions(), _Regions()
    for drawing in drawings:
        try:
            if drawing.SOPClassUID == RTStructureSetStorage:
                _add_structures(drawing, on, names, by_contours)
            else:
                _add_segments(drawing, on, names, by_segments, also_automatic=also_automatic)
        except MALFORMED as error:
            raise Unusable(f"{drawing.SOPClassUID.name} {drawing.SOPInstanceUID} cannot be read: {error}") from error
    lungs = _lungs(by_contours.masks)
    if lungs is None:
        lungs = _lungs(by_segments.masks)
    of_lesions = by_contours if _has_lesions(by_contours.masks) else by_segments
    return Drawn(
        lungs=lungs,
        lesions=_lesions(of_lesions.masks),
        classes=_tells_apart(of_lesions.masks),
        ignored=tuple(sorted({*by_contours.ignored, *by_segments.ignored})),
    )


def _belongs(drawing: Dataset, series: Series) -> bool:
    refers_to = drawn_series(drawing)
    if refers_to:
        return series.key.series_instance_uid in refers_to
    first = pydicom.dcmread(series.instances[0].path, stop_before_pixels=True, specific_tags=["FrameOfReferenceUID"])
    return "FrameOfReferenceUID" in first and drawing.get("FrameOfReferenceUID") == first.FrameOfReferenceUID


def _add_structures(drawing: Dataset, on: Volume, names: Names, regions: _Regions) -> None:
    for number, name in structures.rois(drawing).items():
        kind = names.kind_of(name)
        if kind is None:
            regions.ignored.append(name)
        else:
            regions.add(kind, structures.mask_of(drawing, number, on))


def _add_segments(drawing: Dataset, on: Volume, names: Names, regions: _Regions, *, also_automatic: bool) -> None:
    numbers: dict[str, set[int]] = {}
    for segment in segments.segments(drawing):
        kind = _kind_of(segment, names)
        if kind is None or (segment.automatic and not also_automatic):
            why = " (drawn by a program)" if kind is not None else ""
            regions.ignored.append((segment.names or (f"segment {segment.number}",))[0] + why)
        else:
            numbers.setdefault(kind, set()).add(segment.number)
    for kind, of_kind in numbers.items():
        regions.add(kind, segments.mask_of(drawing, of_kind, on))


def _kind_of(segment: Segment, names: Names) -> str | None:
    """By its names first, most telling first, then by its code."""
    kinds = [kind for name in segment.names if (kind := names.kind_of(name))]
    telling = [kind for kind in kinds if kind not in {"lungs", "lesions"}]
    if telling or kinds:
        found = (telling or kinds)[0]
        return _side_of(segment) or found if found == "lungs" else found
    return _side_of(segment) or ("lungs" if segment.type_code in LUNG_CODES else None)


def _side_of(segment: Segment) -> str | None:
    for side, codes, modifiers in (("right", RIGHT_CODES, RIGHT_MODIFIERS), ("left", LEFT_CODES, LEFT_MODIFIERS)):
        if segment.type_code in codes:
            return side
        if segment.type_code in LUNG_CODES and set(segment.modifier_codes) & modifiers:
            return side
    return None


def _lungs(masks: dict[str, Mask]) -> Mask | None:
    """Both sides where they were drawn one by one, otherwise what was drawn as a whole."""
    if "right" in masks and "left" in masks:
        return masks["right"] | masks["left"]
    if "lungs" in masks:
        return masks["lungs"]
    sides = [side for side in ("right", "left") if side in masks]
    if sides:
        raise Unusable(f"only the {sides[0]} lung was drawn")
    return None


def _has_lesions(masks: dict[str, Mask]) -> bool:
    return any(kind in masks for kind in ("lesions", "ground_glass", "consolidation"))


def _tells_apart(masks: dict[str, Mask]) -> bool:
    """What was drawn as a lesion and not as consolidation is ground glass, where either was drawn at all."""
    return "consolidation" in masks or "ground_glass" in masks


def _lesions(masks: dict[str, Mask]) -> npt.NDArray[np.uint8] | None:
    found = [masks[kind] for kind in ("lesions", "ground_glass", "consolidation") if kind in masks]
    if not found:
        return None
    labels: npt.NDArray[np.uint8] = np.logical_or.reduce(found).astype(np.uint8)
    if "consolidation" in masks:
        labels[masks["consolidation"]] = 2
    return labels


def arrays_of(on: Volume, drawn_on_it: Drawn) -> Arrays:
    """Scan and masks in patient order, resampled. Raises ValueError where the slices are not axial."""
    turn = sources.patient_order(on)
    spacing = on.spacing_zyx_mm[1:]
    arrays: Arrays = {"hounsfield": layout.images_on_grid(sources.in_patient_order(on.hounsfield, turn), spacing)}
    for name, mask in (("lungs", drawn_on_it.lungs), ("lesions", drawn_on_it.lesions)):
        if mask is not None:
            turned = np.ascontiguousarray(mask[turn], dtype=np.uint8)
            arrays[name] = layout.labels_on_grid(turned, spacing)
    return arrays
