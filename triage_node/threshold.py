"""The weight-free baseline: lesions are the dense part of the lungs (Goncharov 2021, sections 2.1.2 and 4.3)."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from triage_node import airway, distance, grid, laterality, lungs
from triage_node.study import Findings, Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from triage_node.lungs import Lungs
    from triage_node.study import Mask, Volume

# Goncharov 2021, section 4.3
HU_MIN, HU_MAX = -700, 300
SIGMA_VOXELS = 4.0  # of the 2 x 2 mm grid
BLUR_ABOVE = 0.5
V_MIN_SHARE = 0.001  # of the lungs' volume

# What 4 voxels are in millimetres. The paper blurs on a grid whose slices are 0.3 to 8 mm apart: 4 voxels along z
# would mean 1 mm in one series and 32 mm in the next, so the same length is used in every direction.
# Mean lesion Dice on the seven volumes of medseg_9 with lesions: 0.52 so and 0.53 within the slice alone, 0.34 with
# 4 voxels along z; within the slice alone healthy vessels become lesions, in three directions they do not.
SIGMA_MM = SIGMA_VOXELS * grid.SPACING_MM


def _parameters() -> str:
    numbers = {
        "hu": [HU_MIN, HU_MAX],
        "sigma_mm": SIGMA_MM,
        "blur_above": BLUR_ABOVE,
        "v_min_share": V_MIN_SHARE,
    }
    # the lung finder has no weights: its source is what decides
    sources = [inspect.getsource(module) for module in (airway, distance, grid, laterality, lungs)]
    return json.dumps([numbers, sources], sort_keys=True)


def model() -> Model:
    """Name, version and digest of this method; the digest is over its parameters and the lung finder's rules."""
    return Model(
        name="threshold",
        version="1",
        digest=hashlib.sha256(_parameters().encode()).hexdigest(),
        describes="classical lung segmentation, lesions by attenuation (Goncharov et al. 2021, section 2.1.2)",
    )


def judge(volume: Volume, judged_by: Model, progress: Callable[[str, float], None] | None = None) -> Findings:
    """Lungs and lesions of a volume; no probability of COVID-19. Raises Refused (NO_LUNGS)."""
    _tell(progress, "finding the lungs", 0.0)
    found = lungs.find(volume)
    _tell(progress, "finding lesions", 0.7)
    lesions = _on_volume(volume, found, lesions_on_grid(found))
    _tell(progress, "done", 1.0)
    return Findings(lungs=found.map, lesions=lesions, covid_probability=None, model=judged_by, warnings=found.warnings)


def lesions_on_grid(found: Lungs) -> Mask:
    """[z, y, x] lesions on the reduced grid: threshold, blur, threshold, without small components.

    The blur is that of the mask alone, as in the paper: what lies outside the lungs counts as not dense, so that the
    blurred rim of the lungs themselves does not become a lesion. (Normalised at the border the mean Dice on
    medseg_9 is 0.53 instead of 0.52, but a normal chest at hand gets an affected fraction of 1 % instead of 0.)
    """
    reduced = found.reduced
    inside = found.reduced_map > 0
    dense = inside & (reduced.hounsfield > HU_MIN) & (reduced.hounsfield < HU_MAX)
    sigma = [SIGMA_MM / mm for mm in reduced.spacing_zyx_mm]
    blurred: npt.NDArray[np.float32] = ndimage.gaussian_filter(dense.astype(np.float32), sigma)
    lesions: Mask = inside & (blurred > BLUR_ABOVE)
    components, count = ndimage.label(lesions)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    keep = sizes >= V_MIN_SHARE * np.count_nonzero(inside)
    keep[0] = False
    kept: Mask = keep[components]
    return kept


def _on_volume(volume: Volume, found: Lungs, lesions: Mask) -> Mask:
    turned = found.reduced.to_volume_axes(lesions)
    result = np.zeros(volume.hounsfield.shape, dtype=np.bool_)
    for z in range(len(result)):
        if turned[z // found.reduced.factors[0]].any():
            result[z] = found.reduced.expand_slice(turned, z) & (found.map[z] > 0)
    return result


def _tell(progress: Callable[[str, float], None] | None, what: str, fraction: float) -> None:
    if progress is not None:
        progress(what, fraction)
