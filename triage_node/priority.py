"""Facts -> reading priority, place on the list and the reasons for both; no I/O, `now` is an argument.

The order in three sentences. A study that was not judged (yet) keeps the place that its arrival gave it. The judged
studies share the remaining places, the most urgent first. A judged study that has waited for the configured maximum
goes before all judged ones that have not, in order of arrival, so that triage never holds anybody longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node import operating
from triage_node.study import NO_CARD, ReadingPriority, StudyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triage_node.config import WorklistSection
    from triage_node.study import OperatingPoint

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
    operating_point: OperatingPoint = NO_CARD  # from the card of the model that judged it
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
        return fraction if probability >= _point(facts, settings).probability_medium else fraction * probability
    return settings.probability_weight * probability + (1 - settings.probability_weight) * fraction


def level(facts: Facts, settings: WorklistSection) -> ReadingPriority:
    """HIGH, MEDIUM or LOW; a study that was not judged is MEDIUM, since nothing is known of it."""
    return _level(facts, settings)[0]


def _level(facts: Facts, settings: WorklistSection) -> tuple[ReadingPriority, str]:
    """The level and, for a judged study, the thresholds that gave it."""
    if facts.state in (StudyState.WAITING, StudyState.NOT_ANALYSED) or facts.affected_fraction is None:
        return ReadingPriority.MEDIUM, ""
    point, probability = _point(facts, settings), facts.covid_probability
    by_fraction = _step(facts.affected_fraction, point.fraction_high, point.fraction_medium)
    high, medium = f"{100 * point.fraction_high:.3g}%", f"{100 * point.fraction_medium:.3g}%"
    fraction_words = _words("affected fraction", by_fraction, high, medium)
    if probability is None:
        return by_fraction, fraction_words
    by_probability = _step(probability, point.probability_high, point.probability_medium)
    high, medium = f"{point.probability_high:.3g}", f"{point.probability_medium:.3g}"
    probability_words = _words("P(COVID-19)", by_probability, high, medium)
    if settings.strategy == "identification":
        return by_probability, probability_words
    if settings.strategy == "severity":
        likely = by_probability is not ReadingPriority.LOW
        return (by_fraction, fraction_words) if likely else (ReadingPriority.LOW, probability_words)
    if by_fraction is by_probability:
        return by_fraction, f"{probability_words}, {fraction_words}"
    if list(ReadingPriority).index(by_fraction) < list(ReadingPriority).index(by_probability):
        return by_fraction, fraction_words
    return by_probability, probability_words


def _point(facts: Facts, settings: WorklistSection) -> OperatingPoint:
    return operating.resolved(facts.operating_point, worklist=settings)


def _step(value: float, high: float, medium: float) -> ReadingPriority:
    if value >= high:
        return ReadingPriority.HIGH
    return ReadingPriority.MEDIUM if value >= medium else ReadingPriority.LOW


def _words(what: str, step: ReadingPriority, high: str, medium: str) -> str:
    if step is ReadingPriority.LOW:
        return f"{what} under {medium}"
    return f"{what} from {high if step is ReadingPriority.HIGH else medium} on"


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
    reached, thresholds = _level(facts, settings)
    if thresholds:
        reasons.append(f"{reached}: {thresholds}")
    if facts.state is StudyState.JUDGED and overdue(facts, settings, now):
        reasons.append(f"has waited longer than {settings.max_wait_min:g} min")
    if facts.state in _BLOCKS:
        reasons.append(f"state: {facts.state}")
    elif rank != arrival_rank:
        reasons.append(f"moved from {arrival_rank} to {rank}")
    return tuple(reasons)
