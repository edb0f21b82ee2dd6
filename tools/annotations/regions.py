"""What was drawn in a series: the regions of Segmentations and RT Structure Sets that are lungs or lesions.

What a region is, is told by its name first, then by its code; names are compared without case, hyphens and underscores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from annotations import segments, structures
from annotations.unusable import Unusable
from triage_node.study import LEFT_LUNG, RIGHT_LUNG

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.dataset import Dataset

    from annotations.segments import Segment
    from triage_node.study import LungMap, Mask, Volume

LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
SOP_CLASSES = frozenset({SegmentationStorage, LABEL_MAP_SEGMENTATION, RTStructureSetStorage})

# what pydicom and numpy raise for an object that lacks what it must have or whose pixels cannot be decoded
MALFORMED = (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError, NotImplementedError)

LUNGS = ("right", "left", "lungs")
LESIONS = ("lesions", "ground_glass", "consolidation")

# SNOMED CT, and what it was called before
LUNG_CODES = {"39607008", "T-28000"}
RIGHT_CODES, RIGHT_MODIFIERS = {"3341006", "T-28100"}, {"24028007", "G-A100"}
LEFT_CODES, LEFT_MODIFIERS = {"44029006", "T-28500"}, {"7771000", "G-A101"}
LESION_CODES = {"47351003", "M-41000"}  # infiltrate

_OF_LUNGS = r"(?:lungs?|both|whole|total|structure|parenchyma|mask|segmentation|of)"
# Patterns for names that are known word by word nowhere, the most telling first.
WORDS = (
    ("consolidation", r"consolidat"),
    ("ground_glass", r"ground ?glass|\bggo\b"),
    ("lesions", r"infiltrat|opaci|infect|pneumoni|covid|lung lesion"),
    ("right", rf"^(?=.*\blungs?\b)(?:{_OF_LUNGS} )*right(?: {_OF_LUNGS})*$"),
    ("left", rf"^(?=.*\blungs?\b)(?:{_OF_LUNGS} )*left(?: {_OF_LUNGS})*$"),
)


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
    words: tuple[tuple[str, str], ...] = ()  # field, pattern: for names that are none of the above

    def kind_of(self, name: str) -> str | None:
        """The field that has the name."""
        bare = plain(name)
        known = next((kind for kind in (*LUNGS, *LESIONS) if bare in getattr(self, kind)), None)
        return known or next((kind for kind, pattern in self.words if re.search(pattern, bare)), None)


ANY_NAMES = Names(words=WORDS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regions:
    """What one object holds: masks [z, y, x] by the fields of `Names`; of a kind without a voxel an empty one."""

    contours: bool
    masks: dict[str, Mask]
    ignored: tuple[str, ...] = ()  # names of regions that are neither lungs nor lesions, or that a program drew
    automatic: tuple[str, ...] = ()  # sentences on those in `masks` that a program drew alone


def plain(name: str) -> str:
    """Lung_Left, LUNG-LEFT and 'Lung  left' -> 'lung left'."""
    return " ".join(re.split(r"[^a-z0-9]+", name.casefold())).strip()


def drawn_series(drawing: Dataset) -> set[str]:
    """Series Instance UIDs that a Segmentation or a Structure Set refers to."""
    found = {str(item.SeriesInstanceUID) for item in drawing.get("ReferencedSeriesSequence", [])}
    for frame in drawing.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            found |= {str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence", [])}
    return found


def read(
    drawing: Dataset, on: Volume, names: Names | None = None, *, also_automatic: bool = False, resampled: bool = False
) -> Regions:
    """The lungs and lesions of one object.

    Args:
        drawing: a Segmentation or an RT Structure Set.
        on: the series that was drawn in.
        names: what regions are called.
        also_automatic: also what a program drew alone.
        resampled: also segments on a grid of their own, by the nearest of its pixels.

    Returns:
        Masks on the voxels of the volume, with what was left out.

    Raises:
        Unusable: it was drawn on another series, or lacks what it must have.
    """
    names = names or Names()
    try:
        if drawing.SOPClassUID == RTStructureSetStorage:
            return _contours(drawing, on, names)
        return _segments(drawing, on, names, also_automatic=also_automatic, resampled=resampled)
    except MALFORMED as error:
        raise Unusable(f"{drawing.SOPClassUID.name} {drawing.SOPInstanceUID} cannot be read: {error}") from error


def together(of: Iterable[Regions]) -> dict[str, Mask]:
    """The masks of several objects.

    Contours and segments of the same organ are mostly conversions of each other: where there are contours they count
    alone.
    """
    objects = list(of)
    masks: dict[str, Mask] = {}
    for group in (LUNGS, LESIONS):
        for contours in (True, False):
            found: dict[str, Mask] = {}
            for part in objects:
                if part.contours is contours:
                    for kind in part.masks.keys() & set(group):
                        found[kind] = found[kind] | part.masks[kind] if kind in found else part.masks[kind]
            if found:
                masks |= found
                break
    return masks


def lungs_in(masks: dict[str, Mask]) -> tuple[LungMap, bool] | None:
    """Both lungs and whether right and left are told apart: each side as drawn, otherwise what was drawn as a whole.

    None where no lungs were drawn. Raises Unusable where only one of them was.
    """
    if "right" in masks and "left" in masks:
        return np.where(masks["left"], LEFT_LUNG, np.where(masks["right"], RIGHT_LUNG, 0)).astype(np.uint8), True
    if "lungs" in masks:
        return masks["lungs"].astype(np.uint8), False
    sides = [side for side in ("right", "left") if side in masks]
    if sides:
        raise Unusable(f"only the {sides[0]} lung was drawn")
    return None


def lesions_in(masks: dict[str, Mask]) -> npt.NDArray[np.uint8] | None:
    """[z, y, x] 1 ground glass or not told apart, 2 consolidation; None where no lesions were drawn."""
    found = [masks[kind] for kind in LESIONS if kind in masks]
    if not found:
        return None
    labels: npt.NDArray[np.uint8] = np.logical_or.reduce(found).astype(np.uint8)
    if "consolidation" in masks:
        labels[masks["consolidation"]] = 2
    return labels


def tells_apart(masks: dict[str, Mask]) -> bool:
    """What was drawn as a lesion and not as consolidation is ground glass, where either was drawn at all."""
    return "consolidation" in masks or "ground_glass" in masks


def kind_of(segment: Segment, names: Names) -> str | None:
    """By its names first, most telling first, then by its code; None for what is neither lungs nor lesions."""
    kinds = [kind for name in (*segment.names, segment.type_meaning) if (kind := names.kind_of(name))]
    telling = [kind for kind in kinds if kind not in {"lungs", "lesions"}]
    if kinds:
        found = (telling or kinds)[0]
        return _side_of(segment) or found if found == "lungs" else found
    by_code = "lungs" if segment.type_code in LUNG_CODES else "lesions" if segment.type_code in LESION_CODES else None
    return _side_of(segment) or by_code


def _contours(drawing: Dataset, on: Volume, names: Names) -> Regions:
    masks: dict[str, Mask] = {}
    ignored = []
    for number, name in structures.rois(drawing).items():
        kind = names.kind_of(name)
        if kind is None:
            ignored.append(name)
        else:
            mask = structures.mask_of(drawing, number, on)
            masks[kind] = masks[kind] | mask if kind in masks else mask
    return Regions(contours=True, masks=masks, ignored=tuple(ignored))


def _segments(drawing: Dataset, on: Volume, names: Names, *, also_automatic: bool, resampled: bool) -> Regions:
    numbers: dict[str, set[int]] = {}
    ignored, automatic = [], []
    for segment in segments.segments(drawing):
        kind = kind_of(segment, names)
        if kind is None or (segment.automatic and not also_automatic):
            why = " (drawn by a program)" if kind is not None else ""
            ignored.append((segment.names or (f"segment {segment.number}",))[0] + why)
            continue
        numbers.setdefault(kind, set()).add(segment.number)
        if segment.automatic:
            automatic.append(f"{kind.replace('_', ' ')} were drawn by a program ({segment.algorithm or 'unnamed'})")
    masks = {kind: segments.mask_of(drawing, mine, on, resampled=resampled) for kind, mine in numbers.items()}
    return Regions(contours=False, masks=masks, ignored=tuple(ignored), automatic=tuple(automatic))


def _side_of(segment: Segment) -> str | None:
    for side, codes, modifiers in (("right", RIGHT_CODES, RIGHT_MODIFIERS), ("left", LEFT_CODES, LEFT_MODIFIERS)):
        if segment.type_code in codes:
            return side
        if segment.type_code in LUNG_CODES and set(segment.modifier_codes) & modifiers:
            return side
    return None
