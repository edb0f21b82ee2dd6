"""Distances in a volume, in millimetres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import SimpleITK

if TYPE_CHECKING:
    from triage_node.study import Mask


def distance_mm(mask: Mask, spacing_zyx_mm: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    """[z, y, x] distance of every voxel to the nearest voxel of `mask`; several times faster than scipy's transform."""
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing_zyx_mm[::-1])  # type: ignore[no-untyped-call]  # SimpleITK ships no types
    squared = SimpleITK.SignedMaurerDistanceMap(  # type: ignore[no-untyped-call]  # SimpleITK ships no types
        image, insideIsPositive=False, squaredDistance=True, useImageSpacing=True
    )
    distance: npt.NDArray[np.float32] = np.sqrt(np.maximum(SimpleITK.GetArrayViewFromImage(squared), 0.0))
    return distance
