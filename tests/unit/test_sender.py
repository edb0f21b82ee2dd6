"""What a status means, and how long to wait: the sender's rules without a wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_node.backoff import JITTER, pause_s
from triage_node.config import DestinationSection
from triage_node.sender import outcome_of

DESTINATION = DestinationSection(
    name="pacs", ae_title="PACS", host="127.0.0.1", port=104, retry_first_s=5.0, retry_longest_s=3600.0
)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, "stored"),
        (0xB000, "stored"),  # coercion of data elements: a warning, the object is stored (PS3.4 table B.2-1)
        (0xB006, "stored"),
        (0xB007, "stored"),
        (0xA700, "failed"),
        (0xA7FF, "failed"),
        (0x0110, "failed"),
        (0x0213, "failed"),
        (0xA900, "refused"),
        (0xA9FF, "refused"),
        (0xC000, "refused"),
        (0xCFFF, "refused"),
        (0x0117, "refused"),
        (0xFE00, "refused"),
        (0x1234, "refused"),
    ],
)
def test_a_status_means_stored_refused_or_try_again(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


@given(st.integers(1, 0xFFFF).filter(lambda status: status & 0xF000 != 0xB000))
def test_nothing_but_success_and_warning_counts_as_stored(status: int) -> None:
    assert outcome_of(status) != "stored"


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [pause_s(DESTINATION, attempts, jitter=0.0) for attempts in range(1, 14)]
    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert pauses[-1] == 3600.0
    assert pauses == sorted(pauses)


@given(st.integers(1, 10_000), st.floats(-1.0, 1.0))
def test_a_pause_stays_within_its_jitter(attempts: int, jitter: float) -> None:
    middle = pause_s(DESTINATION, attempts, jitter=0.0)
    assert middle * (1 - JITTER) - 1e-6 <= pause_s(DESTINATION, attempts, jitter=jitter) <= middle * (1 + JITTER) + 1e-6
