"""Subscriptions to workitems: who hears of what, and what is left to be told after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node.journal import Journal, orders, subscriptions, workitems
from triage_node.workitem import EventKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE, TWO, THREE = "1.2.3.1", "1.2.3.2", "1.2.3.3"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    arrive(opened, ONE)
    arrive(opened, TWO)
    dispatch(opened)
    yield opened
    opened.close()


def arrive(journal: Journal, study: str) -> None:
    filed.queued(journal, study, now=100.0)
    orders.register(journal, 100.0)


def dispatch(journal: Journal, matching: tuple[str, ...] = ()) -> None:
    uids = {uid_of(journal, study) for study in matching}
    while subscriptions.dispatch(journal, lambda keys, uid: keys == "keys" and uid in uids, 200.0):
        pass


def uid_of(journal: Journal, study: str) -> str:
    item = workitems.current(journal, study)
    assert item is not None
    return item.workitem_uid


def heard(journal: Journal, ae_title: str = "VIEWER") -> list[tuple[str, str]]:
    """What is to be reported: workitem's study and kind of event; it counts as delivered then."""
    found = []
    for report in subscriptions.due(journal, ae_title, 1000.0):
        item = workitems.by_uid(journal, report.event.workitem_uid)
        study = "node" if item is None else str(item.study_instance_uid)
        found.append((study, report.event.kind.name))
        subscriptions.record(journal, report, "delivered", "", 1000.0)
    return found


def test_who_subscribes_hears_first_where_the_workitem_stands_and_then_what_happens(journal: Journal) -> None:
    assert subscriptions.subscribe(journal, "VIEWER", uid_of(journal, ONE), 110.0, deletion_lock=True)
    dispatch(journal)
    assert heard(journal) == [(ONE, "STATE")]
    workitems.claim(journal, ONE, "ada", 120.0)
    workitems.claim(journal, TWO, "ada", 120.0)
    dispatch(journal)
    assert heard(journal) == [(ONE, "STATE"), (ONE, "ASSIGNED")]
    assert subscriptions.unsubscribe(journal, "VIEWER", uid_of(journal, ONE))
    workitems.finish(journal, ONE, "ada", 130.0)
    dispatch(journal)
    assert heard(journal) == []


def test_of_what_does_not_exist_nobody_hears(journal: Journal) -> None:
    assert not subscriptions.subscribe(journal, "VIEWER", "1.9", 110.0, deletion_lock=False)
    assert not subscriptions.unsubscribe(journal, "VIEWER", "1.9")
    dispatch(journal)
    assert heard(journal) == []


def test_a_global_subscription_has_what_is_there_and_what_comes(journal: Journal) -> None:
    assert subscriptions.subscribe_globally(journal, "VIEWER", 110.0, deletion_lock=False) == 2
    arrive(journal, THREE)
    dispatch(journal)
    assert heard(journal) == [(ONE, "STATE"), (TWO, "STATE"), (THREE, "STATE")]
    workitems.claim(journal, THREE, "ada", 120.0)
    dispatch(journal)
    assert heard(journal) == [(THREE, "STATE"), (THREE, "ASSIGNED")]


def test_one_workitem_can_be_left_out_of_a_global_subscription(journal: Journal) -> None:
    subscriptions.subscribe_globally(journal, "VIEWER", 110.0, deletion_lock=False)
    subscriptions.unsubscribe(journal, "VIEWER", uid_of(journal, ONE))
    dispatch(journal)
    heard(journal)
    workitems.claim(journal, ONE, "ada", 120.0)
    workitems.claim(journal, TWO, "ada", 120.0)
    dispatch(journal)
    assert heard(journal) == [(TWO, "STATE"), (TWO, "ASSIGNED")]


def test_a_suspended_global_subscription_keeps_what_it_has_and_takes_nothing_new(journal: Journal) -> None:
    subscriptions.subscribe_globally(journal, "VIEWER", 110.0, deletion_lock=False)
    dispatch(journal)
    heard(journal)
    subscriptions.suspend_globally(journal, "VIEWER")
    arrive(journal, THREE)
    workitems.claim(journal, ONE, "ada", 120.0)
    dispatch(journal)
    assert heard(journal) == [(ONE, "STATE"), (ONE, "ASSIGNED")]


def test_who_unsubscribes_from_everything_hears_nothing_not_even_what_was_queued(journal: Journal) -> None:
    subscriptions.subscribe_globally(journal, "VIEWER", 110.0, deletion_lock=False)
    subscriptions.subscribe_globally(journal, "OTHER", 110.0, deletion_lock=False)
    dispatch(journal)
    subscriptions.unsubscribe_globally(journal, "VIEWER", 120.0)
    workitems.claim(journal, ONE, "ada", 120.0)
    dispatch(journal)
    assert heard(journal) == []
    assert len(heard(journal, "OTHER")) == 4


def test_a_filter_takes_what_matches_and_what_begins_to_match(journal: Journal) -> None:
    subscriptions.subscribe_globally(
        journal, "VIEWER", 110.0, deletion_lock=False, filter_json="keys", matching=[uid_of(journal, ONE)]
    )
    dispatch(journal, (ONE,))
    assert heard(journal) == [(ONE, "STATE")]
    workitems.claim(journal, TWO, "ada", 120.0)
    dispatch(journal, (ONE,))
    assert heard(journal) == []
    workitems.finish(journal, TWO, "ada", 130.0)
    dispatch(journal, (ONE, TWO))
    assert heard(journal) == [(TWO, "STATE")]


