"""Lungs by the node's classical finder, for scans whose lungs nobody drew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from triage_node import lungs
from triage_node.errors import Refused
from triage_node.study import Instance, SeriesKey, Volume

NOWHERE = Instance(
    sop_instance_uid="",
    sop_class_uid="",
    transfer_syntax_uid="",
    series=SeriesKey(study_instance_uid="", series_instance_uid=""),
    path=Path(),
    digest="",
)


def find(hounsfield: npt.NDArray[np.int16], spacing_zyx_mm: tuple[float, float, float]) -> npt.NDArray[np.bool_] | None:
    """[z, y, x] in patient order -> where the lungs are; None where no lungs are found."""
    positions = np.zeros((len(hounsfield), 3))
    positions[:, 2] = np.arange(len(hounsfield)) * spacing_zyx_mm[0]
    volume = Volume(
        hounsfield=np.ascontiguousarray(hounsfield),
        affine_lps_mm=np.diag([*spacing_zyx_mm[::-1], 1.0]),
        slice_positions_mm=positions,
        instances=(NOWHERE,) * len(hounsfield),
    )
    try:
        return lungs.find(volume).map > 0
    except Refused:
        return None
