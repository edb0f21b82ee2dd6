from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_node import priority
from triage_node.config import WorklistSection
from triage_node.priority import Facts, Place
from triage_node.study import OperatingPoint, OrderPriority, ReadingPriority, StudyState

HIGH, MEDIUM, LOW = ReadingPriority
WAITING, JUDGED, NOT_ANALYSED, READING, READ, CANCELLED = StudyState
NOW = 100_000.0
STRATEGIES = ("identification", "severity", "combined")
IN_THE_QUEUE = (WAITING, JUDGED, NOT_ANALYSED)


def judged(uid: str, waits_min: float, fraction: float | None, probability: float | None = None) -> Facts:
    return Facts(
        study_instance_uid=uid,
        arrived_at=NOW - waits_min * 60,
        state=JUDGED,
        covid_probability=probability,
        affected_fraction_right=fraction,
        affected_fraction_left=None if fraction is None else fraction / 2,
    )


def unjudged(uid: str, waits_min: float, state: StudyState = WAITING, words: str = "") -> Facts:
    return Facts(study_instance_uid=uid, arrived_at=NOW - waits_min * 60, state=state, words=words)


def order(studies: list[Facts], settings: WorklistSection | None = None) -> str:
    return "".join(place.study_instance_uid for place in arrange(studies, settings))


def arrange(studies: list[Facts], settings: WorklistSection | None = None) -> list[Place]:
    return priority.arrange(studies, settings or WorklistSection(), NOW)


def test_unjudged_studies_stand_in_the_order_of_arrival() -> None:
    assert order([unjudged("b", 20), unjudged("c", 10, NOT_ANALYSED), unjudged("a", 30)]) == "abc"


def test_a_severe_study_goes_before_those_that_came_earlier() -> None:
    studies = [judged("a", 30, 0.0), judged("b", 20, 0.1), judged("c", 10, 0.7)]
    assert order(studies) == "cba"
    assert [place.reading_priority for place in arrange(studies)] == [HIGH, LOW, LOW]


def test_studies_that_were_not_judged_keep_their_place_by_arrival() -> None:
    studies = [judged("a", 50, 0.0), unjudged("b", 40), judged("c", 30, 0.3), unjudged("d", 20, NOT_ANALYSED)]
    studies.append(judged("e", 10, 0.9))
    assert order(studies) == "ebcda"


def test_what_has_waited_for_the_maximum_goes_first_by_arrival() -> None:
    settings = WorklistSection(max_wait_min=60)
    studies = [judged("a", 80, 0.0), judged("b", 70, 0.9), judged("c", 60, 0.1), judged("d", 59, 1.0)]
    assert order(studies, settings) == "abcd"
    assert "has waited longer than 60 min" in arrange(studies, settings)[2].reasons


def test_open_studies_stand_above_the_queue_and_read_ones_below() -> None:
    studies = [
        judged("a", 30, 0.0),
        replace(judged("b", 50, 0.9), state=READ),
        replace(judged("c", 5, 0.1), state=READING),
    ]
    studies.append(judged("d", 10, 0.8))
    assert order(studies) == "cdab"


PATIENTS = {
    # waits, affected fraction, probability
    "P": (30, 0.1, 0.9),
    "S": (20, 0.6, 0.3),
    "X": (10, 0.9, 0.1),  # extensive, hardly COVID-19
}


@pytest.mark.parametrize(
    ("strategy", "expected", "levels"),
    [
        ("identification", "PSX", [HIGH, MEDIUM, LOW]),
        ("severity", "SPX", [HIGH, LOW, LOW]),
        ("combined", "PXS", [HIGH, HIGH, HIGH]),
    ],
)
def test_each_strategy_sorts_by_its_own_index(strategy, expected: str, levels: list[ReadingPriority]) -> None:
    studies = [judged(uid, *facts) for uid, facts in PATIENTS.items()]
    places = arrange(studies, WorklistSection(strategy=strategy))
    assert "".join(place.study_instance_uid for place in places) == expected
    assert [place.reading_priority for place in places] == levels


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, LOW), (0.249, LOW), (0.25, MEDIUM), (0.499, MEDIUM), (0.5, HIGH), (1.0, HIGH)]
)
def test_without_an_identification_head_the_fraction_gives_the_level(strategy, fraction: float, expected) -> None:
    assert priority.level(judged("a", 1, fraction), WorklistSection(strategy=strategy)) is expected


CARD = OperatingPoint(probability_high=0.8, probability_medium=0.6, fraction_high=0.4, fraction_medium=0.125)


