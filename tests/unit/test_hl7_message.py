"""What a message to a RIS says, read by another library than the one that wrote it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from tests import filed
from triage_node import codes
from triage_node.config import Hl7Section
from triage_node.errors import InvalidResult
from triage_node.hl7 import er7, observations, oru, subject
from triage_node.hl7.observations import Answer
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, NotAnalysed, ReadingPriority, Reason

AT = 1_600_000_000.0


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Müller^Hans^^Dr.^Jr.=山田^太郎",
        "PatientID": "12|3",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19500131",
        "PatientSex": "M",
        "StudyDate": "20200331",
        "StudyTime": "101500.5",
        "TimezoneOffsetFromUTC": "+0200",
        "AccessionNumber": "A-1",
        **attributes,
    }.items():
        setattr(dataset, keyword, value)
    return dataset


def answer(**changes: Any) -> Answer:
    return Answer(
        **{
            "study_instance_uid": "1.2.3",
            "generation": 1,
            "created_at": AT,
            "assessment": filed.assessment(1, 0.38, 0.1, 0.97),
            "not_analysed": None,
            "reading_priority": ReadingPriority.HIGH,
            "report_uid": "2.25.1",
            **changes,
        }
    )


def refused(words: str = "no image lies at 112.5 mm") -> Answer:
    return answer(assessment=None, not_analysed=NotAnalysed(reason=Reason.GAP, words=words))


def envelope(*, correction: bool = False, queued_at: float = AT, **section: Any) -> oru.Envelope:
    described = {"name": "ris", "host": "h", "port": 1, "receiving_application": "RIS", **section}
    return oru.Envelope(section=Hl7Section(**described), ae_title="TRIAGE", queued_at=queued_at, correction=correction)


def built(what: Answer | None = None, of: Dataset | None = None, **way: Any) -> hl7.Message:
    data = oru.build(what or answer(), subject.of_header(of or header()), envelope(**way))
    return hl7.parse(data.decode("latin-1" if way.get("character_set") == "8859/1" else "utf-8"))


def observed(message: hl7.Message) -> dict[str, hl7.Segment]:
    return {str(obx[3][0][0]): obx for obx in message.segments("OBX")}


def remarks(message: hl7.Message) -> list[str]:
    return [message.unescape(str(note[3])) for note in message.segments("NTE")]


def test_the_header_says_what_it_is_and_when_it_was_queued() -> None:
    msh = built(receiving_facility="NORTH^1.2.3^ISO", sending_facility="CT").segment("MSH")
    assert [str(msh[place]) for place in (3, 4, 5, 6, 7, 9, 11, 12, 18)] == [
        "TRIAGE", "CT", "RIS", "NORTH^1.2.3^ISO", "20200913122640+0000", "ORU^R01^ORU_R01", "P", "2.5.1",
        "UNICODE UTF-8",
    ]  # fmt: skip


def test_the_control_id_is_that_of_the_delivery() -> None:
    ids = [
        str(built(what, **way).segment("MSH")[10])
        for what, way in (
            (answer(), {}),
            (answer(), {}),
            (answer(generation=2), {}),
            (answer(study_instance_uid="1.2.4"), {}),
            (answer(), {"queued_at": AT + 1}),
            (answer(), {"name": "another"}),
        )
    ]
    assert ids[0] == ids[1]
    assert len(set(ids[1:])) == 5
    assert {len(each) for each in ids} == {20}


def test_original_and_enhanced_mode_are_said_in_msh_15_and_16() -> None:
    assert len(built().segment("MSH")) < 20
    original, enhanced = (built(acknowledgement=mode).segment("MSH") for mode in ("original", "enhanced"))
    assert [str(original[place]) for place in (15, 16)] == ["", ""]
    assert [str(enhanced[place]) for place in (15, 16)] == ["AL", "NE"]


def test_the_patient_is_the_one_of_the_images() -> None:
    message = built()
    pid = message.segment("PID")
    assert message.unescape(str(pid[3][0][0])) == "12|3"
    assert str(pid[3][0][3]) == "HOSPITAL"
    assert str(pid[5]) == "Müller^Hans^^Jr.^Dr.^^L^A~山田^太郎^^^^^L^I"
    assert [str(pid[7]), str(pid[8])] == ["19500131", "M"]


def test_the_order_is_named_by_accession_number_and_requested_procedure() -> None:
    item, issuer = Dataset(), Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = "RP7", "SPS9"
    issuer.LocalNamespaceEntityID, issuer.UniversalEntityID, issuer.UniversalEntityIDType = "RIS", "1.2.3", "ISO"
    obr = built(
        of=header(RequestAttributesSequence=[item], IssuerOfAccessionNumberSequence=[issuer])
    ).segment("OBR")  # fmt: skip
    assert str(obr[3]) == "A-1^RIS^1.2.3^ISO"
    assert [str(obr[place]) for place in (18, 19, 20)] == ["A-1", "RP7", "SPS9"]
    assert str(obr[4]) == "169069000^CT of chest^SCT"
    assert [str(obr[place]) for place in (7, 24, 25)] == ["20200331101500+0200", "CT", "P"]


def test_of_several_orders_none_is_named_and_without_an_accession_number_the_study_is() -> None:
    obr = built(of=header(RequestAttributesSequence=[Dataset(), Dataset()], AccessionNumber="")).segment("OBR")
    assert str(obr[3]) == "1.2.3"
    assert len(obr) <= 26
    assert [str(obr[place]) for place in (18, 19, 20)] == ["", "", ""]


def test_numbers_are_percentages_with_their_unit_and_grades_are_coded() -> None:
    found = observed(built())
    assert str(found["covid-prob"][3]) == (
        "covid-prob^Probability of COVID-19^99TRIAGE^111012^Certainty of Finding^DCM"
    )  # fmt: skip
    numbers = {code: float(str(obx[5])) for code, obx in found.items() if str(obx[2]) == "NM"}
    assert numbers == pytest.approx(
        {
            "covid-prob": 97.0, "affected-right": 38.0, "affected-left": 10.0, "affected-worse": 38.0,
            "affected-both": 24.0, "ggo-extent": 18.0, "consol-extent": 6.0,
        }
    )  # fmt: skip
    assert {str(obx[6]) for obx in found.values() if str(obx[2]) == "NM"} == {"%^percent^UCUM"}
    coded = {code: str(obx[5]) for code, obx in found.items() if str(obx[2]) == "CWE"}
    assert coded == {
        "analysis-state": "analysed^Analysed^99TRIAGE",
        "reason": "",
        "ct-grade": "ct-2^CT-2: 25 to 50 % of the worse lung^99TRIAGE",
        "ct-ss": "ct-ss-2^CT-SS 2: 5 to under 25 % of both lungs^99TRIAGE",
        "246112005": "6736007^Moderate^SCT",
        "reading-prio": "HIGH^High reading priority^99TRIAGE",
    }
    assert str(found["113014"][5]) == "1.2.3"
    assert str(found["report-uid"][5]) == "2.25.1"
    assert str(found["affected-right"][17]).startswith("threshold^threshold 1")
    assert [str(obx[1]) for obx in found.values()] == [str(number) for number in range(1, len(found) + 1)]


def test_the_first_remark_is_that_it_is_not_for_diagnostic_use_and_warnings_follow() -> None:
    assert remarks(built())[0] == remarks(built(refused()))[0] == NOT_FOR_DIAGNOSTIC_USE
    warned = replace(filed.assessment(1), warnings=("gantry tilt of 5 degrees",))
    message = built(answer(assessment=warned))
    assert remarks(message)[1] == "gantry tilt of 5 degrees"
    assert str(observed(message)["analysis-state"][5]).startswith("analysed-warn^")


def test_a_study_that_was_not_analysed_says_so_and_every_number_is_unobtainable_never_zero() -> None:
    message = built(refused())
    found = observed(message)
    assert str(found["analysis-state"][5]) == "not-analysed^Not analysed^99TRIAGE"
    assert str(found["reason"][5]) == "GAP^Slices are missing^99TRIAGE"
    assert "no image lies at 112.5 mm" in remarks(message)
    for code in ("covid-prob", "affected-right", "affected-left", "affected-worse", "ct-grade", "ct-ss", "246112005"):
        assert (str(found[code][5]), str(found[code][11])) == ("", "X"), code
    assert str(found["reading-prio"][11]) == "P"
    assert list(found) == list(observed(built())), "the same observations in every message"


def test_what_a_method_does_not_give_and_a_lung_that_was_not_found_are_unobtainable_with_the_reason() -> None:
    one_lung = replace(filed.assessment(1), left=None)
    message = built(answer(assessment=one_lung))
    found = observed(message)
    assert [(str(found[code][5]), str(found[code][11])) for code in ("covid-prob", "affected-left")] == [("", "X")] * 2
    assert str(found["affected-right"][11]) == "P"
    assert {codes.NOT_PROVIDED.meaning, "left lung not found"} <= set(remarks(message))


@pytest.mark.parametrize(("configured", "status"), [("preliminary", "P"), ("not verified", "R"), ("final", "F")])
def test_a_first_answer_has_the_configured_status_and_a_newer_one_is_a_correction(configured: str, status: str) -> None:
    for way, expected in (({}, status), ({"correction": True}, "C")):
        message = built(result_status=configured, **way)
        found = {code: str(obx[11]) for code, obx in observed(message).items()}
        assert {found.pop(code) for code in ("113014", "report-uid")} == {"O"}
        assert found.pop("reason") == "X"
        assert set(found.values()) == {expected}
        assert str(message.segment("OBR")[25]) == expected


@pytest.mark.parametrize(
    ("level", "timing"), [(ReadingPriority.HIGH, "A"), (ReadingPriority.MEDIUM, "R"), (ReadingPriority.LOW, "R")]
)
def test_the_reading_priority_is_the_priority_of_the_timing_too(level: ReadingPriority, timing: str) -> None:
    assert str(built(answer(reading_priority=level)).segment("TQ1")[9][0][0]) == timing


def test_latin_1_has_the_alphabetic_name_alone_and_refuses_what_it_cannot_say() -> None:
    message = built(character_set="8859/1")
    assert str(message.segment("PID")[5]) == "Müller^Hans^^Jr.^Dr.^^L^A"
    with pytest.raises(InvalidResult, match="cannot be said in 8859/1") as caught:
        built(of=header(PatientName="Łukasz^Jan"), character_set="8859/1")
    assert "ukasz" not in str(caught.value)


def test_without_a_patient_id_no_message_is_made() -> None:
    with pytest.raises(InvalidResult, match="no Patient ID"):
        built(of=header(PatientID=""))


def test_a_patient_without_a_name_has_an_unspecified_one() -> None:
    assert str(built(of=header(PatientName="")).segment("PID")[5]) == "^^^^^^U"


@pytest.mark.parametrize(
    ("time", "stamp"),
    [("", "20200331"), ("10", "202003311000+0200"), ("1015", "202003311015+0200"), ("2599", "20200331")],
)
def test_the_study_time_is_as_exact_as_the_images_say(time: str, stamp: str) -> None:
    dataset = header()
    dataset.StudyTime = ""
    dataset["StudyTime"]._value = time  # the header's own characters, whatever they are
    assert str(built(of=dataset).segment("OBR")[7]) == stamp


@pytest.mark.parametrize("date", ["20200230", "2020", "unknown", "00000101"])
def test_a_day_that_is_not_in_the_calendar_is_left_out(date: str) -> None:
    dataset = header(PatientBirthDate="", StudyDate="")
    dataset["PatientBirthDate"]._value = dataset["StudyDate"]._value = date
    message = built(of=dataset)
    assert len(message.segment("PID")) == 9
    assert (str(message.segment("PID")[7]), str(message.segment("OBR")[7])) == ("", "")


SIGNS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)


@given(SIGNS)
def test_text_comes_back_as_it_was_with_signs_that_end_a_segment_as_blanks(text: str) -> None:
    escaped = er7.text(text)
    assert not set(escaped) & set("|^&~\r\n\x0b\x1c")
    back = hl7.parse(f"MSH|^~\\&|A\rNTE|1||{escaped}").unescape(escaped)
    assert back == "".join(sign if sign.isprintable() else " " for sign in text).strip()


@settings(max_examples=15)  # each is built, parsed and validated whole
@given(name=SIGNS, words=SIGNS)
def test_whatever_name_and_reason_say_the_message_conforms_and_means_the_same(name: str, words: str) -> None:
    named = replace(
        subject.of_header(header()), names=(subject.Name(family=name),), patient_id="P", accession_number=words[:16]
    )
    data = oru.build(refused(words), named, envelope())
    assert not {0x0B, 0x1C} & set(data)
    again = parse_message(data.decode(), validation_level=VALIDATION_LEVEL.STRICT)
    assert again.validate()
    read = hl7.parse(data.decode())
    assert len(read.segments("OBX")) == len(observed(built()))
    assert read.unescape(str(read.segment("PID")[5]).split("^")[0]) == er7_plain(name)


def er7_plain(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()


@given(st.floats(0.0, 1.0))
def test_a_number_has_no_exponent_and_what_is_there_is_not_zero(fraction: float) -> None:
    text = er7.number(100 * fraction)
    assert "e" not in text
    assert float(text) == pytest.approx(100 * fraction, abs=1e-4)
    assert (float(text) == 0.0) == (fraction < 5e-15)


def test_every_private_code_of_a_message_fits_where_a_report_would_have_it() -> None:
    mine = [observations.AFFECTED_RIGHT, observations.AFFECTED_LEFT, observations.READING_PRIORITY, observations.REPORT]
    assert all(len(code.value) <= 16 and code.scheme_designator == codes.PRIVATE_SCHEME for code in mine)
    assert not {code.value for code in mine} & set(codes.DEFINITIONS)
