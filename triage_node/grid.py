"""The reduced grid on which a volume is judged: about 2 mm a voxel, axes in patient order.

Goncharov 2021, section 4.1, rescales every axial slice to 2 x 2 mm. Here whole blocks of voxels are averaged, so
that a reduced voxel stands for known voxels of the series and masks find their way back without interpolation.
Thick slices keep their own spacing, as in the paper; slices thinner than 2 mm are averaged too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from triage_node.study import Hounsfield, Mask, Volume

Label = TypeVar("Label", np.bool_, np.uint8)

Box = tuple[slice, slice, slice]

SPACING_MM = 2.0  # Goncharov 2021, section 4.1
LEAST_HU, MOST_HU = -1200, 2000  # fillers of -2000 or -3024 and metal must not rule their block's mean


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientGrid:
    """Attenuations in patient order, [z, y, x] growing to the head, to the back and to the patient's left."""

    hounsfield: Hounsfield
    spacing_zyx_mm: tuple[float, float, float]
    origin_zyx_mm: tuple[float, float, float]  # patient coordinates of the first voxel's centre

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000.0

    def part(self, box: Box) -> PatientGrid:
        """What lies in a box."""
        origin = [
            first + side.start * mm
            for first, side, mm in zip(self.origin_zyx_mm, box, self.spacing_zyx_mm, strict=True)
        ]
        return PatientGrid(
            hounsfield=self.hounsfield[box],
            spacing_zyx_mm=self.spacing_zyx_mm,
            origin_zyx_mm=(origin[0], origin[1], origin[2]),
        )


def bounds(mask: Mask, margin: int) -> Box:
    """The box of a mask that is not empty and of `margin` voxels around it, within the volume."""
    sides = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        sides.append(slice(max(0, int(used[0]) - margin), min(mask.shape[axis], int(used[-1]) + 1 + margin)))
    return sides[0], sides[1], sides[2]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduced(PatientGrid):
    """A volume on the reduced grid, and the way back."""

    order: tuple[int, int, int]  # which axis of the volume each of the axes here is
    flipped: tuple[bool, bool, bool]  # whether it runs the other way in the volume
    factors: tuple[int, int, int]  # voxels of the volume a reduced voxel covers, in the volume's axes
    shape: tuple[int, int, int]  # of the volume

    def to_volume_axes(self, reduced: npt.NDArray[Label]) -> npt.NDArray[Label]:
        """Turn a reduced map back into the volume's own axes and directions, still reduced."""
        axes = tuple(axis for axis, flipped in enumerate(self.flipped) if flipped)
        return np.ascontiguousarray(np.transpose(np.flip(reduced, axes), np.argsort(self.order)))

    def expand_slice(self, in_volume_axes: npt.NDArray[Label], z: int) -> npt.NDArray[Label]:
        """Slice `z` of the volume, [y, x], from a map as `to_volume_axes` gives it: every voxel of a block alike."""
        fz, fy, fx = self.factors
        block = in_volume_axes[z // fz]
        return np.repeat(np.repeat(block, fy, axis=0), fx, axis=1)[: self.shape[1], : self.shape[2]]


def reduce(volume: Volume) -> Reduced:
    """Average blocks of voxels to about 2 mm; the volume is read slice by slice and never copied whole."""
    spacing = volume.spacing_zyx_mm
    factors = tuple(max(1, round(SPACING_MM / mm)) for mm in spacing)
    fz, fy, fx = factors
    depth, height, width = volume.hounsfield.shape
    reduced = np.empty((-(-depth // fz), -(-height // fy), -(-width // fx)), dtype=np.int16)
    for z in range(len(reduced)):
        slab = volume.hounsfield[z * fz : (z + 1) * fz]
        plane = np.zeros((height, width), dtype=np.int32)
        for image in slab:
            plane += np.clip(image, LEAST_HU, MOST_HU)
        # a last block that is not full repeats the edge
        plane = np.pad(plane, ((0, -height % fy), (0, -width % fx)), mode="edge")
        rows = sum((plane[y::fy] for y in range(fy)), start=np.zeros((1, 1), dtype=np.int32))
        both = sum((rows[:, x::fx] for x in range(fx)), start=np.zeros((1, 1), dtype=np.int32))
        reduced[z] = both // (len(slab) * fy * fx)
    return _in_patient_order(volume, reduced, (fz, fy, fx), (spacing[0] * fz, spacing[1] * fy, spacing[2] * fx))


def patient_axes(volume: Volume) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which axis of the volume runs most to the head, to the back, to the left, and whether it runs the other way."""
    directions = volume.affine_lps_mm[:3, 2::-1].copy()  # columns: along the volume's z, y, x
    directions /= np.linalg.norm(directions, axis=0)
    free, order, flipped = [0, 1, 2], [], []
    for patient_axis in (2, 1, 0):  # to the head, to the back, to the left
        axis = max(free, key=lambda i: abs(directions[patient_axis, i]))
        free.remove(axis)
        order.append(axis)
        flipped.append(bool(directions[patient_axis, axis] < 0))
    return (order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2])


def origin_zyx_mm(
    volume: Volume, shape: tuple[int, ...], factors: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Patient coordinates of the first voxel in patient order, where a voxel covers `factors` voxels of the volume.

    `shape` counts those voxels; both are in the volume's axes.
    """
    first = np.array([(f - 1) / 2 for f in factors])
    for axis, back in zip(*patient_axes(volume), strict=True):
        if back:
            first[axis] += (shape[axis] - 1) * factors[axis]
    origin = volume.affine_lps_mm @ np.array([*first[::-1], 1.0])
    return float(origin[2]), float(origin[1]), float(origin[0])


def _in_patient_order(
    volume: Volume,
    reduced: Hounsfield,
    factors: tuple[int, int, int],
    spacing: tuple[float, float, float],
) -> Reduced:
    order, flipped = patient_axes(volume)
    turned = np.flip(np.transpose(reduced, order), tuple(i for i, back in enumerate(flipped) if back))
    return Reduced(
        hounsfield=np.ascontiguousarray(turned),
        spacing_zyx_mm=(spacing[order[0]], spacing[order[1]], spacing[order[2]]),
        origin_zyx_mm=origin_zyx_mm(volume, reduced.shape, factors),
        order=order,
        flipped=flipped,
        factors=factors,
        shape=(volume.hounsfield.shape[0], volume.hounsfield.shape[1], volume.hounsfield.shape[2]),
    )
