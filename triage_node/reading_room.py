"""A reading room in numbers: studies come, readers take the first of the list, each study waits; pure, no chance.

A discrete-event simulation with two kinds of event, a study that comes and a reader who takes one. Between them
nothing changes but what is known of the studies, which is looked at when a reader asks. What the list says is asked of
`priority.turns`, the node's own rule, so a simulated room and a real one read in the same order.

Time is in seconds since any moment; hours of the day follow from it, so that moment should be a midnight.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from triage_node import priority, reading_order
from triage_node.study import StudyState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triage_node.config import WorklistSection
    from triage_node.priority import Facts, Standing

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A study to come: what will be known of it, from when on, and how long it takes to read."""

    facts: Facts  # as they are once there is an answer: judged, or not analysed
    answered_at: float | None  # until then it waits for its answer; None: forever
    reading_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A study that was read."""

    case: Case
    taken_at: float
    finished_at: float

    @property
    def wait_s(self) -> float:
        """From its arrival until a reader took it."""
        return self.taken_at - self.case.facts.arrived_at

    @property
    def turnaround_s(self) -> float:
        """From its arrival until it was reported."""
        return self.finished_at - self.case.facts.arrived_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the next study is chosen."""

    worklist: WorklistSection
    triage: bool = True  # False: in order of arrival
    planned: bool = True  # False: the pace of reading is taken as unknown, so the maximum counts once it is over


def read_by_roster(cases: Iterable[Case], rules: Rules, readers: Sequence[int]) -> list[Reading]:
    """Every study is read; `readers` says how many work in each hour, over and over again.

    Who has begun a study ends it, also when the hour is over. Raises ValueError where nobody ever works.
    """
    if not any(readers):
        raise ValueError("readers: at least one reader must work in at least one hour")
    room = _Room(cases, rules)
    busy: list[float] = []  # when each reader at work will be free
    now = room.next_arrival or 0.0
    while room.is_open:
        room.admit(now)
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        at_work = readers[int(now // HOUR_S) % len(readers)]
        while room.waits and len(busy) < at_work:
            heapq.heappush(busy, room.take(now).finished_at)
        now = room.next_event(now, busy)
    return room.readings


def read_by_diary(cases: Iterable[Case], rules: Rules, taken_at: Iterable[float]) -> list[Reading]:
    """Who takes a study does it at the moments of a diary; when nothing waits then, the moment passes.

    What is left over at the end was not read.
    """
    room = _Room(cases, rules)
    for now in sorted(taken_at):
        room.admit(now)
        if room.waits:
            room.take(now)
    return room.readings


class _Room:
    """What waits, what was taken, and the choice between them."""

    def __init__(self, cases: Iterable[Case], rules: Rules) -> None:
        self._rules = rules
        self._coming = sorted(cases, key=_arrival, reverse=True)
        self._here: dict[str, Case] = {}
        self._standings: dict[str, Standing] = {}
        self._gone: list[Standing] = []  # taken, and younger than somebody who waits
        self._unanswered: set[str] = set()
        self._taken_at: list[float] = []
        self.readings: list[Reading] = []

    @property
    def waits(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._here)

    @property
    def is_open(self) -> bool:
        """Whether there is anything to read, or to come."""
        return bool(self._here or self._coming)

    @property
    def next_arrival(self) -> float | None:
        return self._coming[-1].facts.arrived_at if self._coming else None

    def next_event(self, now: float, busy: Sequence[float]) -> float:
        """When something can change that lets a reader take a study."""
        candidates = [busy[0]] if busy else []
        if self._coming:
            candidates.append(self._coming[-1].facts.arrived_at)
        if self._here:
            candidates.append((now // HOUR_S + 1) * HOUR_S)  # the roster changes on the hour
        return min(candidates, default=now)

    def admit(self, now: float) -> None:
        """Let in what has come until now."""
        while self._coming and self._coming[-1].facts.arrived_at <= now:
            case = self._coming.pop()
            uid = case.facts.study_instance_uid
            self._here[uid] = case
            self._unanswered.add(uid)
            waiting = replace(case.facts, state=StudyState.WAITING, words="", affected_fraction_right=None)
            waiting = replace(waiting, affected_fraction_left=None, covid_probability=None)
            self._standings[uid] = priority.standing(waiting, self._rules.worklist)

    def take(self, now: float) -> Reading:
        """The first of the list leaves it."""
        for uid in [uid for uid in self._unanswered if _is_answered(self._here[uid], now)]:
            self._unanswered.discard(uid)
            self._standings[uid] = priority.standing(self._here[uid].facts, self._rules.worklist)
        pace_s = reading_order.pace(self._taken_at) if self._rules.planned else 0.0
        (first,) = priority.turns(
            [*self._standings.values(), *self._gone],
            self._rules.worklist,
            now,
            pace_s,
            first=1,
            triage=self._rules.triage,
        )
        facts = first.standing.facts
        case = self._here.pop(facts.study_instance_uid)
        del self._standings[facts.study_instance_uid]
        self._unanswered.discard(facts.study_instance_uid)
        self._gone.append(replace(first.standing, facts=replace(facts, state=StudyState.READ)))
        oldest = min((one.arrival for one in self._standings.values()), default=None)
        self._gone = [one for one in self._gone if oldest is not None and one.arrival > oldest]
        self._taken_at.append(now)
        reading = Reading(case=case, taken_at=now, finished_at=now + case.reading_s)
        self.readings.append(reading)
        return reading


def _arrival(case: Case) -> tuple[float, str]:
    return case.facts.arrived_at, case.facts.study_instance_uid


def _is_answered(case: Case, now: float) -> bool:
    return case.answered_at is not None and case.answered_at <= now
