"""Smooth fields for the phantom: signed distances, noise and their upsampling onto the scanner's grid.

Shapes are signed distances in millimetres (negative inside) on a coarse grid; since they are smooth, upsampling
them and cutting at zero afterwards gives sharp borders at any resolution. Arrays are float32 [z, y, x];
coordinates are patient millimetres (L, P, S): x to the left, y to the back, z to the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]  # [z, y, x]
Loose = npt.NDArray[np.floating[Any]]  # the same, of any precision: what arithmetic with coordinates gives
Point = tuple[float, float, float]  # x, y, z in mm
Segments = npt.NDArray[np.float32]  # [n, 8] x y z of the start, x y z of the end, radius at start and end, in mm

FAR_MM = 80.0  # distances are cut off here, where nobody needs them any more
NO_SEGMENTS: Segments = np.zeros((0, 8), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A coarse grid with its own warped coordinates, by which every shape on it becomes organic."""

    z_mm: Field  # [z]
    y_mm: Field  # [y]
    x_mm: Field  # [x]
    z: Field
    y: Field
    x: Field

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        return len(self.z_mm), len(self.y_mm), len(self.x_mm)

    @property
    def step_mm(self) -> float:
        """Edge of a voxel."""
        return float(self.x_mm[1] - self.x_mm[0])


def make_grid(
    rng: np.random.Generator, *, low: Point, high: Point, step_mm: float, warp_mm: float, warp_scale_mm: float
) -> Grid:
    """Lay a grid from `low` to `high` and bend its coordinates by noise of `warp_mm` (standard deviation)."""
    axes = [np.arange(low[i], high[i] + step_mm / 2, step_mm, dtype=np.float32) for i in (2, 1, 0)]
    straight = np.meshgrid(*axes, indexing="ij")
    bent = [
        (plain + warp_mm * value_noise(rng, (axes[0], axes[1], axes[2]), warp_scale_mm)).astype(np.float32)
        for plain in straight
    ]
    return Grid(z_mm=axes[0], y_mm=axes[1], x_mm=axes[2], z=bent[0], y=bent[1], x=bent[2])


