"""Segmentation objects (PS3.3 A.51, BINARY, FRACTIONAL and LABELMAP) -> masks on the grid of a volume.

Codes say what a segment is (SNOMED CT, in either of its old and new notations), its label where they do not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pydicom

from evaluation.cases import Unreadable
from triage_node.study import LEFT_LUNG, RIGHT_LUNG

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.dataset import Dataset

    from triage_node.study import Instance, Mask, Volume

BINARY_CLASS, LABELMAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
SOP_CLASSES = frozenset({BINARY_CLASS, LABELMAP_CLASS})

LUNG_CODES = {"39607008", "T-28000"}
RIGHT_CODES = {"24028007", "G-A100", "3341006"}  # laterality, and "right lung" as one concept
LEFT_CODES = {"7771000", "G-A101", "44029006"}
LESION_CODES = {"47351003", "M-41000"}  # infiltrate
WORDS = (
    ("consolidation", r"consolidat"),
    ("ground_glass", r"ground[ -]?glass|\bggo\b"),
    ("lesion", r"infiltrat|opaci|infect|pneumoni|covid|lung lesion|^lesions?$"),
    ("right", r"right.*lung|lung.*right"),
    ("left", r"left.*lung|lung.*left"),
    ("lungs", r"^(both )?lungs?$"),
)


def kind_of(segment: Dataset) -> str | None:
    """consolidation, ground_glass, lesion, right, left or lungs; None for anything else, such as a heart."""
    types = segment.get("SegmentedPropertyTypeCodeSequence") or []
    codes = {str(item.get("CodeValue", "")) for item in types}
    for item in types:
        modifiers = item.get("SegmentedPropertyTypeModifierCodeSequence") or []
        codes |= {str(modifier.get("CodeValue", "")) for modifier in modifiers}
    label = str(segment.get("SegmentLabel", "")).strip().lower().replace("_", " ")
    if codes & (LUNG_CODES | RIGHT_CODES | LEFT_CODES):
        named = next((kind for kind, pattern in WORDS[3:5] if re.search(pattern, label)), "lungs")
        return "right" if codes & RIGHT_CODES else "left" if codes & LEFT_CODES else named
    texts = (label, *(str(item.get("CodeMeaning", "")).lower() for item in types))
    kind = next((kind for text in texts for kind, pattern in WORDS if re.search(pattern, text)), None)
    return "lesion" if kind is None and codes & LESION_CODES else kind


def read(objects: Iterable[Instance], volume: Volume, remarks: list[str]) -> dict[str, Any]:
    """`lungs` with `sided`, `lesions` and `consolidation` of all objects together; only what was drawn."""
    masks: dict[str, Mask] = {}
    for instance in objects:
        try:
            _add(pydicom.dcmread(instance.path), volume, masks, remarks)
        except (Unreadable, OSError, ValueError, AttributeError, NotImplementedError) as error:
            remarks.append(f"{instance.path.name} cannot be used: {error}")
    found: dict[str, Any] = {}
    sides = {"right": RIGHT_LUNG, "left": LEFT_LUNG}
    if masks.keys() & {"lungs", *sides}:
        found["lungs"] = np.zeros(volume.hounsfield.shape, dtype=np.uint8)
        found["sided"] = "lungs" not in masks
        for kind, label in {"lungs": RIGHT_LUNG, **sides}.items():
            if kind in masks:
                found["lungs"][masks[kind]] = label
    classes = masks.keys() & {"ground_glass", "consolidation"}
    if classes or "lesion" in masks:
        found["lesions"] = np.zeros(volume.hounsfield.shape, dtype=np.bool_)
        for kind in classes | (masks.keys() & {"lesion"}):
            found["lesions"] |= masks[kind]
        found["consolidation"] = masks.get("consolidation", np.zeros_like(found["lesions"])) if classes else None
    return found


def _add(dataset: Dataset, volume: Volume, masks: dict[str, Mask], remarks: list[str]) -> None:
    """Put the frames of one object into `masks`."""
    kinds: dict[int, str] = {}
    for segment in dataset.SegmentSequence:
        kind = kind_of(segment)
        if kind is None:
            remarks.append(f"segment {segment.get('SegmentLabel', '?')!r} is neither lungs nor lesions")
            continue
        kinds[int(segment.SegmentNumber)] = kind
        masks.setdefault(kind, np.zeros(volume.hounsfield.shape, dtype=np.bool_))
        if segment.get("SegmentAlgorithmType") == "AUTOMATIC":
            remarks.append(f"{kind} were drawn by a program ({segment.get('SegmentAlgorithmName', 'unnamed')})")
    if not kinds:
        return
    pixels = dataset.pixel_array
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    shared = dataset.SharedFunctionalGroupsSequence[0]
    labelmap = dataset.get("SegmentationType") == "LABELMAP" or dataset.SOPClassUID == LABELMAP_CLASS
    half = int(dataset.get("MaximumFractionalValue", 1)) / 2 if dataset.get("SegmentationType") == "FRACTIONAL" else 0
    for plane, own in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        wanted = kinds if labelmap else {_segment_number(own, shared): ""}
        for number in wanted:
            if number not in kinds:
                continue
            mask = plane == number if labelmap else plane > half
            if mask.any():
                z, placed = _placed(mask, own, shared, volume)
                masks[kinds[number]][z] |= placed


def _segment_number(own: Dataset, shared: Dataset) -> int:
    return int(_group("SegmentIdentificationSequence", own, shared).ReferencedSegmentNumber)


def _group(name: str, own: Dataset, shared: Dataset) -> Dataset:
    for groups in (own, shared):
        if groups.get(name):
            item: Dataset = groups[name][0]
            return item
    raise Unreadable(f"its frames have no {name}")


def _placed(mask: Mask, own: Dataset, shared: Dataset, volume: Volume) -> tuple[int, Mask]:
    """The slice that a frame lies on, and the frame's mask on that slice's grid."""
    corner = _numbers(_group("PlanePositionSequence", own, shared).ImagePositionPatient)
    directions = _numbers(_group("PlaneOrientationSequence", own, shared).ImageOrientationPatient).reshape(2, 3)
    row_mm, column_mm = _numbers(_group("PixelMeasuresSequence", own, shared).PixelSpacing)
    across, down = volume.affine_lps_mm[:3, 0], volume.affine_lps_mm[:3, 1]
    normal = np.cross(across, down)
    normal = normal / np.linalg.norm(normal)
    if abs(np.cross(*directions) @ normal) < 0.999:
        raise Unreadable("its frames lie in another plane than the slices")
    distances = np.abs((corner - volume.slice_positions_mm) @ normal)
    z = int(distances.argmin())
    if distances[z] > volume.spacing_zyx_mm[0] / 2:
        raise Unreadable(f"a frame lies {distances[z]:.1f} mm away from the nearest slice")
    rows, columns = volume.hounsfield.shape[1:]
    start = volume.slice_positions_mm[z] - corner
    # frame indices (row, column) of the volume's pixels: both grids lie in one plane
    to_column, to_row = directions[0] / column_mm, directions[1] / row_mm
    y, x = np.arange(rows)[:, np.newaxis], np.arange(columns)[np.newaxis]
    row = np.rint(start @ to_row + y * (down @ to_row) + x * (across @ to_row)).astype(np.intp)
    column = np.rint(start @ to_column + y * (down @ to_column) + x * (across @ to_column)).astype(np.intp)
    inside = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    placed = np.zeros((rows, columns), dtype=np.bool_)
    placed[inside] = mask[row[inside], column[inside]]
    return z, placed


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    return np.array([float(value) for value in values])
