"""What the stored segmentations say of each slice: where lungs and lesions lie, and how much of each there is.

Read from the very objects that were sent to the archive (PS3.3 A.51, BINARY), so that the page shows what a viewer of
the archive shows. Frames stay packed, eight pixels a byte, until a slice is looked at.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError

from triage_node import codes

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from triage_node.study import Mask

SliceName = tuple[str, int | None]  # SOP Instance UID, and the frame's number from 1 in a multi-frame object

LUNGS = ("right lung", "left lung")
LESIONS = ("lesion", "ground glass", "consolidation")
_KINDS = {
    codes.INFILTRATE.value: "lesion",
    codes.GROUND_GLASS_OPACITY.value: "ground glass",
    codes.LUNG_CONSOLIDATION.value: "consolidation",
}
_SIDES = {codes.RIGHT.value: "right lung", codes.LEFT.value: "left lung"}


class NoMasks(Exception):
    """A stored segmentation cannot be read; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One segment on one slice, its pixels as bits, the first lowest (PS3.5 section 8.1.1)."""

    kind: str  # one of LUNGS or LESIONS
    bits: npt.NDArray[np.uint8]

    @property
    def pixels(self) -> int:
        """How many belong to the segment."""
        return int(np.bitwise_count(self.bits).sum())

    def mask(self, shape: tuple[int, int]) -> Mask:
        """[y, x]."""
        count = shape[0] * shape[1]
        return np.unpackbits(self.bits, count=count, bitorder="little").reshape(shape).astype(np.bool_)


Masks = dict[SliceName, list[Frame]]  # of each slice that a segment reaches


def read(paths: list[Path]) -> Masks:
    """All segments of all segmentations at `paths`, by slice of the source. Raises NoMasks."""
    found: Masks = defaultdict(list)
    for path in paths:
        try:
            dataset = pydicom.dcmread(path)
            for name, frame in _frames(dataset):
                found[name].append(frame)
        except FileNotFoundError:
            raise NoMasks("a segmentation of the answer is no longer on disk") from None
        except (OSError, InvalidDicomError, AttributeError, LookupError, ValueError, TypeError) as error:
            raise NoMasks(f"a segmentation of the answer cannot be read: {type(error).__name__}") from error
    return dict(found)


def _frames(dataset: Dataset) -> list[tuple[SliceName, Frame]]:
    kinds = {int(segment.SegmentNumber): _kind(segment) for segment in dataset.SegmentSequence}
    cells = dataset.Rows * dataset.Columns
    data = np.frombuffer(dataset.PixelData, np.uint8)
    found = []
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        number = source.get("ReferencedFrameNumber")
        name = (str(source.ReferencedSOPInstanceUID), None if number is None else int(number))
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        found.append((name, Frame(kind=kinds[segment], bits=_bits(data, index, cells))))
    return found


def _kind(segment: Dataset) -> str:
    """What a segment is, by its codes."""
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    if kind.CodeValue == codes.LUNG.value:
        return _SIDES[kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue]
    return _KINDS[kind.CodeValue]


def _bits(data: npt.NDArray[np.uint8], index: int, cells: int) -> npt.NDArray[np.uint8]:
    """The packed pixels of a frame; the bits after its last pixel are 0."""
    first, beyond = index * cells, (index + 1) * cells
    packed = data[first // 8 : -(-beyond // 8)]
    if first % 8 == 0 and cells % 8 == 0:
        return packed
    # a frame that does not fill its last byte shares it with the next one
    bits = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + cells]
    return np.packbits(bits, bitorder="little")
