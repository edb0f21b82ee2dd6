"""Chest scans as files of public data sets: NIfTI written by another library, in whatever way a set stores its axes."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import SimpleITK as sitk

from tests.chests import chest

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

SLICE_MM = 10.0
SPACING_ZYX_MM = (SLICE_MM, 2.0, 2.0)  # in-plane that of the training layout: values come through as they are
FLIPS = list(itertools.product((False, True), repeat=3))  # z, y, x


@cache
def scan() -> npt.NDArray[np.int16]:
    """[z, y, x] in patient order, without any symmetry; within what a network sees, so that nothing is clipped."""
    return np.clip(chest(slice_mm=SLICE_MM).hounsfield, -1200, 2000)


@cache
def lungs() -> npt.NDArray[np.uint8]:
    """[z, y, x] 1 right, 2 left."""
    return chest(slice_mm=SLICE_MM).lungs


@cache
def lesion() -> npt.NDArray[np.uint8]:
    """[z, y, x] 1 in the back of the right lung, 2 in its middle."""
    mask = np.zeros(scan().shape, dtype=np.uint8)
    mask[10:14, 110:130, 50:70] = 1
    mask[11:13, 115:125, 55:65] = 2
    return np.where(lungs() > 0, mask, 0).astype(np.uint8)


def nifti(
    path: Path,
    array: npt.NDArray[np.generic],
    *,
    flips: tuple[bool, bool, bool] = (False, True, True),
    spacing_zyx_mm: tuple[float, float, float] = SPACING_ZYX_MM,
    axes: tuple[int, int, int] = (0, 1, 2),
    wrong: tuple[bool, bool, bool] = (False, False, False),
) -> Path:
    """Write an array in patient order with the flipped axes (z, y, x) running the other way, and say so in the header.

    `axes` stores them in another order. `wrong` axes are stored the other way round without the header saying so.
    NIfTI's own axes run to the right, the front and the head: neither flip of y and x gives negative entries.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for axis, (patient, sign) in enumerate(((2, 1.0), (1, -1.0), (0, -1.0))):  # z to S; y to P and x to L are negative
        size, mm = array.shape[axis], spacing_zyx_mm[axis]
        column = 2 - axis
        affine[patient, column] = sign * mm * (-1 if flips[axis] else 1)
        affine[patient, 3] = sign * (-150.0 + (mm * (size - 1) if flips[axis] else 0.0))
    turns = tuple(slice(None, None, -1 if flip != bad else 1) for flip, bad in zip(flips, wrong, strict=True))
    stored = array[turns].transpose(2, 1, 0)  # x, y, z
    order = [2 - axis for axis in axes[::-1]]
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored.transpose(order)), affine[:, [*order, 3]])
    nibabel.save(image, path)
    return path


def metaimage(path: Path, array: npt.NDArray[np.generic], *, turned: bool) -> Path:
    """Write an array in patient order as .mhd with its pixels beside it; `turned`: as LUNA16 stores prone patients."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array[:, ::-1, ::-1] if turned else array)
    image.SetSpacing(SPACING_ZYX_MM[::-1])
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1) if turned else (1, 0, 0, 0, 1, 0, 0, 0, 1))
    image.SetOrigin((-150.0, -120.0, -300.0))
    sitk.WriteImage(image, str(path))
    return path