@pytest.mark.parametrize(
    ("strategy", "fraction", "probability", "reason"),
    [
        ("identification", 0.9, 0.8, "HIGH: P(COVID-19) from 0.8 on"),
        ("identification", 0.9, 0.79, "MEDIUM: P(COVID-19) from 0.6 on"),
        ("identification", 0.9, 0.59, "LOW: P(COVID-19) under 0.6"),
        ("severity", 0.4, 0.6, "HIGH: affected fraction from 40% on"),
        ("severity", 0.4, 0.59, "LOW: P(COVID-19) under 0.6"),
        ("severity", 0.12, 0.9, "LOW: affected fraction under 12.5%"),
        ("combined", 0.125, 0.59, "MEDIUM: affected fraction from 12.5% on"),
        ("combined", 0.125, 0.8, "HIGH: P(COVID-19) from 0.8 on"),
        ("combined", 0.125, 0.6, "MEDIUM: P(COVID-19) from 0.6 on, affected fraction from 12.5% on"),
        ("combined", 0.0, 0.0, "LOW: P(COVID-19) under 0.6, affected fraction under 12.5%"),
        ("combined", 0.12, None, "LOW: affected fraction under 12.5%"),
    ],
)
def test_the_card_of_the_model_that_judged_gives_the_thresholds_and_the_reason_names_them(
    strategy, fraction: float, probability: float | None, reason: str
) -> None:
    facts = replace(judged("a", 1, fraction, probability), operating_point=CARD)
    (place,) = arrange([facts], WorklistSection(strategy=strategy))
    assert reason in place.reasons
    assert reason.startswith(f"{place.reading_priority}: ")


def test_a_configured_threshold_goes_before_the_cards() -> None:
    facts = replace(judged("a", 1, 0.39, 0.3), operating_point=CARD)
    assert priority.level(facts, WorklistSection()) is MEDIUM
    assert priority.level(facts, WorklistSection(fraction_high=0.39)) is HIGH
    assert priority.level(facts, WorklistSection(fraction_medium=0.4)) is LOW


def test_studies_of_two_models_are_each_measured_by_their_own_card() -> None:
    studies = [judged("a", 20, 0.45), replace(judged("b", 10, 0.42), operating_point=CARD)]
    assert [place.study_instance_uid for place in arrange(studies)] == ["b", "a"]
    assert [place.reading_priority for place in arrange(studies)] == [HIGH, MEDIUM]


def test_the_worse_lung_counts_and_a_missing_one_is_named() -> None:
    facts = replace(judged("a", 1, None), affected_fraction_left=0.6)
    (place,) = arrange([facts])
    assert place.reading_priority is HIGH
    assert place.reasons == (
        "no right lung found",
        "60% of the left lung affected",
        "HIGH: affected fraction from 50% on",
    )


def test_a_study_that_was_not_judged_is_medium_and_says_why() -> None:
    (place,) = arrange([unjudged("a", 1, NOT_ANALYSED, "3 slices are missing")])
    assert place.reading_priority is MEDIUM
    assert place.reasons == ("not analysed: 3 slices are missing", "keeps its place by arrival")


@pytest.mark.parametrize("state", [READING, READ])
def test_what_is_opened_before_it_was_judged_is_not_said_to_lack_lungs(state: StudyState) -> None:
    assert arrange([unjudged("a", 1, state)])[0].reasons == ("not judged", f"state: {state}")
    refused = unjudged("a", 1, state, "no lungs found")
    assert arrange([refused])[0].reasons == ("not analysed: no lungs found", f"state: {state}")


def test_who_moved_is_told_from_where_to_where() -> None:
    first, second = arrange([judged("a", 30, 0.0), judged("b", 20, 0.9)])
    assert first.reasons[-1] == "moved from 2 to 1"
    assert second.reasons[-1] == "moved from 1 to 2"


fractions = st.floats(0, 1)
maybe = st.one_of(st.none(), fractions)


@st.composite
def lists(draw: st.DrawFn, states: tuple[StudyState, ...] = tuple(StudyState)) -> list[Facts]:
    studies = []
    for number in range(draw(st.integers(0, 8))):
        state = draw(st.sampled_from(states))
        known = state in (JUDGED, READING, READ)
        studies.append(
            Facts(
                study_instance_uid=f"2.25.{number}",
                arrived_at=NOW - draw(st.sampled_from([0, 60, 600, 3600, 7199, 7200, 9000])),
                state=state,
                covid_probability=draw(maybe) if known else None,
                affected_fraction_right=draw(maybe) if known else None,
                affected_fraction_left=draw(maybe) if known else None,
                words="" if state is not NOT_ANALYSED else "gap",
            )
        )
    return studies


