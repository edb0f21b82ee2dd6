"""Reading CT series for training: DICOM folders through the node's own reader, turned into patient order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triage_node import volume
from triage_node.config import AnalysisSection

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.study import Volume


def read_series(folder: Path) -> Volume:
    """The largest suitable CT series below a folder. Raises Refused, with the reason, where there is none."""
    settings = AnalysisSection()
    found = [series for study in volume.study_in(folder) for series in study.series]
    if not found:
        raise FileNotFoundError(f"{folder} holds no DICOM image")
    return volume.read(max(found, key=lambda series: len(series.instances)), settings)


def patient_order(of: Volume) -> tuple[slice, slice, slice]:
    """Turns arrays [z, y, x] of a volume so that z grows to the head, y to the back, x to the patient's left.

    Raises ValueError where the slices are not axial.
    """
    directions = of.affine_lps_mm[:3, 2::-1]  # columns: along the volume's z, y, x; rows: L, P, S
    turns = []
    for axis, patient_axis in enumerate((2, 1, 0)):
        along = directions[:, axis]
        if int(np.argmax(np.abs(along))) != patient_axis:
            raise ValueError("the slices are not axial")
        turns.append(slice(None, None, -1 if along[patient_axis] < 0 else 1))
    return turns[0], turns[1], turns[2]


def in_patient_order(array: npt.NDArray[np.int16], turn: tuple[slice, slice, slice]) -> npt.NDArray[np.int16]:
    """The array turned, as a copy whose memory is in order."""
    return np.ascontiguousarray(array[turn])
