"""Reading tasks in the journal: claims that exclude each other, and studies that follow."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node import workitem
from triage_node.errors import ReadingRefused
from triage_node.journal import Journal, queue, views, workitems
from triage_node.study import StudyState
from triage_node.workitem import EventKind, StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    filed.queued(opened, STUDY, now=100.0)
    yield opened
    opened.close()


def state_of(journal: Journal, study: str = STUDY) -> StudyState:
    row = views.study(journal, study)
    assert row is not None
    return row.state


def step_of(journal: Journal, study: str = STUDY) -> StepState:
    item = workitems.current(journal, study)
    assert item is not None
    return item.state


def judge(journal: Journal, refusal: str | None = None) -> None:
    job = queue.claim(journal, "a", 200.0)
    assert job is not None
    assert queue.finish(journal, job, "a", filed.result(job, refusal=refusal), (), 201.0)


def told(journal: Journal) -> list[tuple[int, str]]:
    return [(row["kind"], row["detail_json"]) for row in journal.rows("select * from workitem_events order by id")]


def test_who_claims_a_study_reads_it_until_it_is_finished(journal: Journal) -> None:
    transaction = workitems.claim(journal, STUDY, "ada", 300.0)
    assert state_of(journal) is StudyState.READING
    assert workitems.claims(journal) == {STUDY: workitems.Claim(performer="ada", since=300.0)}
    item = workitems.current(journal, STUDY)
    assert item is not None
    assert (item.state, item.transaction_uid, item.claimed_at) == (StepState.IN_PROGRESS, transaction, 300.0)
    assert workitems.claim(journal, STUDY, "ada", 301.0) == transaction
    workitems.finish(journal, STUDY, "ada", 400.0)
    workitems.finish(journal, STUDY, "ada", 401.0)
    assert (state_of(journal), step_of(journal)) == (StudyState.READ, StepState.COMPLETED)
    assert workitems.claims(journal) == {}


@pytest.mark.parametrize("action", [workitems.claim, workitems.finish, workitems.release, workitems.cancel])
def test_nobody_else_touches_a_claimed_study_and_learns_who_has_it(
    journal: Journal, action: Callable[[Journal, str, str, float], object]
) -> None:
    workitems.claim(journal, STUDY, "ada", 300.0)
    with pytest.raises(ReadingRefused, match="being read by ada since 1970-01-01 00:05 UTC") as refusal:
        action(journal, STUDY, "bob", 301.0)
    assert refusal.value.status >= 0xC300
    assert workitems.claims(journal)[STUDY].performer == "ada"


def test_of_many_who_claim_at_once_one_gets_it(journal: Journal) -> None:
    got: list[str] = []
    start = threading.Barrier(8)

    def reach(name: str) -> None:
        start.wait()
        try:
            workitems.claim(journal, STUDY, name, 300.0)
        except ReadingRefused:
            return
        got.append(name)

    threads = [threading.Thread(target=reach, args=(f"reader {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [workitems.claims(journal)[STUDY].performer] == got


@pytest.mark.parametrize("refusal", [None, "a gap"])
def test_a_study_that_is_put_back_has_a_new_workitem_and_the_state_it_had(
    journal: Journal, refusal: str | None
) -> None:
    judge(journal, refusal)
    before = views.study(journal, STUDY)
    workitems.claim(journal, STUDY, "ada", 300.0)
    first = workitems.current(journal, STUDY)
    workitems.release(journal, STUDY, "ada", 310.0)
    second = workitems.current(journal, STUDY)
    assert first is not None
    assert second is not None
    assert views.study(journal, STUDY) == before
    ended = workitems.by_uid(journal, first.workitem_uid)
    assert ended is not None
    assert ended.state is StepState.CANCELED
    assert (second.state, second.number) == (StepState.SCHEDULED, 2)
    assert second.workitem_uid == workitem.uid_of(STUDY, 2) != first.workitem_uid
    assert second.transaction_uid is None
    workitems.release(journal, STUDY, "bob", 320.0)
    assert workitems.current(journal, STUDY) == second


def test_an_administrator_may_end_what_somebody_else_reads(journal: Journal) -> None:
    workitems.claim(journal, STUDY, "ada", 300.0)
    workitems.release(journal, STUDY, "root", 310.0, force=True)
    assert state_of(journal) is StudyState.WAITING
    workitems.claim(journal, STUDY, "ada", 320.0)
    workitems.finish(journal, STUDY, "root", 330.0, force=True)
    assert state_of(journal) is StudyState.READ


def test_a_study_that_nobody_claimed_can_be_finished_and_one_that_was_read_be_read_again(journal: Journal) -> None:
    workitems.finish(journal, STUDY, "ada", 300.0)
    assert state_of(journal) is StudyState.READ
    with pytest.raises(ReadingRefused, match=r"has been read by ada at .*; put it back into the queue first"):
        workitems.claim(journal, STUDY, "bob", 310.0)
    workitems.release(journal, STUDY, "bob", 320.0)
    assert workitems.claim(journal, STUDY, "bob", 330.0)


def test_a_reading_that_is_called_off_leaves_the_queue_and_not_the_list(journal: Journal) -> None:
    judge(journal)
    workitems.cancel(journal, STUDY, "ada", 300.0, words="read elsewhere")
    workitems.cancel(journal, STUDY, "ada", 301.0)
    item = workitems.current(journal, STUDY)
    assert item is not None
    assert (item.state, item.words, item.number) == (StepState.CANCELED, "read elsewhere", 1)
    assert state_of(journal) is StudyState.CANCELLED
    assert [row.study_instance_uid for row in views.studies(journal)] == [STUDY]
    with pytest.raises(ReadingRefused):
        workitems.claim(journal, STUDY, "ada", 305.0)
    workitems.release(journal, STUDY, "ada", 310.0)
    assert state_of(journal) is StudyState.JUDGED
    workitems.cancel(journal, STUDY, "ada", 320.0)
    workitems.finish(journal, STUDY, "ada", 330.0)
    assert state_of(journal) is StudyState.READ


def test_a_new_answer_takes_nobody_his_study(journal: Journal) -> None:
    filed.queued(journal, OTHER, now=101.0)
    workitems.claim(journal, STUDY, "ada", 150.0)
    workitems.cancel(journal, OTHER, "ada", 150.0)
    judge(journal)
    judge(journal)
    assert state_of(journal) is StudyState.READING
    assert state_of(journal, OTHER) is StudyState.CANCELLED
    assert workitems.claims(journal)[STUDY].performer == "ada"
    with pytest.raises(ReadingRefused):
        workitems.claim(journal, STUDY, "bob", 310.0)


def test_what_was_marked_before_there_were_workitems_stays_so(journal: Journal) -> None:
    filed.queued(journal, OTHER, now=101.0)
    with journal.writing() as database:
        database.conn.execute("update studies set state = 'reading' where study_instance_uid = ?", (STUDY,))
        database.conn.execute("update studies set state = 'read' where study_instance_uid = ?", (OTHER,))
    with pytest.raises(ReadingRefused, match="being read by unknown"):
        workitems.claim(journal, STUDY, "ada", 300.0)
    with pytest.raises(ReadingRefused, match="has been read by unknown"):
        workitems.claim(journal, OTHER, "ada", 300.0)


@pytest.mark.parametrize("action", [workitems.claim, workitems.finish, workitems.release, workitems.cancel])
def test_of_a_study_that_nobody_sent_nothing_is_known(
    journal: Journal, action: Callable[[Journal, str, str, float], object]
) -> None:
    with pytest.raises(ReadingRefused, match="no study 9") as refusal:
        action(journal, "9.9", "ada", 300.0)
    assert refusal.value.status == workitem.NO_SUCH_WORKITEM
    assert journal.row("select count(*) as n from workitems") == {"n": 0}


def test_subscribers_are_told_of_every_step(journal: Journal) -> None:
    workitems.claim(journal, STUDY, "ada", 300.0)
    workitems.release(journal, STUDY, "ada", 310.0)
    assert told(journal) == [
        (EventKind.STATE, '{"state": "SCHEDULED"}'),
        (EventKind.STATE, '{"state": "IN PROGRESS", "words": ""}'),
        (EventKind.ASSIGNED, '{"to": "ada"}'),
        (EventKind.STATE, '{"state": "CANCELED", "words": "put back"}'),
        (EventKind.STATE, '{"state": "SCHEDULED"}'),
    ]


def test_the_story_of_a_study_says_who_did_what(journal: Journal) -> None:
    workitems.claim(journal, STUDY, "ada", 300.0)
    workitems.release(journal, STUDY, "ada", 310.0)
    workitems.finish(journal, STUDY, "bob", 320.0)
    story = [(one.event, one.detail.get("by")) for one in views.events(journal, STUDY) if "by" in one.detail]
    assert story == [
        ("reading begun", "ada"),
        ("reading put back", "ada"),
        ("reading begun", "bob"),
        ("reading finished", "bob"),
    ]


def test_the_protocol_needs_the_transaction_uid_of_the_claim(journal: Journal) -> None:
    transaction = workitems.claim(journal, STUDY, "AE READER", 300.0)
    item = workitems.current(journal, STUDY)
    assert item is not None

    def asked(given: str | None, *, described: bool = True) -> int:
        return workitems.change_state(
            journal,
            item.workitem_uid,
            StepState.COMPLETED,
            "AE READER",
            310.0,
            transaction_uid=given,
            is_described=lambda _: described,
        ).status

    assert asked(None) == asked("1.2.3") == workitem.WRONG_TRANSACTION_UID
    assert asked(transaction, described=False) == workitem.FINAL_STATE_NOT_MET
    assert state_of(journal) is StudyState.READING
    assert asked(transaction) == workitem.SUCCESS
    assert state_of(journal) is StudyState.READ
    assert asked(transaction) == workitem.ALREADY_COMPLETED