@st.composite
def sections(draw: st.DrawFn) -> WorklistSection:
    high, other = draw(fractions), draw(fractions)
    sure, less = draw(fractions), draw(fractions)
    return WorklistSection(
        strategy=draw(st.sampled_from(STRATEGIES)),
        fraction_high=max(high, other),
        fraction_medium=min(high, other),
        probability_high=max(sure, less),
        probability_medium=min(sure, less),
        probability_weight=draw(fractions),
    )


@given(lists(), sections(), st.randoms(use_true_random=False))
def test_the_list_is_one_order_of_all_studies_whatever_the_order_of_the_input(studies, settings, chance) -> None:
    places = arrange(studies, settings)
    assert sorted(place.study_instance_uid for place in places) == sorted(f.study_instance_uid for f in studies)
    assert [place.rank for place in places] == list(range(1, len(studies) + 1))
    assert sorted(place.arrival_rank for place in places) == [place.rank for place in places]
    assert all(place.reasons for place in places)
    shuffled = list(studies)
    chance.shuffle(shuffled)
    assert arrange(shuffled, settings) == places


@given(lists(), sections())
def test_a_study_that_moved_says_so(studies, settings) -> None:
    for place in arrange(studies, settings):
        moved = f"moved from {place.arrival_rank} to {place.rank}" in place.reasons
        assert moved == (place.rank != place.arrival_rank)


@given(lists(), sections())
def test_an_unjudged_study_stands_where_its_arrival_puts_it_or_before(studies, settings) -> None:
    """Before it by one place for each later study that a reader has taken already."""
    facts = {one.study_instance_uid: one for one in studies}
    taken = [(one.arrived_at, one.study_instance_uid) for one in studies if one.state in (READING, READ)]
    reading = sum(one.state is READING for one in studies)
    places = arrange(studies, settings)
    for place in places:
        one = facts[place.study_instance_uid]
        if one.state in (WAITING, NOT_ANALYSED):
            overtaken = sum(arrived > (one.arrived_at, one.study_instance_uid) for arrived in taken)
            due = max(reading + 1, place.arrival_rank - overtaken)
            standing_before = [facts[other.study_instance_uid].state for other in places[reading : place.rank - 1]]
            # several whose turn is over already stand one after the other
            assert place.rank <= due or JUDGED not in standing_before
            assert place.rank <= place.arrival_rank
        elif one.state is not JUDGED:
            assert place.rank == place.arrival_rank


@given(lists(IN_THE_QUEUE), sections())
def test_an_unjudged_study_stands_exactly_where_its_arrival_puts_it_when_nothing_was_read_before(
    studies, settings
) -> None:
    states = {facts.study_instance_uid: facts.state for facts in studies}
    for place in arrange(studies, settings):
        if states[place.study_instance_uid] is not JUDGED:
            assert place.rank == place.arrival_rank


def test_an_unjudged_study_moves_up_for_each_later_one_that_was_read() -> None:
    """In order of arrival two others would be gone by now instead."""
    studies = [judged("a", 50, 0.0), judged("b", 45, 0.0), judged("c", 42, 0.0), unjudged("d", 40)]
    studies += [replace(judged("e", 20, 0.9), state=READ), replace(judged("f", 10, 0.9), state=READ)]
    places = arrange(studies)
    assert "".join(place.study_instance_uid for place in places) == "adbcef"
    assert places[1].reasons == ("not judged yet", "2 that came later read before it", "moved from 4 to 2")
    assert places[1].explanation == "moved from 4 to 2: not judged yet, 2 that came later read before it"


@given(lists(IN_THE_QUEUE), sections())
def test_overdue_judged_studies_stand_before_all_other_judged_ones_by_arrival(studies, settings) -> None:
    by_uid = {facts.study_instance_uid: facts for facts in studies}
    following = [by_uid[place.study_instance_uid] for place in arrange(studies, settings)]
    late = [priority.overdue(facts, settings, NOW) for facts in following if facts.state is JUDGED]
    assert late == sorted(late, reverse=True)
    arrivals = [f.arrived_at for f in following if f.state is JUDGED and priority.overdue(f, settings, NOW)]
    assert arrivals == sorted(arrivals)


