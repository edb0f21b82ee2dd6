"""What is compared: ways to choose the next study, models that judge, days that are busy or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from triage_node.reading_room import Rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reading_room.judge import Judge
    from reading_room.patients import Room
    from triage_node.config import WorklistSection

ARRIVAL = "in order of arrival"
STRATEGIES = ("identification", "severity", "combined")
NO_MAXIMUM_MIN = 1e6  # two years
MAXIMA_MIN = (30.0, 60.0, 120.0, 240.0, 480.0, NO_MAXIMUM_MIN)
LOADS = (0.85, 1.0, 1.1)  # times the studies of a day


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One row of a table: a room, a model and rules."""

    table: str  # which comparison it belongs to
    name: str
    room: Room
    judge: Judge
    rules: Rules
    baseline: str  # name of the policy of the same table that it is compared with


def every(room: Room, judges: Sequence[Judge], worklist: WorklistSection) -> list[Policy]:
    """All comparisons; the first judge is the one that is used where nothing else is said."""
    usual = judges[0]
    combined = Rules(worklist=worklist.model_copy(update={"strategy": "combined"}))
    found = [_policy("strategies", ARRIVAL, room, usual, replace(combined, triage=False))]
    for strategy in STRATEGIES:
        rules = Rules(worklist=worklist.model_copy(update={"strategy": strategy}))
        found.append(_policy("strategies", strategy, room, usual, rules))
    found.append(_policy("maximum wait", ARRIVAL, room, usual, replace(combined, triage=False)))
    for minutes in MAXIMA_MIN:
        name = "no maximum" if minutes == NO_MAXIMUM_MIN else f"{minutes:.0f} min"
        rules = Rules(worklist=combined.worklist.model_copy(update={"max_wait_min": minutes}))
        found.append(_policy("maximum wait", name, room, usual, rules))
    found.append(_policy("models", ARRIVAL, room, usual, replace(combined, triage=False)))
    found += [_policy("models", judge.name, room, judge, combined) for judge in judges]
    for times in LOADS:
        other = replace(room, studies_a_day=round(times * room.studies_a_day))
        arrival = f"{other.studies_a_day:.0f} studies a day, {ARRIVAL}"
        found.append(_policy("load", arrival, other, usual, replace(combined, triage=False), arrival))
        found.append(
            _policy("load", f"{other.studies_a_day:.0f} studies a day, combined", other, usual, combined, arrival)
        )
    return found


def _policy(table: str, name: str, room: Room, judge: Judge, rules: Rules, baseline: str = ARRIVAL) -> Policy:
    return Policy(table=table, name=name, room=room, judge=judge, rules=rules, baseline=baseline)
