"""Some slices of the phantom while they are composed: fields and tubes on the scanner's own voxels, in HU.

Arrays are [z, y, x]. A slice that is thicker than a few millimetres is the mean of thin layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triage_node.phantom_fields import Field, Segments, capsule, in_plane, inside, weights

if TYPE_CHECKING:
    from triage_node.phantom_chest import Fields
    from triage_node.study import Mask

AIR_HU = -1000
FAT_HU, SKIN_HU, MARROW_HU, CORTEX_HU = -102, -5, 190, 820
VESSEL_HU, AIRWAY_WALL_HU = 42, 20
CONSOLIDATION_HU = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lattice:
    """Where the scanner's voxels lie: x, and y and z in the gantry's frame."""

    x_mm: npt.NDArray[np.float64]
    y_mm: npt.NDArray[np.float64]
    z_mm: npt.NDArray[np.float64]
    tilt_rad: float
    sub_slices: int
    thickness_mm: float

    def sub_z_mm(self, first: int, last: int) -> npt.NDArray[np.float64]:
        """Heights of the thin layers that slices `first` to `last` (exclusive) average over."""
        steps = (np.arange(self.sub_slices) + 0.5) / self.sub_slices - 0.5
        return (self.z_mm[first:last, None] + steps * self.thickness_mm).ravel()


def at_heights(field: Field, fields: Fields, lattice: Lattice, z_mm: npt.NDArray[np.float64]) -> Field:
    """Planes of `field` at gantry heights `z_mm`, still coarse within the plane."""
    grid = fields.grid
    if lattice.tilt_rad == 0:
        return np.tensordot(weights(grid.z_mm, z_mm), field, axes=(1, 0)).astype(np.float32, copy=False)
    planes = np.empty((len(z_mm), *field.shape[1:]), np.float32)
    for row, y_mm in enumerate(grid.y_mm):
        leaning = z_mm + float(y_mm) * np.tan(lattice.tilt_rad)
        planes[:, row] = weights(grid.z_mm, leaning) @ field[:, row]
    return planes


class Slab:
    """A few slices while they are composed."""

    def __init__(self, fields: Fields, lattice: Lattice, first: int, last: int) -> None:
        self._fields, self._lattice = fields, lattice
        self._z_mm = lattice.sub_z_mm(first, last)
        cosine = np.cos(lattice.tilt_rad)
        self._along_y = weights(fields.grid.y_mm, lattice.y_mm * cosine)
        self._along_x = weights(fields.grid.x_mm, lattice.x_mm)
        pixel = float(np.hypot(lattice.x_mm[1] - lattice.x_mm[0], lattice.y_mm[1] - lattice.y_mm[0]) / np.sqrt(2))
        self._blur_mm = max(1.2, 1.15 * pixel)
        self._lung_share: Field | None = None

    def _fine(self, field: Field) -> Field:
        planes = at_heights(field, self._fields, self._lattice, self._z_mm)
        return in_plane(planes, self._along_y, self._along_x)

    def _averaged(self, layers: Field) -> Field:
        count = self._lattice.sub_slices
        return layers if count == 1 else layers.reshape(-1, count, *layers.shape[1:]).mean(axis=1)

    def truth(self, depth: Field | None) -> Mask | np.bool_:
        """Where at least half of the slice's thickness lies in the shape."""
        if depth is None:
            return np.bool_(False)
        return self._averaged((self._fine(depth) > 0).astype(np.float32)) >= 0.5

    def compose(self, glass: Field | None, core: Field | None) -> tuple[Field, Mask | None]:
        """The slices in HU without noise, and the lungs in them."""
        fields, blur = self._fields, self._blur_mm
        skin = self._fine(fields.skin)
        image = _mix(np.full(skin.shape, FAT_HU, np.float32), self._fine(fields.soft_hu), self._fine(fields.soft), blur)
        bone = self._fine(fields.bone)
        cortex = np.clip(1 + (bone + 0.9) / 1.6, 0, 1) * (CORTEX_HU - MARROW_HU) + MARROW_HU
        image = _mix(image, cortex, bone, blur)
        image = _mix(image, np.float32(AIR_HU), self._fine(fields.gas), blur)
        image = _mix(image, np.float32(SKIN_HU), -(skin + 1.8), 1.0)
        lung_mask: Mask | None = None
        lung: Field | None = None
        if fields.lung is not None and fields.parenchyma_hu is not None and fields.lesion_hu is not None:
            lung = self._fine(fields.lung)
            lung_mask = self._averaged((lung < 0).astype(np.float32)) >= 0.5
            tissue = self._fine(fields.parenchyma_hu)
            if glass is not None and core is not None:
                depth = self._fine(glass)
                ramp = np.clip(0.5 + depth / 7, 0, 1)
                added = self._fine(fields.lesion_hu) + np.clip(depth, 0, 25) * 3
                tissue += ramp * ramp * (3 - 2 * ramp) * added
                tissue = _mix(tissue, np.float32(CONSOLIDATION_HU), -self._fine(core), 4.0)
            image = _mix(image, tissue, lung, blur)
        body = inside(skin, blur)
        if len(fields.vessels):
            share = self._stamp(fields.vessels, 0.0, skin.shape)
            image += share * np.maximum(VESSEL_HU - image, 0)
        if len(fields.airways):
            wall = self._stamp(fields.airways, 0.8, skin.shape)
            image += wall * (AIRWAY_WALL_HU - image)
            lumen = self._stamp(fields.airways, 0.0, skin.shape)
            image += lumen * (AIR_HU + 8 - image)
            if lung_mask is not None:
                lung_mask &= ~self._large_airway(skin.shape)
        image = AIR_HU + body * (image - AIR_HU)
        return self._averaged(image), lung_mask

    def _large_airway(self, shape: tuple[int, ...]) -> Mask:
        """Trachea and main bronchi with their walls, which no reader counts as lung."""
        segments = self._fields.airways
        large = segments[segments[:, 7] > 4.0]
        return self._averaged(self._stamp(large, 1.5, shape)) >= 0.5

    def _stamp(self, segments: Segments, extra_mm: float, shape: tuple[int, ...]) -> Field:
        """Share of every voxel that lies in the tubes, `extra_mm` thicker than they are."""
        result = np.zeros(shape, np.float32)
        lattice, blur = self._lattice, self._blur_mm
        cosine, tangent = np.cos(lattice.tilt_rad), np.tan(lattice.tilt_rad)
        y_mm = lattice.y_mm * cosine
        reach = np.maximum(segments[:, 6], segments[:, 7]) + extra_mm + blur
        low = np.minimum(segments[:, :3], segments[:, 3:6]) - reach[:, None]
        high = np.maximum(segments[:, :3], segments[:, 3:6]) + reach[:, None]
        # gantry heights of a leaning plane through the box
        z_low = low[:, 2] - np.maximum(low[:, 1] * tangent, high[:, 1] * tangent)
        z_high = high[:, 2] - np.minimum(low[:, 1] * tangent, high[:, 1] * tangent)
        near = np.flatnonzero((z_high > self._z_mm[0]) & (z_low < self._z_mm[-1]))
        bounds = [
            (np.searchsorted(axis, below[near]), np.searchsorted(axis, above[near]))
            for axis, below, above in (
                (self._z_mm, z_low, z_high), (y_mm, low[:, 1], high[:, 1]), (lattice.x_mm, low[:, 0], high[:, 0]),
            )
        ]  # fmt: skip
        x32, y32, z32 = (axis.astype(np.float32) for axis in (lattice.x_mm, y_mm, self._z_mm))
        for number, index in enumerate(near):
            box = tuple(slice(int(start[number]), int(stop[number])) for start, stop in bounds)
            if any(part.start >= part.stop for part in box):
                continue
            y = y32[box[1]][None, :, None]
            z = z32[box[0]][:, None, None] + y * np.float32(tangent)
            share = inside(capsule(x32[box[2]][None, None, :], y, z, segments[index]) - np.float32(extra_mm), blur)
            radius = float(max(segments[index, 6], segments[index, 7])) + extra_mm
            share *= np.float32(min(1.0, (2 * radius / blur) ** 1.5))  # thinner than a pixel: fainter, not wider
            np.maximum(result[box], share, out=result[box])
        return result


def _mix(below: Field, above: Field | np.float32, shape: Field, blur_mm: float) -> Field:
    """Lay `above` over `below` inside `shape`."""
    share = inside(shape, blur_mm)
    share *= above - below
    share += below
    return share
