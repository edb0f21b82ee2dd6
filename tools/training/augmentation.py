"""Augmentation on the fly, of stacks of slices and their labels alike (Mueller 2021, section 2.3; Lizzi 2021).

A stack is turned, scaled, bent and mirrored as one piece; attenuations are changed as one piece too, since a scanner
or a lossy conversion changes a whole series. Attenuations of converted data sets are off by tens of HU: the strong
change of intensities is what lets a network see through that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from nets import slices

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far a stack may be changed; a chance of 0 leaves it as it is."""

    mirror_chance: float = 0.5  # left and right
    prone_chance: float = 0.05  # upside down
    rotation_deg: float = 15.0
    scale: tuple[float, float] = (0.8, 1.25)
    stretch: float = 1.12  # of rows against columns
    shift_px: float = 8.0
    elastic_chance: float = 0.3
    elastic_px: float = 4.0
    elastic_knots: int = 6
    hu_shift: float = 70.0
    hu_scale: tuple[float, float] = (0.88, 1.12)  # about the attenuation of lung, -850 HU
    gamma: tuple[float, float] = (0.8, 1.25)
    noise_chance: float = 0.4
    noise_hu: float = 50.0
    blur_chance: float = 0.3
    blur_px: float = 1.0
    sharpen_chance: float = 0.15
    coarse_chance: float = 0.15  # halved resolution and back
    saturation_chance: float = 0.4  # converted sets know nothing above 100 to 260 HU
    intensity_chance: float = 0.85


NONE = Augmentation(
    mirror_chance=0.0,
    prone_chance=0.0,
    rotation_deg=0.0,
    scale=(1.0, 1.0),
    stretch=1.0,
    shift_px=0.0,
    elastic_chance=0.0,
    noise_chance=0.0,
    blur_chance=0.0,
    sharpen_chance=0.0,
    coarse_chance=0.0,
    saturation_chance=0.0,
    intensity_chance=0.0,
)

AIR_HU = -1000.0
LUNG_HU = -850.0


def sampling_grid(
    source: tuple[int, int],
    centre: tuple[float, float],
    target: tuple[int, int],
    by: Augmentation,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Where each pixel of a `target` image comes from in a `source` image: [1, H, W, 2] for grid_sample.

    `centre` (row, column) of the source comes to lie near the middle of the target.
    """
    rows, columns = target
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float32) - (rows - 1) / 2,
        torch.arange(columns, dtype=torch.float32) - (columns - 1) / 2,
        indexing="ij",
    )
    if rng.random() < by.elastic_chance:
        knots = torch.from_numpy(rng.normal(size=(1, 2, by.elastic_knots, by.elastic_knots))).float()
        amount = rng.uniform(0, by.elastic_px)
        bent = functional.interpolate(knots, size=target, mode="bicubic", align_corners=True)[0] * amount
        y, x = y + bent[0], x + bent[1]
    angle = math.radians(rng.uniform(-by.rotation_deg, by.rotation_deg))
    scale = math.exp(rng.uniform(math.log(by.scale[0]), math.log(by.scale[1])))
    stretch = math.exp(rng.uniform(-math.log(by.stretch), math.log(by.stretch)))
    y, x = y * math.cos(angle) - x * math.sin(angle), y * math.sin(angle) + x * math.cos(angle)
    y, x = y / (scale * stretch), x / scale
    if rng.random() < by.mirror_chance:
        x = -x
    if rng.random() < by.prone_chance:
        y = -y
    y = y + centre[0] + rng.uniform(-by.shift_px, by.shift_px)
    x = x + centre[1] + rng.uniform(-by.shift_px, by.shift_px)
    # pixel centres -> -1..1 over the edges of the image (align_corners=False)
    return torch.stack([(2 * x + 1) / source[1] - 1, (2 * y + 1) / source[0] - 1], dim=-1)[None]


def warped(images: torch.Tensor, grid: torch.Tensor, *, fill: float) -> torch.Tensor:
    """[D, h, w] -> [D, H, W], bilinear; what comes from outside the images becomes `fill`."""
    moved = functional.grid_sample((images - fill)[None], grid, mode="bilinear", align_corners=False)
    return moved[0] + fill


def changed_intensities(hounsfield: torch.Tensor, by: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    """[D, H, W] Hounsfield -> the same as another scanner, kernel or conversion might give it."""
    low, high = slices.WINDOW_HU
    if rng.random() < by.coarse_chance:
        shape = hounsfield.shape[1:]
        factor = rng.uniform(1.3, 2.0)
        small = (max(1, int(shape[0] / factor)), max(1, int(shape[1] / factor)))
        hounsfield = slices.resized(slices.resized(hounsfield, small), (shape[0], shape[1]))
    if rng.random() < by.blur_chance:
        hounsfield = _blurred(hounsfield, rng.uniform(0.3, by.blur_px) if by.blur_px > 0.3 else by.blur_px)
    elif rng.random() < by.sharpen_chance:
        hounsfield = hounsfield + rng.uniform(0.2, 0.8) * (hounsfield - _blurred(hounsfield, 1.0))
    if rng.random() < by.intensity_chance:
        scale = rng.uniform(*by.hu_scale)
        hounsfield = (hounsfield - LUNG_HU) * scale + LUNG_HU + rng.uniform(-by.hu_shift, by.hu_shift)
        gamma = math.exp(rng.uniform(math.log(by.gamma[0]), math.log(by.gamma[1])))
        hounsfield = ((hounsfield - low) / (high - low)).clamp(0, 1) ** gamma * (high - low) + low
    if rng.random() < by.saturation_chance:
        hounsfield = hounsfield.clamp(max=rng.uniform(100.0, 260.0))
    if rng.random() < by.noise_chance:
        noise = torch.from_numpy(rng.standard_normal(hounsfield.shape, dtype="float32"))
        if rng.random() < 0.5:  # noise of a soft kernel is coarser than a pixel
            noise = _blurred(noise, 0.8) * 2.0
        hounsfield = hounsfield + noise * rng.uniform(0, by.noise_hu)
    return hounsfield


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(images[:, None], (3, 3, 3, 3), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :])[:, 0]
