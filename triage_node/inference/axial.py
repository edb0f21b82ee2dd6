"""A volume as the networks see it, axial slices of 2 x 2 mm in patient order, and the way of its masks back.

One resampling each way. Into the networks: `nets.slices`, the path of the training. Back: logits, bilinear, then the
threshold, which follows a contour where the nearest pixel of 2 mm would draw steps. The logits travel as bytes, 32 of
them a logit around the threshold: the three maps of 300 slices of 512 x 512 take 0.05 s of one core so, and 2.2 s as
float32 (measured).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from nets import slices
from triage_node import grid
from triage_node.attributes import refuse
from triage_node.grid import PatientGrid
from triage_node.study import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from triage_node.grid import Box
    from triage_node.study import LungMap, Mask, Volume

Level = npt.NDArray[np.uint8]  # logits as bytes: `THRESHOLD` and above is above the threshold

THRESHOLD = 128
STEPS_A_LOGIT = 32
PIXELS_AT_ONCE = 1_000_000  # of the volume: a few slices stay in the processor's cache and bound the memory
LEAST_PIXELS = 16  # rows and columns on the grid; 3 cm show no chest


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """On the volume's own voxels, in its own order."""

    lungs: LungMap  # 0 none, 1 right, 2 left
    lesions: Mask  # inside the lungs
    consolidation: Mask | None  # inside the lesions


@dataclass(frozen=True, kw_only=True, eq=False)
class AxialSlices:
    """A volume in patient order on the networks' grid; slices keep their own spacing."""

    grid: PatientGrid
    shape: tuple[int, int, int]  # of the volume
    turn: tuple[slice, slice, slice]  # indexes an array of the volume so that it is in patient order

    @classmethod
    def of(cls, volume: Volume, device: torch.device, tell: Callable[[float], None]) -> AxialSlices:
        """Resample a volume; `tell` hears how much is done, 0..1. Raises Refused where it is not axial or too small."""
        order, flipped = grid.patient_axes(volume)
        if order != (0, 1, 2):
            refuse(Reason.NOT_AXIAL, "the slices are not axial, and the networks know axial slices alone")
        depth, height, width = volume.hounsfield.shape
        spacing = volume.spacing_zyx_mm
        rows, columns = slices.grid_shape((height, width), spacing[1:])
        if min(rows, columns) < LEAST_PIXELS:
            seen = f"{height * spacing[1]:.0f} x {width * spacing[2]:.0f} mm"
            refuse(Reason.NO_LUNGS, f"the field of view is {seen}, which shows no chest")
        turn = [slice(None, None, -1 if back else 1) for back in flipped]
        hounsfield = np.empty((depth, rows, columns), dtype=np.int16)
        for part in _slabs(depth, height, width):
            tell(part.start / depth)
            images = np.require(volume.hounsfield[part], requirements=["C", "W"])
            hounsfield[part] = slices.to_grid(images, (rows, columns), device).round().short().cpu().numpy()
        factors = (1.0, height / rows, width / columns)
        return cls(
            grid=PatientGrid(
                hounsfield=np.ascontiguousarray(hounsfield[turn[0], turn[1], turn[2]]),
                spacing_zyx_mm=(spacing[0], spacing[1] * factors[1], spacing[2] * factors[2]),
                origin_zyx_mm=grid.origin_zyx_mm(volume, hounsfield.shape, factors),
            ),
            shape=(depth, height, width),
            turn=(turn[0], turn[1], turn[2]),
        )

    def images(self, step: int, box: Box | None = None) -> tuple[torch.Tensor, Box]:
        """[n, 1, H, W] float32 in 0..1, aligned to `step` pixels; and where in [n, H, W] the grid, or its box, lies."""
        hounsfield = torch.from_numpy(self.grid.hounsfield if box is None else self.grid.hounsfield[box])
        parts = _slabs(*hounsfield.shape)
        first, inner = _aligned(hounsfield[parts[0]], step)
        images = torch.empty(len(hounsfield), *first.shape[1:])
        for part in parts:
            images[part] = _aligned(hounsfield[part], step)[0]
        return images, inner

    def masks(
        self, sides: LungMap, levels: tuple[Level, ...], box: Box, tell: Callable[[float], None], threads: int
    ) -> Masks:
        """Masks of the volume from maps on the grid.

        Args:
            sides: [z, y, x] right and left, wherever the nearest lung is to name a voxel that the contour takes in.
            levels: of the lungs [z, y, x]; of lesions and, where told apart, consolidation, as large as the box.
            box: where the lungs are.
            tell: hears how much is done, 0..1.
            threads: that draw at the same time.
        """
        lungs = np.zeros(self.shape, dtype=np.uint8)
        found = [np.zeros(self.shape, dtype=np.bool_) for _ in levels[1:]]
        _, height, width = self.shape
        rows, columns = (
            _covering(side, have, size)
            for side, have, size in zip(box[1:], sides.shape[1:], (height, width), strict=True)
        )
        nearest_row, nearest_column = _nearest(height, sides.shape[1])[rows], _nearest(width, sides.shape[2])[columns]
        depth = box[0].stop - box[0].start

        def draw(part: slice) -> None:
            where = slice(box[0].start + part.start, box[0].start + part.stop)
            place = (where, rows, columns)
            inside = _enlarged(levels[0][where], (height, width))[:, rows, columns] >= THRESHOLD
            named = sides[where].take(nearest_row, axis=1).take(nearest_column, axis=2)
            np.multiply(named, inside, out=lungs[self.turn][place])
            np.logical_and(inside, named, out=inside)
            for level, mask in zip(levels[1:], found, strict=True):
                if not (level[part] >= THRESHOLD).any():
                    break  # and without a lesion there is no consolidation
                whole = np.zeros((part.stop - part.start, *sides.shape[1:]), dtype=np.uint8)
                whole[:, box[1], box[2]] = level[part]
                inside &= _enlarged(whole, (height, width))[:, rows, columns] >= THRESHOLD
                mask[self.turn][place] = inside

        parts = _slabs(depth, height, width)
        # they share nothing, none holds the interpreter for long, and each draws alone: with threads of torch's own
        # beneath them they would wait for each other
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for part, _ in zip(parts, pool.map(draw, parts), strict=True):
                    tell(part.stop / depth)
        finally:  # it is a setting of the whole process
            torch.set_num_threads(threads)
        return Masks(lungs=lungs, lesions=found[0], consolidation=found[1] if len(found) > 1 else None)


