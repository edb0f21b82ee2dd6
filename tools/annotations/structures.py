"""Contours of RT Structure Sets (PS3.3 A.19, C.8.8.6) -> masks on the voxels of a CT volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from annotations.unusable import Unusable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from triage_node.study import Mask, Volume

CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
OFF_SLICE = 0.5  # of the slice spacing: a contour farther from every slice was drawn on another series


def rois(structures: Dataset) -> dict[int, str]:
    """ROI Number -> ROI Name of every region of interest that has contours."""
    drawn = {int(item.ReferencedROINumber) for item in structures.get("ROIContourSequence", []) if _contours(item)}
    names = {int(item.ROINumber): str(item.ROIName) for item in structures.get("StructureSetROISequence", [])}
    return {number: name for number, name in names.items() if number in drawn}


def mask_of(structures: Dataset, number: int, volume: Volume) -> Mask:
    """[z, y, x] the voxels whose centres lie in a region of interest.

    A contour inside another one cuts a hole (even-odd rule), as does the keyhole of a single contour. Raises Unusable
    where a contour lies on none of the volume's slices.
    """
    slices, height, width = volume.hounsfield.shape
    mask = np.zeros((slices, height, width), dtype=np.bool_)
    places = Places(volume)
    for item in structures.ROIContourSequence:
        if int(item.ReferencedROINumber) == number:
            for points in _contours(item):
                z, rows, columns = places.on_slice(points)
                mask[z] ^= filled(rows, columns, (height, width))
    return mask


def filled(rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64], shape: tuple[int, int]) -> Mask:
    """[y, x] the pixels whose centres lie inside a closed polygon, by the even-odd rule.

    The corners are fractional pixel indices. Each edge toggles, in every pixel row it crosses, all pixels right of it;
    a row belongs to an edge from its upper end on to before its lower end, so that no corner counts twice.
    """
    ends = np.stack([np.stack([rows, columns]), np.stack([np.roll(rows, -1), np.roll(columns, -1)])])  # [2, 2, edge]
    # an edge is followed downwards, so that two polygons that share it round its crossings alike
    upper = np.where(ends[0, 0] <= ends[1, 0], 0, 1)
    (row0, column0), (row1, column1) = (
        np.take_along_axis(ends, side[None, None, :], axis=0)[0] for side in (upper, 1 - upper)
    )
    first, beyond = (np.clip(np.ceil(row), 0, shape[0]).astype(np.int64) for row in (row0, row1))
    counts = beyond - first
    edges = np.repeat(np.arange(len(rows)), counts)
    crossed = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    along = (crossed - row0[edges]) / (row1 - row0)[edges]
    places = column0[edges] + along * (column1 - column0)[edges]
    toggles = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    np.add.at(toggles, (crossed, np.clip(np.ceil(places), 0, shape[1]).astype(np.int64)), 1)
    inside: Mask = np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
    return inside


class Places:
    """Where points in the patient lie among the slices of a volume."""

    def __init__(self, volume: Volume) -> None:
        self.across, self.down = volume.affine_lps_mm[:3, 0], volume.affine_lps_mm[:3, 1]  # to the next column, row
        self.column, self.row = self.across / (self.across @ self.across), self.down / (self.down @ self.down)
        normal = np.cross(self.across, self.down)
        self.normal = normal / np.linalg.norm(normal)
        self.positions = volume.slice_positions_mm
        self.heights = self.positions @ self.normal
        self.thicknesses = volume.slice_thicknesses_mm

    def slice_at(self, height_mm: float, plane: str) -> int:
        """The slice at a height along the normal. Raises Unusable with the name of the plane that lies on none."""
        z = int(np.argmin(np.abs(self.heights - height_mm)))
        off = abs(float(self.heights[z]) - height_mm)
        if off > OFF_SLICE * self.thicknesses[z] + 1e-3:
            raise Unusable(f"{plane} lies {off:.1f} mm off the nearest slice: it was drawn on another series")
        return z

    def on_slice(self, points: npt.NDArray[np.float64]) -> tuple[int, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """[n, 3] points of one contour -> slice index, fractional row and column indices. Raises Unusable."""
        heights = points @ self.normal
        z = self.slice_at(float(heights.mean()), "a contour")
        if np.ptp(heights) > OFF_SLICE * self.thicknesses[z]:
            raise Unusable("a contour is not parallel to the slices")
        offset = points - self.positions[z]
        return z, offset @ self.row, offset @ self.column


def _contours(item: Dataset) -> list[npt.NDArray[np.float64]]:
    """[n, 3] patient millimetres of every closed contour."""
    return [
        np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
        for contour in item.get("ContourSequence", None) or []
        if contour.get("ContourGeometricType") in CLOSED and len(contour.get("ContourData", None) or []) >= 9
    ]
