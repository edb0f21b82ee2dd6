"""Matching of a worklist query: every kind of PS3.4 C.2.2.2, for every value representation that has it."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from triage_node.ups import matching, values
from triage_node.ups.matching import BadKey

WORKITEM = values.of(
    SOPInstanceUID="1.2.3",
    PatientName="Ångström^Eva=山田^太郎",
    PatientID="P-17",
    PatientBirthDate="19600229",
    ScheduledProcedureStepPriority="HIGH",
    ProcedureStepLabel="CT [chest] reading?",
    ScheduledProcedureStepStartDateTime="20261121103000.250000+0000",
    StudyTime="1030",
    ScheduledWorkitemCodeSequence=(values.of(CodeValue="110005", CodingSchemeDesignator="DCM"),),
    ReferencedRequestSequence=(
        values.of(AccessionNumber="A1", RequestedProcedureID="R1"),
        values.of(AccessionNumber="A2", RequestedProcedureID="R2"),
    ),
    AdmissionID=(),
    SeriesNumber="7",
)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def asked(**keys: object) -> bool:
    query = Dataset()
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return matching.matches(matching.keys_of(query), WORKITEM.get)


def item(**keys: object) -> list[Dataset]:
    found = Dataset()
    for keyword, value in keys.items():
        setattr(found, keyword, value)
    return [found]


MATCHES = {
    "nothing": {},
    "no value": {"PatientID": "", "AdmissionID": None},
    "single value": {"PatientID": "P-17"},
    "padded": {"PatientID": "P-17 "},
    "one of a list of UIDs": {"SOPInstanceUID": ["1.2.2", "1.2.3"]},
    "one UID": {"SOPInstanceUID": "1.2.3"},
    "star": {"ProcedureStepLabel": "CT*"},
    "question mark": {"PatientID": "P?17"},
    "brackets are no wildcards": {"ProcedureStepLabel": "CT [chest]*"},
    "a lone star matches what is empty": {"AdmissionID": "*"},
    "name": {"PatientName": "Ångström^Eva"},
    "name in other letters": {"PatientName": "ångström^EVA"},
    "name, ideographic": {"PatientName": "山田^*"},
    "name with empty ends": {"PatientName": "Ångström^Eva^^^"},
    "name, wildcard": {"PatientName": "?ngstr*"},
    "day": {"PatientBirthDate": "19600229"},
    "days": {"PatientBirthDate": "19600101-19601231"},
    "from a day on": {"PatientBirthDate": "19600229-"},
    "until a day": {"PatientBirthDate": "-19600229"},
    "moment": {"ScheduledProcedureStepStartDateTime": "20261121103000.25"},
    "moment, as far as it is said": {"ScheduledProcedureStepStartDateTime": "20261121"},
    "moment in another zone": {"ScheduledProcedureStepStartDateTime": "202611211130+0100"},
    "moments": {"ScheduledProcedureStepStartDateTime": "20261121-20261122"},
    "until a day, the day included": {"ScheduledProcedureStepStartDateTime": "-20261121"},
    "until a month, the month included": {"ScheduledProcedureStepStartDateTime": "-202611"},
    "from a moment on": {"ScheduledProcedureStepStartDateTime": "202611211030-"},
    "moments in zones": {"ScheduledProcedureStepStartDateTime": "202611210529-0500-202611210531-0500"},
    "clock": {"StudyTime": "10"},
    "clocks": {"StudyTime": "1000-1030"},
    "number": {"SeriesNumber": "7"},
    "sequence": {"ScheduledWorkitemCodeSequence": item(CodeValue="110005")},
    "sequence, two keys": {"ReferencedRequestSequence": item(AccessionNumber="A2", RequestedProcedureID="R2")},
    "sequence without keys": {"ReferencedRequestSequence": []},
    "sequence without values": {"ReferencedRequestSequence": item(AccessionNumber="")},
    "all at once": {"PatientID": "P*", "ScheduledProcedureStepPriority": "HIGH", "StudyTime": "-11"},
}
MISSES = {
    "another value": {"PatientID": "P-18"},
    "case counts": {"PatientID": "p-17"},
    "a part": {"PatientID": "P-1"},
    "no value there": {"AdmissionID": "1"},
    "no such attribute": {"StationName": "CT1"},
    "other UIDs": {"SOPInstanceUID": ["1.2.2", "1.2.4"]},
    "no wildcards in UIDs": {"SOPInstanceUID": "1.2.30"},
    "wildcard": {"ProcedureStepLabel": "MR*"},
    "name": {"PatientName": "Angstrom^Eva"},
    "day": {"PatientBirthDate": "19600228"},
    "days": {"PatientBirthDate": "19600301-"},
    "moment": {"ScheduledProcedureStepStartDateTime": "202611211031"},
    "moment in another zone": {"ScheduledProcedureStepStartDateTime": "202611211030+0100"},
    "until a moment": {"ScheduledProcedureStepStartDateTime": "-20261121102959"},
    "until a month": {"ScheduledProcedureStepStartDateTime": "-202610"},
    "clocks": {"StudyTime": "1031-"},
    "number": {"SeriesNumber": "70"},
    "sequence": {"ScheduledWorkitemCodeSequence": item(CodeValue="110003")},
    "keys of two items": {"ReferencedRequestSequence": item(AccessionNumber="A1", RequestedProcedureID="R2")},
    "one of two keys": {"PatientID": "P-17", "ScheduledProcedureStepPriority": "LOW"},
}


@pytest.mark.parametrize("kind", MATCHES)
def test_what_matches(kind: str) -> None:
    assert asked(**MATCHES[kind])


@pytest.mark.parametrize("kind", MISSES)
def test_what_does_not(kind: str) -> None:
    assert not asked(**MISSES[kind])


def raw(keyword: str, text: str) -> Dataset:
    """A query as it may come over the wire, where nobody has checked it."""
    query = Dataset()
    query.add_new(values.tag(keyword), values.vr_of(values.tag(keyword)), "")
    query[keyword]._value = text
    return query


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("PatientBirthDate", "1960"),
        ("PatientBirthDate", "-"),
        ("PatientBirthDate", "1960010119600102"),
        ("ScheduledProcedureStepStartDateTime", "yesterday"),
        ("ScheduledProcedureStepStartDateTime", "20261341"),
        ("ScheduledProcedureStepStartDateTime", "-"),
        ("StudyTime", "10:30"),
        ("SeriesNumber", "seven"),
    ],
)
def test_a_key_that_cannot_be_matched_on_is_named(keyword: str, text: str) -> None:
    with pytest.raises(BadKey, match=f"{keyword} .*cannot be matched on"):
        matching.keys_of(raw(keyword, text))


def test_a_sequence_of_two_items_is_no_key() -> None:
    query = Dataset()
    query.ReferencedRequestSequence = item(AccessionNumber="A1") + item(AccessionNumber="A2")
    with pytest.raises(BadKey, match="has 2 items"):
        matching.keys_of(query)


def test_several_values_are_a_list_of_uids_alone() -> None:
    query = Dataset()
    query.ScheduledProcedureStepPriority = ["HIGH", "LOW"]
    with pytest.raises(BadKey, match="only UIDs"):
        matching.keys_of(query)


def test_the_answer_has_what_was_asked_for_and_nothing_else() -> None:
    query = Dataset()
    query.PatientName = "*"
    query.StationName = ""
    query.AdmissionID = ""
    query.ReferencedRequestSequence = item(AccessionNumber="")
    query.ScheduledWorkitemCodeSequence = []
    found = values.to_dataset(matching.answer(matching.keys_of(query), WORKITEM.get))
    assert str(found.PatientName) == "Ångström^Eva=山田^太郎"
    assert "StationName" in found
    assert not found.StationName
    assert [(len(one), one.AccessionNumber) for one in found.ReferencedRequestSequence] == [(1, "A1"), (1, "A2")]
    assert found.ScheduledWorkitemCodeSequence[0].CodeValue == "110005"
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert len(found) == 6


TEXTS = st.text(string.ascii_letters + string.digits + " [].!^-", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(TEXTS)
def test_every_text_matches_itself_and_itself_with_wildcards(text: str) -> None:
    workitem = values.of(ProcedureStepLabel=text)
    for key in (text, f"{text}*", f"*{text}", "?" * len(text), f"{text[:-1]}?", "*"):
        query = Dataset()
        query.ProcedureStepLabel = key
        assert matching.matches(matching.keys_of(query), workitem.get), key


@given(st.datetimes(), st.datetimes(), st.datetimes())
def test_a_range_is_what_lies_between_its_ends(first: object, between: object, last: object) -> None:
    stamps = [f"{one:%Y%m%d%H%M%S}".zfill(14) for one in (first, between, last)]
    query = Dataset()
    query.ScheduledProcedureStepStartDateTime = f"{stamps[0]}+0000-{stamps[2]}+0000"
    workitem = values.of(ScheduledProcedureStepStartDateTime=f"{stamps[1]}+0000")
    assert matching.matches(matching.keys_of(query), workitem.get) == (stamps[0] <= stamps[1] <= stamps[2])


def test_json_and_values_and_data_sets_say_the_same() -> None:
    dataset = values.to_dataset(WORKITEM)
    again = values.from_json(values.to_json(dataset))
    assert {key: value for key, value in again.items() if key != values.tag("SpecificCharacterSet")} == WORKITEM
