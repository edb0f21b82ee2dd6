"""What an acknowledgement means, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_node.hl7 import acknowledgement
from triage_node.hl7.acknowledgement import CONDITIONS, MEANINGS

MSH = "MSH|^~\\&|RIS||TRIAGE||20200101||ACK^R01^ACK|9|P|2.5.1"


def read(*segments: str, msh: str = MSH, end: str = "\r") -> acknowledgement.Acknowledgement | None:
    return acknowledgement.read(end.join([msh, *segments, ""]).encode())


def outcome(code: str, condition: str = "") -> str:
    error = [f"ERR|||{condition}^words^HL70357|E"] if condition else []
    found = read(f"MSA|{code}|77", *error)
    assert found is not None
    return found.outcome


@pytest.mark.parametrize(
    ("code", "expected"),
    [("AA", "acknowledged"), ("CA", "acknowledged"), ("AE", "refused"), ("CR", "refused"), ("AR", "failed"),
     ("CE", "failed")],
)  # fmt: skip
def test_a_code_alone_means_acknowledged_refused_or_try_again(code: str, expected: str) -> None:
    assert outcome(code) == expected
    assert outcome(code, "999") == expected, "a condition that is in no table says nothing more"


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("code", MEANINGS)
def test_a_condition_decides_about_every_refusal_and_no_acceptance(code: str, condition: str) -> None:
    expected = "acknowledged" if code in ("AA", "CA") else CONDITIONS[condition]
    assert outcome(code, condition) == expected


def test_what_may_pass_by_itself_is_tried_again() -> None:
    again = {condition for condition, meaning in CONDITIONS.items() if meaning == "failed"}
    assert again == {"204", "206", "207"}, "unknown key, record locked, internal error (HL7 table 0357)"


def test_an_acknowledgement_of_an_older_version_is_read_by_its_own_fields() -> None:
    found = read("MSA|AE|77|no such order|||204^Unknown key", msh="MSH|^~\\&|RIS||||20200101||ACK|9|P|2.3")
    assert found is not None
    assert (found.control_id, found.condition, found.outcome) == ("77", "204", "failed")
    assert found.sentence == "AE (condition 204): no such order"


def test_the_newer_way_to_say_it_is_read_too() -> None:
    found = read("MSA|AR|77", "ERR||PID^1^3|207^internal^HL70357|E||||try later")
    assert found is not None
    assert found.sentence == "AR (condition 207): try later"


def test_delimiters_are_those_that_the_header_declares_and_line_feeds_end_segments_too() -> None:
    found = read("MSA$AE$77$later", "ERR$$$206*locked", msh="MSH$*~\\&$RIS", end="\r\n")
    assert found is not None
    assert (found.code, found.control_id, found.condition, found.words) == ("AE", "77", "206", "later")


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"OK",
        b"MSH",
        b"MSA|AA|77",
        MSH.encode(),
        f"{MSH}\rPID|1||X".encode(),
        f"{MSH}\rMSA|ZZ|77".encode(),
        f"{MSH}\rMSA".encode(),
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_acknowledgement_is_none(block: bytes) -> None:
    assert acknowledgement.read(block) is None


@given(st.binary(max_size=200), st.booleans())
def test_nothing_that_comes_over_the_wire_raises(data: bytes, begun: bool) -> None:
    found = acknowledgement.read(MSH.encode() + b"\rMSA" + data if begun else data)
    assert found is None or found.code in MEANINGS


def test_words_of_a_receiver_steer_no_terminal_and_have_an_end() -> None:
    found = read(f"MSA|AE|77|\x1b[31m{'x' * 10_000}")
    assert found is not None
    assert found.words.isprintable()
    assert len(found.words) <= 300


def test_ca_alone_is_final_in_enhanced_mode_only() -> None:
    accepted, done = read("MSA|CA|77"), read("MSA|AA|77")
    assert accepted is not None
    assert done is not None
    assert [accepted.is_final(mode) for mode in ("original", "enhanced")] == [False, True]
    assert done.is_final("original")
