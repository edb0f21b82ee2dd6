"""Volume -> frontal projection in patient coordinates: head up, the patient's right on the left of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

if TYPE_CHECKING:
    from triage_node.study import Findings, Volume

Image = npt.NDArray[np.float64]

_ALIGNED = 0.999  # cosine: up to 2.5 degrees off the patient's axes a sum along image columns is a frontal view
_OBLIQUE_MM = 1.5  # grid to which everything else is resampled first
_AIR_HU = -1000
_DENSEST_HU = 1500  # metal above it would outshine everything
_MARGIN_MM = 28.0  # shown around the lungs
_SMOOTH_MM = 2.0  # of depths, so that thick slices leave no steps in the severity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frontal:
    """Images [row, column], rows from head to feet, columns from the patient's right to left, square pixels."""

    attenuation: Image  # mean of (HU + 1000) / 1000 along the way from front to back
    severity: Image  # 0..1, the share of the lung's depth that is lesion; 0 outside of `lung`
    lung: npt.NDArray[np.bool_]
    pixel_mm: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sums:
    """Sums along the front-back axis on the volume's own grid, [S, L], both coordinates ascending."""

    attenuation: Image
    lung: Image
    lesion: Image
    head_mm: npt.NDArray[np.float64]  # S of every row
    left_mm: npt.NDArray[np.float64]  # L of every column


def frontal(volume: Volume, findings: Findings, *, width: int, height: int) -> Frontal:
    """Project the whole volume, cut to the lungs and a margin, and scale it to fit `width` x `height` pixels."""
    sums = _sums(volume, findings)
    head, left = _extent(sums)
    pixel_mm = max((left[1] - left[0]) / width, (head[1] - head[0]) / height)
    rows = np.arange(head[1] - pixel_mm / 2, head[0], -pixel_mm)
    columns = np.arange(left[0] + pixel_mm / 2, left[1], pixel_mm)
    attenuation, lung, lesion, present = (
        _interpolated(_interpolated(image, sums.head_mm, rows).T, sums.left_mm, columns).T
        for image in (sums.attenuation, sums.lung, sums.lesion, (sums.lung > 0).astype(float))
    )
    sigma = _SMOOTH_MM / pixel_mm
    smooth_lung, smooth_lesion = ndimage.gaussian_filter(lung, sigma), ndimage.gaussian_filter(lesion, sigma)
    # Half-way between a slice with lung and one without: thick slices leave no steps and add no height
    shown = ndimage.gaussian_filter(present, sigma) > 0.5
    severity = np.divide(smooth_lesion, smooth_lung, out=np.zeros_like(lung), where=shown & (smooth_lung > 0))
    return Frontal(attenuation=attenuation, severity=np.clip(severity, 0, 1), lung=shown, pixel_mm=pixel_mm)


def _sums(volume: Volume, findings: Findings) -> _Sums:
    x_mm, y_mm = (volume.affine_lps_mm[:3, axis] for axis in (0, 1))
    x, y = x_mm / np.linalg.norm(x_mm), y_mm / np.linalg.norm(y_mm)
    if abs(x[0]) < _ALIGNED or abs(y[1]) < _ALIGNED:
        return _resampled(volume, findings)
    columns = np.arange(volume.hounsfield.shape[2])
    left_mm = volume.affine_lps_mm[0, 3] + columns * x_mm[0]
    return _summed(volume.hounsfield, findings.lungs, findings.lesions, volume.slice_positions_mm[:, 2], left_mm)


