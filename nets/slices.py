"""What the networks see: axial slices of 2 x 2 mm, attenuations of a window as 0..1 (Goncharov 2021, section 4.1).

Training and inference go through this one path, so that a network never meets another resampling than it learnt from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SPACING_MM = 2.0
WINDOW_HU = (-1000, 300)  # of the public implementation
LEAST_HU, MOST_HU = -1200, 2000  # fillers of -2000 or -3024 and metal must not rule their neighbours


def grid_shape(shape: tuple[int, int], pixel_spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of 2 mm that an image of rows and columns of the given spacing (row, column) becomes."""
    rows, columns = (max(1, round(size * mm / SPACING_MM)) for size, mm in zip(shape, pixel_spacing_mm, strict=True))
    return rows, columns


def to_grid(
    hounsfield: npt.NDArray[np.int16], shape: tuple[int, int], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """[z, y, x] Hounsfield -> [z, *shape] float32 Hounsfield, bilinear with anti-aliasing."""
    slices = torch.from_numpy(hounsfield).to(device).clamp(LEAST_HU, MOST_HU).float()
    if tuple(slices.shape[1:]) == shape:
        return slices
    return resized(slices, shape)


def resized(images: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """[z, y, x] float -> [z, *shape], bilinear; anti-aliased where pixels become larger."""
    return functional.interpolate(images[:, None], size=shape, mode="bilinear", align_corners=False, antialias=True)[
        :, 0
    ]


def windowed(hounsfield: torch.Tensor) -> torch.Tensor:
    """Hounsfield -> 0..1 over the window, clipped outside it."""
    low, high = WINDOW_HU
    return ((hounsfield - low) / (high - low)).clamp(0.0, 1.0)