@given(lists(IN_THE_QUEUE), sections())
def test_triage_puts_no_later_study_before_an_overdue_one(studies, settings) -> None:
    by_uid = {facts.study_instance_uid: facts for facts in studies}
    following = [by_uid[place.study_instance_uid] for place in arrange(studies, settings)]
    for position, facts in enumerate(following):
        if priority.overdue(facts, settings, NOW):
            assert all(earlier.arrived_at <= facts.arrived_at for earlier in following[:position])


@given(lists(), sections(), st.data())
def test_a_larger_affected_fraction_never_moves_a_study_back(studies, settings, data) -> None:
    candidates = [facts for facts in studies if facts.state is JUDGED and facts.affected_fraction is not None]
    if not candidates:
        return
    chosen = data.draw(st.sampled_from(candidates))
    worse = replace(chosen, affected_fraction_right=data.draw(st.floats(chosen.affected_fraction or 0.0, 1.0)))
    changed = [worse if facts is chosen else facts for facts in studies]
    assert rank_of(chosen, changed, settings) <= rank_of(chosen, studies, settings)


@given(lists(), sections(), st.data())
def test_a_larger_probability_never_moves_a_study_back(studies, settings, data) -> None:
    candidates = [facts for facts in studies if facts.state is JUDGED and facts.covid_probability is not None]
    if not candidates:
        return
    chosen = data.draw(st.sampled_from(candidates))
    likelier = replace(chosen, covid_probability=data.draw(st.floats(chosen.covid_probability or 0.0, 1.0)))
    changed = [likelier if facts is chosen else facts for facts in studies]
    assert rank_of(chosen, changed, settings) <= rank_of(chosen, studies, settings)


@given(lists(), sections(), st.data())
def test_time_alone_moves_nobody_unless_somebody_reaches_the_maximum(studies, settings, data) -> None:
    before, after = arrange(studies, settings), priority.arrange(studies, settings, NOW + data.draw(st.floats(0, 1)))
    reached = [facts for facts in studies if priority.overdue(facts, settings, NOW + 1)]
    if reached == [facts for facts in studies if priority.overdue(facts, settings, NOW)]:
        assert [place.study_instance_uid for place in after] == [place.study_instance_uid for place in before]


@given(lists((JUDGED,)), sections())
def test_equally_urgent_studies_stand_in_order_of_arrival(studies, settings) -> None:
    alike = [replace(facts, covid_probability=0.4, affected_fraction_right=0.3) for facts in studies]
    alike = [replace(facts, affected_fraction_left=None) for facts in alike]
    assert all(place.rank == place.arrival_rank for place in arrange(alike, settings))


def ordered(facts: Facts, order_priority: OrderPriority) -> Facts:
    return replace(facts, order_priority=order_priority)


def test_what_was_ordered_stat_stands_before_all_others_judged_or_not() -> None:
    studies = [judged("a", 130, 0.0), judged("b", 40, 0.9), ordered(judged("c", 30, 0.0), OrderPriority.STAT)]
    studies += [ordered(unjudged("d", 20), OrderPriority.STAT), ordered(judged("e", 10, 0.8), OrderPriority.STAT)]
    places = arrange(studies)
    assert "".join(place.study_instance_uid for place in places) == "edcab"
    assert [place.reading_priority for place in places] == [HIGH, HIGH, HIGH, LOW, HIGH]
    assert [place.arrival_rank for place in places] == [3, 2, 1, 4, 5]
    assert "HIGH: ordered STAT" in places[2].reasons
    assert places[1].explanation == "stands as it came: ordered STAT, not judged yet"


@pytest.mark.parametrize(
    ("order_priority", "expected"),
    [
        (OrderPriority.STAT, HIGH),
        (OrderPriority.HIGH, HIGH),
        (OrderPriority.MEDIUM, MEDIUM),
        (OrderPriority.ROUTINE, LOW),
        (OrderPriority.LOW, LOW),
        (None, LOW),
    ],
)
def test_an_order_raises_the_level_and_never_lowers_it(order_priority: OrderPriority | None, expected) -> None:
    assert (
        priority.level(replace(judged("a", 1, 0.0, 0.0), order_priority=order_priority), WorklistSection()) is expected
    )
    severe = replace(judged("a", 1, 0.9, 0.9), order_priority=order_priority)
    assert priority.level(severe, WorklistSection()) is HIGH


