from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests import filed
from triage_node import completion
from triage_node.config import CompletionSection, DestinationSection
from triage_node.errors import TriageError
from triage_node.journal import Journal, intake, outbox, queue, views
from triage_node.journal.schema import SCHEMA_VERSION
from triage_node.study import OrderPriority, StudyState

PACS = DestinationSection(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
REPORTS = DestinationSection(name="reports", ae_title="RIS", host="127.0.0.1", port=105, send=("report",))
STUDY = "1.2.3"


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def jobs(journal: Journal) -> list[tuple[str, int, str]]:
    rows = journal.rows("select study_instance_uid, generation, state from jobs order by id")
    return [(row["study_instance_uid"], row["generation"], row["state"]) for row in rows]


def outgoing(journal: Journal) -> dict[tuple[str, str], str]:
    rows = journal.rows("select kind, destination, state from outbox join objects using (sop_instance_uid) order by 1")
    return {(row["destination"], row["kind"]): row["state"] for row in rows}


def judged(journal: Journal, study: str = STUDY, **facts: float) -> queue.Job:
    job = queue.claim(journal, "analyst", 2.0)
    assert job is not None
    assert job.study_instance_uid == study
    assert queue.finish(journal, job, "analyst", filed.result(job, **facts), (PACS,), 3.0)
    return job


# ---------------------------------------------------------------------- series and studies


def test_a_closed_series_queues_its_study_with_the_evidence_on_record(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    assert jobs(journal) == [(STUDY, 1, "queued")]
    (series,) = views.series(journal, STUDY)
    assert (series.state, series.generation, series.basis) == ("closed", 1, "LONG_QUIET")
    assert series.evidence == ("nothing new",)
    assert [event.event for event in views.events(journal, STUDY)] == [
        "series opened",
        "series closed",
        "study queued",
    ]


def test_a_late_slice_reopens_the_series_and_brings_a_new_generation_and_a_new_job(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    first = judged(journal)
    assert filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 99), now=5.0)
    assert views.series(journal, STUDY)[0].state == "open"
    assert "series reopened by a late instance" in [event.event for event in views.events(journal, STUDY)]
    assert filed.close_all(journal, 6.0) == 1
    assert jobs(journal) == [(STUDY, 1, "done"), (STUDY, 2, "queued")]
    second = judged(journal)
    assert (second.generation, second.last_instance_id) == (2, first.last_instance_id + 1)
    assert views.series(journal, STUDY)[0].generation == 2


def test_a_late_slice_replaces_a_job_that_nobody_has_begun(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 99), now=5.0)
    filed.close_all(journal, 6.0)
    assert jobs(journal) == [(STUDY, 1, "superseded"), (STUDY, 2, "queued")]


def test_a_job_sees_the_instances_up_to_its_last_one_alone(journal: Journal, tmp_path: Path) -> None:
    filed.queued(journal, STUDY, now=1.0, slices=3)
    job = queue.claim(journal, "analyst", 2.0)
    assert job is not None
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 99), now=5.0)
    study = intake.study(journal, STUDY, last_instance_id=job.last_instance_id, state_dir=tmp_path)
    assert [len(series.instances) for series in study.series] == [3]
    assert study.series[0].instances[0].path.is_absolute()


def test_an_instance_that_comes_between_judging_and_closing_keeps_the_series_open(journal: Journal) -> None:
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 0), now=1.0)
    (weighed,) = intake.open_series(journal)
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 1), now=2.0)
    assert not intake.close_series(journal, weighed, filed.COMPLETE, 3.0)
    assert jobs(journal) == []
    assert filed.close_all(journal, 4.0) == 1


def test_a_study_is_not_queued_while_one_of_its_series_is_open(journal: Journal) -> None:
    for series in ("1.2.3.1", "1.2.3.2"):
        filed.arrive(journal, filed.header(STUDY, series, 0), now=1.0)
    first, second = intake.open_series(journal)
    assert intake.close_series(journal, first, filed.COMPLETE, 2.0)
    assert jobs(journal) == []
    assert intake.close_series(journal, second, filed.COMPLETE, 2.0)
    assert jobs(journal) == [(STUDY, 1, "queued")]