def weights(source_mm: Field, target_mm: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Catmull-Rom weights [target, source] from an even axis to any positions; held constant beyond its ends."""
    step = float(source_mm[1] - source_mm[0])
    last = len(source_mm) - 1
    at = np.clip((np.asarray(target_mm, np.float64) - float(source_mm[0])) / step, 0, last)
    base = np.minimum(at.astype(int), last - 1)
    t = at - base
    taps = (
        (-1, -0.5 * t + t**2 - 0.5 * t**3),
        (0, 1 - 2.5 * t**2 + 1.5 * t**3),
        (1, 0.5 * t + 2 * t**2 - 1.5 * t**3),
        (2, -0.5 * t**2 + 0.5 * t**3),
    )
    matrix = np.zeros((len(at), last + 1), np.float32)
    rows = np.arange(len(at))
    for offset, value in taps:
        np.add.at(matrix, (rows, np.clip(base + offset, 0, last)), value.astype(np.float32))
    return matrix


def value_noise(rng: np.random.Generator, axes: tuple[Field, ...], scale_mm: float) -> Field:
    """Smooth noise [z, y, x] of zero mean and unit deviation whose blobs are about `scale_mm` wide."""
    coarse = [np.arange(a[0] - scale_mm, a[-1] + 2 * scale_mm, scale_mm, dtype=np.float32) for a in axes]
    nodes = rng.standard_normal([len(a) for a in coarse], dtype=np.float32)
    noise = upsample(nodes, *(weights(c, a) for c, a in zip(coarse, axes, strict=True)))
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def upsample(
    field: Field, along_z: npt.NDArray[np.float32], along_y: npt.NDArray[np.float32], along_x: npt.NDArray[np.float32]
) -> Field:
    """Apply one weight matrix an axis to `field`."""
    planes = np.tensordot(along_z, field, axes=(1, 0)).astype(np.float32, copy=False)
    return in_plane(planes, along_y, along_x)


def in_plane(planes: Field, along_y: npt.NDArray[np.float32], along_x: npt.NDArray[np.float32]) -> Field:
    """Upsample every plane of [z, y, x] within itself."""
    rows = np.matmul(along_y, planes)
    return np.asarray(np.matmul(rows, along_x.T), np.float32)


def union(*shapes: Loose, blend_mm: float = 0.0) -> Field:
    """What lies in any shape; `blend_mm` rounds the inner corners."""
    first, *others = (np.asarray(shape, np.float32) for shape in shapes)
    result: Field = first
    for shape in others:
        if blend_mm > 0:
            overlap: Field = np.maximum(np.float32(blend_mm) - np.abs(result - shape), np.float32(0))
            result = np.minimum(result, shape) - overlap * overlap / np.float32(4 * blend_mm)
        else:
            result = np.minimum(result, shape)
    return result


def common(*shapes: Loose, blend_mm: float = 0.0) -> Field:
    """What lies in every shape; `blend_mm` rounds the outer corners."""
    return -union(*(-shape for shape in shapes), blend_mm=blend_mm)


def distance(implicit: Loose, step_mm: float) -> Field:
    """Turn an implicit function into an approximate distance by dividing by the length of its gradient."""
    slope = np.zeros_like(implicit)
    for axis in range(3):
        part = np.gradient(implicit, step_mm, axis=axis)
        slope += part * part
    np.sqrt(slope, out=slope)
    return np.asarray(np.clip(implicit / np.maximum(slope, 1e-4), -FAR_MM, FAR_MM), np.float32)


def ellipsoid(grid: Grid, centre: Point, semi_axes_mm: Point, *, yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> Field:
    """An ellipsoid, turned by `yaw_deg` about z and then by `pitch_deg` about y."""
    x, y, z = grid.x - centre[0], grid.y - centre[1], grid.z - centre[2]
    cosine, sine = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))  # plain floats keep float32
    x, y = cosine * x + sine * y, cosine * y - sine * x
    cosine, sine = math.cos(math.radians(pitch_deg)), math.sin(math.radians(pitch_deg))
    x, z = cosine * x + sine * z, cosine * z - sine * x
    a, b, c = semi_axes_mm
    first = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    second = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2)
    return np.asarray(first * (first - 1) / np.maximum(second, 1e-4), np.float32)


def tube(grid: Grid, path: tuple[Point, ...], radii_mm: tuple[float, ...]) -> Field:
    """A tube through the points of `path` with a radius at each."""
    result = np.full(grid.shape, 60.0, np.float32)
    reach = 50.0  # beyond this the distance is of no use to anyone
    for start, end, r0, r1 in zip(path, path[1:], radii_mm, radii_mm[1:], strict=False):
        box = tuple(
            slice(
                int(np.searchsorted(axis, min(start[i], end[i]) - reach)),
                int(np.searchsorted(axis, max(start[i], end[i]) + reach)),
            )
            for axis, i in ((grid.z_mm, 2), (grid.y_mm, 1), (grid.x_mm, 0))
        )
        part = capsule(grid.x[box], grid.y[box], grid.z[box], (*start, *end, r0, r1))
        np.minimum(result[box], part, out=result[box])
    return result


def capsule(x: Field, y: Field, z: Field, segment: tuple[float, ...] | Field) -> Field:
    """Distance from points to one row of `Segments`."""
    x0, y0, z0, x1, y1, z1, r0, r1 = (float(v) for v in segment)
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    length2 = max(dx * dx + dy * dy + dz * dz, 1e-6)
    px, py, pz = x - x0, y - y0, z - z0
    t = np.clip((px * dx + py * dy + pz * dz) / length2, 0, 1)
    px, py, pz = px - t * dx, py - t * dy, pz - t * dz
    return np.asarray(np.sqrt(px * px + py * py + pz * pz) - (r0 + t * (r1 - r0)), np.float32)


def inside(signed: Field, width_mm: float) -> Field:
    """Share of a point's neighbourhood that lies in the shape: 1 inside, 0 outside, a ramp of `width_mm` between."""
    share = signed * np.float32(-1 / width_mm)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)
