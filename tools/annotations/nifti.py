"""Scans and masks from NIfTI and MetaImage files, turned into patient order by their headers.

SimpleITK reads both formats in DICOM's patient coordinates (L, P, S) whatever the file's own convention (NIfTI: R, A,
S). Turned to "LPS" a volume's columns run to the patient's left, its rows to the back and its slices to the head.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from annotations.unusable import Unusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Image = Any  # of SimpleITK, which has no types

LEAST_COSINE = 0.9  # of an axis with the patient axis it stands for; 26 degrees
SAME_DIRECTION = 1e-2
SAME_PLACE_MM = 0.5
OFF_LABEL = 0.01  # by which what was stored as a fraction may miss a whole number
PERMISSIVE = "ITK_NIFTI_SFORM_PERMISSIVE"  # read by ITK's reader of NIfTI, which has no other switch for it
AIR_HU = -500  # a chest that holds nothing below it is not in Hounsfield units


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How an image lies in its file, by its header."""

    shape: tuple[int, ...]  # x, y, z
    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]  # row by row


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """A volume in patient order, and how it lay in its file."""

    hounsfield: npt.NDArray[np.int16]  # [z, y, x]
    affine_lps_mm: npt.NDArray[np.float64]  # (x, y, z, 1) -> patient millimetres
    stored: Stored

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distance between slices, rows, columns."""
        x, y, z = (float(mm) for mm in np.linalg.norm(self.affine_lps_mm[:3, :3], axis=0))
        return z, y, x

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """Distance between rows, between columns."""
        return self.spacing_zyx_mm[1:]


def scan(path: Path) -> Scan:
    """A file in Hounsfield units. Raises Unusable."""
    image = _read(path)
    values = _values(image, path)
    if values.min() > AIR_HU:
        raise Unusable(f"{path.name} holds nothing below {AIR_HU}: these are no Hounsfield units of a chest")
    return _scan(image, values)


def grey_scan(path: Path, window_hu: tuple[float, float]) -> Scan:
    """A file of grey levels 0..255 that stand for a known window. Raises Unusable, also for other levels."""
    image = _read(path)
    values = _values(image, path)
    if values.min() < 0 or values.max() > 255:
        raise Unusable(f"{path.name} was expected to hold grey levels 0..255, not {values.min():g}..{values.max():g}")
    low, high = window_hu
    return _scan(image, low + values / 255 * (high - low))


def labels(path: Path, like: Scan) -> npt.NDArray[np.uint8]:
    """[z, y, x] labels of a file on the grid of a scan.

    The header must turn the mask as the scan's own header turned the scan: where they differ nobody can know which of
    them is right. Raises Unusable.
    """
    image = _read(path)
    _check_shape(image, path, like)
    if not np.allclose(image.GetDirection(), like.stored.direction, atol=SAME_DIRECTION):
        raise Unusable(f"{path.name} is turned another way than its scan by its header: one of the two is wrong")
    return _labels(image, path)


def labels_somehow(path: Path, like: Scan) -> tuple[npt.NDArray[np.uint8], bool]:
    """[z, y, x] labels of a file on the grid of a scan, and whether its header puts them there.

    Tools that lose the header keep the order of the voxels: a mask that lies elsewhere by its header, but has the
    scan's size, is taken voxel by voxel. Raises Unusable.
    """
    image = _read(path)
    turned = sitk.DICOMOrient(image, "LPS")  # type: ignore[no-untyped-call]  # SimpleITK has no types
    if turned.GetSize() == like.hounsfield.shape[::-1] and (
        np.abs(_affine(turned) - like.affine_lps_mm).max() < SAME_PLACE_MM
    ):
        return _labels(image, path), True
    _check_shape(image, path, like)
    image.SetOrigin(like.stored.origin)
    image.SetSpacing(like.stored.spacing)
    image.SetDirection(like.stored.direction)
    return _labels(image, path), False


def labels_by_header(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """[z, y, x] labels in patient order by the file's own header, for scans of another format. Raises Unusable."""
    found = _labels(_read(path), path)
    if found.shape != shape:
        raise Unusable(f"{path.name} is {found.shape} in patient order, its scan is {shape}")
    return found


def as_stored(path: Path) -> npt.NDArray[Any]:
    """[z, y, x] in the order of the file, for stacks of pictures whose header says nothing. Raises Unusable."""
    return _values(_read(path), path)


def _read(path: Path) -> Image:
    try:
        with _crooked_headers():
            image: Image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise Unusable(f"{path} cannot be read: {reason}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise Unusable(f"{path.name} has {image.GetDimension()} dimensions: a single volume was expected")
    return image


@contextmanager
def _crooked_headers() -> Iterator[None]:
    """Let ITK read files whose axes are not quite at right angles, as some public sets have them."""
    before = os.environ.get(PERMISSIVE)
    os.environ[PERMISSIVE] = "YES"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PERMISSIVE]
        else:
            os.environ[PERMISSIVE] = before


def _check_shape(image: Image, path: Path, like: Scan) -> None:
    if image.GetSize() != like.stored.shape:
        raise Unusable(f"{path.name} is {image.GetSize()}, its scan is {like.stored.shape}")


def _affine(image: Image) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def _turned(image: Image) -> Image:
    turned = sitk.DICOMOrient(image, "LPS")  # type: ignore[no-untyped-call]  # SimpleITK has no types
    if min(turned.GetDirection()[i] for i in (0, 4, 8)) < LEAST_COSINE:
        raise Unusable("the slices are not axial")
    return turned


def _values(image: Image, path: Path) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = sitk.GetArrayFromImage(image)
    if not np.isfinite(values).all():
        raise Unusable(f"{path.name} holds values that are no numbers")
    return values


def _scan(image: Image, values: npt.NDArray[Any]) -> Scan:
    whole: Image = sitk.GetImageFromArray(np.clip(np.rint(values), -32768, 32767).astype(np.int16))
    whole.CopyInformation(image)
    turned = _turned(whole)
    stored = Stored(
        shape=image.GetSize(), origin=image.GetOrigin(), spacing=image.GetSpacing(), direction=image.GetDirection()
    )
    return Scan(hounsfield=sitk.GetArrayFromImage(turned), affine_lps_mm=_affine(turned), stored=stored)


def _labels(image: Image, path: Path) -> npt.NDArray[np.uint8]:
    values = _values(image, path)
    rounded = np.rint(values)
    if rounded.min() < 0 or rounded.max() > 255:
        raise Unusable(f"{path.name} holds {values.min():g}..{values.max():g}: labels were expected")
    if np.abs(rounded - values).max() > OFF_LABEL:
        raise Unusable(f"{path.name} holds numbers between whole ones: labels were expected")
    whole: Image = sitk.GetImageFromArray(rounded.astype(np.uint8))
    whole.CopyInformation(image)
    turned: npt.NDArray[np.uint8] = sitk.GetArrayFromImage(_turned(whole))
    return turned