@given(lists(), sections(), st.sampled_from(OrderPriority), st.data())
def test_an_order_priority_never_moves_a_study_back_and_stat_stands_above_the_rest(
    studies, settings, order_priority, data
) -> None:
    candidates = [facts for facts in studies if facts.state in IN_THE_QUEUE]
    if not candidates:
        return
    chosen = data.draw(st.sampled_from(candidates))
    hurried = ordered(chosen, order_priority)
    changed = [hurried if facts is chosen else facts for facts in studies]
    rank = rank_of(chosen, changed, settings)
    if order_priority in (OrderPriority.ROUTINE, OrderPriority.LOW):
        assert rank == rank_of(chosen, studies, settings)
    else:
        assert rank <= rank_of(chosen, studies, settings)
    if order_priority is OrderPriority.STAT:
        assert rank == 1 + sum(facts.state is READING for facts in studies)


@pytest.mark.parametrize(
    ("studies", "expected"),
    [
        (
            [judged("a", 30, 0.0), judged("b", 20, 0.38, 0.97)],
            "moved from 2 to 1: 38% of the right lung affected, P(COVID-19) 0.97",
        ),
        ([judged("a", 30, 0.9), judged("b", 20, 0.0, 0.02)], "stands as it came: 90% of the right lung affected"),
        ([unjudged("a", 9, NOT_ANALYSED, "no lungs")], "stands as it came: not analysed: no lungs"),
        (
            [judged("a", 130, 0.0)],
            "stands as it came: has waited longer than 120 min, 0% of each lung affected",
        ),
        ([unjudged("a", 9, READING)], "is being read, so it stands above the queue: not judged"),
        ([judged("a", 9, 0.2)], "stands as it came: 20% of the right lung affected"),
        ([unjudged("a", 9, CANCELLED)], "its reading was called off, so it stands below the queue: not judged"),
    ],
)
def test_the_first_place_is_explained_in_one_sentence(studies: list[Facts], expected: str) -> None:
    assert arrange(studies)[0].explanation == expected


def test_who_moved_back_is_told_why() -> None:
    last = arrange([judged("a", 30, 0.02, 0.05), judged("b", 20, 0.38, 0.97), judged("c", 10, 0.6, 0.5)])[-1]
    assert (
        last.explanation
        == "moved from 1 to 3, behind more urgent ones: 2% of the right lung affected, P(COVID-19) 0.05"
    )


@given(lists(), sections())
def test_every_explanation_has_the_place_or_the_state_and_the_deciding_number(studies, settings) -> None:
    facts = {one.study_instance_uid: one for one in studies}
    for place in arrange(studies, settings):
        one = facts[place.study_instance_uid]
        place_words = f"to {place.rank}" if place.rank != place.arrival_rank else "stands as it came"
        assert place_words in place.explanation or one.state not in IN_THE_QUEUE
        if one.affected_fraction is not None:
            assert f"{priority.percent(one.affected_fraction)} of " in place.explanation
            if one.covid_probability is not None:
                assert f"P(COVID-19) {priority.probability(one.covid_probability)}" in place.explanation


def rank_of(facts: Facts, studies: list[Facts], settings: WorklistSection) -> int:
    return next(p.rank for p in arrange(studies, settings) if p.study_instance_uid == facts.study_instance_uid)


def test_a_trace_of_disease_is_never_written_as_zero() -> None:
    assert [priority.percent(fraction) for fraction in (0.0, 0.0001, 0.0049, 0.006, 0.38)] == [
        "0%",
        "<1%",
        "<1%",
        "1%",
        "38%",
    ]


def test_a_probability_is_never_written_as_impossible_or_certain() -> None:
    assert [priority.probability(value) for value in (0.0, 0.004, 0.01, 0.5, 0.99, 0.996, 1.0)] == [
        "<0.01",
        "<0.01",
        "0.01",
        "0.50",
        "0.99",
        ">0.99",
        ">0.99",
    ]


@given(lists(), sections(), st.integers(0, 9))
def test_the_first_places_are_the_same_whether_the_rest_is_asked_for_or_not(studies, settings, first) -> None:
    standings = [priority.standing(facts, settings) for facts in studies]
    assert priority.turns(standings, settings, NOW, first=first) == priority.turns(standings, settings, NOW)[:first]


def test_a_study_that_is_held_at_its_last_place_says_so() -> None:
    """Every 20 min one is read: the mild one must be the third, although three severe ones came after it."""
    studies = [judged("a", 70, 0.0), *(judged(uid, 10, 0.9) for uid in "bcd")]
    places = priority.arrange(studies, WorklistSection(), NOW, pace_s=20 * 60.0)
    assert "".join(place.study_instance_uid for place in places) == "bcad"
    assert places[2].explanation == (
        "moved from 1 to 3, behind more urgent ones: else it would wait over 120 min, 0% of each lung affected"
    )
    assert "else it would wait over 120 min" in places[2].reasons
