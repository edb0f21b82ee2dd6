from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_node import operating
from triage_node.config import AnalysisSection, WorklistSection
from triage_node.errors import ConfigurationError
from triage_node.study import Model, OperatingPoint

CARD = OperatingPoint(
    probability_high=0.7,
    probability_medium=0.4,
    fraction_high=0.6,
    fraction_medium=0.3,
    grades_up_to=(0.2, 0.4, 0.6),
    source="measured",
)
MODEL = Model(name="multitask", version="3", digest="00", operating_point=CARD)


def test_without_a_word_in_the_configuration_the_card_holds() -> None:
    assert operating.resolved(CARD, analysis=AnalysisSection(), worklist=WorklistSection()) is CARD


def test_each_configured_number_goes_before_the_cards_and_leaves_the_others() -> None:
    for name in operating.THRESHOLDS:
        found = operating.resolved(CARD, worklist=WorklistSection(**{name: 0.5}))
        assert found == replace(CARD, **{name: 0.5}, source=f"measured; from the configuration: {name}")
    cuts = (0.1, 0.2, 0.3)
    rules = WorklistSection(fraction_high=0.5)
    assert operating.resolved(CARD, analysis=AnalysisSection(grades_up_to=cuts), worklist=rules) == replace(
        CARD,
        grades_up_to=cuts,
        fraction_high=0.5,
        source="measured; from the configuration: fraction_high, grades_up_to",
    )


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (
            {"probability_high": 0.39},
            "worklist.probability_high: found 0.39; allowed: 0.4 or more, the probability_medium of the card of",
        ),
        (
            {"probability_medium": 0.71},
            "worklist.probability_medium: found 0.71; allowed: 0.7 or less, the probability_high of the card of",
        ),
        ({"fraction_high": 0.0}, "worklist.fraction_high: found 0.0; allowed: 0.3 or more, the fraction_medium of"),
        ({"fraction_medium": 1.0}, "worklist.fraction_medium: found 1.0; allowed: 0.6 or less, the fraction_high of"),
    ],
)
def test_a_threshold_that_contradicts_the_cards_other_one_is_refused_by_its_key(given_: dict, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        operating.check(MODEL, worklist=WorklistSection(**given_))
    assert words in str(refused.value)
    assert str(refused.value).endswith("is given, too")
    assert len(str(refused.value).splitlines()) == 1


def test_every_contradiction_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        operating.check(MODEL, worklist=WorklistSection(probability_high=0.1, fraction_medium=0.9))
    assert len(str(refused.value).splitlines()) == 2


def test_both_thresholds_together_may_lie_anywhere() -> None:
    operating.check(MODEL, worklist=WorklistSection(probability_high=0.1, probability_medium=0.05))
    operating.check(MODEL, worklist=WorklistSection(fraction_high=1.0, fraction_medium=0.9))


maybe = st.one_of(st.none(), st.floats(0, 1))


@given(st.tuples(maybe, maybe).filter(lambda pair: None in pair), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_what_is_configured_always_holds_and_what_the_card_says_unless_it_contradicts(pair, card) -> None:
    medium, high = pair
    point = replace(CARD, probability_medium=min(card), probability_high=max(card))
    rules = WorklistSection(probability_medium=medium, probability_high=high)
    found = operating.resolved(point, worklist=rules)
    assert medium in (None, found.probability_medium)
    assert high in (None, found.probability_high)
    try:
        operating.check(replace(MODEL, operating_point=point), worklist=rules)
    except ConfigurationError:
        assert found.probability_medium == found.probability_high
    else:
        assert (medium is not None) or found.probability_medium == point.probability_medium
        assert (high is not None) or found.probability_high == point.probability_high


@pytest.mark.parametrize(
    "wrong",
    [
        {"probability_medium": 0.8},
        {"fraction_high": 1.1},
        {"fraction_medium": -0.1},
        {"grades_up_to": (0.2, 0.2, 0.3)},
        {"grades_up_to": (0.0, 0.2, 0.3)},
        {"grades_up_to": (0.1, 0.2, 1.3)},
        {"probability_high": float("nan")},
    ],
)
def test_a_card_out_of_range_or_order_is_no_operating_point(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"medium|grades_up_to"):
        replace(CARD, **wrong)