def levels_of(logits: torch.Tensor, threshold: float) -> Level:
    """[n, y, x] logits -> bytes around the logit of a probability; at least that is a byte of `THRESHOLD` or more."""
    at = math.log(threshold / (1.0 - threshold)) if 0.0 < threshold < 1.0 else math.copysign(math.inf, threshold - 0.5)
    if math.isinf(at):  # probability 0 is always reached, probability 1 never
        return np.full(tuple(logits.shape), 0 if at > 0 else 255, dtype=np.uint8)
    levels: Level = np.empty(tuple(logits.shape), dtype=np.uint8)
    for part in _slabs(*logits.shape):
        steps = ((logits[part] - at) * STEPS_A_LOGIT).floor_().add_(THRESHOLD).clamp_(0, 255)
        levels[part] = steps.to(torch.uint8).numpy()
    return levels


def _aligned(hounsfield: torch.Tensor, step: int) -> tuple[torch.Tensor, Box]:
    return slices.aligned(slices.windowed(hounsfield.float())[:, None], step)


def _enlarged(level: Level, shape: tuple[int, int]) -> Level:
    """[n, y, x] bytes -> [n, *shape], bilinear."""
    images = torch.from_numpy(level)[:, None]
    result: Level = functional.interpolate(images, size=shape, mode="bilinear", align_corners=False)[:, 0].numpy()
    return result


def _nearest(size: int, have: int) -> npt.NDArray[np.intp]:
    """For each of `size` pixels the one of `have` pixels that its centre lies in."""
    return (np.arange(size) * 2 + 1) * have // (2 * size)


def _covering(side: slice, have: int, size: int) -> slice:
    """The pixels of an axis of `size` that a side of a box on an axis of `have` and a pixel around it reach."""
    return slice(max(0, (side.start - 1) * size // have), min(size, -(-(side.stop + 1) * size // have)))


def _slabs(depth: int, *sides: int) -> list[slice]:
    """Runs of slices that together have no more than `PIXELS_AT_ONCE`, or one slice each."""
    step = max(1, PIXELS_AT_ONCE // math.prod(sides))
    return [slice(first, min(depth, first + step)) for first in range(0, depth, step)]
