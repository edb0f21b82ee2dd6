"""What other rules would do to a node's list: to the studies on it now, and to those that it had these days.

The past is read again by `reading_room`, which asks the node's own rules. As far as the journal says when readers took
studies, a reader takes one at just these moments, only maybe another one. So nothing is assumed of readers and of
reading times but that they would have been the same. Where the journal does not say, a number of readers is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import mean, median
from typing import TYPE_CHECKING

from triage_node import priority, reading_order, reading_room, worklist
from triage_node.journal import views
from triage_node.reading_room import Case, Rules
from triage_node.study import StudyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triage_node.config import WorklistSection
    from triage_node.journal import Journal
    from triage_node.study import ReadingPriority

# Fewer readings tell nothing of how a hospital reads.
FEWEST_READINGS = 20
ASSUMED_READING_MIN = 8.0
POLICIES = ("in order of arrival", "as configured", "as tried")
NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A study on the list whose place or priority would be another."""

    study_instance_uid: str
    accession_number: str
    rank: int
    rank_as_tried: int
    reading_priority: ReadingPriority
    reading_priority_as_tried: ReadingPriority
    explanation: str  # as tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The list as it is, and as it would be."""

    studies: int  # in the queue
    levels: dict[str, int]  # of the judged
    levels_as_tried: dict[str, int]
    moves: tuple[Move, ...]  # in the order as tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long the studies of a group waited for a reader, in minutes; None where none of them was read."""

    read: int
    left: int  # not read in the time that was looked at
    mean_min: float | None
    median_min: float | None
    percentile_95_min: float | None
    longest_min: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What was replayed, and for each group of studies, by level as configured and as tried, its waits by policy."""

    days: float
    studies: int
    readings: int  # that the journal knows of
    how: str  # a sentence: on what moments or readers it was replayed
    groups: dict[str, dict[str, Waits]]


def now(journal: Journal, configured: WorklistSection, tried: WorklistSection, at: float) -> Now:
    """The list of this moment under both rules."""
    rows = {row.study_instance_uid: row for row in views.studies(journal)}
    pace_s = reading_order.pace(views.taken_at(journal, reading_order.PACE_OVER + 1))
    before, after = (
        {
            place.study_instance_uid: place
            for place in priority.arrange([worklist.facts_of(row) for row in rows.values()], rules, at, pace_s)
        }
        for rules in (configured, tried)
    )
    queue = [uid for uid in after if rows[uid].state in priority.IN_THE_QUEUE]
    return Now(
        studies=len(queue),
        levels=_levels([before[uid] for uid in queue if rows[uid].state is StudyState.JUDGED]),
        levels_as_tried=_levels([after[uid] for uid in queue if rows[uid].state is StudyState.JUDGED]),
        moves=tuple(
            Move(
                study_instance_uid=uid,
                accession_number=rows[uid].accession_number,
                rank=before[uid].rank,
                rank_as_tried=after[uid].rank,
                reading_priority=before[uid].reading_priority,
                reading_priority_as_tried=after[uid].reading_priority,
                explanation=after[uid].explanation,
            )
            for uid in queue
            if (before[uid].rank, before[uid].reading_priority) != (after[uid].rank, after[uid].reading_priority)
        ),
    )


def _levels(places: Sequence[priority.Place]) -> dict[str, int]:
    return {step.value: sum(place.reading_priority is step for place in places) for step in priority.LEVELS}


def past(
    journal: Journal,
    configured: WorklistSection,
    tried: WorklistSection,
    at: float,
    days: float,
    *,
    readers: int | None = None,
    reading_min: float | None = None,
) -> Past:
    """The studies that came in the last `days`, read again under each policy.

    `readers` (at work all the time) and `reading_min` are assumed instead of what the journal says, where given.
    """
    since = at - days * 86400
    histories = views.histories(journal, since)
    rows = [row for row in views.studies(journal) if row.study_instance_uid in histories]
    diary = sorted(one.taken_at for one in histories.values() if one.taken_at is not None)
    by_diary = readers is None and reading_min is None and len(diary) >= FEWEST_READINGS
    minutes, whence = _reading_min(histories, reading_min)
    cases = [
        Case(
            facts=_answered(row),
            answered_at=histories[row.study_instance_uid].answered_at,
            reading_s=60 * minutes,
        )
        for row in rows
    ]
    groups = {case.facts.study_instance_uid: _group(case.facts, configured, tried) for case in cases}
    policies = zip(
        POLICIES,
        (Rules(worklist=configured, triage=False), Rules(worklist=configured), Rules(worklist=tried)),
        strict=True,
    )
    waits = {}
    for name, rules in policies:
        if by_diary:
            readings = reading_room.read_by_diary(cases, rules, diary)
        else:
            readings = reading_room.read_by_roster(cases, rules, [readers or 1])
        waits[name] = {one.case.facts.study_instance_uid: one.wait_s / 60 for one in readings}
    people = f"{readers or 1} reader{'s' if (readers or 1) > 1 else ''}"
    how = (
        f"a study is taken at each of the {len(diary)} moments at which a reader took one"
        if by_diary
        else f"{people} all day and night, {minutes:.1f} min a study ({whence})"
    )
    return Past(
        days=days,
        studies=len(cases),
        readings=len(diary),
        how=how,
        groups={
            group: {
                name: _waits([uid for uid, of_it in groups.items() if of_it == group], found)
                for name, found in waits.items()
            }
            for group in sorted(set(groups.values()), key=_GROUPS.index)
        },
    )


def _reading_min(histories: dict[str, views.History], given: float | None) -> tuple[float, str]:
    if given is not None:
        return given, "as you say"
    known = [
        (one.reported_at - one.taken_at) / 60
        for one in histories.values()
        if one.taken_at is not None and one.reported_at is not None and one.reported_at > one.taken_at
    ]
    if len(known) >= FEWEST_READINGS:
        return median(known), f"median of {len(known)} readings"
    return ASSUMED_READING_MIN, "assumed: the journal knows of too few readings"


def _answered(row: views.StudyRow) -> priority.Facts:
    """What is known of a study once it has its answer, whatever became of it since."""
    state = StudyState.JUDGED if row.assessment is not None else StudyState.NOT_ANALYSED
    return replace(worklist.facts_of(row), state=state)


_GROUPS = [*(f"{one} -> {other}" for one in priority.LEVELS for other in priority.LEVELS), NOT_JUDGED]


def _group(facts: priority.Facts, configured: WorklistSection, tried: WorklistSection) -> str:
    """The level as configured and as tried."""
    if facts.state is not StudyState.JUDGED:
        return NOT_JUDGED
    return f"{priority.level(facts, configured)} -> {priority.level(facts, tried)}"


def _waits(uids: Sequence[str], waits_min: dict[str, float]) -> Waits:
    known = sorted(waits_min[uid] for uid in uids if uid in waits_min)
    if not known:
        return Waits(read=0, left=len(uids), mean_min=None, median_min=None, percentile_95_min=None, longest_min=None)
    return Waits(
        read=len(known),
        left=len(uids) - len(known),
        mean_min=round(mean(known), 1),
        median_min=round(median(known), 1),
        percentile_95_min=round(known[min(len(known) - 1, int(0.95 * len(known)))], 1),
        longest_min=round(known[-1], 1),
    )
