"""The simulated room behaves as queueing theory says, and reads in the order of the node's list."""

from __future__ import annotations

import math
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_node import priority, reading_room
from triage_node.config import WorklistSection
from triage_node.priority import Facts
from triage_node.reading_room import Case, Rules
from triage_node.study import OrderPriority, StudyState

NEVER_OVERDUE = WorklistSection(max_wait_min=1e9, strategy="severity")
MINUTE = 60.0


def case(
    number: int,
    arrived_at: float,
    fraction: float | None = 0.0,
    *,
    answered_after: float | None = 0.0,
    reading_s: float = 10 * MINUTE,
    order_priority: OrderPriority | None = None,
) -> Case:
    state = StudyState.NOT_ANALYSED if fraction is None else StudyState.JUDGED
    facts = Facts(
        study_instance_uid=f"2.25.{number:06d}",
        arrived_at=arrived_at,
        state=state,
        affected_fraction_right=fraction,
        order_priority=order_priority,
    )
    answered_at = None if answered_after is None else arrived_at + answered_after
    return Case(facts=facts, answered_at=answered_at, reading_s=reading_s)


def stream(seed: int, number: int, apart_s: float, reading_s: float, urgent: float = 0.0) -> list[Case]:
    """A Poisson stream of studies with exponential reading times, of which a share is urgent."""
    chance = np.random.default_rng(seed)
    at = np.cumsum(chance.exponential(apart_s, number))
    lasts = chance.exponential(reading_s, number)
    severe = chance.random(number) < urgent
    return [
        case(index, float(at[index]), 0.9 if severe[index] else 0.0, reading_s=float(lasts[index]))
        for index in range(number)
    ]


def erlang_c(readers: int, load: float) -> float:
    """The probability that a study has to wait, with `load` readers' worth of work."""
    below = sum(load**k / math.factorial(k) for k in range(readers))
    full = load**readers / math.factorial(readers) * readers / (readers - load)
    return full / (below + full)


@pytest.mark.parametrize(("readers", "load"), [(1, 0.7), (3, 2.4)])
def test_in_order_of_arrival_studies_wait_as_long_as_queueing_theory_says(readers: int, load: float) -> None:
    """M/M/c: the mean wait is C(c, a) s / (c - a)."""
    reading_s = 600.0
    cases = stream(5, 12000, reading_s / load, reading_s)
    readings = reading_room.read_by_roster(cases, Rules(worklist=NEVER_OVERDUE, triage=False), [readers])
    expected = erlang_c(readers, load) * reading_s / (readers - load)
    assert mean(reading.wait_s for reading in readings) == pytest.approx(expected, rel=0.1)


def test_under_triage_the_urgent_and_the_others_wait_as_long_as_queueing_theory_says() -> None:
    """Two classes, the one before the other, nobody is interrupted: W1 = W0 / (1 - r1), W2 = W1 / (1 - r) (Cobham)."""
    reading_s, load, urgent = 600.0, 0.8, 0.25
    cases = stream(2, 12000, reading_s / load, reading_s, urgent)
    rules = Rules(worklist=NEVER_OVERDUE, planned=False)
    waits: dict[bool, list[float]] = {True: [], False: []}
    for reading in reading_room.read_by_roster(cases, rules, [1]):
        waits[reading.case.facts.affected_fraction_right == 0.9].append(reading.wait_s)
    residual = load * reading_s
    first = residual / (1 - load * urgent)
    assert mean(waits[True]) == pytest.approx(first, rel=0.1)
    assert mean(waits[False]) == pytest.approx(first / (1 - load), rel=0.15)


def rooms() -> st.SearchStrategy[list[Case]]:
    one = st.tuples(
        st.integers(0, 60),
        st.sampled_from([None, 0.0, 0.3, 0.9]),
        st.sampled_from([None, 0.0, 5 * MINUTE, 90 * MINUTE]),
        st.sampled_from([0.0, MINUTE, 30 * MINUTE]),
        st.sampled_from([None, None, None, OrderPriority.STAT]),
    )
    return st.lists(one, max_size=15).map(
        lambda rows: [
            case(number, at * 7 * MINUTE, fraction, answered_after=after, reading_s=reading_s, order_priority=stat)
            for number, (at, fraction, after, reading_s, stat) in enumerate(rows)
        ]
    )


