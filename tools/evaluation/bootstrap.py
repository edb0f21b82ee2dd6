"""Intervals by resampling patients with replacement: scans of one patient come and go together (Efron 1979)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESAMPLES = 2000
COVERED = 0.95
LEAST_PATIENTS = 3  # under this an interval would only repeat the values
LEAST_SHARE = 0.5  # of the resamples must give a value, else there is no interval


def interval(
    patients: Sequence[str],
    statistic: Callable[[npt.NDArray[np.intp]], float | None],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic of rows; the same for the same rows and seed.

    `statistic` gets the indices of the drawn rows, some of them repeated, and gives None where it has no value, as an
    AUC has not without a negative: such draws are passed over. None where there are too few patients or values.
    """
    names, member = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < LEAST_PATIENTS or resamples < 1:
        return None
    rows = [np.flatnonzero(member == index) for index in range(len(names))]
    chance = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = chance.integers(0, len(names), len(names))
        value = statistic(np.concatenate([rows[index] for index in drawn]))
        if value is not None:
            values.append(value)
    if len(values) < LEAST_SHARE * resamples:
        return None
    low, high = np.quantile(values, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return float(low), float(high)
