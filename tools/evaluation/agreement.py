"""How two columns of numbers agree: AUC, correlations, Bland-Altman, confusion. None where they cannot say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Numbers = npt.NDArray[np.float64]

LIMITS = 1.96  # standard deviations of the differences, Bland and Altman 1986


@dataclass(frozen=True, slots=True, kw_only=True)
class BlandAltman:
    """Differences (predicted minus expert): their mean and the limits between which 95 % of them are expected."""

    bias: float
    low: float
    high: float


def auc(scores: Numbers, positive: npt.NDArray[np.bool_]) -> float | None:
    """Probability that a positive scores higher than a negative, ties counting half (Mann-Whitney)."""
    hits, misses = int(positive.sum()), int((~positive).sum())
    if hits == 0 or misses == 0:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def pearson(one: Numbers, other: Numbers) -> float | None:
    """Correlation of the values; None for fewer than three pairs or a column that does not vary."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    a, b = one - one.mean(), other - other.mean()
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


def spearman(one: Numbers, other: Numbers) -> float | None:
    """Correlation of the ranks, ties sharing theirs; None as for `pearson`."""
    return pearson(rankdata(one), rankdata(other)) if len(one) else None


def bland_altman(predicted: Numbers, expert: Numbers) -> BlandAltman | None:
    """Bias and limits of agreement, with the sample's standard deviation; None for fewer than three pairs."""
    if len(predicted) < 3:
        return None
    differences = predicted - expert
    bias, spread = float(differences.mean()), float(differences.std(ddof=1))
    return BlandAltman(bias=bias, low=bias - LIMITS * spread, high=bias + LIMITS * spread)


def confusion(expert: Numbers, predicted: Numbers, classes: tuple[int, ...]) -> list[list[int]]:
    """Counts: a row for every class of the expert, a column for every predicted one."""
    return [[int(np.sum((expert == row) & (predicted == column))) for column in classes] for row in classes]
