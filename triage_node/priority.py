"""Facts -> reading priority, place on the list and the reasons for both; no I/O, `now` is an argument.

The order in five sentences. What was ordered STAT stands before all that was not. A study that was not judged (yet)
keeps the place that its arrival gave it, and moves up for each later one that is read before it, so it is read no later
than in order of arrival. The judged studies share the remaining places, the most urgent first. Nobody is put so far
back that he would wait longer than the configured maximum, as long as arrival order would keep it for everybody; for
this the pace of reading must be known. Who has waited longer stands before all judged ones who have not, in order of
arrival.

reading_order.py makes the order, this module says what goes into it and what is said of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from triage_node import operating, reading_order
from triage_node.study import NO_CARD, OrderPriority, ReadingPriority, StudyState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triage_node.config import WorklistSection
    from triage_node.study import OperatingPoint

IN_THE_QUEUE = (StudyState.WAITING, StudyState.JUDGED, StudyState.NOT_ANALYSED)
_HAS_FINDINGS = (StudyState.JUDGED, StudyState.READING, StudyState.READ, StudyState.CANCELLED)
LEVELS = tuple(ReadingPriority)  # the most urgent first
_STEPS = {level: step for step, level in enumerate(LEVELS)}
# The level that an order asks for at least. ROUTINE and LOW ask for no hurry (PS3.3 table C.30.2-1: LOW is routine).
_ORDERED = {
    OrderPriority.STAT: ReadingPriority.HIGH,
    OrderPriority.HIGH: ReadingPriority.HIGH,
    OrderPriority.MEDIUM: ReadingPriority.MEDIUM,
}


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
    order_priority: OrderPriority | None = None  # None: none came with the study

    @property
    def affected_fraction(self) -> float | None:
        """The larger of both lungs'."""
        right, left = self.affected_fraction_right, self.affected_fraction_left
        if right is None or left is None:
            return left if right is None else right
        return max(right, left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What can be said of a study without the others and without the time: made once, used in every order."""

    facts: Facts
    level: ReadingPriority
    numbers: str  # what decides, in a few words
    findings: tuple[str, ...]  # the same in detail, with what gave the level; empty where nothing was judged
    arrival: tuple[float, str]  # sorts by arrival; studies of the same instant by UID
    urgency: tuple[int, float, float, str]  # sorts by level, then by index, then by arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Where a study stands; `Place` is the same in words."""

    standing: Standing
    rank: int  # from 1
    arrival_rank: int  # from 1, where it would stand without triage: what was ordered STAT first, then by arrival
    overtaken_by: int = 0  # later ones that were read before it, by which an unjudged study moves up
    at_last_place: bool = False  # the maximum wait lets it stand no further back


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a study stands, and why."""

    study_instance_uid: str
    rank: int  # from 1
    arrival_rank: int  # from 1, where it would stand without triage
    reading_priority: ReadingPriority
    explanation: str  # one sentence: from where to where, and the numbers that did it
    reasons: tuple[str, ...]  # the same in detail, a sentence each


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
    """HIGH, MEDIUM or LOW; a study that was not judged is MEDIUM, since nothing is known of it.

    What was ordered with a higher priority keeps it whatever the images show.
    """
    return _level(facts, settings)[0]


def _level(facts: Facts, settings: WorklistSection) -> tuple[ReadingPriority, str]:
    """The level, and the order or the thresholds that gave it."""
    found, why = _level_by_images(facts, settings)
    ordered = _ORDERED.get(facts.order_priority) if facts.order_priority else None
    if ordered is not None and _STEPS[ordered] < _STEPS[found]:
        return ordered, f"ordered {facts.order_priority}"
    return found, why


def _level_by_images(facts: Facts, settings: WorklistSection) -> tuple[ReadingPriority, str]:
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
    if _STEPS[by_fraction] < _STEPS[by_probability]:
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


def standing(facts: Facts, settings: WorklistSection) -> Standing:
    """What the facts say under these settings."""
    reached, why = _level(facts, settings)
    arrival = (facts.arrived_at, facts.study_instance_uid)
    return Standing(
        facts=facts,
        level=reached,
        numbers=_numbers(facts),
        findings=_findings(facts, reached, why),
        arrival=arrival,
        urgency=(_STEPS[reached], -urgency(facts, settings), *arrival),
    )


def turns(
    standings: Iterable[Standing],
    settings: WorklistSection,
    now: float,
    pace_s: float = 0.0,
    *,
    first: int | None = None,
    triage: bool = True,
) -> list[Turn]:
    """The reading list as it is now: every study once, in reading order, or the `first` so many of all.

    `pace_s` is how often a reader takes the next study, 0 where that is not known. Without `triage`: in order of
    arrival, as it would be without this program.
    """
    by_arrival = sorted(standings, key=attrgetter("arrival"))
    reading: list[Standing] = []
    stat: list[Standing] = []
    queue: list[Standing] = []
    below: list[Standing] = []  # read or called off
    taken: dict[bool, list[tuple[float, str]]] = {True: [], False: []}  # who left the queue, ordered STAT or not
    for one in by_arrival:
        state, is_stat = one.facts.state, one.facts.order_priority is OrderPriority.STAT
        if state in IN_THE_QUEUE:
            (stat if is_stat else queue).append(one)
            continue
        (reading if state is StudyState.READING else below).append(one)
        if state is not StudyState.CANCELLED:
            taken[is_stat].append(one.arrival)
    following: list[Turn] = []
    above = 0
    for block, gone in ((reading, None), (stat, taken[True]), (queue, taken[False]), (below, None)):
        wanted = len(block) if first is None else max(0, min(len(block), first - above))
        if wanted and gone is not None and triage:
            following += _queue(block, gone, settings, now, pace_s, len(reading), above, wanted)
        else:
            ranks = enumerate(block[:wanted], start=above + 1)
            following += [Turn(standing=one, rank=rank, arrival_rank=rank) for rank, one in ranks]
        above += len(block)
    return following


def _queue(
    block: Sequence[Standing],
    taken: Sequence[tuple[float, str]],
    settings: WorklistSection,
    now: float,
    pace_s: float,
    reading: int,
    above: int,
    wanted: int,
) -> list[Turn]:
    """The first `wanted` turns of studies that came in this order, `above` on the list before them, `reading` open."""
    ends_s = settings.max_wait_min * 60 - now
    last = reading_order.places_in_time([one.arrival[0] + ends_s for one in block], pace_s, above - reading + 1)
    judged = [one.facts.state is StudyState.JUDGED for one in block]
    overtaken = [0] * len(block)
    for number, one in enumerate(block):
        if not judged[number]:
            last[number] = by_arrival = reading_order.place_by_arrival(number, one.arrival, taken)
            overtaken[number] = number + 1 - by_arrival
    # Nothing is known of what was not judged: it gives way to all others, within its last place, unless it was ordered
    # with a priority.
    silent = [not known and one.level is not ReadingPriority.HIGH for known, one in zip(judged, block, strict=True)]
    keys = [(quiet, *one.urgency) for quiet, one in zip(silent, block, strict=True)]
    ranks = [0] * len(block)
    for rank, number in enumerate(sorted(range(len(block)), key=keys.__getitem__)):
        ranks[number] = rank
    order = reading_order.arranged(ranks, last, [not known for known in judged])
    return [
        Turn(
            standing=block[number],
            rank=above + place,
            arrival_rank=above + number + 1,
            overtaken_by=overtaken[number],
            at_last_place=judged[number] and place >= last[number],
        )
        for place, number in enumerate(order[:wanted], start=1)
    ]


def place(turn: Turn, settings: WorklistSection, now: float) -> Place:
    """A turn in words."""
    facts = turn.standing.facts
    return Place(
        study_instance_uid=facts.study_instance_uid,
        rank=turn.rank,
        arrival_rank=turn.arrival_rank,
        reading_priority=turn.standing.level,
        explanation=_explanation(turn, settings, now),
        reasons=_reasons(turn, settings, now),
    )


def arrange(studies: Sequence[Facts], settings: WorklistSection, now: float, pace_s: float = 0.0) -> list[Place]:
    """The reading list in words: every study once, in reading order; see `turns`."""
    order = turns([standing(facts, settings) for facts in studies], settings, now, pace_s)
    return [place(turn, settings, now) for turn in order]


def overdue(facts: Facts, settings: WorklistSection, now: float) -> bool:
    """Whether the study has waited for the configured maximum."""
    return now - facts.arrived_at >= settings.max_wait_min * 60


def percent(fraction: float) -> str:
    """A fraction for people: what is there is never written as zero."""
    return "<1%" if 0 < fraction < 0.005 else f"{fraction:.0%}"


def probability(value: float) -> str:
    """A probability for people: what was judged is never written as impossible or certain."""
    return "<0.01" if value < 0.01 else ">0.99" if value > 0.99 else f"{value:.2f}"


def _explanation(turn: Turn, settings: WorklistSection, now: float) -> str:
    facts, numbers = turn.standing.facts, turn.standing.numbers
    if facts.state is StudyState.READING:
        return f"is being read, so it stands above the queue: {numbers}"
    if facts.state is StudyState.READ:
        return f"has been read, so it stands below the queue: {numbers}"
    if facts.state is StudyState.CANCELLED:
        return f"its reading was called off, so it stands below the queue: {numbers}"
    why = []
    if facts.order_priority in (OrderPriority.STAT, OrderPriority.HIGH):
        why.append(f"ordered {facts.order_priority}")
    if facts.state is StudyState.JUDGED and turn.at_last_place:
        why.append(_held(facts, settings, now))
    why.append(numbers)
    if turn.rank == turn.arrival_rank:
        return f"stands as it came: {', '.join(why)}"
    moved = f"moved from {turn.arrival_rank} to {turn.rank}"
    if turn.overtaken_by:
        why.append(f"{turn.overtaken_by} that came later read before it")
    if turn.rank > turn.arrival_rank:
        return f"{moved}, behind more urgent ones: {', '.join(why)}"
    return f"{moved}: {', '.join(why)}"


def _numbers(facts: Facts) -> str:
    """What decides of a study in a few words: the worse lung and the probability, or why there are no such numbers."""
    fraction = facts.affected_fraction
    if fraction is None:
        if facts.words:
            return f"not analysed: {facts.words}"
        return "not judged yet" if facts.state is StudyState.WAITING else "not judged"
    right, left = facts.affected_fraction_right, facts.affected_fraction_left
    side = "each" if right == left else "the right" if fraction == right else "the left"
    words = f"{percent(fraction)} of {side} lung affected"
    return words if facts.covid_probability is None else f"{words}, P(COVID-19) {probability(facts.covid_probability)}"


def _held(facts: Facts, settings: WorklistSection, now: float) -> str:
    """Why a study stands no further back; in words that do not change with every minute."""
    limit = f"{settings.max_wait_min:g} min"
    return f"has waited longer than {limit}" if overdue(facts, settings, now) else f"else it would wait over {limit}"


def _findings(facts: Facts, reached: ReadingPriority, why: str) -> tuple[str, ...]:
    if facts.state not in _HAS_FINDINGS or (facts.affected_fraction is None and facts.state is not StudyState.JUDGED):
        return ()
    found = []
    for side, fraction in (("right", facts.affected_fraction_right), ("left", facts.affected_fraction_left)):
        found.append(
            f"no {side} lung found" if fraction is None else f"{percent(fraction)} of the {side} lung affected"
        )
    if facts.covid_probability is not None:
        found.append(f"P(COVID-19) {probability(facts.covid_probability)}")
    if why:
        found.append(f"{reached}: {why}")
    if facts.order_priority and why != f"ordered {facts.order_priority}":
        found.append(f"ordered {facts.order_priority}")
    return tuple(found)


def _reasons(turn: Turn, settings: WorklistSection, now: float) -> tuple[str, ...]:
    facts, findings = turn.standing.facts, turn.standing.findings
    if not findings:
        findings = ("not judged yet" if facts.state is StudyState.WAITING else "not judged",)
        if facts.words:
            findings = (f"not analysed: {facts.words}",)
        if facts.order_priority:
            findings += (f"ordered {facts.order_priority}",)
    if facts.state not in IN_THE_QUEUE:
        return (*findings, f"state: {facts.state}")
    if facts.state is not StudyState.JUDGED:
        if turn.overtaken_by:
            findings += (f"{turn.overtaken_by} that came later read before it",)
        if turn.rank == turn.arrival_rank:
            return (*findings, "keeps its place by arrival")
    elif turn.at_last_place or overdue(facts, settings, now):
        findings += (_held(facts, settings, now),)
    if turn.rank == turn.arrival_rank:
        return findings
    return (*findings, f"moved from {turn.arrival_rank} to {turn.rank}")
