"""What a model says of a patient: measured probabilities and errors, published ones, or a coin.

A probability is drawn from what was measured, or published, for patients of the same kind; an affected fraction is the
true one with the error that was measured against experts.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from reading_room.patients import Patients, Shares

# Goncharov 2021, table 2, multitask: AUC of COVID-19 against 32 healthy, and against these and 36 with other diseases.
PAPER_AUC_HEALTHY, PAPER_AUC_ALL, PAPER_HEALTHY, PAPER_OTHER = 0.978, 0.951, 32, 36
_LIMITS = 2 * NormalDist().inv_cdf(0.975)  # between the limits of agreement lie so many standard deviations


class NotEvaluated(ValueError):
    """The numbers of an evaluation are not where they are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Found minus true affected fraction: a normal distribution, cut off at 0 and 1."""

    bias: float
    deviation: float

    def found(self, fractions: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """[patients] the fractions that the model finds."""
        return np.clip(fractions + chance.normal(self.bias, self.deviation, len(fractions)), 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Draws probability and affected fraction for each patient."""

    name: str
    words: str  # where its numbers come from
    agreement: Agreement
    covid: tuple[float, ...] = ()  # probabilities that were measured; empty: by distance
    other: tuple[float, ...] = ()
    healthy: tuple[float, ...] = ()
    separation: tuple[float, float, float] | None = None  # of healthy, other and COVID-19, in standard deviations
    is_blind: bool = False

    def judge(self, patients: Patients, shares: Shares, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Probability of COVID-19 and affected fraction of the worse lung, [patients] each."""
        if self.is_blind:
            mixed = chance.permutation(patients.fractions)
            return chance.random(len(mixed)), self.agreement.found(mixed, chance)
        fractions = self.agreement.found(patients.fractions, chance)
        if self.separation is None:
            measured = (self.healthy, self.other, self.covid)
            drawn = [chance.choice(values, len(fractions)) for values in measured]
            return np.choose(patients.kinds, drawn), fractions
        score = np.array(self.separation)[patients.kinds] + chance.normal(size=len(fractions))
        return self._posterior(score, shares), fractions

    def _posterior(self, score: np.ndarray, shares: Shares) -> np.ndarray:
        """The probability of COVID-19 by Bayes' rule: what a calibrated model says in a room with these shares."""
        assert self.separation is not None
        weights = (1 - shares.covid - shares.other, shares.other, shares.covid)
        density = [
            weight * np.exp(-((score - centre) ** 2) / 2)
            for weight, centre in zip(weights, self.separation, strict=True)
        ]
        return density[2] / sum(density)


def measured(card: Path, readme: Path, method: str = "multitask") -> Judge:
    """The model that ships: probabilities of the test stacks on its card, errors from the evaluation in the README.

    Raises NotEvaluated where one of them is missing.
    """
    try:
        stacks = json.loads(card.read_text(encoding="utf-8"))["metrics"]["identification_test"]["by_stack"]
    except (OSError, ValueError, KeyError) as error:
        raise NotEvaluated(f"{card} holds no metrics.identification_test.by_stack: {error}") from error
    covid = tuple(value for name, value in stacks.items() if name.endswith("(COVID-19)"))
    # whole series without COVID-19 are of patients with other diseases; all other stacks without it hold no lesions
    other = tuple(value for name, value in stacks.items() if name.endswith("whole (none)"))
    healthy = tuple(v for name, v in stacks.items() if name.endswith("(none)") and not name.endswith("whole (none)"))
    if not (covid and other and healthy):
        raise NotEvaluated(f"{card}: the test stacks lack COVID-19, other diseases or healthy lungs")
    return Judge(
        name="as measured",
        words=f"probabilities of the {len(stacks)} test stacks on the model's card ({len(covid)} with COVID-19, "
        f"{len(other)} with other diseases, {len(healthy)} without lesions)",
        agreement=agreement(readme, method),
        covid=covid,
        other=other,
        healthy=healthy,
    )


def published(readme: Path, method: str = "multitask") -> Judge:
    """The separation that Goncharov 2021 reports for its hold-out set, as normal scores of equal width."""
    normal = NormalDist()
    others = (PAPER_AUC_ALL * (PAPER_HEALTHY + PAPER_OTHER) - PAPER_AUC_HEALTHY * PAPER_HEALTHY) / PAPER_OTHER
    covid = sqrt(2) * normal.inv_cdf(PAPER_AUC_HEALTHY)
    return Judge(
        name="as published",
        words=f"AUC {PAPER_AUC_HEALTHY} against healthy, {others:.3f} against other diseases (Goncharov 2021, table 2)",
        agreement=agreement(readme, method),
        separation=(0.0, covid - sqrt(2) * normal.inv_cdf(others), covid),
    )


def coin(readme: Path, method: str = "multitask") -> Judge:
    """A model that knows nothing: any probability, and the affected fraction of somebody else."""
    words = "anything, and the affected fraction of somebody else"
    return Judge(name="a coin", words=words, agreement=agreement(readme, method), is_blind=True)


def agreement(readme: Path, method: str) -> Agreement:
    """Bias and spread of the affected fraction from the table that tools/evaluate.py wrote into the README."""
    text = readme.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if "|" in line]
    heads = [row for row in rows if method in row and not row[0]]
    if not heads:
        raise NotEvaluated(f"{readme} has no evaluation of {method!r}: tools/evaluate.py --readme writes it")
    column = heads[0].index(method)
    found = {}
    for name in ("bias (found minus expert)", "lower limit of agreement", "upper limit of agreement"):
        cells = [row[column] for row in rows if row[0] == f"affected fraction: {name}"]
        number = re.match(r"([+-]?[\d.]+)%", cells[0]) if cells else None
        if number is None:
            raise NotEvaluated(f"{readme} does not give the affected fraction's {name} of {method!r}")
        found[name] = float(number[1]) / 100
    bias, low, high = found.values()
    return Agreement(bias=bias, deviation=(high - low) / _LIMITS)
