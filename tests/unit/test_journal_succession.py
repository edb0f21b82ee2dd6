"""Which answers a new answer puts out of date, and studies that are judged again on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node.config import DestinationSection
from triage_node.journal import Journal, outbox, queue, succession, views
from triage_node.journal.succession import Again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triage_node.identity import ResultIdentity

PACS, SECOND = (
    DestinationSection(name=name, ae_title=name.upper(), host="127.0.0.1", port=104) for name in ("pacs", "second")
)
STUDY = "1.2.3"
EVERY = ("lesions", "lungs", "overview", "report")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def claimed(journal: Journal, now: float) -> queue.Job:
    job = queue.claim(journal, "test", now)
    assert job is not None
    return job


def judged(journal: Journal, now: float, *destinations: DestinationSection) -> queue.Job:
    job = claimed(journal, now)
    assert queue.finish(journal, job, "test", filed.result(job), destinations, now)
    return job


def late_slice(journal: Journal, number: int, now: float) -> None:
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 90 + number), now=now)
    filed.close_all(journal, now)


def sent(journal: Journal, outcome: outbox.Outcome | None, *kinds: str, destination: str = "pacs") -> None:
    """Try to send the objects of these kinds; without an outcome the attempt is cut off."""
    for outgoing in outbox.due(journal, destination, 1e9):
        if outgoing.kind in kinds:
            assert outbox.begin(journal, outgoing, 50.0)
            if outcome is not None:
                retry_at = 1e8 if outcome == "failed" else None
                outbox.record(journal, outgoing, outcome, status=None, words="", now=51.0, retry_at=retry_at)


def named(identity: ResultIdentity | None) -> list[tuple[int, tuple[str, ...]]]:
    return [] if identity is None else [(identity.generation, identity.kinds), *named(identity.predecessor)]


def next_job(journal: Journal, number: int) -> queue.Job:
    late_slice(journal, number, 100.0 * number)
    return claimed(journal, 100.0 * number + 1)


@pytest.mark.parametrize("outcome", ["stored", "failed", None])
def test_an_answer_that_an_archive_has_or_may_have_is_named(journal: Journal, outcome: outbox.Outcome | None) -> None:
    filed.queued(journal, STUDY, now=1.0)
    first = judged(journal, 2.0, PACS)
    sent(journal, outcome, *EVERY)
    before = succession.predecessor(journal, next_job(journal, 1), 102.0)
    assert named(before) == [(1, EVERY)]
    assert before is not None
    assert before.uid("report") == filed.result(first).identity.uid("report")


def test_an_answer_that_never_left_is_not_named_and_does_not_leave_any_more(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0, PACS, SECOND)
    waiting = outbox.due(journal, "pacs", 3.0)
    assert len(waiting) == 4
    second = next_job(journal, 1)
    assert succession.predecessor(journal, second, 102.0) is None
    assert not any(outbox.begin(journal, outgoing, 103.0) for outgoing in waiting)
    assert outbox.due(journal, "pacs", 1e9) == outbox.due(journal, "second", 1e9) == []
    assert {entry.state for entry in views.objects(journal, STUDY)} == {"superseded"}


def test_an_answer_that_was_refused_everywhere_is_not_named(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0, PACS)
    sent(journal, "refused", *EVERY)
    assert succession.predecessor(journal, next_job(journal, 1), 102.0) is None


def test_where_the_last_answer_never_left_the_one_before_it_is_named(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0, PACS)
    sent(journal, "stored", *EVERY)
    second = next_job(journal, 1)
    assert named(succession.predecessor(journal, second, 102.0)) == [(1, EVERY)]
    assert queue.finish(journal, second, "test", filed.result(second), (PACS,), 103.0)
    third = next_job(journal, 2)
    assert named(succession.predecessor(journal, third, 202.0)) == [(1, EVERY)]


def test_without_its_report_an_answer_is_named_together_with_the_one_that_it_was_to_supersede(
    journal: Journal,
) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0, PACS)
    sent(journal, "stored", *EVERY)
    second = next_job(journal, 1)
    assert queue.finish(journal, second, "test", filed.result(second), (PACS,), 103.0)
    sent(journal, "stored", "lungs")
    third = next_job(journal, 2)
    assert named(succession.predecessor(journal, third, 202.0)) == [(2, ("lungs",)), (1, EVERY)]


def test_one_destination_that_has_it_is_enough(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0, PACS, SECOND)
    sent(journal, "stored", *EVERY, destination="second")
    assert named(succession.predecessor(journal, next_job(journal, 1), 102.0)) == [(1, EVERY)]


def test_where_nothing_is_delivered_the_last_answer_is_named(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0)
    assert named(succession.predecessor(journal, next_job(journal, 1), 102.0)) == [(1, EVERY)]


def test_what_another_study_has_queued_is_left_alone(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0, PACS)
    filed.queued(journal, "7.8.9", now=3.0)
    judged(journal, 4.0, PACS)
    succession.predecessor(journal, next_job(journal, 1), 102.0)
    assert {outgoing.study_instance_uid for outgoing in outbox.due(journal, "pacs", 1e9)} == {"7.8.9"}


# ---------------------------------------------------------------------- judged again


def test_a_study_is_queued_again_only_where_the_judge_is_another(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    first = judged(journal, 2.0, PACS)
    same = filed.result(first).identity.model_digest
    assert succession.judge_again(journal, STUDY, same, force=False, now=10.0) is Again.UNCHANGED
    assert queue.claim(journal, "test", 11.0) is None
    assert succession.judge_again(journal, STUDY, "another", force=False, now=12.0) is Again.QUEUED
    assert succession.judge_again(journal, STUDY, "another", force=False, now=13.0) is Again.PENDING
    again = claimed(journal, 14.0)
    assert (again.generation, again.last_instance_id) == (2, first.last_instance_id)
    assert succession.judge_again(journal, STUDY, "another", force=True, now=15.0) is Again.PENDING


def test_force_queues_it_all_the_same(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    same = filed.result(judged(journal, 2.0)).identity.model_digest
    assert succession.judge_again(journal, STUDY, same, force=True, now=10.0) is Again.QUEUED
    assert views.events(journal, STUDY)[-1].detail == {"generation": 2, "forced": True}


def test_what_is_not_known_or_still_arriving_is_said(journal: Journal) -> None:
    assert succession.judge_again(journal, STUDY, "x", force=True, now=1.0) is Again.UNKNOWN
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 1), now=1.0)
    assert succession.judge_again(journal, STUDY, "x", force=True, now=1.0) is Again.PENDING
    filed.close_all(journal, 2.0)
    judged(journal, 3.0)
    filed.arrive(journal, filed.header(STUDY, f"{STUDY}.1", 2), now=4.0)
    assert succession.judge_again(journal, STUDY, "x", force=True, now=5.0) is Again.PENDING


def test_a_study_that_is_judged_again_waits_behind_every_new_one(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0)
    assert succession.judge_again(journal, STUDY, "another", force=False, now=3.0) is Again.QUEUED
    filed.queued(journal, "7.8.9", now=4.0)
    assert [claimed(journal, 5.0).study_instance_uid for _ in range(2)] == ["7.8.9", STUDY]


def test_a_late_slice_replaces_an_analysis_that_was_queued_again(journal: Journal) -> None:
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0)
    succession.judge_again(journal, STUDY, "another", force=False, now=3.0)
    late_slice(journal, 1, 4.0)
    assert claimed(journal, 5.0).generation == 3
    assert queue.claim(journal, "test", 6.0) is None


def test_studies_with_an_answer_are_listed_the_latest_arrival_first(journal: Journal) -> None:
    for number, study in enumerate(("1.1", "1.2", "1.3"), start=1):
        filed.queued(journal, study, now=float(number))
    judged(journal, 10.0)
    judged(journal, 11.0)
    assert succession.judged_studies(journal) == ["1.2", "1.1"]


def test_the_judge_of_the_running_node_is_on_record(journal: Journal) -> None:
    assert succession.running_judge(journal) is None
    succession.note_judge(journal, "first", 1.0)
    succession.note_judge(journal, "second", 2.0)
    assert succession.running_judge(journal) == "second"


def test_the_journal_of_the_former_schema_says_what_was_tried(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "test")
    filed.queued(journal, STUDY, now=1.0)
    judged(journal, 2.0, PACS)
    sent(journal, "stored", "lungs")
    sent(journal, "failed", "report")
    with journal.writing() as database:
        database.conn.execute("alter table outbox drop column tried_at")
        for later in ("trigger studies_added", "trigger studies_changed", "index studies_by_revision"):
            database.conn.execute(f"drop {later}")
        for column in ("revision", "order_priority"):
            database.conn.execute(f"alter table studies drop column {column}")
        database.conn.execute("pragma user_version = 2")
    journal.close()
    journal = Journal(tmp_path, "test")
    assert named(succession.predecessor(journal, next_job(journal, 1), 102.0)) == [(1, ("lungs", "report"))]
    journal.close()