def test_a_series_closed_twice_on_unchanged_instances_queues_one_job(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    with journal.writing() as database:  # as an administrator's tool might
        database.conn.execute("update series set state = 'open'")
    assert filed.close_all(journal, 3.0) == 1
    assert jobs(journal) == [(STUDY, 1, "queued")]


def test_an_instance_that_is_journalled_already_changes_nothing(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0, slices=1)
    before = journal.version()
    assert not filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 0), now=5.0)
    assert journal.version() == before
    assert intake.open_series(journal) == []


def test_a_study_that_is_sent_image_by_image_closes_after_the_short_quiet_time(journal: Journal) -> None:
    """One association for each image, as some modalities do."""
    settings = CompletionSection(quiet_s=2.0, long_quiet_s=30.0)
    for number in range(12):
        association = intake.open_association(journal, "CT", "10.0.0.1", number)
        filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", number), now=number, association=association)
        if number < 11:
            intake.close_association(journal, association, "released", number + 0.5)
    (series,) = intake.open_series(journal)
    assert series.evidence.open_associations == 1
    assert completion.judge(series.evidence, settings, 40.9).basis is None
    intake.close_association(journal, association, "released", 11.5)
    (series,) = intake.open_series(journal)
    assert completion.judge(series.evidence, settings, 12.9).basis is None
    assert completion.judge(series.evidence, settings, 13.0).basis is completion.Basis.RELEASED_WITHOUT_GAP


def test_what_a_dead_receiver_left_open_counts_as_broken(journal: Journal) -> None:
    association = intake.open_association(journal, "CT", "10.0.0.1", 0.0)
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 0), now=1.0, association=association)
    assert intake.cut_off_associations(journal, 2.0) == 1
    intake.close_association(journal, association, "released", 3.0)  # too late to be believed
    (series,) = intake.open_series(journal)
    assert (series.evidence.open_associations, series.evidence.broken_associations) == (0, 1)


def test_the_evidence_counts_localizers_and_multi_frame_objects_apart(journal: Journal) -> None:
    filed.arrive(journal, filed.header(STUDY, "1.2.3.1", 0, volumetric=False, geometry=None), now=1.0)
    filed.arrive(journal, filed.header(STUDY, "1.2.3.1", 1), now=1.0)
    filed.arrive(journal, filed.header(STUDY, "1.2.3.1", 2, frames=50, geometry=None), now=1.0)
    evidence = intake.open_series(journal)[0].evidence
    assert (evidence.instances, evidence.volumetric_instances, evidence.multi_frame_instances) == (3, 2, 1)
    assert len(evidence.geometries) == 1


# ---------------------------------------------------------------------- jobs


def test_jobs_are_claimed_by_priority_and_then_in_order(journal: Journal) -> None:
    for study in ("1.1", "1.2", "1.3"):
        filed.queued(journal, study, now=1.0)
    with journal.writing() as database:
        database.conn.execute("update jobs set priority = 1 where study_instance_uid = '1.3'")
    claimed = [queue.claim(journal, "analyst", 2.0) for _ in range(4)]
    assert [job.study_instance_uid if job else None for job in claimed] == ["1.3", "1.1", "1.2", None]


