"""Orders ahead of the images: they find their study, and a study its order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node import workitem
from triage_node.errors import ReadingRefused
from triage_node.journal import Journal, orders, views, workitems
from triage_node.journal.orders import Order
from triage_node.study import ReadingPriority, StudyState
from triage_node.workitem import StepState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUDY = "1.2.3.1"
ORDER = Order(
    workitem_uid="1.2.9.1",
    study_instance_uid=STUDY,
    accession_number="A7",
    priority=ReadingPriority.HIGH,
    attributes_json="{}",
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def arrive(journal: Journal, study: str = STUDY, accession_number: str = "A7") -> None:
    filed.queued(journal, study, now=100.0, accession_number=accession_number)


def ordered_priority(journal: Journal, study: str = STUDY) -> str | None:
    row = journal.row("select order_priority from studies where study_instance_uid = ?", study)
    assert row is not None
    return row["order_priority"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("by_accession", [False, True])
def test_images_that_come_for_an_order_are_its_study(journal: Journal, by_accession: bool) -> None:
    orders.place(journal, replace(ORDER, study_instance_uid=None if by_accession else STUDY), "RIS", 50.0)
    arrive(journal)
    arrive(journal, "1.2.3.2", "")
    assert orders.register(journal, 101.0) == 2
    assert orders.register(journal, 102.0) == 0
    item = workitems.current(journal, STUDY)
    assert item is not None
    assert (item.workitem_uid, item.created_by, item.number) == ("1.2.9.1", "RIS", 1)
    other = workitems.current(journal, "1.2.3.2")
    assert other is not None
    assert (other.workitem_uid, other.created_by) == (workitem.uid_of("1.2.3.2", 1), "")
    assert ordered_priority(journal, "1.2.3.2") is None


def test_the_priority_of_an_order_reaches_its_study(journal: Journal) -> None:
    orders.place(journal, replace(ORDER, study_instance_uid=None), "RIS", 50.0)
    arrive(journal)
    orders.register(journal, 101.0)
    assert ordered_priority(journal) == "HIGH"


def test_the_priority_of_an_order_by_study_reaches_its_study_whenever_it_comes(journal: Journal) -> None:
    orders.place(journal, ORDER, "RIS", 50.0)
    arrive(journal)
    orders.register(journal, 101.0)
    assert ordered_priority(journal) == "HIGH"
    arrive(journal, "1.2.3.2", "A8")
    late = replace(ORDER, workitem_uid="1.2.9.2", study_instance_uid="1.2.3.2", priority=ReadingPriority.MEDIUM)
    orders.place(journal, late, "RIS", 120.0)
    assert ordered_priority(journal, "1.2.3.2") == "MEDIUM"


def test_an_order_lowers_no_priority_that_came_with_the_images(journal: Journal) -> None:
    arrive(journal)
    with journal.writing() as database:
        database.conn.execute("update studies set order_priority = 'STAT'")
    orders.place(journal, ORDER, "RIS", 120.0)
    assert ordered_priority(journal) == "STAT"


def test_an_order_for_a_study_that_is_here_replaces_the_workitem_of_the_node(journal: Journal) -> None:
    arrive(journal)
    orders.register(journal, 101.0)
    orders.place(journal, ORDER, "RIS", 150.0)
    item, before = workitems.current(journal, STUDY), workitems.by_uid(journal, workitem.uid_of(STUDY, 1))
    assert item is not None
    assert before is not None
    assert (item.workitem_uid, item.state, item.number) == ("1.2.9.1", StepState.SCHEDULED, 2)
    assert (before.state, before.words) == (StepState.CANCELED, orders.REPLACED)


def test_a_uid_is_taken_once_and_a_study_ordered_once(journal: Journal) -> None:
    orders.place(journal, ORDER, "RIS", 50.0)
    with pytest.raises(ReadingRefused) as refusal:
        orders.place(journal, replace(ORDER, study_instance_uid="1.2.3.2"), "RIS", 51.0)
    assert refusal.value.status == workitem.DUPLICATE_SOP_INSTANCE
    with pytest.raises(ReadingRefused, match="ordered already"):
        orders.place(journal, replace(ORDER, workitem_uid="1.2.9.2"), "RIS", 52.0)
    arrive(journal)
    workitems.claim(journal, STUDY, "ada", 110.0)
    with pytest.raises(ReadingRefused, match="is being read"):
        orders.place(journal, replace(ORDER, workitem_uid="1.2.9.2"), "RIS", 120.0)


def test_a_study_that_was_read_can_be_ordered_again(journal: Journal) -> None:
    arrive(journal)
    workitems.finish(journal, STUDY, "ada", 110.0)
    orders.place(journal, ORDER, "RIS", 120.0)
    row = views.study(journal, STUDY)
    assert row is not None
    assert row.state is StudyState.WAITING
    assert workitems.claim(journal, STUDY, "bob", 130.0)


def test_a_study_that_is_put_back_keeps_its_order(journal: Journal) -> None:
    orders.place(journal, ORDER, "RIS", 50.0)
    arrive(journal)
    workitems.claim(journal, STUDY, "ada", 110.0)
    workitems.release(journal, STUDY, "ada", 120.0)
    item = workitems.current(journal, STUDY)
    assert item is not None
    assert (item.number, item.ordered_priority, item.ordered_json) == (2, ReadingPriority.HIGH, "{}")


@pytest.mark.parametrize("by_accession", [False, True])
@pytest.mark.parametrize("ended", [None, StepState.COMPLETED, StepState.CANCELED])
def test_images_that_come_after_their_order_was_claimed_or_ended_can_be_read(
    journal: Journal, ended: StepState | None, by_accession: bool
) -> None:
    orders.place(journal, replace(ORDER, study_instance_uid=None if by_accession else STUDY), "RIS", 50.0)
    for state in (StepState.IN_PROGRESS, ended):
        if state is not None:
            outcome = workitems.change_state(journal, "1.2.9.1", state, "AE WS", 60.0, transaction_uid="1.2.1")
            assert outcome.status == 0
    arrive(journal)
    orders.register(journal, 101.0)
    row, item = views.study(journal, STUDY), workitems.current(journal, STUDY)
    assert row is not None
    assert item is not None
    if ended is None:
        assert (row.state, item.state) == (StudyState.READING, StepState.IN_PROGRESS)
    else:
        assert (row.state, item.state) == (StudyState.WAITING, StepState.SCHEDULED)
        assert workitems.claim(journal, STUDY, "ada", 110.0)
    assert orders.register(journal, 111.0) == 0


def test_headers_are_looked_at_once(journal: Journal) -> None:
    arrive(journal)
    arrive(journal, "1.2.3.2")
    found = orders.undescribed(journal, 10)
    assert {one.study_instance_uid for one in found} == {STUDY, "1.2.3.2"}
    assert all(one.path.is_relative_to(journal.state_dir) for one in found)
    orders.describe(journal, {STUDY: '{"00100020": {}}'})
    assert workitems.header_json(journal, STUDY) == '{"00100020": {}}'
    assert [one.study_instance_uid for one in orders.undescribed(journal, 10)] == ["1.2.3.2"]
