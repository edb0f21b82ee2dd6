"""How long the patients of each group waited, with confidence over repeated weeks.

Each week is drawn anew; within a week every policy has the same patients, verdicts and reading times, so that
differences between policies are taken week by week.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from reading_room import patients
from reading_room.patients import DAY_S, Group
from triage_node import reading_room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from reading_room.policies import Policy

SOON_MIN = 30.0
EVERYBODY, NOT_ANALYSED = "everybody", "not analysed"
GROUPS = (*(group.value for group in Group), NOT_ANALYSED, EVERYBODY)
METRICS = ("mean", "median", "percentile_95", "longest", "soon")
Week = dict[str, np.ndarray]  # minutes from arrival to report of each patient of a group


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over weeks with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate | None:
    """None where there are no values; no interval of a single one."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return None
    mean = float(np.mean(known))
    if len(known) == 1:
        return Estimate(mean=mean, low=mean, high=mean)
    half = float(stats.t.ppf(0.975, len(known) - 1)) * float(np.std(known, ddof=1)) / sqrt(len(known))
    return Estimate(mean=mean, low=mean - half, high=mean + half)


def week(policy: Policy, seed: int) -> Week:
    """One week of one policy, in minutes; the same seed gives every policy of a room the same patients."""
    came = patients.draw(policy.room, np.random.default_rng([seed, 0]))
    cases = patients.cases(came, policy.room, policy.judge, np.random.default_rng([seed, 1]))
    minutes = np.zeros(len(cases))
    for reading in reading_room.read_by_roster(cases, policy.rules, policy.room.readers):
        minutes[int(reading.case.facts.study_instance_uid)] = reading.turnaround_s / 60
    counts = came.arrived_at >= policy.room.warm_up_days * DAY_S
    of_group = np.array([came.group(number).value for number in range(len(cases))])
    found = {group.value: minutes[counts & (of_group == group.value)] for group in Group}
    return {**found, NOT_ANALYSED: minutes[counts & ~came.analysed], EVERYBODY: minutes[counts]}


def metric(name: str, minutes: np.ndarray) -> float:
    """One number of a group's week; not a number where nobody belonged to it."""
    if not len(minutes):
        return float("nan")
    match name:
        case "mean":
            return float(np.mean(minutes))
        case "median":
            return float(np.median(minutes))
        case "percentile_95":
            return float(np.percentile(minutes, 95))
        case "longest":
            return float(np.max(minutes))
        case _:
            return float(np.mean(minutes <= SOON_MIN))


def simulate(
    policies: Sequence[Policy], seeds: Sequence[int], told: Callable[[Policy], None]
) -> dict[tuple[str, str], list[Week]]:
    """The weeks of every policy by its table and name; `told` hears of each that is done."""
    weeks: dict[tuple[str, str], list[Week]] = {(policy.table, policy.name): [] for policy in policies}
    for seed in seeds:
        same: dict[Any, Week] = {}  # tables share policies
        for policy in policies:
            key = (policy.room, policy.judge, policy.rules.triage, repr(policy.rules))
            if key not in same:
                same[key] = week(policy, seed)
            weeks[policy.table, policy.name].append(same[key])
            told(policy)
    return weeks


def summary(policies: Sequence[Policy], weeks: Mapping[tuple[str, str], Sequence[Week]]) -> dict[str, Any]:
    """Table -> policy -> group -> estimates, with the difference from the policy's baseline; ready for JSON."""
    tables: dict[str, Any] = {}
    for policy in policies:
        mine, base = weeks[policy.table, policy.name], weeks[policy.table, policy.baseline]
        groups = {}
        for group in GROUPS:
            values = {name: [metric(name, one[group]) for one in mine] for name in METRICS}
            against = [metric("mean", one[group]) for one in base]
            differences = [a - b for a, b in zip(values["mean"], against, strict=True)]
            groups[group] = {
                "studies": round(float(np.mean([len(one[group]) for one in mine])), 1),
                **{name: _as_json(estimate(found)) for name, found in values.items()},
                "difference": _as_json(estimate(differences)),
            }
        late = [float(np.mean(one[EVERYBODY] > policy.rules.worklist.max_wait_min)) for one in mine]
        tables.setdefault(policy.table, {})[policy.name] = {
            "groups": groups,
            "load": round(policy.room.load, 3),
            "model": policy.judge.name,
            "max_wait_min": policy.rules.worklist.max_wait_min,
            "over_maximum": _as_json(estimate(late)),
        }
    return tables


def _as_json(found: Estimate | None) -> dict[str, float] | None:
    return None if found is None else {name: round(value, 4) for name, value in asdict(found).items()}