def test_a_handed_back_job_counts_its_attempt_only_after_a_fault(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    attempts = []
    for fault in (True, False, True, True):
        job = queue.claim(journal, "analyst", 2.0)
        assert job is not None
        attempts.append(job.attempts)
        assert queue.hand_back(journal, "another", fault=True) == 0
        assert queue.hand_back(journal, "analyst", fault=fault) == 1
    assert attempts == [1, 2, 2, 3]


def test_a_job_ends_with_result_outbox_and_worklist(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    job = queue.claim(journal, "analyst", 2.0)
    assert job is not None
    assert queue.finish(journal, job, "analyst", filed.result(job), (PACS, REPORTS), 3.0)
    study = views.study(journal, STUDY)
    assert study is not None
    assert (study.state, study.generation, study.assessment) == (StudyState.JUDGED, 1, filed.assessment(1))
    assert outgoing(journal) == {
        **{("pacs", kind): "queued" for kind in ("lesions", "lungs", "overview", "report")},
        ("reports", "report"): "queued",
    }
    assert [item.kind for item in outbox.due(journal, "pacs", 3.0)] == ["lungs", "lesions", "overview", "report"]
    assert queue.depth(journal) == {"done": 1}


def test_a_stale_owner_cannot_finish_a_job(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    job = queue.claim(journal, "first", 2.0)
    assert job is not None
    queue.hand_back(journal, "first", fault=True)
    again = queue.claim(journal, "second", 3.0)
    assert again is not None
    assert not queue.finish(journal, job, "first", filed.result(job), (PACS,), 4.0)
    assert outgoing(journal) == {}
    assert queue.finish(journal, again, "second", filed.result(again), (PACS,), 5.0)
    assert not queue.finish(journal, again, "second", filed.result(again), (PACS,), 6.0)
    assert len(outgoing(journal)) == 4


def test_a_newer_answer_supersedes_what_was_not_sent_yet(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal)
    sent = outbox.due(journal, "pacs", 4.0)[0]
    outbox.record(journal, sent, "stored", status=0, words="0x0000", now=4.0, retry_at=None)
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 99), now=5.0)
    filed.close_all(journal, 6.0)
    judged(journal)
    states = [(entry.generation, entry.kind, entry.state) for entry in views.objects(journal, STUDY)]
    assert [state for generation, _, state in states if generation == 2] == ["queued"] * 4
    assert [state for generation, kind, state in states if generation == 1 and kind != "lungs"] == ["superseded"] * 3
    assert (1, "lungs", "stored") in states
    assert {item.kind for item in outbox.due(journal, "pacs", 9.0)} == {"lungs", "lesions", "overview", "report"}


def test_an_older_generation_that_ends_late_does_not_replace_the_newer_answer(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    slow = queue.claim(journal, "slow", 2.0)
    assert slow is not None
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 99), now=5.0)
    filed.close_all(journal, 6.0)
    fast = queue.claim(journal, "fast", 7.0)
    assert fast is not None
    assert queue.finish(journal, fast, "fast", filed.result(fast), (PACS,), 8.0)
    assert not queue.finish(journal, slow, "slow", filed.result(slow), (PACS,), 9.0)
    assert jobs(journal) == [(STUDY, 1, "superseded"), (STUDY, 2, "done")]
    study = views.study(journal, STUDY)
    assert study is not None
    assert study.generation == 2
    assert set(outgoing(journal).values()) == {"queued"}


def test_what_is_superseded_is_never_requeued(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal)
    for item, outcome in zip(outbox.due(journal, "pacs", 4.0), ("refused", "failed", "stored", "failed"), strict=True):
        outbox.record(journal, item, outcome, status=None, words="", now=4.0, retry_at=None)
    assert outbox.depth(journal) == {"pacs": {"given up": 2, "refused": 1, "stored": 1}}
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 99), now=5.0)
    filed.close_all(journal, 6.0)
    second = judged(journal)
    assert outbox.requeue(journal, 10.0) == 4
    due = outbox.due(journal, "pacs", 10.0)
    assert {item.sop_instance_uid for item in due} == {made.sop_instance_uid for made in filed.result(second).objects}