rosters = st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any)
rules = st.builds(
    Rules, worklist=st.just(WorklistSection(max_wait_min=90)), triage=st.booleans(), planned=st.booleans()
)


@given(rooms(), rules, rosters)
def test_everybody_is_read_once_after_arriving_and_no_more_at_a_time_than_readers_work(cases, rules, roster) -> None:
    readings = reading_room.read_by_roster(cases, rules, roster)
    assert sorted(one.case.facts.study_instance_uid for one in readings) == [
        one.facts.study_instance_uid for one in cases
    ]
    for one in readings:
        assert one.wait_s >= 0
        at_work = roster[int(one.taken_at // 3600) % len(roster)]
        at_once = [other for other in readings if other.taken_at <= one.taken_at < other.finished_at]
        assert len(at_once) <= max(at_work, 1) or one.case.reading_s == 0


@given(rooms(), rules)
def test_a_reader_takes_what_stands_first_on_the_nodes_own_list(cases, rules) -> None:
    """The list is asked for anew from the facts that were known at that moment."""
    rules = Rules(worklist=rules.worklist, triage=True, planned=False)
    readings = reading_room.read_by_roster(cases, rules, [1])
    taken: dict[str, float] = {}
    for reading in readings:
        now = reading.taken_at
        known = []
        for one in cases:
            facts = one.facts
            if facts.arrived_at > now:
                continue
            if facts.study_instance_uid in taken:
                state = StudyState.READ
            elif one.answered_at is not None and one.answered_at <= now:
                state = facts.state
            else:
                state = StudyState.WAITING
            known.append(
                Facts(
                    study_instance_uid=facts.study_instance_uid,
                    arrived_at=facts.arrived_at,
                    state=state,
                    affected_fraction_right=None if state is StudyState.WAITING else facts.affected_fraction_right,
                    order_priority=facts.order_priority,
                )
            )
        first = priority.arrange(known, rules.worklist, now)[0]
        assert first.study_instance_uid == reading.case.facts.study_instance_uid
        taken[first.study_instance_uid] = now


def test_nobody_reads_while_nobody_is_there_and_who_has_begun_ends_it() -> None:
    readings = reading_room.read_by_roster(
        [case(0, 0.0, reading_s=90 * MINUTE), case(1, 0.0)], Rules(worklist=NEVER_OVERDUE), [1, 0, 0]
    )
    assert [one.taken_at for one in readings] == [0.0, 3 * 3600.0]
    assert readings[0].turnaround_s == 90 * MINUTE


def test_a_room_where_nobody_ever_works_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reader"):
        reading_room.read_by_roster([], Rules(worklist=NEVER_OVERDUE), [0] * 24)


def test_a_study_without_an_answer_keeps_its_place_and_with_it_goes_first() -> None:
    cases = [case(0, 0.0), case(1, 0.0), case(2, 0.0), case(3, 0.0, 0.9, answered_after=15 * MINUTE)]
    readings = reading_room.read_by_roster(cases, Rules(worklist=NEVER_OVERDUE), [1])
    assert [one.case.facts.study_instance_uid[-1] for one in readings] == ["0", "1", "3", "2"]


def test_a_diary_takes_studies_at_its_moments_alone() -> None:
    cases = [case(0, 100.0), case(1, 200.0, 0.9), case(2, 300.0, 0.5)]
    rules = Rules(worklist=NEVER_OVERDUE)
    readings = reading_room.read_by_diary(cases, rules, [50.0, 250.0, 350.0])
    assert [(one.case.facts.study_instance_uid[-1], one.taken_at) for one in readings] == [("1", 250.0), ("2", 350.0)]
    assert len(reading_room.read_by_diary(cases, rules, [400.0] * 9)) == 3
