"""Scans and masks from NIfTI and MetaImage files, turned into patient order by their headers.

SimpleITK reads both formats in DICOM's patient coordinates (L, P, S) whatever the file's own convention (NIfTI: R, A,
S). Turned to "LPS" a volume's columns run to the patient's left, its rows to the back and its slices to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from training.published import Unusable

if TYPE_CHECKING:
    from pathlib import Path

Image = Any  # of SimpleITK, which has no types

LEAST_COSINE = 0.9  # of an axis with the patient axis it stands for; 26 degrees
SAME_DIRECTION = 1e-2
AIR_HU = -500  # a chest that holds nothing below it is not in Hounsfield units


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """A volume in patient order, and how it lay in its file."""

    hounsfield: npt.NDArray[np.int16]  # [z, y, x]
    spacing_zyx_mm: tuple[float, float, float]
    stored_shape: tuple[int, ...]  # x, y, z
    stored_direction: tuple[float, ...]  # row by row

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
    if image.GetSize() != like.stored_shape:
        raise Unusable(f"{path.name} is {image.GetSize()}, its scan is {like.stored_shape}")
    if not np.allclose(image.GetDirection(), like.stored_direction, atol=SAME_DIRECTION):
        raise Unusable(f"{path.name} is turned another way than its scan by its header: one of the two is wrong")
    return _labels(image, path)


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
        image: Image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise Unusable(f"{path} cannot be read: {reason}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise Unusable(f"{path.name} has {image.GetDimension()} dimensions: a single volume was expected")
    return image


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
    x_mm, y_mm, z_mm = turned.GetSpacing()
    return Scan(
        hounsfield=sitk.GetArrayFromImage(turned),
        spacing_zyx_mm=(z_mm, y_mm, x_mm),
        stored_shape=image.GetSize(),
        stored_direction=image.GetDirection(),
    )


def _labels(image: Image, path: Path) -> npt.NDArray[np.uint8]:
    values = np.rint(_values(image, path))
    if values.min() < 0 or values.max() > 255:
        raise Unusable(f"{path.name} holds {values.min():g}..{values.max():g}: labels were expected")
    whole: Image = sitk.GetImageFromArray(values.astype(np.uint8))
    whole.CopyInformation(image)
    turned: npt.NDArray[np.uint8] = sitk.GetArrayFromImage(_turned(whole))
    return turned
