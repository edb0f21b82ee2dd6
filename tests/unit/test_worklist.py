from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests import filed
from triage_node import config, worklist
from triage_node.journal import Journal, outbox, queue, workitems
from triage_node.study import (
    NO_CARD,
    Model,
    NotAnalysed,
    OperatingPoint,
    OrderPriority,
    PassedOver,
    ReadingPriority,
    Reason,
    StudyState,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000.0
PACS = config.DestinationSection(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
SETTINGS = config.Settings()
# DESIGN.md, "Interfaces that others rely on"
PROMISED = {
    "rank",
    "study_instance_uid",
    "accession_number",
    "arrived_at",
    "waiting_s",
    "state",
    "reading_priority",
    "covid_probability",
    "affected_fraction_right",
    "affected_fraction_left",
    "affected_fraction",
    "ct_grade",
    "ct_ss",
    "reasons",
}


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def judge(journal: Journal, study: str, arrived_at: float, **facts: Any) -> None:
    filed.queued(journal, study, now=arrived_at, accession_number=f"A{study}")
    job = queue.claim(journal, "analyst", arrived_at)
    assert job is not None
    assert queue.finish(journal, job, "analyst", filed.result(job, **facts), (PACS,), arrived_at + 60)


def test_the_list_has_every_study_in_reading_order_with_the_promised_fields(journal: Journal) -> None:
    judge(journal, "1.1", NOW - 3000, right=0.01, left=0.02)
    filed.queued(journal, "1.2", now=NOW - 2000)
    queue.claim(journal, "analyst", NOW)
    judge(journal, "1.3", NOW - 1000, right=0.6, left=0.7, probability=0.9)
    items = worklist.reading_list(journal, SETTINGS, NOW)
    assert [item.study_instance_uid for item in items] == ["1.3", "1.2", "1.1"]
    rows = json.loads(json.dumps([asdict(item) for item in items]))
    assert all(set(row) >= PROMISED for row in rows)
    first, waiting, _ = rows
    assert {name: first[name] for name in PROMISED - {"reasons"}} == {
        "rank": 1,
        "study_instance_uid": "1.3",
        "accession_number": "A1.3",
        "arrived_at": "2023-11-14T21:56:40.000+00:00",
        "waiting_s": 1000.0,
        "state": "judged",
        "reading_priority": "HIGH",
        "covid_probability": 0.9,
        "affected_fraction_right": 0.6,
        "affected_fraction_left": 0.7,
        "affected_fraction": 0.7,
        "ct_grade": "CT-2",
        "ct_ss": 2,
    }
    assert first["reasons"][:3] == [
        "60% of the right lung affected",
        "70% of the left lung affected",
        "P(COVID-19) 0.90",
    ]
    assert (waiting["state"], waiting["reading_priority"]) == ("waiting", "MEDIUM")
    assert [waiting[name] for name in ("covid_probability", "affected_fraction", "ct_grade", "ct_ss")] == [None] * 4


def uids(journal: Journal, settings: config.Settings = SETTINGS, first: int | None = None) -> list[str]:
    return [item.study_instance_uid for item in worklist.reading_list(journal, settings, NOW, first)]


def test_a_list_that_was_read_before_follows_whatever_changes(journal: Journal) -> None:
    """Rows are read once; what changed since is found by its revision, whoever wrote it and from which process."""
    judge(journal, "1.1", NOW - 3000, right=0.1, left=0.1)
    assert uids(journal) == ["1.1"]
    other = Journal(journal.state_dir, "another process")
    judge(other, "1.2", NOW - 2000, right=0.3, left=0.1)
    assert uids(journal) == ["1.2", "1.1"]
    filed.arrive(other, filed.header("1.1", "1.1.1", 99), now=NOW - 1500)
    filed.close_all(other, NOW - 1400)
    job = queue.claim(other, "analyst", NOW - 1300)
    assert job is not None
    assert queue.finish(other, job, "analyst", filed.result(job, right=0.9, left=0.1), (), NOW - 1200)
    first, _ = worklist.reading_list(journal, SETTINGS, NOW)
    assert (first.study_instance_uid, first.affected_fraction, first.generation) == ("1.1", 0.9, 2)
    workitems.finish(other, "1.1", "reader", NOW - 1000)
    assert uids(journal) == ["1.2", "1.1"]
    workitems.release(other, "1.1", "reader", NOW - 900)
    assert uids(journal) == ["1.1", "1.2"]
    with other.writing() as database:
        database.conn.execute("update studies set order_priority = 'STAT' where study_instance_uid = '1.2'")
    assert uids(journal) == ["1.2", "1.1"]
    with other.writing() as database:
        database.conn.execute("delete from studies where study_instance_uid = '1.2'")
    assert uids(journal) == ["1.1"]
    other.close()


def test_a_list_follows_other_rules_at_once(journal: Journal) -> None:
    judge(journal, "1.1", NOW - 3000, right=0.1, left=0.1, probability=0.9)
    judge(journal, "1.2", NOW - 2000, right=0.6, left=0.1, probability=0.6)
    severity = config.Settings(worklist=config.WorklistSection(strategy="severity"))
    identification = config.Settings(worklist=config.WorklistSection(strategy="identification"))
    assert uids(journal, severity) == ["1.2", "1.1"]
    assert uids(journal, identification) == ["1.1", "1.2"]


def test_the_first_places_alone_are_those_of_the_whole_list(journal: Journal) -> None:
    for number in range(6):
        judge(journal, f"1.{number}", NOW - 1000 + number, right=number / 10, left=0.0)
    whole = worklist.reading_list(journal, SETTINGS, NOW)
    assert len(whole) == 6
    assert worklist.reading_list(journal, SETTINGS, NOW, first=2) == whole[:2]


def test_the_priority_of_an_order_comes_with_the_first_series_that_says_it_and_moves_the_study(
    journal: Journal,
) -> None:
    judge(journal, "1.1", NOW - 3000, right=0.9, left=0.1)
    judge(journal, "1.2", NOW - 2000, right=0.0, left=0.0)
    for series, said in (("1.2.8", OrderPriority.STAT), ("1.2.9", OrderPriority.LOW)):
        filed.arrive(journal, filed.header("1.2", series, 0, order_priority=said), now=NOW - 1000)
    first, second = worklist.reading_list(journal, SETTINGS, NOW)
    assert (first.study_instance_uid, first.order_priority) == ("1.2", OrderPriority.STAT)
    assert first.explanation == "stands as it came: ordered STAT, 0% of each lung affected"
    assert (second.order_priority, second.reading_priority) == (None, ReadingPriority.HIGH)


def test_the_pace_of_the_readers_is_measured_and_holds_the_maximum_ahead_of_time(journal: Journal) -> None:
    """Six studies were taken at 20 minutes each: then a mild one that has waited for 70 of 120 min must be third."""
    for number in range(6):
        judge(journal, f"2.{number}", NOW - 9000, right=0.0, left=0.0)
        workitems.finish(journal, f"2.{number}", "reader", NOW - 7200 + 1200 * number)
    judge(journal, "1.1", NOW - 70 * 60, right=0.0, left=0.0)
    for number in range(2, 5):
        judge(journal, f"1.{number}", NOW - 600, right=0.9, left=0.0)
    assert uids(journal, first=4) == ["1.2", "1.3", "1.1", "1.4"]


def test_a_study_that_was_not_analysed_stays_on_the_list_with_its_reason(journal: Journal) -> None:
    judge(journal, "1.1", NOW - 100, refusal="3 slices are missing")
    (item,) = worklist.reading_list(journal, SETTINGS, NOW)
    assert (item.state, item.reading_priority) == (StudyState.NOT_ANALYSED, ReadingPriority.MEDIUM)
    assert item.reasons == ("not analysed: 3 slices are missing", "keeps its place by arrival")


def test_the_list_uses_the_card_of_the_model_that_judged_and_keeps_it(journal: Journal) -> None:
    """Through the journal: the card is stored with the assessment."""
    filed.queued(journal, "1.1", now=NOW)
    job = queue.claim(journal, "analyst", NOW)
    assert job is not None
    answer = filed.result(job, right=0.1, left=0.0, probability=0.6)
    assert answer.assessment is not None
    model = Model(
        name="multitask",
        version="2",
        digest="1" * 64,
        operating_point=OperatingPoint(probability_high=0.9, probability_medium=0.55, source="measured"),
        parameters=(("Lesion threshold", "0.3"),),
        trust="Learnt from few patients.",
    )
    answer = replace(answer, assessment=replace(answer.assessment, model=model))
    assert queue.finish(journal, job, "analyst", answer, (PACS,), NOW + 1)
    (item,) = worklist.reading_list(journal, SETTINGS, NOW)
    assert item.reading_priority is ReadingPriority.MEDIUM
    assert "MEDIUM: P(COVID-19) from 0.55 on" in item.reasons
    report = worklist.study_report(journal, "1.1")
    assert report is not None
    measured = report["measurements"]
    assert isinstance(measured, dict)
    assert measured["trust"] == "Learnt from few patients."
    assert measured["model"]["parameters"] == (("Lesion threshold", "0.3"),)
    assert measured["model"]["operating_point"]["source"] == "measured"


def test_an_assessment_of_an_earlier_version_is_still_read() -> None:
    """A row as version 0.1 wrote it, before there were model cards."""
    text = (
        '{"right":{"laterality":"right","volume_ml":2500.0,"lesion_ml":750.0,"consolidation_ml":187.5},"left":null,'
        '"affected_fraction":0.3,"affected_fraction_both":0.3,"consolidation_share":0.25,"ct_grade":"CT-2","ct_ss":3,'
        '"covid_probability":null,"model":{"name":"threshold","version":"1","digest":"00","describes":""},'
        '"generation":1,"warnings":[]}'
    )
    read = queue.ASSESSMENT.validate_json(text)
    assert (read.ct_grade, read.operating_point, read.model.parameters) == ("CT-2", NO_CARD, ())
    assert queue.ASSESSMENT.validate_json(queue.ASSESSMENT.dump_json(read)) == read


def test_a_study_from_the_future_has_not_waited(journal: Journal) -> None:
    """The clock was put back."""
    filed.queued(journal, "1.1", now=NOW + 50)
    assert worklist.reading_list(journal, SETTINGS, NOW)[0].waiting_s == 0.0


def test_an_unknown_study_has_no_report(journal: Journal) -> None:
    assert worklist.study_report(journal, "1.2.3") is None


def test_the_report_of_a_study_has_evidence_refusals_measurements_and_the_ledger(journal: Journal) -> None:
    passed_over = PassedOver(
        series_instance_uid="1.1.2",
        description="TOPOGRAM",
        not_analysed=NotAnalysed(reason=Reason.LOCALIZER, words="a localizer"),
    )
    filed.arrive(journal, filed.header("1.1", "1.1.2", 0, volumetric=False), now=NOW)
    judge(journal, "1.1", NOW, right=0.4, left=0.1, passed_over=(passed_over,))
    (first, *_) = outbox.due(journal, "pacs", NOW + 100)
    outbox.record(journal, first, "failed", status=0xA700, words="0xA700 Failure", now=NOW + 100, retry_at=NOW + 160)
    report = worklist.study_report(journal, "1.1")
    assert report is not None
    report = json.loads(json.dumps(report))
    assert report["notice"] == "NOT FOR DIAGNOSTIC USE"
    assert (report["state"], report["generation"], report["seconds"]) == ("judged", 1, 1.5)
    judged, other = sorted(report["series"], key=lambda series: series["series_instance_uid"])
    assert (judged["judged"], judged["basis"], judged["evidence"]) == (True, "LONG_QUIET", ["nothing new"])
    assert (other["judged"], other["refusal"]) == (False, {"reason": "LOCALIZER", "words": "a localizer"})
    assert report["measurements"]["right"] == {
        "volume_ml": 2500.0,
        "lesion_ml": 1000.0,
        "ground_glass_ml": 750.0,
        "consolidation_ml": 250.0,
        "affected_fraction": 0.4,
        "ground_glass_fraction": 0.3,
        "consolidation_fraction": 0.1,
    }
    both = report["measurements"]["both"]
    assert {key: both[key] for key in ("volume_ml", "lesion_ml", "ground_glass_ml", "consolidation_ml")} == {
        "volume_ml": 5000.0,
        "lesion_ml": 1250.0,
        "ground_glass_ml": 937.5,
        "consolidation_ml": 312.5,
    }
    extents = (both["affected_fraction"], both["ground_glass_fraction"], both["consolidation_fraction"])
    assert extents == pytest.approx((0.25, 0.1875, 0.0625))
    assert report["measurements"]["operating_point"]["grades_up_to"] == [0.25, 0.5, 0.75]
    (lungs,) = [entry for entry in report["objects"] if entry["kind"] == "lungs"]
    assert (lungs["destination"], lungs["state"], lungs["attempts"], lungs["current"]) == ("pacs", "queued", 1, True)
    assert lungs["next_at"] == worklist.iso(NOW + 160)
    assert lungs["deliveries"] == [
        {"at": worklist.iso(NOW + 100), "state": "failed", "status": 0xA700, "words": "0xA700 Failure"}
    ]
    assert [event["event"] for event in report["events"]][-1] == "study judged"


def test_objects_of_an_older_generation_are_told_apart(journal: Journal) -> None:
    judge(journal, "1.1", NOW)
    filed.arrive(journal, filed.header("1.1", "1.1.1", 99), now=NOW + 100)
    filed.close_all(journal, NOW + 200)
    job = queue.claim(journal, "analyst", NOW + 201)
    assert job is not None
    assert queue.finish(journal, job, "analyst", filed.result(job), (PACS,), NOW + 300)
    report = worklist.study_report(journal, "1.1")
    assert report is not None
    objects = report["objects"]
    assert isinstance(objects, list)
    assert {(entry["generation"], entry["current"]) for entry in objects} == {(1, False), (2, True)}


def test_times_are_told_in_utc() -> None:
    assert worklist.iso(NOW) == "2023-11-14T22:13:20.000+00:00"
    assert datetime.fromisoformat(str(worklist.iso(NOW))) == datetime.fromtimestamp(NOW, UTC)
    assert worklist.iso(None) is None
