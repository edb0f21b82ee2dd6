"""Right and left: lung voxels -> the patient's sides.

Goncharov 2021, section 2.1.1, clusters the lungs' voxels by k-means with k = 2 and calls the larger cluster the right
lung. Here the clusters are named by patient coordinates, and they only decide which side a connected lung is on:
lungs that touch are first parted where they are thinnest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from triage_node.distance import distance_mm
from triage_node.grid import bounds
from triage_node.study import LEFT_LUNG, RIGHT_LUNG

if TYPE_CHECKING:
    from triage_node.grid import PatientGrid
    from triage_node.study import LungMap, Mask

SAMPLE_MM = 4.0  # the clusters are found on a grid of this spacing
ROUNDS = 50  # of k-means; it settles within a few
THINNEST_MM = (2.0, 4.0, 6.0, 8.0, 12.0)  # how much is taken off the lungs' surface to part them, in turn
SMALL_SHARE = 0.04  # of the volume: less on one side is not a second lung
BODY_ABOVE_HU = -300


def split(lungs: Mask, reduced: PatientGrid) -> tuple[LungMap, list[str]]:
    """Label the lungs on the reduced grid right and left; sentences where something is out of the ordinary."""
    sides = np.zeros(lungs.shape, dtype=np.uint8)
    box = bounds(lungs, 1)  # one voxel of what is no lung, where there is one, keeps every distance what it is
    inside, grid = lungs[box], reduced.part(box)
    clusters = _clusters(inside, grid)
    regions = _parted(inside, clusters, grid)
    if regions is not None:
        sides[box] = np.where(inside, regions, 0)
        return sides, []
    # nothing to part: one lung, or two that are one region to the last
    separation_mm = abs(clusters[1][2] - clusters[0][2])
    middle_mm = midline_mm(reduced, lungs)
    points = _coordinates(inside, grid)
    x = points[:, 2]
    off_side = min(np.mean(x > middle_mm), np.mean(x < middle_mm))
    if off_side < 0.15 or separation_mm < 40.0:
        label, name = (LEFT_LUNG, "left") if np.median(x) > middle_mm else (RIGHT_LUNG, "right")
        sides[lungs] = label
        return sides, [f"only the {name} lung was found"]
    sides[lungs] = np.where(_nearest(points, clusters) == 1, LEFT_LUNG, RIGHT_LUNG)
    return sides, ["right and left lung could not be told apart where they touch: the border between them is a plane"]


def _clusters(lungs: Mask, reduced: PatientGrid) -> npt.NDArray[np.float64]:
    """[2, 3] centres (z, y, x mm) of k-means with k = 2, the patient's right first; the same for the same lungs."""
    steps = [max(1, round(SAMPLE_MM / mm)) for mm in reduced.spacing_zyx_mm]
    sample = np.zeros_like(lungs)
    sample[:: steps[0], :: steps[1], :: steps[2]] = lungs[:: steps[0], :: steps[1], :: steps[2]]
    points = _coordinates(sample if np.count_nonzero(sample) > 100 else lungs, reduced)
    middle = np.median(points[:, 2])
    beyond = points[:, 2] > middle
    centres = (
        np.stack([points[~beyond].mean(axis=0), points[beyond].mean(axis=0)])
        if beyond.any()
        else np.stack([points.mean(axis=0)] * 2)
    )
    for _ in range(ROUNDS):
        member = _nearest(points, centres)
        if member.min() == member.max():
            break
        moved = np.stack([points[member == k].mean(axis=0) for k in (0, 1)])
        if np.allclose(moved, centres, atol=0.01):
            break
        centres = moved
    return centres[np.argsort(centres[:, 2])]  # x grows to the patient's left


def _nearest(points: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    offset = centres[1] - centres[0]
    member: npt.NDArray[np.intp] = ((points - centres.mean(axis=0)) @ offset > 0).astype(np.intp)
    return member


def _coordinates(mask: Mask, reduced: PatientGrid) -> npt.NDArray[np.float64]:
    """[n, 3] patient coordinates z, y, x in mm of a mask's voxels."""
    indices: npt.NDArray[np.float64] = np.argwhere(mask).astype(np.float64)
    indices *= reduced.spacing_zyx_mm
    indices += reduced.origin_zyx_mm
    return indices


def _parted(lungs: Mask, clusters: npt.NDArray[np.float64], reduced: PatientGrid) -> LungMap | None:
    """Right and left as connected regions; None where there are no two large ones on two sides."""
    depth: npt.NDArray[np.float32] | None = None
    for thin_mm in (0.0, *THINNEST_MM):
        if thin_mm and depth is None:
            framed = np.pad(lungs, 1, mode="edge")  # the image's border is no surface of the lung
            depth = distance_mm(~framed, reduced.spacing_zyx_mm)[1:-1, 1:-1, 1:-1]
        kept = lungs if depth is None else depth > thin_mm
        regions, count = ndimage.label(kept)
        if count < 2:
            continue
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        sizes[0] = 0
        order = np.argsort(-sizes)
        first = int(order[0])
        for other in order[1:4]:
            if sizes[other] < SMALL_SHARE * sizes.sum():
                break
            if _two_sides(regions, first, int(other), clusters, reduced):
                return _spread(lungs, regions, sizes, clusters, reduced)
    return None


def _two_sides(
    regions: npt.NDArray[np.int32], one: int, other: int, clusters: npt.NDArray[np.float64], reduced: PatientGrid
) -> bool:
    shares = [_nearest(_coordinates(regions == label, reduced), clusters).mean() for label in (one, other)]
    return bool(min(shares) < 0.25 and max(shares) > 0.75)


def _spread(
    lungs: Mask,
    regions: npt.NDArray[np.int32],
    sizes: npt.NDArray[np.int64],
    clusters: npt.NDArray[np.float64],
    reduced: PatientGrid,
) -> LungMap:
    """Every region goes whole to the side on which most of it lies, every voxel taken off to the nearest region."""
    side_of = np.zeros(len(sizes), dtype=np.uint8)
    points = _coordinates(regions > 0, reduced)
    leftness = np.bincount(regions[regions > 0], weights=_nearest(points, clusters), minlength=len(sizes))
    side_of[:] = np.where(leftness > sizes / 2, LEFT_LUNG, RIGHT_LUNG)
    side_of[sizes < 0.001 * sizes.sum()] = 0  # crumbs follow their neighbours
    labelled: LungMap = side_of[regions]
    rest = lungs & (labelled == 0)
    if rest.any():
        nearest = ndimage.distance_transform_edt(
            labelled == 0, sampling=reduced.spacing_zyx_mm, return_distances=False, return_indices=True
        )
        labelled = np.where(rest, labelled[tuple(nearest)], labelled)
    return labelled


def midline_mm(reduced: PatientGrid, lungs: Mask) -> float:
    """Patient x of the middle of the body at the lungs' levels."""
    levels = lungs.any(axis=(1, 2))
    body = ndimage.binary_opening(reduced.hounsfield[levels] > BODY_ABOVE_HU, np.ones((1, 5, 5)))
    columns = np.nonzero((body | lungs[levels]).any(axis=(0, 1)))[0]
    return float(reduced.origin_zyx_mm[2] + reduced.spacing_zyx_mm[2] * (columns[0] + columns[-1]) / 2)