def test_a_filter_does_not_renew_what_was_unsubscribed_by_name(journal: Journal) -> None:
    subscriptions.subscribe_globally(
        journal, "VIEWER", 110.0, deletion_lock=False, filter_json="keys", matching=[uid_of(journal, ONE)]
    )
    subscriptions.unsubscribe(journal, "VIEWER", uid_of(journal, ONE))
    dispatch(journal, (ONE,))
    heard(journal)
    workitems.claim(journal, ONE, "ada", 120.0)
    dispatch(journal, (ONE,))
    assert heard(journal) == []


def test_reports_come_in_order_and_wait_for_the_first_that_failed(journal: Journal) -> None:
    subscriptions.subscribe_globally(journal, "VIEWER", 110.0, deletion_lock=False)
    dispatch(journal)
    first, second = subscriptions.due(journal, "VIEWER", 300.0)
    subscriptions.record(journal, first, "failed", "no answer", 300.0, retry_at=400.0)
    assert subscriptions.due(journal, "VIEWER", 399.0) == []
    assert subscriptions.next_at(journal, "VIEWER") == 400.0
    again = subscriptions.due(journal, "VIEWER", 400.0)
    assert [report.id for report in again] == [first.id, second.id]
    assert again[0].attempts == 1
    subscriptions.record(journal, again[0], "failed", "no answer", 400.0)
    assert [report.id for report in subscriptions.due(journal, "VIEWER", 400.0)] == [second.id]
    assert journal.row("select state from reports where id = ?", first.id) == {"state": "given up"}


def test_all_this_survives_a_restart(journal: Journal) -> None:
    subscriptions.subscribe_globally(journal, "VIEWER", 110.0, deletion_lock=True)
    dispatch(journal)
    workitems.claim(journal, ONE, "ada", 120.0)
    reopened = Journal(journal.state_dir, "again")
    subscriptions.restarted(reopened, "1.2.840.10008.5.1.4.34.5", 130.0)
    dispatch(reopened)
    assert heard(reopened) == [
        (ONE, "STATE"),
        (TWO, "STATE"),
        (ONE, "STATE"),
        (ONE, "ASSIGNED"),
        ("node", "SCP_STATUS"),
    ]
    reopened.close()


def test_what_was_reported_long_ago_is_forgotten_and_what_is_queued_is_not(journal: Journal) -> None:
    subscriptions.subscribe_globally(journal, "VIEWER", 110.0, deletion_lock=True)
    dispatch(journal)
    later = 110.0 + subscriptions.KEEP_DISPATCHED_S + 1
    assert subscriptions.forget(journal, later) == 2  # the two studies' arrival, of which nobody was to hear
    assert len(heard(journal)) == 2
    newest = journal.row("select max(id) as id from workitem_events")
    assert subscriptions.forget(journal, later) == 1
    # the newest stays, so that numbers go on: who has seen the last of them sees what comes next
    assert journal.rows("select id from workitem_events") == [newest]
    assert journal.row("select count(*) as n from reports") == {"n": 1}
    arrive(journal, THREE)
    assert newest is not None
    assert journal.row("select min(id) as id from workitem_events where dispatched = 0") == {"id": newest["id"] + 1}


def test_a_wish_to_cancel_reaches_who_is_subscribed_or_nobody(journal: Journal) -> None:
    workitems.claim(journal, ONE, "AE READER", 120.0)
    uid = uid_of(journal, ONE)
    assert workitems.request_cancel(journal, uid, "AE RIS", 121.0, detail={}).status == 0xC312
    subscriptions.subscribe(journal, "RIS", uid, 121.0, deletion_lock=False)
    assert workitems.request_cancel(journal, uid, "AE RIS", 121.0, detail={}).status == 0xC312
    subscriptions.subscribe(journal, "READER", uid, 122.0, deletion_lock=False)
    assert workitems.request_cancel(journal, uid, "AE RIS", 123.0, detail={}).status == 0
    dispatch(journal)
    assert heard(journal, "READER")[-1] == (ONE, EventKind.CANCEL_REQUESTED.name)


def test_who_is_not_in_the_configuration_any_more_is_not_waited_for(journal: Journal) -> None:
    for title in ("VIEWER", "OLD"):
        subscriptions.subscribe_globally(journal, title, 110.0, deletion_lock=False)
    dispatch(journal)
    subscriptions.subscribe(journal, "OLDER", uid_of(journal, ONE), 110.0, deletion_lock=False)  # not dispatched yet
    assert subscriptions.keep_only(journal, {"VIEWER", "NEW"}, 120.0) == ["OLD", "OLDER"]
    dispatch(journal)
    workitems.claim(journal, ONE, "ada", 130.0)
    dispatch(journal)
    assert heard(journal, "OLD") == heard(journal, "OLDER") == []
    assert (ONE, "ASSIGNED") in heard(journal)
    assert subscriptions.keep_only(journal, {"VIEWER"}, 140.0) == []
