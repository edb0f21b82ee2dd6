"""Messages to a RIS in the journal: what is due, what becomes of it, and what is told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node import worklist
from triage_node.config import DestinationSection
from triage_node.journal import Journal, circuits, correspondence, messages, outbox, queue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACS = DestinationSection(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def judge(journal: Journal, study: str, now: float, *systems: str) -> None:
    filed.queued(journal, study, now=now)
    job = queue.claim(journal, "test", now)
    assert job is not None
    assert queue.finish(journal, job, "test", filed.result(job), (PACS,), now, systems=systems or ("ris",))


def judge_again(journal: Journal, study: str, now: float) -> None:
    number = len(journal.rows("select 1 from instances where study_instance_uid = ?", study))
    filed.arrive(journal, filed.header(study, f"{study}.1", number), now=now)
    filed.close_all(journal, now)
    job = queue.claim(journal, "test", now)
    assert job is not None
    assert queue.finish(journal, job, "test", filed.result(job), (PACS,), now, systems=("ris",))


def record(
    journal: Journal, message: messages.Message, outcome: messages.Outcome, now: float, retry_at: float | None = None
) -> None:
    assert messages.begin(journal, message, now)
    messages.record(journal, message, outcome, code="AE", words="because", now=now, retry_at=retry_at)


def states(journal: Journal) -> list[str]:
    return [row["state"] for row in journal.rows("select state from messages order by id")]


def test_an_answer_is_queued_for_each_ris_in_its_own_transaction(journal: Journal) -> None:
    judge(journal, "1.2", 100.0, "ris", "second")
    (first,) = messages.due(journal, "ris", 100.0)
    (second,) = messages.due(journal, "second", 100.0)
    assert (first.study_instance_uid, first.attempts, first.queued_at) == ("1.2", 0, 100.0)
    record(journal, first, "acknowledged", 101.0)
    assert messages.due(journal, "ris", 200.0) == []
    assert messages.due(journal, "second", 200.0) == [second]
    assert messages.next_at(journal, "ris") is None
    assert messages.next_at(journal, "second") == 100.0


def test_what_has_waited_longest_comes_first_and_a_batch_has_an_end(journal: Journal) -> None:
    for number in range(messages.BATCH + 3):
        judge(journal, f"1.2.{number}", 100.0 + number)
    batch = messages.due(journal, "ris", 500.0)
    assert [message.study_instance_uid for message in batch] == [f"1.2.{number}" for number in range(messages.BATCH)]
    assert messages.any_one(journal, "ris") == batch[:1]


def test_a_failed_message_waits_for_its_next_attempt_and_without_one_is_given_up(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    (message,) = messages.due(journal, "ris", 100.0)
    record(journal, message, "failed", 101.0, retry_at=110.0)
    assert messages.due(journal, "ris", 109.0) == []
    (again,) = messages.due(journal, "ris", 110.0)
    assert (again.id, again.attempts) == (message.id, 1)
    record(journal, again, "failed", 111.0)
    assert states(journal) == ["given up"]
    (row,) = correspondence.ledger(journal, "1.2")
    assert [(one.at, one.state, one.code) for one in row.deliveries] == [
        (101.0, "failed", "AE"),
        (111.0, "failed", "AE"),
    ]
    assert (row.attempts, row.next_at, row.words) == (2, None, "because")


def test_a_newer_answer_supersedes_what_is_queued_and_corrects_what_may_have_arrived(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    judge_again(journal, "1.2", 200.0)
    assert states(journal) == ["superseded", "queued"]
    (second,) = messages.due(journal, "ris", 200.0)
    assert not messages.corrects(journal, second), "the first one never left"
    assert messages.begin(journal, second, 201.0)  # cut off: nobody knows whether it arrived
    judge_again(journal, "1.2", 300.0)
    (third,) = messages.due(journal, "ris", 300.0)
    assert messages.corrects(journal, third)
    assert not messages.begin(journal, second, 301.0), "the older one is to be sent no more"


def test_what_was_refused_needs_no_correction(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    (first,) = messages.due(journal, "ris", 100.0)
    record(journal, first, "refused", 101.0)
    judge_again(journal, "1.2", 200.0)
    (second,) = messages.due(journal, "ris", 200.0)
    assert not messages.corrects(journal, second)


def test_requeue_takes_the_dead_letters_of_current_answers_with_those_of_the_outbox(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    judge(journal, "1.3", 100.0)
    for message in messages.due(journal, "ris", 100.0):
        record(journal, message, "refused", 101.0)
    (letter, other) = worklist.dead_letters(journal)
    assert (letter["kind"], letter["destination"], letter["words"]) == ("HL7 result", "ris", "because")
    judge_again(journal, "1.3", 150.0)
    assert [letter["study_instance_uid"] for letter in worklist.dead_letters(journal)] == ["1.2"]
    assert outbox.requeue(journal, 200.0, study="1.2", destination="ris") == 1
    (message,) = [one for one in messages.due(journal, "ris", 200.0) if one.study_instance_uid == "1.2"]
    assert (message.attempts, message.queued_at) == (0, 200.0), "a new control ID follows from the time"
    assert worklist.dead_letters(journal) == []
    assert other["study_instance_uid"] == "1.3"


def test_a_ris_that_answers_again_gets_everything_at_once(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    (message,) = messages.due(journal, "ris", 100.0)
    record(journal, message, "failed", 101.0, retry_at=5000.0)
    circuits.not_reached(journal, "ris", "no connection", 101.0, 150.0)
    assert circuits.reached(journal, "ris", 150.0)
    assert len(messages.due(journal, "ris", 150.0)) == 1


def test_what_waits_too_long_for_a_ris_that_is_not_reached_is_given_up(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    judge(journal, "1.3", 900.0)
    assert messages.expire(journal, "ris", 500.0, "too late", 1000.0) == 1
    assert states(journal) == ["given up", "queued"]
    (row,) = correspondence.ledger(journal, "1.2")
    assert (row.state, row.words) == ("given up", "too late")


def test_status_and_study_tell_of_messages_beside_objects(journal: Journal) -> None:
    judge(journal, "1.2", 100.0)
    (message,) = messages.due(journal, "ris", 100.0)
    record(journal, message, "acknowledged", 101.0)
    known = {entry["name"]: entry for entry in worklist.status(journal, ("pacs", "ris"))["destinations"]}  # type: ignore[attr-defined]
    assert known["ris"]["deliveries"] == {"acknowledged": 1}
    assert known["pacs"]["deliveries"] == {"queued": 4}
    report = worklist.study_report(journal, "1.2")
    assert report is not None
    (entry,) = report["messages"]  # type: ignore[misc]
    assert (entry["kind"], entry["state"], entry["current"]) == ("HL7 result", "acknowledged", True)
    assert entry["acknowledged_at"] == worklist.iso(101.0)


def test_nothing_of_a_message_is_kept_but_how_its_delivery_went(journal: Journal) -> None:
    columns = {
        row["name"] for table in ("messages", "acknowledgements") for row in journal.rows(f"pragma table_info({table})")
    }
    assert columns == {
        "id", "result_id", "study_instance_uid", "destination", "state", "attempts", "queued_at", "next_at",
        "finished_at", "tried_at", "acknowledged_at", "message_id", "at", "code", "words",
    }  # fmt: skip
