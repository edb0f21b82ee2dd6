"""Who is read when, seen as readers see it: they take the first of the list, again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_node import priority, reading_order
from triage_node.config import WorklistSection
from triage_node.priority import Facts
from triage_node.study import OrderPriority, StudyState

PACE_S = 300.0
MAXIMUM = WorklistSection(max_wait_min=60, strategy="severity")
PLACES_IN_MAXIMUM = 13  # the first is taken at once, the 13th after an hour


# ------------------------------------------------------------------ one list


def cost(order: tuple[int, ...] | list[int], last: list[float]) -> float:
    """By how many places the worst off stands behind its last place; 0 when nobody does."""
    return max((max(0.0, place - last[number]) for place, number in enumerate(order, start=1)), default=0.0)


queues = st.integers(0, 6).flatmap(
    lambda count: st.tuples(st.permutations(range(count)), st.lists(st.integers(-2, 8), min_size=count, max_size=count))
)


@given(queues)
def test_nobody_is_put_behind_his_last_place_wherever_there_is_an_order_without_that(queue) -> None:
    ranks, last = queue
    order = reading_order.arranged(ranks, last)
    assert sorted(order) == list(range(len(ranks)))
    best = min(cost(each, last) for each in permutations(range(len(ranks))))
    if best == 0:
        assert cost(order, last) == 0


@given(queues)
def test_the_more_urgent_stands_before_the_less_urgent_unless_somebody_would_be_put_too_far_back(queue) -> None:
    ranks, last = queue
    order = reading_order.arranged(ranks, last)
    for place, (first, second) in enumerate(pairwise(order), start=1):
        if ranks[first] > ranks[second]:  # the less urgent is before: it may not stand one further back, or is late
            assert last[first] <= place


@given(queues)
def test_without_limits_urgency_alone_decides(queue) -> None:
    ranks, last = queue
    order = reading_order.arranged(ranks, [reading_order.NO_LIMIT] * len(last))
    assert [ranks[number] for number in order] == sorted(ranks)


@given(queues)
def test_nobody_whose_last_place_is_that_of_his_arrival_stands_behind_it(queue) -> None:
    ranks, last = queue
    order = reading_order.arranged(ranks, last)
    for place, number in enumerate(order, start=1):
        assert place <= max(last[number], number + 1)


@given(queues, st.integers(0, 63))
def test_who_has_a_firm_place_stands_in_time_and_the_late_give_way(queue, which) -> None:
    """Firm places are those of arrival, or further forward by as many for all that came later."""
    ranks, last = queue
    firm = [bool(which >> number & 1) for number in range(len(ranks))]
    last = [number + 1 if is_firm else wish for number, (is_firm, wish) in enumerate(zip(firm, last, strict=True))]
    order = reading_order.arranged(ranks, last, firm)
    assert sorted(order) == list(range(len(ranks)))
    for place, number in enumerate(order, start=1):
        assert place <= last[number] or not firm[number]
    late = [number for number in order if last[number] < 1]
    assert late == sorted(late)


@given(st.permutations(range(6)))
def test_those_who_are_late_stand_in_order_of_arrival(ranks: list[int]) -> None:
    assert reading_order.arranged(ranks, [0, 0, 9, 0, 9, 9])[:3] == [0, 1, 3]


# ------------------------------------------------------------------ time and pace


def test_the_last_place_is_the_one_that_is_read_before_the_time_is_over() -> None:
    assert reading_order.places_in_time([300.0, 599.0, 600.0, 3600.0], 300.0) == [2, 2, 3, 13]
    assert reading_order.places_in_time([300.0, 600.0, 3600.0], 300.0, first=2) == [1, 2, 12]
    assert reading_order.places_in_time([900.0], 300.0, first=3) == [2]


def test_a_queue_too_long_to_keep_everybody_in_time_is_limited_by_those_alone_whose_time_is_over() -> None:
    none = reading_order.NO_LIMIT
    assert reading_order.places_in_time([200.0, 200.0], 300.0) == [none, none]
    assert reading_order.places_in_time([-1.0, 900.0], 300.0) == [0, none]
    assert reading_order.places_in_time([0.0, 900.0], 0.0) == [0, none]


@pytest.mark.parametrize(
    ("taken_at", "expected"),
    [
        ([], 0.0),
        ([0.0, 300.0, 600.0, 900.0, 1200.0], 0.0),  # four intervals tell too little
        ([0.0, 300.0, 600.0, 900.0, 1200.0, 1500.0], 300.0),
        ([0.0, 300.0, 600.0, 40000.0, 40300.0, 40600.0, 40900.0], 300.0),  # the night does not count
        ([*range(0, 6000, 60), *range(6000, 12000, 240)], 240.0),  # a reader has gone home
    ],
)
def test_the_pace_is_that_of_the_latest_studies_taken(taken_at: list[float], expected: float) -> None:
    assert reading_order.pace(taken_at) == expected


# ------------------------------------------------------------------ a day of reading


@dataclass(frozen=True, slots=True)
class Came:
    at_s: float
    fraction: float | None  # None: never judged
    stat: bool = False


def waits(day: list[Came], settings: WorklistSection, *, pace_s: float, triage: bool) -> list[float]:
    """How long each study waits until a reader takes it; every PACE_S one takes the first of the list."""
    facts = [
        Facts(
            study_instance_uid=f"2.25.{number:03d}",
            arrived_at=came.at_s,
            state=StudyState.NOT_ANALYSED if came.fraction is None else StudyState.JUDGED,
            affected_fraction_right=came.fraction,
            order_priority=OrderPriority.STAT if came.stat else None,
        )
        for number, came in enumerate(day)
    ]
    standings = {one.study_instance_uid: priority.standing(one, settings) for one in facts}
    waited: dict[str, float] = {}
    now = 0.0
    while len(waited) < len(day):
        here = [standings[one.study_instance_uid] for one in facts if one.arrived_at <= now]
        order = priority.turns(here, settings, now, pace_s, triage=triage)
        if order and order[0].standing.facts.state is not StudyState.READ:
            first = order[0].standing.facts
            waited[first.study_instance_uid] = now - first.arrived_at
            standings[first.study_instance_uid] = priority.standing(replace(first, state=StudyState.READ), settings)
        now += PACE_S
    return [waited[one.study_instance_uid] for one in facts]


def days(longest: int = 24, *, unjudged: bool = True) -> st.SearchStrategy[list[Came]]:
    fractions = st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.9])
    return st.lists(
        st.builds(
            Came,
            st.integers(0, 40).map(lambda step: step * PACE_S / 2),
            st.one_of(st.none(), fractions) if unjudged else fractions,
        ),
        min_size=1,
        max_size=longest,
    )


@given(days())
def test_nobody_waits_longer_than_the_maximum_while_a_reader_works_as_long_as_arrival_order_keeps_it(day) -> None:
    maximum = MAXIMUM.max_wait_min * 60
    if max(waits(day, MAXIMUM, pace_s=0.0, triage=False)) <= maximum:
        assert max(waits(day, MAXIMUM, pace_s=PACE_S, triage=True)) <= maximum


@given(days(), st.sampled_from([0.0, PACE_S / 3, PACE_S, PACE_S * 3]))
def test_triage_holds_nobody_back_for_longer_than_the_maximum_whatever_is_known_of_the_pace(day, pace_s) -> None:
    """Then it is read before all that come later, but for those whose turn in order of arrival it is."""
    by_arrival = waits(day, MAXIMUM, pace_s=0.0, triage=False)
    longest = max(waits(day, MAXIMUM, pace_s=pace_s, triage=True))
    assert longest <= MAXIMUM.max_wait_min * 60 + PACE_S + max(by_arrival)


@given(days(), st.sampled_from([0.0, PACE_S / 3, PACE_S, PACE_S * 3]))
def test_an_unjudged_study_is_never_read_later_than_in_order_of_arrival(day, pace_s) -> None:
    by_arrival = waits(day, MAXIMUM, pace_s=0.0, triage=False)
    for came, alone, triaged in zip(day, by_arrival, waits(day, MAXIMUM, pace_s=pace_s, triage=True), strict=True):
        if came.fraction is None:
            assert triaged <= alone


def test_a_stream_of_urgent_studies_starves_nobody() -> None:
    """A mild and an unjudged study, and from then on a severe one whenever a reader has time."""
    day = [Came(0.0, 0.0), Came(0.0, None), *(Came(number * PACE_S, 0.9) for number in range(40))]
    mild, unjudged, *severe = waits(day, MAXIMUM, pace_s=PACE_S, triage=True)
    assert mild <= MAXIMUM.max_wait_min * 60
    assert unjudged <= PACE_S  # as in order of arrival
    assert max(severe[: PLACES_IN_MAXIMUM - 3]) <= PACE_S


def test_many_mild_studies_of_one_moment_do_not_all_come_due_at_once() -> None:
    """Without planning they would be held until their time is over, and then wait for each other."""
    day = [*(Came(0.0, 0.0) for _ in range(8)), *(Came(number * PACE_S, 0.9) for number in range(40))]
    mild = waits(day, MAXIMUM, pace_s=PACE_S, triage=True)[:8]
    unplanned = waits(day, MAXIMUM, pace_s=0.0, triage=True)[:8]
    assert max(mild) <= MAXIMUM.max_wait_min * 60 < max(unplanned)


def test_what_is_ordered_stat_is_taken_next() -> None:
    day = [Came(0.0, 0.9), Came(0.0, None), Came(0.0, 0.9), Came(PACE_S, 0.0, stat=True)]
    assert waits(day, MAXIMUM, pace_s=PACE_S, triage=True)[3] == 0.0
