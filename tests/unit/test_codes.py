"""The table of codes: complete, short enough for every reader, and each private one defined."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from triage_node import codes
from triage_node.study import CtGrade, CtSeverityScore, Laterality, Reason

SINGLE = [value for value in vars(codes).values() if isinstance(value, Code)]
TABLES = (codes.CT_GRADES, codes.CT_SS, codes.SEVERITIES, codes.REASONS, codes.LATERALITY, codes.SUPERSEDED)
EVERY = [*SINGLE, *(code for table in TABLES for code in table.values())]


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (codes.CT_GRADES, CtGrade),
        (codes.SEVERITIES, CtGrade),
        (codes.CT_SS, CtSeverityScore),
        (codes.REASONS, Reason),
        (codes.LATERALITY, Laterality),
    ],
)
def test_every_member_has_a_code_of_its_own(table, keys) -> None:
    assert set(table) == set(keys)
    assert len({code.value for code in table.values()}) == len(table)


@pytest.mark.parametrize("code", EVERY, ids=lambda code: code.value)
def test_a_code_fits_code_value_and_code_meaning(code: Code) -> None:
    """PS3.5 table 6.2-1: SH has at most 16 characters, LO 64."""
    assert 0 < len(code.value) <= 16
    assert 0 < len(code.meaning) <= 64


def test_every_private_code_is_defined_and_every_definition_is_used() -> None:
    private = {code.value for code in EVERY if code.scheme_designator == codes.PRIVATE_SCHEME}
    assert private == set(codes.DEFINITIONS)


def test_a_code_means_one_thing() -> None:
    meanings: dict[tuple[str, str], set[str]] = {}
    for code in EVERY:
        meanings.setdefault((code.scheme_designator, code.value), set()).add(code.meaning)
    assert not {key: value for key, value in meanings.items() if len(value) > 1}


@pytest.mark.parametrize("code", [code for code in EVERY if code.scheme_designator == "DCM"], ids=lambda c: c.value)
def test_a_dcm_code_has_the_meaning_of_the_standard(code: Code) -> None:
    known = {value: meaning for entries in concepts["DCM"].values() for value, (meaning, _) in entries.items()}
    assert known[code.value].lower() == code.meaning.lower()


def test_a_ct_grade_names_the_cut_offs_by_which_it_was_given() -> None:
    assert codes.ct_grade(CtGrade.CT_2).meaning == "CT-2: 25 to 50 % of the worse lung"
    assert codes.ct_grade(CtGrade.CT_2, (0.1, 0.125, 0.5)).meaning == "CT-2: 10 to 12.5 % of the worse lung"
    longest = max((codes.ct_grade(grade, (0.1234567, 0.2345678, 0.3456789)) for grade in CtGrade), key=str)
    assert len(longest.meaning) <= 64


def test_a_fault_of_ours_is_failed_and_a_refusal_not_attempted() -> None:
    assert codes.status_of(Reason.ANALYSIS_FAILED) == codes.FAILED
    assert codes.status_of(Reason.LOCALIZER) == codes.NOT_ATTEMPTED


def test_only_methods_with_weights_are_called_artificial_intelligence() -> None:
    assert codes.algorithm_family("threshold") == codes.MORPHOLOGICAL_OPERATIONS
    assert codes.algorithm_family("multitask") == codes.ARTIFICIAL_INTELLIGENCE
