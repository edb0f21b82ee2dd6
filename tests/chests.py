"""Chest volumes made in code, with the lungs that a correct finder must see; no DICOM.

`chest()` gives a `Chest`: a body on a table with heart, spine, trachea, stomach bubble and two lungs that end in a
dome. `volume_of(hounsfield, affine)` makes a `Volume` of any array.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triage_node.study import LEFT_LUNG, RIGHT_LUNG, Instance, SeriesKey, Volume

KEY = SeriesKey(study_instance_uid="1.2.3", series_instance_uid="1.2.3.4")
INSTANCE = Instance(
    sop_instance_uid="1.2.3.4.5",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    series=KEY,
    path=Path("nowhere"),
    digest="00",
)
AIR, LUNG, TISSUE, BONE = -1000, -850, 40, 700


@dataclass(frozen=True, kw_only=True, eq=False)
class Chest:
    """A volume and the truth about it."""

    hounsfield: npt.NDArray[np.int16]
    affine_lps_mm: npt.NDArray[np.float64]
    lungs: npt.NDArray[np.uint8]
    trachea: npt.NDArray[np.bool_]
    stomach: npt.NDArray[np.bool_]

    @property
    def volume(self) -> Volume:
        """As the finder gets it."""
        return volume_of(self.hounsfield, self.affine_lps_mm)


def volume_of(hounsfield: npt.NDArray[np.int16], affine_lps_mm: npt.NDArray[np.float64]) -> Volume:
    """A volume of any array; every slice belongs to the same instance."""
    indices = np.zeros((4, len(hounsfield)))
    indices[2], indices[3] = np.arange(len(hounsfield)), 1
    return Volume(
        hounsfield=np.ascontiguousarray(hounsfield, dtype=np.int16),
        affine_lps_mm=affine_lps_mm,
        slice_positions_mm=(affine_lps_mm @ indices)[:3].T,
        instances=(INSTANCE,) * len(hounsfield),
    )


def affine(spacing_zyx_mm: tuple[float, float, float], first_mm: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Axes along L, P, S; `first_mm` is x, y, z of the first voxel."""
    result = np.diag([*spacing_zyx_mm[::-1], 1.0])
    result[:3, 3] = first_mm
    return result


def chest(*, slice_mm: float = 5.0, pixel_mm: float = 2.0, seed: int = 0) -> Chest:
    """400 x 400 x 300 mm; the patient's right lung lies at negative x and is the larger one."""
    z = np.arange(0.0, 300.0, slice_mm)[:, np.newaxis, np.newaxis]
    y = (np.arange(0.0, 400.0, pixel_mm) - 200.0)[np.newaxis, :, np.newaxis]
    x = (np.arange(0.0, 400.0, pixel_mm) - 200.0)[np.newaxis, np.newaxis, :]
    everywhere = np.ones(np.broadcast_shapes(z.shape, y.shape, x.shape), dtype=bool)
    body = ((x / 165) ** 2 + (y / 110) ** 2 < 1) & everywhere
    dome = 60.0 + 45.0 * np.maximum(0.0, 1 - ((np.abs(x) - 75) / 60) ** 2 - ((y + 10) / 70) ** 2)
    right = ((x + 75) / 58) ** 2 + (y / 82) ** 2 + ((z - 60) / 215) ** 2 < 1
    left = ((x - 78) / 50) ** 2 + (y / 80) ** 2 + ((z - 60) / 215) ** 2 < 1
    heart = ((x - 25) / 55) ** 2 + ((y + 20) / 50) ** 2 + ((z - 110) / 50) ** 2 < 1
    trachea = (x**2 + (y - 5) ** 2 < 9.0**2) & (z > 180) & everywhere
    stomach = ((x - 60) / 35) ** 2 + ((y + 40) / 25) ** 2 + ((z - 25) / 20) ** 2 < 1
    spine = (x**2 + (y - 70) ** 2 < 18.0**2) & everywhere
    table = (np.abs(y - 125) < 3) & (np.abs(x) < 180) & everywhere
    lungs = np.zeros(everywhere.shape, dtype=np.uint8)
    lungs[right & (z > dome) & ~heart] = RIGHT_LUNG
    lungs[left & (z > dome) & ~heart] = LEFT_LUNG
    values = np.full(everywhere.shape, float(AIR))
    values[body] = TISSUE
    values[table] = -100
    values[spine] = BONE
    values[lungs > 0] = LUNG
    values[trachea | stomach] = AIR
    values += np.random.default_rng(seed).normal(0.0, 15.0, values.shape)
    return Chest(
        hounsfield=values.astype(np.int16),
        affine_lps_mm=affine((slice_mm, pixel_mm, pixel_mm), (-200.0, -200.0, -150.0)),
        lungs=lungs,
        trachea=trachea,
        stomach=stomach & body,
    )
