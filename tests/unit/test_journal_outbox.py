"""The outbox: what is due to whom, in which order, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node.config import DestinationSection
from triage_node.journal import Journal, outbox, queue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACS, SECOND = (
    DestinationSection(name=name, ae_title=name.upper(), host="127.0.0.1", port=104) for name in ("pacs", "second")
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def judge(journal: Journal, study: str, now: float, *destinations: DestinationSection) -> None:
    filed.queued(journal, study, now=now)
    job = queue.claim(journal, "test", now)
    assert job is not None
    assert queue.finish(journal, job, "test", filed.result(job), destinations or (PACS,), now)


def record(
    journal: Journal, outgoing: outbox.Outgoing, outcome: outbox.Outcome, now: float, retry_at: float | None
) -> None:
    outbox.record(journal, outgoing, outcome, status=None, words="because", now=now, retry_at=retry_at)


def states(journal: Journal) -> list[str]:
    return [row["state"] for row in journal.rows("select state from outbox order by id")]


def test_a_studys_objects_are_due_together_the_report_last(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    judge(journal, "1.3", 101.0)
    batch = outbox.due(journal, "pacs", 200.0)
    assert {outgoing.study_instance_uid for outgoing in batch} == {"1.2"}
    assert [outgoing.kind for outgoing in batch] == ["lungs", "lesions", "overview", "report"]
    assert all(outgoing.path.is_relative_to(journal.state_dir) for outgoing in batch)


def test_each_destination_has_its_own_queue(journal: Journal) -> None:
    judge(journal, "1.2", 100.0, PACS, SECOND)
    for outgoing in outbox.due(journal, "pacs", 100.0):
        record(journal, outgoing, "stored", 101.0, None)
    assert outbox.due(journal, "pacs", 200.0) == []
    assert len(outbox.due(journal, "second", 200.0)) == 4
    assert outbox.depth(journal) == {"pacs": {"stored": 4}, "second": {"queued": 4}}


def test_a_study_that_failed_lets_the_others_pass_until_its_pause_is_over(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    judge(journal, "1.3", 101.0)
    for outgoing in outbox.due(journal, "pacs", 200.0):
        record(journal, outgoing, "failed", 200.0, 260.0)
    assert {outgoing.study_instance_uid for outgoing in outbox.due(journal, "pacs", 201.0)} == {"1.3"}
    for outgoing in outbox.due(journal, "pacs", 201.0):
        record(journal, outgoing, "stored", 202.0, None)
    assert outbox.due(journal, "pacs", 259.0) == []
    assert outbox.next_at(journal, "pacs") == 260.0
    batch = outbox.due(journal, "pacs", 260.0)
    assert [outgoing.attempts for outgoing in batch] == [1] * 4


def test_an_attempt_ends_as_the_destination_said(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    first, second, third, fourth = outbox.due(journal, "pacs", 100.0)
    record(journal, first, "stored", 101.0, None)
    record(journal, second, "refused", 101.0, None)
    record(journal, third, "failed", 101.0, None)
    record(journal, fourth, "failed", 101.0, 300.0)
    found = {row["id"]: row["state"] for row in journal.rows("select id, state from outbox")}
    assert [found[outgoing.outbox_id] for outgoing in (first, second, third, fourth)] == [
        "stored",
        "refused",
        "given up",
        "queued",
    ]
    ledger = journal.rows("select state, words from deliveries order by id")
    assert [row["state"] for row in ledger] == ["stored", "refused", "failed", "failed"]
    events = [row["event"] for row in journal.rows("select event from events where event like 'object %' order by id")]
    assert events == ["object stored", "object refused", "object given up"]


def test_an_object_that_was_superseded_under_way_stays_so(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    (first, *_) = outbox.due(journal, "pacs", 100.0)
    with journal.writing() as database:
        database.conn.execute("update outbox set state = 'superseded'")
    record(journal, first, "failed", 101.0, 200.0)
    assert set(states(journal)) == {"superseded"}
    assert len(journal.rows("select * from deliveries")) == 1


def test_a_requeued_object_begins_anew(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    judge(journal, "1.3", 100.0)
    for now in (100.0, 110.0, 120.0):
        for outgoing in outbox.due(journal, "pacs", now):
            retry_at = now + 10.0 if now < 120.0 else None
            record(journal, outgoing, "failed", now, retry_at)
    assert outbox.requeue(journal, 1000.0, study="1.2") == 4
    batch = outbox.due(journal, "pacs", 1000.0)
    assert {outgoing.study_instance_uid for outgoing in batch} <= {"1.2", "1.3"}
    renewed = journal.rows("select attempts, queued_at, next_at from outbox where study_instance_uid = '1.2'")
    assert [(row["attempts"], row["queued_at"], row["next_at"]) for row in renewed] == [(0, 1000.0, 1000.0)] * 4


def test_what_was_stored_is_not_sent_again(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    for outgoing in outbox.due(journal, "pacs", 100.0):
        record(journal, outgoing, "stored", 101.0, None)
    assert outbox.requeue(journal, 200.0) == 0
    assert states(journal) == ["stored"] * 4
