"""Facts -> reading priority, place on the list and the reasons for both; no I/O, `now` is an argument.

The order in three sentences. A study that was not judged (yet) keeps the place that its arrival gave it. The judged
studies share the remaining places, the most urgent first. A judged study that has waited for the configured maximum
goes before all judged ones that have not, in order of arrival, so that triage never holds anybody longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node.study import ReadingPriority, StudyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triage_node.config import WorklistSection

_IN_THE_QUEUE = (StudyState.WAITING, StudyState.JUDGED, StudyState.NOT_ANALYSED)
# Studies that are being read stand above the queue, those that have been read below it.
_BLOCKS = {StudyState.READING: 0, StudyState.READ: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the order of a study depends on."""

    study_instance_uid: str
    arrived_at: float
    state: StudyState
    covid_probability: float | None = None
    affected_fraction_right: float | None = None
    affected_fraction_left: float | None = None
    words: str = ""  # why it was not analysed

    @property
    def affected_fraction(self) -> float | None:
        """The larger of both lungs'."""
        known = [f for f in (self.affected_fraction_right, self.affected_fraction_left) if f is not None]
        return max(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a study stands, and why."""

    study_instance_uid: str
    rank: int  # from 1
    arrival_rank: int  # from 1, where it would stand without triage
    reading_priority: ReadingPriority
    reasons: tuple[str, ...]


def urgency(facts: Facts, settings: WorklistSection) -> float:
    """0..1, the larger the sooner (Goncharov 2021, section 1: the three kinds of clinic).

    Without an identification head the affected fraction is the index of both tasks (table 2).
    """
    fraction = facts.affected_fraction or 0.0
    probability = facts.covid_probability
    if probability is None:
        return fraction
    if settings.strategy == "identification":
        return probability
    if settings.strategy == "severity":
        # among the probable alone: an extensive lesion that is hardly COVID-19 counts as far as it is probable
        return fraction if probability >= settings.probability_medium else fraction * probability
    return settings.probability_weight * probability + (1 - settings.probability_weight) * fraction


def level(facts: Facts, settings: WorklistSection) -> ReadingPriority:
    """HIGH, MEDIUM or LOW; a study that was not judged is MEDIUM, since nothing is known of it."""
    if facts.state in (StudyState.WAITING, StudyState.NOT_ANALYSED) or facts.affected_fraction is None:
        return ReadingPriority.MEDIUM
    fraction, probability = facts.affected_fraction, facts.covid_probability
    by_fraction = _step(fraction, settings.fraction_high, settings.fraction_medium)
    if probability is None:
        return by_fraction
    by_probability = _step(probability, settings.probability_high, settings.probability_medium)
    if settings.strategy == "identification":
        return by_probability
    if settings.strategy == "severity":
        return by_fraction if probability >= settings.probability_medium else ReadingPriority.LOW
    return min(by_fraction, by_probability, key=list(ReadingPriority).index)


def _step(value: float, high: float, medium: float) -> ReadingPriority:
    if value >= high:
        return ReadingPriority.HIGH
    return ReadingPriority.MEDIUM if value >= medium else ReadingPriority.LOW


def arrange(studies: Sequence[Facts], settings: WorklistSection, now: float) -> list[Place]:
    """The reading list: every study once, in reading order."""
    by_arrival = sorted(studies, key=_by_arrival)
    queue = [facts for facts in by_arrival if facts.state in _IN_THE_QUEUE]
    judged = sorted(
        (facts for facts in queue if facts.state is StudyState.JUDGED), key=lambda facts: _sooner(facts, settings, now)
    )
    following = iter(judged)
    arranged = [next(following) if facts.state is StudyState.JUDGED else facts for facts in queue]
    reading = [facts for facts in by_arrival if _BLOCKS.get(facts.state) == 0]
    read = [facts for facts in by_arrival if _BLOCKS.get(facts.state) == 2]
    arrival_rank = {facts.study_instance_uid: rank for rank, facts in enumerate([*reading, *queue, *read], start=1)}
    return [
        Place(
            study_instance_uid=facts.study_instance_uid,
            rank=rank,
            arrival_rank=arrival_rank[facts.study_instance_uid],
            reading_priority=level(facts, settings),
            reasons=_reasons(facts, rank, arrival_rank[facts.study_instance_uid], settings, now),
        )
        for rank, facts in enumerate([*reading, *arranged, *read], start=1)
    ]


def _by_arrival(facts: Facts) -> tuple[float, str]:
    return facts.arrived_at, facts.study_instance_uid


def overdue(facts: Facts, settings: WorklistSection, now: float) -> bool:
    """Whether the study has waited for the configured maximum."""
    return now - facts.arrived_at >= settings.max_wait_min * 60


def _sooner(facts: Facts, settings: WorklistSection, now: float) -> tuple[bool, int, float, float, str]:
    late = overdue(facts, settings, now)
    if late:
        return (False, 0, 0.0, *_by_arrival(facts))
    step = list(ReadingPriority).index(level(facts, settings))
    return (True, step, -urgency(facts, settings), *_by_arrival(facts))


def percent(fraction: float) -> str:
    """A fraction for people: what is there is never written as zero."""
    return "<1%" if 0 < fraction < 0.005 else f"{fraction:.0%}"


def _reasons(facts: Facts, rank: int, arrival_rank: int, settings: WorklistSection, now: float) -> tuple[str, ...]:
    if facts.state is StudyState.WAITING:
        return ("not judged yet: keeps its place by arrival",)
    if facts.state is StudyState.NOT_ANALYSED:
        return (f"not analysed: {facts.words}", "keeps its place by arrival")
    if facts.state in _BLOCKS and facts.affected_fraction is None:
        return (f"not analysed: {facts.words}" if facts.words else "not judged", f"state: {facts.state}")
    reasons = []
    for side, fraction in (("right", facts.affected_fraction_right), ("left", facts.affected_fraction_left)):
        share = None if fraction is None else percent(fraction)
        reasons.append(f"no {side} lung found" if share is None else f"{share} of the {side} lung affected")
    if facts.covid_probability is not None:
        reasons.append(f"P(COVID-19) {facts.covid_probability:.2f}")
    if facts.state is StudyState.JUDGED and overdue(facts, settings, now):
        reasons.append(f"has waited longer than {settings.max_wait_min:g} min")
    if facts.state in _BLOCKS:
        reasons.append(f"state: {facts.state}")
    elif rank != arrival_rank:
        reasons.append(f"moved from {arrival_rank} to {rank}")
    return tuple(reasons)
