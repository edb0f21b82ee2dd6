"""The reading worklist against DCMTK's findscu and pynetdicom: queries, claims, descriptions, orders."""

from __future__ import annotations

import random
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import bench_worklist
import pytest
from pydicom.dataset import Dataset

from tests import filed, reading, worklists
from tests.peers import require
from tests.reading import MILD, PULL, PUSH, QUERY, REFUSED, SEVERE, UNJUDGED, WATCH
from tests.running import until
from triage_node import workitem, worklist
from triage_node.journal import Journal, queue, transitions, workitems
from triage_node.workitem import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.reading import Reading

ALL = (MILD, REFUSED, SEVERE, UNJUDGED)  # in order of arrival


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Reading]:
    with reading.listening(reading.settings_in(tmp_path)) as listening:
        worklists.fill(listening.journal, ALL, time.time())
        for case in ALL:
            listening.uid(case)
        yield listening


def studies(found: list[Dataset]) -> list[str]:
    names = {case.study: case.accession_number for case in ALL}
    return [names.get(one.StudyInstanceUID, one.StudyInstanceUID) for one in found]


# ------------------------------------------------------------------ C-FIND


def findscu(port: int, *keys: str, sop_class: str = "-W") -> list[dict[str, str]]:
    """What DCMTK's findscu prints of each answer, by attribute name."""
    words = [word for key in keys for word in ("-k", key)]
    program = str(require("findscu", package="dcmtk"))
    done = subprocess.run(
        [program, "-v", sop_class, "-aet", "READER", "-aec", "TRIAGE", "127.0.0.1", str(port), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    answers = re.split(r"Find Response: \d+", done.stdout + done.stderr)[1:]
    return [
        {match[2]: match[1] for match in re.finditer(r"\(\w{4},\w{4}\) \w\w \[(.*?) *\].*? \d+ (\w+)", answer)}
        for answer in answers
    ]


def test_queries_are_answered_in_the_order_of_the_list(node: Reading) -> None:
    found = reading.find(node.port, ScheduledProcedureStepPriority="")
    listed = worklist.reading_list(node.journal, node.settings, time.time())
    assert studies(found) == [one.accession_number for one in listed] == ["S1", "R1", "M1", "U1"]
    # the mild one says MEDIUM: what stands behind it is not known to be less urgent
    assert [one.ScheduledProcedureStepPriority for one in found] == ["HIGH", "MEDIUM", "MEDIUM", "MEDIUM"]


def test_an_unjudged_study_is_not_read_after_later_ones_that_are_severe(tmp_path: Path) -> None:
    severe = tuple(worklists.Case(accession_number=f"S{number}", right=0.7, probability=0.95) for number in range(6))
    with reading.listening(reading.settings_in(tmp_path)) as node:
        now = time.time()
        for number, case in enumerate((UNJUDGED, *severe)):
            worklists.arrive(node.journal, case, now - 100 + number)
        assert queue.claim(node.journal, "other", now) is not None  # the first stays with an analyst
        node.judge(*severe)
        for case in (UNJUDGED, *severe):
            node.uid(case)
        found = reading.find(node.port, ScheduledProcedureStepPriority="")
    assert found[0].StudyInstanceUID == UNJUDGED.study
    assert {one.ScheduledProcedureStepPriority for one in found} == {"HIGH"}


@pytest.mark.parametrize("context", [QUERY, PULL, WATCH])
def test_queries_are_answered_in_every_context_that_has_them(node: Reading, context: str) -> None:
    assert len(reading.find(node.port, context)) == 4


def test_a_query_is_not_for_push(node: Reading) -> None:
    with reading.associated(node.port, PUSH) as association:
        answers = list(association.send_c_find(reading.dataset(StudyInstanceUID=""), PUSH))
    assert [status.Status for status, _ in answers] == [0x0211]


def test_every_kind_of_matching(node: Reading) -> None:
    def found(**keys: object) -> list[str]:
        return studies(reading.find(node.port, **keys))

    code = reading.dataset(CodeValue="110005", CodingSchemeDesignator="DCM")
    request = reading.dataset(AccessionNumber="S1")
    assert found(ScheduledProcedureStepPriority="HIGH") == ["S1"]
    assert found(SOPInstanceUID=[node.uid(MILD), node.uid(UNJUDGED)]) == ["M1", "U1"]
    assert found(ProcedureStepLabel="Reading: CT*") == ["S1", "R1", "M1", "U1"]
    assert found(ProcedureStepLabel="MR*") == []
    now = time.strftime("%Y%m%d%H%M%S")
    assert found(ScheduledProcedureStepStartDateTime=f"-{now}") == ["S1", "R1", "M1", "U1"]
    assert found(ScheduledProcedureStepStartDateTime=f"{int(now[:4]) + 1}-") == []
    assert found(ScheduledWorkitemCodeSequence=[code]) == ["S1", "R1", "M1", "U1"]
    assert found(ReferencedRequestSequence=[request]) == ["S1"]
    assert found(StudyInstanceUID=REFUSED.study) == ["R1"]


def test_a_key_that_nobody_understands_is_refused_and_named(node: Reading) -> None:
    query = Dataset()
    query.add_new("ScheduledProcedureStepStartDateTime", "DT", "")
    query["ScheduledProcedureStepStartDateTime"]._value = "soon"
    with reading.associated(node.port, QUERY) as association:
        ((status, _),) = association.send_c_find(query, QUERY)
    assert status.Status == 0xA900
    assert "ScheduledProcedureStepStartDateTime" in status.ErrorComment


def test_a_key_that_workitems_do_not_have_is_said_to_be_unsupported(node: Reading) -> None:
    with reading.associated(node.port, QUERY) as association:
        answers = list(association.send_c_find(reading.dataset(ManufacturerModelName=""), QUERY))
    assert [status.Status for status, _ in answers] == [0xFF01] * 4 + [0]


def test_a_query_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    settings = reading.settings_in(tmp_path)
    journal = Journal(settings.state_dir, "test")
    bench_worklist.fill(journal, 3000, time.time(), random.Random(0))
    journal.close()
    with reading.listening(settings) as node, reading.associated(node.port, QUERY) as association:
        seen = []
        for status, _ in association.send_c_find(reading.dataset(StudyInstanceUID=""), QUERY, msg_id=7):
            seen.append(status.Status)
            if len(seen) == 3:
                association.send_c_cancel(7, query_model=QUERY)
    assert seen[-1] == 0xFE00
    assert 3 < len(seen) < 3001


def test_a_reader_that_hangs_up_in_the_middle_keeps_nothing_from_the_others(tmp_path: Path) -> None:
    settings = reading.settings_in(tmp_path, maximum_associations=1)
    journal = Journal(settings.state_dir, "test")
    bench_worklist.fill(journal, 3000, time.time(), random.Random(0))
    journal.close()
    with reading.listening(settings) as node:
        with reading.associated(node.port, QUERY) as association:
            answers = association.send_c_find(reading.dataset(StudyInstanceUID=""), QUERY)
            assert next(answers)[0].Status == 0xFF00
            association.abort()
        until(lambda: not node.worklist._listener._admitted, 10, "the place is free again")
        assert len(reading.find(node.port)) == 3000


@pytest.mark.peers
def test_findscu_lists_the_order_before_and_after_a_result(tmp_path: Path) -> None:
    """Three studies wait in the order in which they came; the last turns out to be severe."""
    late = worklists.Case(accession_number="S2", right=0.7, left=0.5, probability=0.95)
    keys = ("StudyInstanceUID", "ScheduledProcedureStepPriority", "ProcedureStepState=SCHEDULED")
    with reading.listening(reading.settings_in(tmp_path)) as node:
        now = time.time()
        for number, case in enumerate((MILD, UNJUDGED, late)):
            worklists.arrive(node.journal, case, now - 100 + number)
        for case in (MILD, UNJUDGED, late):
            node.uid(case)
        before = [(one["StudyInstanceUID"], one["ScheduledProcedureStepPriority"]) for one in findscu(node.port, *keys)]
        node.judge(MILD)
        job = queue.claim(node.journal, "other", now)  # the second stays with an analyst
        assert job is not None
        assert job.study_instance_uid == UNJUDGED.study
        node.judge(late)
        after = [(one["StudyInstanceUID"], one["ScheduledProcedureStepPriority"]) for one in findscu(node.port, *keys)]
    assert before == [(case.study, "MEDIUM") for case in (MILD, UNJUDGED, late)]
    assert after == [(late.study, "HIGH"), (UNJUDGED.study, "MEDIUM"), (MILD.study, "LOW")]


def shown(port: int) -> str:
    """The three lines of each answer, as findscu prints them for the command of the README."""
    program = str(require("findscu", package="dcmtk"))
    keys = [word for key in IN_THE_README for word in ("-k", key)]
    done = subprocess.run(
        [program, "-v", "-W", "-aec", "TRIAGE", "127.0.0.1", str(port), *keys],
        capture_output=True,
        text=True,
        check=True,
    )
    answers = re.split(r"Find Response: \d+", done.stdout + done.stderr)[1:]
    lines = [line for answer in answers for line in answer.splitlines() if line.endswith(IN_THE_README)]
    return "\n".join(re.sub(r" *\] .*", "]", line.removeprefix("I: ")).strip() for line in lines)


IN_THE_README = ("AccessionNumber", "RequestedProcedurePriority", "RequestedProcedureComments")


@pytest.mark.peers
def test_the_readme_shows_what_findscu_shows(tmp_path: Path) -> None:
    cases = (
        worklists.Case(accession_number="2026-004711", right=0.03, left=0.01, probability=0.12),
        worklists.Case(accession_number="2026-004712"),
        worklists.Case(accession_number="2026-004713", right=0.62, left=0.71, probability=0.97),
    )
    with reading.listening(reading.settings_in(tmp_path)) as node:
        for number, case in enumerate(cases):
            worklists.arrive(node.journal, case, time.time() - 600 + 200 * number)
        for case in cases:
            node.uid(case)
        before = shown(node.port)
        node.judge(cases[0])
        assert queue.claim(node.journal, "other", time.time()) is not None  # the second stays with an analyst
        node.judge(cases[2])
        after = shown(node.port)
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    example = text.split("<!-- findscu:")[1].split("<!-- end of findscu -->")[0]
    wanted = f"{before}\n\n{after}\n```\n"
    if wanted not in example:
        print(wanted)  # to be copied
    assert wanted in example
    assert all(f"-k {key}" in example for key in IN_THE_README)


@pytest.mark.peers
def test_findscu_reads_the_facts(node: Reading) -> None:
    program = str(require("findscu", package="dcmtk"))
    keys = ["-k", "ScheduledProcessingParametersSequence", "-k", f"StudyInstanceUID={SEVERE.study}"]
    done = subprocess.run(
        [program, "-v", "-W", "-aec", "TRIAGE", "127.0.0.1", str(node.port), *keys],
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout + done.stderr
    for words in ("[covid-prob]", "[97]", "[affected-worse]", "[71]", "[affected-lung", "[ct-grade]", "CT-3"):
        assert words in text, text


# ------------------------------------------------------------------ N-GET


def test_a_workitem_has_all_that_the_standard_wants_of_it(node: Reading) -> None:
    found = reading.get(node.port, node.uid(SEVERE))
    assert found.ProcedureStepState == "SCHEDULED"
    assert found.ScheduledWorkitemCodeSequence[0].CodeValue == "110005"
    assert found.InputReadinessState == "READY"
    assert found.WorklistLabel == "Chest CT"
    assert found.TransactionUID == ""
    (given,) = found.InputInformationSequence
    assert (given.StudyInstanceUID, given.SeriesInstanceUID) == (SEVERE.study, f"{SEVERE.study}.1")
    assert len(given.ReferencedSOPSequence) == 3
    # PS3.4 table CC.2.5-3: what is of type 1 when a workitem is created has a value in every one
    for keyword in (
        "ScheduledProcedureStepPriority",
        "ScheduledProcedureStepModificationDateTime",
        "ProcedureStepLabel",
        "ScheduledProcedureStepStartDateTime",
        "StudyInstanceUID",
    ):
        assert found[keyword].value, keyword
    # and what is of type 2 is there
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AdmissionID"):
        assert keyword in found, keyword


def test_facts_are_coded_and_carry_their_units(node: Reading) -> None:
    def facts(case: worklists.Case) -> dict[str, str]:
        found = {}
        for item in reading.get(
            node.port, node.uid(case), "ScheduledProcessingParametersSequence"
        ).ScheduledProcessingParametersSequence:
            name = item.ConceptNameCodeSequence[0].CodeValue
            if "ContentItemModifierSequence" in item:
                name += f", {item.ContentItemModifierSequence[0].ConceptCodeSequence[0].CodeMeaning}"
            if item.ValueType == "NUMERIC":
                assert item.MeasurementUnitsCodeSequence[0].CodeValue == "%"
                found[name] = f"{item.NumericValue:g}"
            elif item.ValueType == "CODE":
                found[name] = item.ConceptCodeSequence[0].CodeValue
            else:
                found[name] = item.TextValue
        return found

    severe, refused, unjudged = facts(SEVERE), facts(REFUSED), facts(UNJUDGED)
    assert severe["covid-prob"] == "97"
    assert severe["affected-lung, Right"] == "62"
    assert severe["affected-lung, Left"] == severe["affected-worse"] == "71"
    assert (severe["ct-grade"], severe["ct-ss"], severe["analysis-state"]) == ("ct-3", "ct-ss-4", "analysed")
    assert refused["analysis-state"] == "not-analysed"
    assert "no lungs were found" in refused["121106"]
    assert "covid-prob" not in refused
    assert "analysis-state" not in unjudged


def test_patients_are_named_from_the_header_of_their_images(tmp_path: Path) -> None:
    from tests import builders, wire

    with reading.listening(reading.settings_in(tmp_path)) as node:
        image = wire.ct(PatientName="Ångström^Eva", PatientID="P-17", PatientSex="F", PatientBirthDate="19600229")
        image.SpecificCharacterSet = "ISO_IR 100"
        study = str(image.StudyInstanceUID)
        header = filed.header(study, str(image.SeriesInstanceUID), 1)
        file = f"archive/{study}/{header.series_instance_uid}/{header.sop_instance_uid}.dcm"
        (node.settings.state_dir / file).parent.mkdir(parents=True)
        builders.write(node.settings.state_dir / file, image)
        filed.arrive(node.journal, header, now=time.time())
        (found,) = until(lambda: reading.find(node.port, PatientName="ångs*", PatientID=""), 10, "she is found")
        assert str(found.PatientName) == "Ångström^Eva"
        assert found.PatientID == "P-17"
        assert reading.find(node.port, PatientName="Eva*") == []
        assert "Ångström" not in str(node.journal.rows("select * from events"))


def test_who_asks_for_the_list_and_for_a_study_is_told_to_the_audit_and_not_each_time(node: Reading) -> None:
    def told() -> list[tuple[object, ...]]:
        rows = node.journal.rows("select event, user_name, address, study_instance_uid, words from audit order by id")
        return [tuple(row.values()) for row in rows]

    refused = reading.dataset(ManufacturerModelName="")
    with reading.associated(node.port, PUSH) as association:
        list(association.send_c_find(refused, PUSH))
    assert told() == []
    looks = [("Query", "AE READER", "127.0.0.1", None, "reading worklist, by DICOM")]
    for _ in range(2):
        reading.find(node.port)
        assert told() == looks
    for _ in range(2):
        reading.get(node.port, node.uid(SEVERE))
    looks.append(("DICOM Instances Accessed", "AE READER", "127.0.0.1", SEVERE.study, "workitem, by DICOM"))
    assert told() == looks
    reading.get(node.port, node.uid(MILD))
    looks.append((*looks[-1][:3], MILD.study, looks[-1][4]))
    with reading.associated(node.port, reading.MODALITY_WORKLIST, ae_title="MODALITY") as association:
        answers = list(association.send_c_find(reading.dataset(PatientName=""), reading.MODALITY_WORKLIST))
    assert len(answers) == 5
    looks.append(("Query", "AE MODALITY", "127.0.0.1", None, "Modality Worklist, by DICOM"))
    assert told() == looks


# ------------------------------------------------------------------ claims


def test_a_reading_system_claims_describes_and_completes(node: Reading) -> None:
    uid, mine = node.uid(SEVERE), reading.new_uid()
    assert reading.change(node.port, uid, "IN PROGRESS", mine) == 0
    assert node.state(SEVERE) == "IN PROGRESS"
    assert workitems.claims(node.journal)[SEVERE.study].performer == "AE READER"
    assert reading.change(node.port, uid, "COMPLETED", mine) == workitem.FINAL_STATE_NOT_MET
    assert reading.describe(node.port, uid, mine, UnifiedProcedureStepPerformedProcedureSequence=[
        reading.performed(PerformedProcedureStepEndDateTime="")
    ]) == 0  # fmt: skip
    assert reading.change(node.port, uid, "COMPLETED", mine) == workitem.FINAL_STATE_NOT_MET
    assert (
        reading.describe(node.port, uid, mine, UnifiedProcedureStepPerformedProcedureSequence=[reading.performed()])
        == 0
    )
    assert reading.change(node.port, uid, "COMPLETED", mine) == 0
    found = reading.get(node.port, uid)
    assert found.ProcedureStepState == "COMPLETED"
    (done,) = found.UnifiedProcedureStepPerformedProcedureSequence
    assert done.PerformedStationNameCodeSequence[0].CodeValue == "WS1"
    assert reading.describe(node.port, uid, mine, ProcedureStepLabel="x") == workitem.NO_LONGER_CHANGED
    assert [one.StudyInstanceUID for one in reading.find(node.port)][-1] == SEVERE.study


def test_what_a_performer_leaves_out_is_filled_in_where_the_node_is_told_to(tmp_path: Path) -> None:
    with reading.listening(reading.settings_in(tmp_path, complete_descriptions=True)) as node:
        worklists.fill(node.journal, (SEVERE,), time.time())
        uid, mine = node.uid(SEVERE), reading.new_uid()
        assert reading.change(node.port, uid, "IN PROGRESS", mine) == 0
        assert reading.change(node.port, uid, "COMPLETED", mine) == 0
        (done,) = reading.get(node.port, uid).UnifiedProcedureStepPerformedProcedureSequence
    assert done.PerformedStationNameCodeSequence[0].CodeValue == "READER"
    assert done.PerformedProcedureStepStartDateTime <= done.PerformedProcedureStepEndDateTime
    assert done.PerformedWorkitemCodeSequence[0].CodeValue == "110005"


def test_two_reading_systems_do_not_get_one_study(node: Reading) -> None:
    uid, mine = node.uid(SEVERE), reading.new_uid()
    assert reading.change(node.port, uid, "IN PROGRESS", mine) == 0
    assert reading.change(node.port, uid, "IN PROGRESS", reading.new_uid(), ae_title="OTHER") == 0xC301
    assert reading.change(node.port, uid, "IN PROGRESS", mine) == 0xC302
    assert reading.describe(node.port, uid, reading.new_uid(), ProcedureStepLabel="x") == 0xC301
    assert workitems.claims(node.journal)[SEVERE.study].performer == "AE READER"


def test_what_is_claimed_on_the_page_is_claimed_for_reading_systems_and_the_other_way_round(node: Reading) -> None:
    workitems.claim(node.journal, SEVERE.study, "ada", time.time())
    assert reading.change(node.port, node.uid(SEVERE), "IN PROGRESS", reading.new_uid()) == 0xC301
    (found,) = reading.find(node.port, ProcedureStepState="IN PROGRESS", ScheduledHumanPerformersSequence=[])
    assert found.ScheduledHumanPerformersSequence[0].HumanPerformerName == "ada"
    assert reading.change(node.port, node.uid(MILD), "IN PROGRESS", reading.new_uid()) == 0
    with pytest.raises(Exception, match="being read by AE READER"):
        workitems.claim(node.journal, MILD.study, "ada", time.time())


def test_a_performer_who_gives_up_puts_the_study_back_as_a_new_workitem(node: Reading) -> None:
    uid, mine = node.uid(SEVERE), reading.new_uid()
    reading.change(node.port, uid, "IN PROGRESS", mine)
    assert reading.change(node.port, uid, "CANCELED", mine) == 0
    assert node.uid(SEVERE) != uid
    first = reading.find(node.port, SOPInstanceUID="")[0]
    assert (first.SOPInstanceUID, first.ProcedureStepState) == (node.uid(SEVERE), "SCHEDULED")
    cancelled = reading.get(node.port, uid).ProcedureStepProgressInformationSequence[0]
    assert cancelled.ProcedureStepCancellationDateTime


STATES = ("SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED")
MINE, OTHER = "2.25.17", "2.25.18"


def brought_to(node: Reading, state: str) -> str:
    """A workitem of that state, claimed with MINE where it was claimed; its UID."""
    uid = node.uid(SEVERE)
    if state != "SCHEDULED":
        assert reading.change(node.port, uid, "IN PROGRESS", MINE) == 0
    if state == "COMPLETED":
        done = [reading.performed()]
        assert reading.describe(node.port, uid, MINE, UnifiedProcedureStepPerformedProcedureSequence=done) == 0
    if state in ("COMPLETED", "CANCELED"):
        assert reading.change(node.port, uid, state, MINE) == 0
    return uid


@pytest.mark.parametrize("state", STATES)
def test_the_state_table_on_the_wire(node: Reading, state: str) -> None:
    """Every request that changes nothing in this state is answered as the table says; the last one may change it."""
    recorded = None if state == "SCHEDULED" else MINE
    uid = brought_to(node, state)
    column = workitem.StepState(state)
    asked = [(wanted, given) for wanted in workitem.StepState for given in (None, OTHER, MINE)]

    def wanted_status(wanted: workitem.StepState, given: str | None) -> workitem.Outcome:
        described = state == "COMPLETED" or wanted is not workitem.StepState.COMPLETED
        return workitem.change(column, wanted, recorded=recorded, given=given, is_described=described)

    for wanted, given in asked:
        outcome = wanted_status(wanted, given)
        if not outcome.states:
            assert reading.change(node.port, uid, wanted, given) == outcome.status, (wanted, given)
    last = workitem.request_cancel(column, somebody_listens=False)
    assert reading.act(node.port, uid, 2, WATCH) == last.status
    assert reading.get(node.port, uid).ProcedureStepState == (last.states[-1] if last.states else state)


def test_of_a_workitem_that_does_not_exist_everything_is_refused(node: Reading) -> None:
    assert reading.change(node.port, "1.2.9", "IN PROGRESS", MINE) == 0xC307
    assert reading.describe(node.port, "1.2.9", MINE, ProcedureStepLabel="x") == 0xC307
    assert reading.act(node.port, "1.2.9", 2, WATCH) == 0xC307
    with reading.associated(node.port, PULL) as association:
        answer, _ = association.send_n_get([], PUSH, "1.2.9", meta_uid=PULL)
    assert answer.Status == 0xC307
    assert answer.ErrorComment


def test_a_reading_that_is_called_off_leaves_the_queue(node: Reading) -> None:
    uid = node.uid(SEVERE)
    assert reading.act(node.port, uid, 2, PUSH, ae_title="RIS", ReasonForCancellation="read elsewhere") == 0
    found = reading.find(node.port)[-1]
    assert (found.StudyInstanceUID, found.ProcedureStepState) == (SEVERE.study, "CANCELED")
    said = reading.get(node.port, uid).ProcedureStepProgressInformationSequence[0]
    assert said.ReasonForCancellation == "read elsewhere"


@pytest.mark.parametrize(
    ("context", "action", "status"),
    [(PUSH, 1, 0x0123), (PULL, 2, 0x0123), (PULL, 3, 0x0123), (QUERY, 1, 0x0123), (WATCH, 9, 0x0123)],
)
def test_actions_are_for_their_contexts_alone(node: Reading, context: str, action: int, status: int) -> None:
    assert reading.act(node.port, node.uid(SEVERE), action, context, ProcedureStepState="IN PROGRESS") == status
    assert node.state(SEVERE) == "SCHEDULED"


def test_nobody_sets_what_is_not_his(node: Reading) -> None:
    uid, mine = node.uid(SEVERE), reading.new_uid()
    reading.change(node.port, uid, "IN PROGRESS", mine)
    for attributes in ({"PatientName": "X"}, {"ProcedureStepState": "COMPLETED"}, {"StudyInstanceUID": "1.2"}):
        assert reading.describe(node.port, uid, mine, **attributes) == 0x0106
    assert node.state(SEVERE) == "IN PROGRESS"


def wrong_kinds() -> dict[str, Dataset]:
    """Data sets of which one element has not the VR of its attribute, or a value that no list can be answered with."""
    plain, nested, number = Dataset(), Dataset(), Dataset()
    plain.add_new("ScheduledHumanPerformersSequence", "LO", "x")
    inner = Dataset()
    inner.add_new("ProcedureStepProgressDescription", "DS", "5")
    nested.ProcedureStepProgressInformationSequence = [inner]
    number.add_new("Rows", "LO", "x")
    return {"a text for a sequence": plain, "in an item": nested, "a text for a number": number}


@pytest.mark.parametrize("kind", wrong_kinds())
def test_an_element_that_is_not_of_its_kind_is_refused_and_breaks_nothing(node: Reading, kind: str) -> None:
    wrong = wrong_kinds()[kind]
    uid, mine = node.uid(SEVERE), reading.new_uid()
    assert reading.change(node.port, uid, "IN PROGRESS", mine) == 0
    everything = {element.keyword: element for element in wrong}
    with reading.associated(node.port, PULL) as association:
        association.accepted_contexts[0].transfer_syntax = ["1.2.840.10008.1.2.1"]
        changes = reading.dataset(TransactionUID=mine)
        changes.update({element.tag: element for element in everything.values()})
        answer, _ = association.send_n_set(changes, PUSH, uid, meta_uid=PULL)
    assert answer.Status == 0x0106
    ordered = order()
    ordered.update({element.tag: element for element in everything.values()})
    with reading.associated(node.port, PUSH) as association:
        answer, _ = association.send_n_create(ordered, PUSH, "2.25.78")
    assert answer.Status == 0x0106
    with reading.associated(node.port, QUERY) as association:
        statuses = [status.Status for status, _ in association.send_c_find(wrong, QUERY)]
    assert statuses == [0xA900]
    assert len(reading.find(node.port, ScheduledHumanPerformersSequence=[])) == 4
    assert reading.get(node.port, uid).ProcedureStepState == "IN PROGRESS"


def spoil(node: Reading, case: worklists.Case, ordered_json: str) -> None:
    """Something in the journal that no request of today would leave there."""
    uid = node.uid(case)
    with node.journal.writing() as database:
        database.conn.execute("update workitems set ordered_json = ? where workitem_uid = ?", (ordered_json, uid))
        transitions.tell(database, uid, EventKind.NONE, time.time(), {})
        node.journal.note(database, "spoilt")


def test_one_that_cannot_be_answered_does_not_end_the_list(node: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(node, MILD, '{"00741210": {"vr": "SQ", "Value": [{"00280010": {"vr": "US", "Value": ["x"]}}]}}')
    found = studies(reading.find(node.port, ScheduledProcessingParametersSequence=[]))
    assert found == ["S1", "R1", "U1"]
    assert f"workitem={node.uid(MILD)}" in capsys.readouterr().out
    spoil(node, MILD, '{"00404034": {"vr": "SQ", "Value": ["x"]}}')  # not even read
    assert studies(reading.find(node.port, ScheduledHumanPerformersSequence=[])) == ["S1", "R1", "M1", "U1"]
    spoil(node, MILD, '{"00404034": {"vr": "LO", "Value": ["x"]}}')
    assert studies(reading.find(node.port, ScheduledHumanPerformersSequence=[])) == ["S1", "R1", "M1", "U1"]


# ------------------------------------------------------------------ orders


def order(**other: object) -> Dataset:
    request = reading.dataset(AccessionNumber="A77", StudyInstanceUID="")
    return reading.dataset(**{
        "TransactionUID": "",
        "ProcedureStepState": "SCHEDULED",
        "ScheduledProcedureStepPriority": "HIGH",
        "ScheduledProcedureStepStartDateTime": "20261121110000",
        "ProcedureStepLabel": "Please read",
        "WorklistLabel": "Emergency",
        "InputReadinessState": "INCOMPLETE",
        "PatientName": "Müller^Anna",
        "PatientID": "P-3",
        "SpecificCharacterSet": "ISO_IR 192",
        "ReferencedRequestSequence": [request],
        **other,
    })  # fmt: skip


def place(node: Reading, ordered: Dataset, uid: str = "2.25.77") -> int:
    with reading.associated(node.port, PUSH, ae_title="RIS") as association:
        answer, _ = association.send_n_create(ordered, PUSH, uid)
    return int(answer.Status)


def test_a_study_is_ordered_ahead_of_its_images(node: Reading) -> None:
    assert place(node, order()) == 0
    (found,) = reading.find(node.port, WorklistLabel="Emergency", PatientName="", InputReadinessState="")
    assert (str(found.PatientName), found.InputReadinessState, found.StudyInstanceUID) == (
        "Müller^Anna",
        "INCOMPLETE",
        "",
    )
    filed.queued(node.journal, "1.2.500", now=time.time(), accession_number="A77")
    (found,) = until(
        lambda: reading.find(node.port, StudyInstanceUID="1.2.500", SOPInstanceUID="", InputReadinessState=""),
        10,
        "the order has met its study",
    )
    assert (found.SOPInstanceUID, found.InputReadinessState) == ("2.25.77", "READY")
    assert reading.find(node.port, ScheduledProcedureStepPriority="HIGH", SOPInstanceUID="")[1:] != []
    assert reading.change(node.port, "2.25.77", "IN PROGRESS", MINE) == 0
    assert workitems.claims(node.journal)["1.2.500"].performer == "AE READER"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, 0xC309),
        ({"ProcedureStepState": ""}, 0xC309),
        ({"TransactionUID": "1.2"}, 0x0106),
        ({"ScheduledProcedureStepPriority": "URGENT"}, 0x0106),
        ({"ScheduledProcedureStepPriority": ""}, 0x0121),
        ({"ReferencedRequestSequence": []}, 0x0120),
        ({"WorklistLabel": ""}, 0xB300),
    ],
)
def test_an_order_that_lacks_something_is_refused_or_mended(
    node: Reading, change: dict[str, object], status: int
) -> None:
    assert place(node, order(**change)) == status
    kept = workitems.by_uid(node.journal, "2.25.77")
    assert (kept is not None) == (status == 0xB300)


def test_a_workitem_is_created_once(node: Reading) -> None:
    assert place(node, order()) == 0
    assert place(node, order()) == 0x0111
    assert place(node, order(), "2.25.78") == 0  # without a study nobody knows that it is the same one
    assert place(node, order(StudyInstanceUID=SEVERE.study), "2.25.79") == 0
    assert place(node, order(StudyInstanceUID=SEVERE.study), "2.25.80") == 0x0110


# ------------------------------------------------------------------ who may come


def test_strangers_get_no_association(tmp_path: Path) -> None:
    from pynetdicom import AE

    from triage_node.config import Peer

    settings = reading.settings_in(tmp_path, peers=(Peer(ae_title="READER", address="127.0.0.1"),))
    with reading.listening(settings) as node:
        for title, called, welcome in (("READER", "TRIAGE", True), ("OTHER", "TRIAGE", False), ("READER", "X", False)):
            ae = AE(ae_title=title)
            ae.add_requested_context(QUERY)
            association = ae.associate("127.0.0.1", node.port, ae_title=called)
            assert association.is_established == welcome
            assert association.is_rejected != welcome
            if welcome:
                association.release()


def test_one_association_too_many_is_asked_to_come_back(tmp_path: Path) -> None:
    from pynetdicom import AE

    with reading.listening(reading.settings_in(tmp_path, maximum_associations=1)) as node:
        with reading.associated(node.port, QUERY):
            ae = AE(ae_title="READER")
            ae.add_requested_context(QUERY)
            second = ae.associate("127.0.0.1", node.port, ae_title="TRIAGE")
            assert second.is_rejected
            assert (second.acceptor.primitive.result, second.acceptor.primitive.diagnostic) == (2, 2)
        until(lambda: not node.worklist._listener._admitted, 10, "the first one has ended")
        assert reading.find(node.port) == []
