"""Arrays that came from no DICOM series as volumes, for what takes a volume; and which part of them was imaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triage_node.study import Instance, SeriesKey, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triage_node.study import Mask

NOWHERE = Instance(
    sop_instance_uid="",
    sop_class_uid="",
    transfer_syntax_uid="",
    series=SeriesKey(study_instance_uid="", series_instance_uid=""),
    path=Path(),
    digest="",
)


def in_patient_order(hounsfield: npt.NDArray[np.int16], spacing_zyx_mm: Sequence[float]) -> Volume:
    """A volume of an array [z, y, x] whose axes run to the head, to the back and to the left."""
    return placed(hounsfield, np.diag([*spacing_zyx_mm[::-1], 1.0]))


def placed(hounsfield: npt.NDArray[np.int16], affine_lps_mm: npt.NDArray[np.float64]) -> Volume:
    """A volume of an array [z, y, x] with equal steps; the affine maps (x, y, z, 1) to patient millimetres."""
    steps = np.arange(len(hounsfield))[:, np.newaxis]
    return Volume(
        hounsfield=np.ascontiguousarray(hounsfield, dtype=np.int16),
        affine_lps_mm=affine_lps_mm,
        slice_positions_mm=affine_lps_mm[:3, 3] + steps * affine_lps_mm[:3, 2],
        instances=(NOWHERE,) * len(hounsfield),
    )


def imaged(boxes: npt.NDArray[np.integer], shape: tuple[int, ...]) -> Mask:
    """[z, y, x] True inside row0, row1, col0, col1 of every slice: what was imaged, outside lies filler."""
    inside = np.zeros(shape, dtype=np.bool_)
    for plane, (top, bottom, first, beyond) in zip(inside, boxes, strict=True):
        plane[top:bottom, first:beyond] = True
    return inside
