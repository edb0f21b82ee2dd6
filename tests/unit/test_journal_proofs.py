"""What reports and queries do to the ledger: rules that need no wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node.config import DestinationSection
from triage_node.journal import Journal, circuits, outbox, proofs, queue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACS = DestinationSection(
    name="pacs", ae_title="PACS", host="127.0.0.1", port=104, storage_commitment=True, retry_first_s=5.0, resends=1
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def judge(journal: Journal, now: float) -> None:
    """Another answer for the one study."""
    filed.arrive(journal, filed.header("1.2", "1.2.1", int(now)), now=now)
    filed.close_all(journal, now)
    job = queue.claim(journal, "test", now)
    assert job is not None
    assert queue.finish(journal, job, "test", filed.result(job), (PACS,), now)


def store(journal: Journal, now: float) -> None:
    for outgoing in outbox.due(journal, "pacs", now):
        outbox.record(journal, outgoing, "stored", status=0, words="", now=now, retry_at=None, commit=True)


def ask(journal: Journal, transaction: str, now: float) -> list[str]:
    """Ask for what is due; the SOP Instance UIDs."""
    due = proofs.uncommitted(journal, "pacs", now)
    proofs.ask(journal, transaction, "pacs", due, now, now + 600.0)
    proofs.accepted(journal, transaction, due, now)
    return [each.sop_instance_uid for each in due]


def told(
    journal: Journal, transaction: str, now: float, *, good: list[str] | None = None, bad: list[str] | None = None
) -> proofs.Reception:
    said = proofs.Report(
        transaction_uid=transaction,
        committed=tuple(good or ()),
        failed=tuple((each, 0x0112) for each in bad or ()),
    )
    return proofs.report(journal, said, (PACS,), now)


def states(journal: Journal) -> list[str]:
    return [row["state"] for row in journal.rows("select state from outbox order by id")]


def test_one_request_names_all_objects_of_a_study_once_all_have_been_tried(journal: Journal) -> None:
    judge(journal, 100.0)
    first, *rest = outbox.due(journal, "pacs", 101.0)
    outbox.record(journal, first, "stored", status=0, words="", now=101.0, retry_at=None, commit=True)
    assert proofs.uncommitted(journal, "pacs", 102.0) == []
    for outgoing in rest[:2]:
        outbox.record(journal, outgoing, "stored", status=0, words="", now=102.0, retry_at=None, commit=True)
    outbox.record(journal, rest[2], "failed", status=None, words="", now=102.0, retry_at=200.0)
    assert len(proofs.uncommitted(journal, "pacs", 103.0)) == 3


def test_a_report_is_applied_once(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    objects = ask(journal, "1.9", 102.0)
    assert told(journal, "1.8", 103.0, good=objects) == "unknown"
    assert told(journal, "1.9", 103.0, good=objects) == "applied"
    assert told(journal, "1.9", 104.0, good=objects) == "known already"
    assert told(journal, "1.9", 105.0, bad=objects) == "known already"
    assert states(journal) == ["committed"] * 4
    assert {row["committed_at"] for row in journal.rows("select committed_at from outbox")} == {103.0}


def test_a_failure_that_tells_of_the_time_before_an_object_was_sent_anew_decides_nothing(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    objects = ask(journal, "1.9", 102.0)
    with journal.writing() as database:  # no report in time: asked again
        database.conn.execute("update outbox set commit_at = 110.0")
    assert ask(journal, "1.10", 110.0) == objects
    assert told(journal, "1.10", 111.0, bad=objects) == "applied"
    assert states(journal) == ["queued"] * 4
    store(journal, 120.0)
    assert told(journal, "1.9", 121.0, bad=objects) == "applied"
    assert states(journal) == ["stored"] * 4


def test_a_promise_is_not_taken_back_by_another_request(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    objects = ask(journal, "1.9", 102.0)
    with journal.writing() as database:
        database.conn.execute("update outbox set commit_at = 110.0")
    ask(journal, "1.10", 110.0)
    told(journal, "1.9", 111.0, good=objects)
    told(journal, "1.10", 112.0, bad=objects)
    assert states(journal) == ["committed"] * 4


def test_an_object_that_a_newer_answer_has_replaced_is_not_sent_again(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    objects = ask(journal, "1.9", 102.0)
    judge(journal, 103.0)
    told(journal, "1.9", 104.0, bad=objects)
    assert states(journal) == ["superseded"] * 4 + ["queued"] * 4


def test_pauses_between_resends_grow_and_then_the_object_is_refused(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    told(journal, "1.9", 103.0, bad=ask(journal, "1.9", 102.0))
    assert outbox.next_at(journal, "pacs") == 103.0 + PACS.retry_first_s
    store(journal, 110.0)
    told(journal, "1.10", 112.0, bad=ask(journal, "1.10", 111.0))
    assert states(journal) == ["refused"] * 4


def test_what_was_not_taken_before_a_restart_is_asked_again_at_once(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    due = proofs.uncommitted(journal, "pacs", 102.0)
    proofs.ask(journal, "1.9", "pacs", due, 102.0, 702.0)  # killed before the answer came
    assert proofs.uncommitted(journal, "pacs", 103.0) == []
    proofs.begin(journal, PACS, 104.0)
    assert len(proofs.uncommitted(journal, "pacs", 104.0)) == 4


def test_what_was_taken_before_a_restart_is_waited_for(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    ask(journal, "1.9", 102.0)
    proofs.begin(journal, PACS, 104.0)
    assert proofs.uncommitted(journal, "pacs", 105.0) == []
    assert proofs.next_at(journal, "pacs") == 702.0


def test_a_proof_that_is_not_configured_any_more_is_not_awaited(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    assert outbox.unproven(journal) == {"pacs": 4}
    proofs.begin(journal, PACS.model_copy(update={"storage_commitment": False}), 104.0)
    assert outbox.unproven(journal) == {}
    assert proofs.next_at(journal, "pacs") is None


def test_when_a_destination_answers_again_no_request_that_was_taken_is_made_twice(journal: Journal) -> None:
    judge(journal, 100.0)
    store(journal, 101.0)
    ask(journal, "1.9", 102.0)
    judge(journal, 103.0)
    for outgoing in outbox.due(journal, "pacs", 104.0):
        outbox.record(journal, outgoing, "failed", status=None, words="", now=104.0, retry_at=5000.0)
    circuits.not_reached(journal, "pacs", "gone", 104.0, 110.0)
    circuits.not_reached(journal, "pacs", "still gone", 110.0, 130.0)
    known = circuits.look(journal, "pacs")
    assert known == circuits.Circuit(
        destination="pacs", state="not reached", since=104.0, failures=2, probe_at=130.0, words="still gone"
    )
    assert circuits.reached(journal, "pacs", 130.0)
    assert len(outbox.due(journal, "pacs", 130.0)) == 4
    assert proofs.uncommitted(journal, "pacs", 130.0) == []
    assert not circuits.reached(journal, "pacs", 140.0)
