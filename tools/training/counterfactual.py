"""The same lungs with and without COVID-19, so that no source supplies one class alone.

With few studies an identification head learns the source of a study instead of the disease. So from every annotated
stack a healthy twin is made (lesions replaced by the patient's own healthy lung), and lesions are transplanted into
the lungs of other patients. To leave no trace that gives the class away, the same operations are done to healthy
places of stacks that keep their class (`sham`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

if TYPE_CHECKING:
    Images = npt.NDArray[np.float32]
    Masks = npt.NDArray[np.bool_]

ATTEMPTS = 60
EDGE_PX = 1.2  # over which a patch fades into its surroundings


def healthy_twin(hounsfield: Images, lungs: Masks, lesions: Masks, rng: np.random.Generator) -> Images | None:
    """[z, y, x] without its lesions; None where the patient has too little healthy lung to take from.

    The rim of a lesion is replaced too: what experts drew ends where ground glass begins to fade.
    """
    rim = _grown(lesions, 2) & lungs
    return _replaced(hounsfield, lungs & ~_grown(lesions, 4), rim, rng)


def sham(hounsfield: Images, lungs: Masks, lesions: Masks, rng: np.random.Generator) -> Images:
    """[z, y, x] with healthy places replaced by other healthy places: disease unchanged, traces as in a twin."""
    moved = np.roll(lesions[rng.permutation(len(lesions))], rng.integers(-25, 26, 2), axis=(1, 2))
    healthy = lungs & ~_grown(lesions, 4)
    if not (moved & healthy).any():
        moved = _blob(lungs, rng)
    replaced = _replaced(hounsfield, healthy, moved & healthy, rng)
    return hounsfield if replaced is None else replaced


def transplant(
    hounsfield: Images, lungs: Masks, donor: Images, donor_lungs: Masks, donor_lesions: Masks
) -> tuple[Images, Masks]:
    """Lesions of `donor` put into the lungs of `hounsfield`, slice by slice; both [z, y, x] with the same z.

    The donor's lungs are fitted into the target's by their bounding boxes, and its attenuations shifted by the
    difference of both patients' healthy lung. Returns the images and the lesions in them.
    """
    result, lesions = hounsfield.copy(), np.zeros(lungs.shape, dtype=np.bool_)
    healthy_donor = donor_lungs & ~_grown(donor_lesions, 3)
    if not healthy_donor.any() or not lungs.any():
        return result, lesions
    shift = float(np.median(hounsfield[lungs]) - np.median(donor[healthy_donor]))
    for z in range(len(result)):
        if not (lungs[z].any() and donor_lesions[z].any()):
            continue
        matrix, offset = _fit(lungs[z], donor_lungs[z])
        patch = ndimage.affine_transform(donor[z], matrix, offset, lungs[z].shape, order=1, mode="nearest") + shift
        drawn = ndimage.affine_transform(donor_lesions[z].astype(np.float32), matrix, offset, lungs[z].shape, order=1)
        put = (drawn > 0.5) & ndimage.binary_erosion(lungs[z])
        alpha = ndimage.gaussian_filter(_grown(put[None], 1)[0].astype(np.float32), EDGE_PX) * lungs[z]
        result[z] = alpha * np.maximum(patch, hounsfield[z]) + (1 - alpha) * hounsfield[z]
        lesions[z] = put
    return result, lesions


def _replaced(hounsfield: Images, healthy: Masks, where: Masks, rng: np.random.Generator) -> Images | None:
    if healthy.sum() < max(2000, 0.2 * where.sum()):
        return None
    filled = hounsfield.copy()
    missing = where.copy()
    for _ in range(ATTEMPTS):
        if not missing.any():
            break
        order = rng.integers(0, len(hounsfield), len(hounsfield))
        shift = tuple(int(step) for step in rng.integers(-40, 41, 2))
        turned = slice(None, None, -1 if rng.random() < 0.5 else 1)
        from_images = np.roll(hounsfield[order][:, :, turned], shift, axis=(1, 2))
        from_healthy = np.roll(healthy[order][:, :, turned], shift, axis=(1, 2))
        here = missing & from_healthy
        filled[here] = from_images[here]
        missing &= ~here
    if missing.any():
        some = rng.choice(hounsfield[healthy], int(missing.sum()))
        filled[missing] = some
    alpha = np.stack([ndimage.gaussian_filter(plane.astype(np.float32), EDGE_PX) for plane in where])
    alpha = np.where(where, np.maximum(alpha, 0.5), alpha)
    blended: Images = (alpha * filled + (1 - alpha) * hounsfield).astype(np.float32)
    return blended


def _blob(lungs: Masks, rng: np.random.Generator) -> Masks:
    noise = rng.standard_normal(lungs.shape)
    smooth = np.stack([ndimage.gaussian_filter(plane, 5.0) for plane in noise])
    blob: Masks = lungs & (smooth > np.quantile(smooth, 0.9))
    return blob


def _grown(masks: Masks, pixels: int) -> Masks:
    """Each slice dilated by so many pixels."""
    cross = np.ones((1, 3, 3), dtype=np.bool_)
    grown: npt.NDArray[np.bool_] = ndimage.binary_dilation(masks, structure=cross, iterations=pixels)
    return grown


def _fit(target: npt.NDArray[np.bool_], source: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], list[float]]:
    """Matrix and offset that take target pixels to source pixels so that the masks' bounding boxes agree."""
    scales, offsets = [], []
    for axis in (0, 1):
        there = np.flatnonzero(target.any(axis=1 - axis))
        here = np.flatnonzero(source.any(axis=1 - axis))
        scale = (here[-1] - here[0] + 1) / (there[-1] - there[0] + 1)
        scales.append(scale)
        offsets.append(float(here[0] - scale * there[0]))
    return np.diag(scales), offsets
