"""Segments of DICOM Segmentation objects (PS3.3 A.51, C.8.20) of any maker -> masks on the voxels of a CT volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from annotations.structures import Places
from annotations.unusable import Unusable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from triage_node.study import Mask, Volume

PARALLEL = 0.999  # cosine of the normals of a frame and of the slices
OFF_PIXEL = 0.5  # pixels by which a frame's corner may miss the grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What a segment says of itself."""

    number: int
    names: tuple[str, ...]  # Segment Label, Segment Description, where given
    type_code: str  # Segmented Property Type
    type_meaning: str
    modifier_codes: tuple[str, ...]
    automatic: bool  # drawn by a program alone
    algorithm: str  # the program's name


def segments(segmentation: Dataset) -> list[Segment]:
    """All segments of an object, also those without a frame."""
    found = []
    for item in segmentation.get("SegmentSequence", []):
        kind = (item.get("SegmentedPropertyTypeCodeSequence", None) or [None])[0]
        modifiers = kind.get("SegmentedPropertyTypeModifierCodeSequence", []) if kind is not None else []
        names = (item.get("SegmentLabel", ""), item.get("SegmentDescription", ""))
        found.append(
            Segment(
                number=int(item.SegmentNumber),
                names=tuple(str(name) for name in names if name),
                type_code=str(kind.get("CodeValue", "")) if kind is not None else "",
                type_meaning=str(kind.get("CodeMeaning", "")) if kind is not None else "",
                modifier_codes=tuple(str(code.get("CodeValue", "")) for code in modifiers),
                automatic=item.get("SegmentAlgorithmType", "") == "AUTOMATIC",
                algorithm=str(item.get("SegmentAlgorithmName", "")),
            )
        )
    return found


def mask_of(segmentation: Dataset, numbers: set[int], volume: Volume, *, resampled: bool = False) -> Mask:
    """[z, y, x] the voxels that any of the segments covers (FRACTIONAL: at least half).

    Frames may leave out slices, be smaller than the slices or run against them, but must lie on their pixels; with
    `resampled` they may have a grid of their own in the same planes, whose nearest pixel counts, and reach beyond the
    images. Raises Unusable.
    """
    mask = np.zeros(volume.hounsfield.shape, dtype=np.bool_)
    places = Places(volume)
    frames = _frames(segmentation)
    shared = segmentation.get("SharedFunctionalGroupsSequence", [None])[0]
    for pixels, groups in zip(frames, segmentation.get("PerFrameFunctionalGroupsSequence", []), strict=True):
        covered = _covered(segmentation, pixels, groups, shared, numbers)
        if covered is not None and covered.any():
            _place(covered, groups, shared, places, mask, resampled=resampled)
    return mask


def _frames(segmentation: Dataset) -> npt.NDArray[Any]:
    """[frame, row, column]."""
    if not int(segmentation.get("NumberOfFrames", 0) or 0):
        return np.zeros((0, 1, 1), dtype=np.uint8)
    pixels = segmentation.pixel_array
    return pixels[None] if pixels.ndim == 2 else pixels


def _covered(
    segmentation: Dataset, pixels: npt.NDArray[Any], groups: Dataset, shared: Dataset | None, numbers: set[int]
) -> Mask | None:
    kind = segmentation.get("SegmentationType", "BINARY")
    if kind == "LABELMAP":  # its pixels are segment numbers (PS3.3 C.8.20.2)
        labelled: Mask = np.isin(pixels, sorted(numbers))
        return labelled
    item = _macro(groups, shared, "SegmentIdentificationSequence")
    if int(item.ReferencedSegmentNumber) not in numbers:
        return None
    half = float(segmentation.get("MaximumFractionalValue", 1)) / 2 if kind == "FRACTIONAL" else 0.5
    covered: Mask = pixels >= half
    return covered


def _place(
    covered: Mask, groups: Dataset, shared: Dataset | None, places: Places, mask: Mask, *, resampled: bool
) -> None:
    orientation = np.array(_macro(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64)
    row_mm, column_mm = (float(mm) for mm in _macro(groups, shared, "PixelMeasuresSequence").PixelSpacing)
    corner = np.array(_macro(groups, shared, "PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
    across, down = orientation[:3] * column_mm, orientation[3:] * row_mm
    if abs(np.cross(orientation[:3], orientation[3:]) @ places.normal) < PARALLEL:
        raise Unusable("a frame of the segmentation is not parallel to the slices")
    z = places.slice_at(float(corner @ places.normal), "a frame of the segmentation")
    first = _indices(corner, z, places)
    last = _indices(corner + across * (covered.shape[1] - 1) + down * (covered.shape[0] - 1), z, places)
    low, high = np.minimum(first, last), np.maximum(first, last)
    span = np.array(covered.shape) - 1
    on_pixels = np.abs(high - low - span).max() <= OFF_PIXEL and np.abs(low - np.rint(low)).max() <= OFF_PIXEL - 0.1
    row, column = (int(place) for place in np.rint(low))
    rows, columns = mask.shape[1:]
    within = row >= 0 and column >= 0 and row + covered.shape[0] <= rows and column + covered.shape[1] <= columns
    if on_pixels and within:
        turned = covered[:: -1 if last[0] < first[0] else 1, :: -1 if last[1] < first[1] else 1]
        mask[z, row : row + covered.shape[0], column : column + covered.shape[1]] |= turned
    elif resampled:
        _sample(covered, corner, (across, down), z, places, mask)
    elif not on_pixels:
        raise Unusable("the segmentation does not lie on the pixels of its series: export it on the source's grid")
    else:
        raise Unusable("a frame of the segmentation reaches beyond the images of its series")


def _sample(
    covered: Mask,
    corner: npt.NDArray[np.float64],
    steps: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    z: int,
    places: Places,
    mask: Mask,
) -> None:
    """Put the frame's pixel that is nearest to it into each pixel of slice z; `steps` lead to its next column, row."""
    start = places.positions[z] - corner
    y, x = np.ogrid[: mask.shape[1], : mask.shape[2]]
    to_column, to_row = (step / (step @ step) for step in steps)
    row, column = (
        np.rint(start @ to + y * (places.down @ to) + x * (places.across @ to)).astype(np.int64)
        for to in (to_row, to_column)
    )
    inside = (row >= 0) & (row < covered.shape[0]) & (column >= 0) & (column < covered.shape[1])
    mask[z][inside] |= covered[row[inside], column[inside]]


def _indices(point: npt.NDArray[np.float64], z: int, places: Places) -> npt.NDArray[np.float64]:
    """Fractional row, column of a point on slice z."""
    offset = point - places.positions[z]
    return np.array([offset @ places.row, offset @ places.column])


def _macro(groups: Dataset, shared: Dataset | None, keyword: str) -> Dataset:
    for group in (groups, shared):
        sequence = group.get(keyword, None) if group is not None else None
        if sequence:
            item: Dataset = sequence[0]
            return item
    raise Unusable(f"the segmentation has no {keyword}")