def test_a_study_that_is_being_read_stays_so_when_its_answer_comes(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    with journal.writing() as database:
        database.conn.execute("update studies set state = 'reading'")
    judged(journal)
    study = views.study(journal, STUDY)
    assert study is not None
    assert study.state is StudyState.READING
    assert study.assessment is not None


def test_a_result_is_either_an_assessment_or_a_refusal(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    job = queue.claim(journal, "analyst", 2.0)
    assert job is not None
    whole = filed.result(job)
    with pytest.raises(ValueError, match="either an assessment or a refusal"):
        queue.Result(
            series_instance_uid=None,
            assessment=whole.assessment,
            not_analysed=filed.result(job, refusal="gap").not_analysed,
            passed_over=(),
            identity=whole.identity,
            objects=(),
            duration_s=0.0,
        )


# ---------------------------------------------------------------------- many at once


WORKER = """
import sys, threading
from pathlib import Path
from triage_node.journal import Journal, queue
state, name = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
journal = Journal(state, name)
def work(number):
    turn = 0
    while (job := queue.claim(journal, f"{name} {number} {turn}", 2.0)) is not None:
        if job.attempts == 1 and job.id % 5 == 0:
            queue.hand_back(journal, f"{name} {number} {turn}", fault=True)
        else:
            sys.stdout.write(f"{job.id} {job.attempts}\\n")
        turn += 1
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def spawn(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_each_job_is_claimed_once_by_many_threads_and_processes_while_others_write(journal: Journal) -> None:
    for number in range(60):
        filed.queued(journal, f"1.{number}", now=1.0, slices=1)
    workers = [spawn(WORKER, str(journal.state_dir), f"worker-{n}") for n in range(4)]
    stop = threading.Event()

    def intrude() -> None:
        number = 0
        while not stop.is_set():
            filed.arrive(journal, filed.header("9.9", "9.9.1", number), now=1.0)
            intake.open_series(journal)
            number += 1

    intruder = threading.Thread(target=intrude)
    intruder.start()
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    try:
        answers = [worker.communicate(timeout=60) for worker in workers]
    finally:
        stop.set()
        intruder.join()
    assert [errors for _, errors in answers] == ["", "", "", ""]
    claimed = [tuple(map(int, line.split())) for output, _ in answers for line in output.splitlines()]
    assert sorted(job for job, _ in claimed) == list(range(1, 61))
    assert all(attempts == (2 if job % 5 == 0 else 1) for job, attempts in claimed)


OPENER = """
import sys
from pathlib import Path
from triage_node.journal import Journal
sys.stdin.readline()
print(Journal(Path(sys.argv[1])).version())
"""


def test_a_new_journal_may_be_opened_by_many_processes_at_once(tmp_path: Path) -> None:
    for turn in range(3):
        openers = [spawn(OPENER, str(tmp_path / str(turn))) for _ in range(4)]
        time.sleep(0.5)
        for opener in openers:
            assert opener.stdin
            opener.stdin.write("go\n")
            opener.stdin.flush()
        assert [opener.communicate(timeout=60) for opener in openers] == [("0\n", "")] * 4


FINISHER = """
import sys
from pathlib import Path
from tests import filed
from triage_node.config import DestinationSection
from triage_node.journal import Journal, queue
journal = Journal(Path(sys.argv[1]), "analyst")
places = tuple(DestinationSection(name=f"d{n}", ae_title="A", host="h", port=1) for n in range(8))
print("ready", flush=True)
while (job := queue.claim(journal, "analyst", 2.0)) is not None:
    queue.finish(journal, job, "analyst", filed.result(job), places, 3.0)
"""


def test_an_analyst_killed_while_it_finishes_leaves_all_of_a_result_or_nothing(journal: Journal) -> None:
    chance = random.Random(1)
    for number in range(1500):
        filed.arrive(journal, filed.header(f"1.{number}", f"1.{number}.1", 0), now=1.0)
        if number % 300 == 299:
            filed.close_all(journal, 1.0)
    cut_off = 0
    for _ in range(10):
        analyst = spawn(FINISHER, str(journal.state_dir), cwd=Path(__file__).parents[2])
        assert analyst.stdout
        assert analyst.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.1))
        os.kill(analyst.pid, signal.SIGKILL)
        analyst.communicate()
        done = "select study_instance_uid from jobs where state = 'done'"
        for table, per_study in (("results", 1), ("outbox", 32)):
            odd = f"select study_instance_uid from {table} group by 1 having count(*) <> {per_study}"
            assert journal.rows(odd) == []
            assert journal.rows(f"{done} except select study_instance_uid from {table}") == []
            assert journal.rows(f"select study_instance_uid from {table} except {done}") == []
        assert journal.rows(f"select study_instance_uid from studies where result_id is not null except {done}") == []
        assert journal.rows(f"{done} except select study_instance_uid from studies where state = 'judged'") == []
        cut_off += queue.hand_back(journal, "analyst", fault=True)
    finished = queue.depth(journal)["done"]
    assert cut_off >= 3, "the kills never met a job under way"
    assert 10 <= finished < 1500


# ---------------------------------------------------------------------- faults of the disk


def test_a_full_disk_fails_the_transaction_and_the_journal_goes_on_when_there_is_room(journal: Journal) -> None:
    with journal.writing() as database:
        pages = database.conn.execute("pragma page_count").fetchone()[0]
        database.conn.execute(f"pragma max_page_count = {pages}")  # SQLite's own SQLITE_FULL, on this connection
    numbers = iter(range(500))
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):  # noqa: PT012  # how many fit is SQLite's matter
        for number in numbers:
            filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", number), now=1.0)
    failed_at = next(numbers) - 1
    assert views.totals(journal)["instances"] == failed_at
    with journal.reading() as database:
        database.conn.execute("pragma max_page_count = 100000")
    assert filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", failed_at), now=1.0)


def test_a_transaction_that_cannot_be_committed_is_rolled_back(journal: Journal) -> None:
    with pytest.raises(sqlite3.IntegrityError), journal.writing() as database:  # noqa: PT012  # fails at its end
        database.conn.execute("pragma defer_foreign_keys = on")
        database.conn.execute("insert into deliveries (outbox_id, at, state, words) values (77, 0, 'stored', '')")
    assert filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 1), now=1.0)
    assert journal.rows("select * from deliveries") == []


def test_a_journal_that_is_none_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(TriageError, match=r"journal\.sqlite cannot be used: file is not a database"):
        Journal(tmp_path)


def test_the_journal_of_a_newer_version_is_left_alone(journal: Journal) -> None:
    with journal.writing() as database:
        database.conn.execute("pragma user_version = 99")
    with pytest.raises(TriageError, match=f"schema 99, this version knows {SCHEMA_VERSION}"):
        Journal(journal.state_dir)
    assert journal.row("pragma user_version") == {"user_version": 99}


def test_what_was_ordered_in_a_hurry_is_analysed_first(journal: Journal) -> None:
    for study, said in (
        ("1.1", None),
        ("1.2", OrderPriority.LOW),
        ("1.3", OrderPriority.HIGH),
        ("1.4", OrderPriority.STAT),
    ):
        filed.arrive(journal, filed.header(study, f"{study}.1", 0, order_priority=said), now=10.0)
    filed.close_all(journal, 20.0)
    claimed = [queue.claim(journal, "analyst", 30.0) for _ in range(4)]
    assert [job.study_instance_uid for job in claimed if job] == ["1.4", "1.3", "1.1", "1.2"]


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        (None, OrderPriority.LOW, "LOW"),
        (OrderPriority.ROUTINE, OrderPriority.STAT, "STAT"),
        (OrderPriority.HIGH, OrderPriority.ROUTINE, "HIGH"),
        (OrderPriority.HIGH, None, "HIGH"),
    ],
)
def test_of_the_priorities_that_the_series_of_a_study_bring_the_most_urgent_counts(
    journal: Journal, first: OrderPriority | None, then: OrderPriority | None, expected: str
) -> None:
    for number, said in enumerate((first, then)):
        filed.arrive(journal, filed.header("1.2", f"1.2.{number}", 0, order_priority=said), now=10.0)
    assert journal.row("select order_priority from studies") == {"order_priority": expected}