def _summed(
    hounsfield: npt.NDArray[np.int16],
    lungs: npt.NDArray[np.uint8],
    lesions: npt.NDArray[np.bool_],
    head_mm: npt.NDArray[np.float64],
    left_mm: npt.NDArray[np.float64],
) -> _Sums:
    slices, rows, columns = hounsfield.shape
    attenuation = np.empty((slices, columns))
    lung = np.empty((slices, columns))
    lesion = np.empty((slices, columns))
    for index in range(slices):  # slice by slice: no second volume in memory
        clipped = np.clip(hounsfield[index], _AIR_HU, _DENSEST_HU)
        attenuation[index] = (np.add.reduce(clipped, axis=0, dtype=np.int32) / rows - _AIR_HU) / 1000
        inside = lungs[index] > 0
        lung[index] = np.add.reduce(inside, axis=0, dtype=np.int32)
        lesion[index] = np.add.reduce(lesions[index] & inside, axis=0, dtype=np.int32)
    up, across = np.argsort(head_mm, kind="stable"), np.argsort(left_mm, kind="stable")
    grid = np.ix_(up, across)
    return _Sums(
        attenuation=attenuation[grid],
        lung=lung[grid],
        lesion=lesion[grid],
        head_mm=head_mm[up],
        left_mm=left_mm[across],
    )


def _resampled(volume: Volume, findings: Findings) -> _Sums:
    """The same for an oblique volume, a tilted gantry or a patient on the side: on the patient's own axes first."""
    shape = np.array(volume.hounsfield.shape[::-1])
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*(shape - 1), 1]
    places = (corners @ volume.affine_lps_mm.T)[:, :3]
    start, end = places.min(axis=0), places.max(axis=0)
    size = np.ceil((end - start) / _OBLIQUE_MM).astype(int) + 1
    to_voxel = np.linalg.inv(volume.affine_lps_mm)
    # Index space of the volume is the image's physical space here, so that sheared grids work too
    affine_transform: Any = SimpleITK.AffineTransform  # without types
    transform = affine_transform(to_voxel[:3, :3].ravel().tolist(), to_voxel[:3, 3].tolist())

    def resample(array: npt.NDArray[np.generic], interpolator: int, outside: float) -> npt.NDArray[np.generic]:
        moved = SimpleITK.Resample(
            SimpleITK.GetImageFromArray(array),
            size.tolist(),
            transform,
            interpolator,
            start.tolist(),
            (_OBLIQUE_MM,) * 3,
            (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            outside,
        )
        return np.asarray(SimpleITK.GetArrayFromImage(moved))

    hounsfield = resample(volume.hounsfield, SimpleITK.sitkLinear, float(_AIR_HU)).astype(np.int16)
    lungs = resample(findings.lungs, SimpleITK.sitkNearestNeighbor, 0.0).astype(np.uint8)
    lesions = resample(findings.lesions.view(np.uint8), SimpleITK.sitkNearestNeighbor, 0.0).astype(np.bool_)
    left_mm, _, head_mm = (start[axis] + _OBLIQUE_MM * np.arange(size[axis]) for axis in range(3))
    return _summed(hounsfield, lungs, lesions, head_mm, left_mm)


def _extent(sums: _Sums) -> tuple[tuple[float, float], tuple[float, float]]:
    """Shown range of S and of L: the lungs with a margin, within what was scanned."""
    inside = sums.lung > 0
    ranges = []
    for places_mm, present in ((sums.head_mm, inside.any(axis=1)), (sums.left_mm, inside.any(axis=0))):
        half = abs(float(np.median(np.diff(places_mm)))) / 2 if len(places_mm) > 1 else 0.5
        shown = places_mm[present] if present.any() else places_mm
        low = max(places_mm[0] - half, shown[0] - _MARGIN_MM)
        ranges.append((float(low), float(min(places_mm[-1] + half, shown[-1] + _MARGIN_MM))))
    return ranges[0], ranges[1]


def _interpolated(image: Image, places_mm: npt.NDArray[np.float64], wanted_mm: npt.NDArray[np.float64]) -> Image:
    """[places, n] -> [wanted, n], linear; constant beyond the ends."""
    position = np.interp(wanted_mm, places_mm, np.arange(len(places_mm)))
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, len(places_mm) - 1)
    share = (position - low)[:, None]
    mixed: Image = (1 - share) * image[low] + share * image[high]
    return mixed
