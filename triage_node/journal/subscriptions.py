"""Who wants to hear of which workitem, and the reports that are still to be sent (PS3.4 CC.2.3 and CC.2.4).

A global subscription is an entry for each workitem that is there, and one for each that comes; so a single workitem
can be left out of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from triage_node.journal import owners, transitions
from triage_node.workitem import EventKind, StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    import sqlite_utils

    from triage_node.journal.owners import Asking
    from triage_node.journal.store import Journal

Outcome = Literal["delivered", "refused", "failed"]
KEEP_DISPATCHED_S = 7 * 86400.0  # how long one can look up what was reported
BATCH = 500  # events or reports at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a workitem."""

    id: int
    workitem_uid: str
    at: float
    kind: EventKind
    detail: dict[str, str]
    only_for: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An event that one subscriber is to hear of."""

    id: int
    ae_title: str
    event: Event
    attempts: int
    queued_at: float
    state: StepState | None  # of the workitem now; None: the event is about the node itself


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalSubscription:
    """Somebody who wants to hear of everything, or of everything that matches his keys."""

    ae_title: str
    filter_json: str | None
    deletion_lock: bool


# ------------------------------------------------------------------ subscribing


def subscribe(
    journal: Journal, ae_title: str, workitem_uid: str, now: float, *, deletion_lock: bool, by: Asking | None = None
) -> bool:
    """Subscribe to one workitem, or change the lock; False if there is no such workitem.

    Here and below: raises ReadingRefused where the title's subscriptions are another user's (owners.py); without `by`,
    for subscribers by DICOM, they are nobody's.
    """
    with journal.writing() as database:
        owners.take(database, ae_title, by, now)
        item = transitions.by_uid(database, workitem_uid)
        if item is None:
            return False
        _enter(database, ae_title, workitem_uid, now, lock=deletion_lock)
        return True


def subscribe_globally(
    journal: Journal,
    ae_title: str,
    now: float,
    *,
    deletion_lock: bool,
    filter_json: str | None = None,
    matching: Iterable[str] | None = None,
    by: Asking | None = None,
) -> int:
    """Subscribe to what is there and what comes; of what is there to all, or to the workitems `matching` the filter.

    Returns to how many.
    """
    with journal.writing() as database:
        owners.take(database, ae_title, by, now)
        database.conn.execute(
            "insert or replace into global_subscriptions (ae_title, deletion_lock, filter_json, suspended, since)"
            " values (?, ?, ?, 0, ?)",
            (ae_title, deletion_lock, filter_json, now),
        )
        if matching is None:
            matching = [
                row[0] for row in database.conn.execute("select workitem_uid from workitems order by rowid").fetchall()
            ]
        uids = list(matching)
        for uid in uids:
            _enter(database, ae_title, uid, now, lock=deletion_lock)
        journal.note(database, "worklist subscribed", at=now, by=ae_title, workitems=len(uids))
        return len(uids)


def _enter(database: sqlite_utils.Database, ae_title: str, uid: str, now: float, *, lock: bool) -> None:
    """A new subscription begins with a report of where the workitem stands (PS3.4 CC.2.3.3)."""
    database.conn.execute(
        "insert into subscriptions (ae_title, workitem_uid, active, deletion_lock) values (?, ?, 1, ?)"
        " on conflict (ae_title, workitem_uid) do update set active = 1, deletion_lock = excluded.deletion_lock",
        (ae_title, uid, lock),
    )
    transitions.tell(database, uid, EventKind.STATE, now, {}, only_for=ae_title)


def unsubscribe(journal: Journal, ae_title: str, workitem_uid: str, *, by: Asking | None = None) -> bool:
    """End the subscription to one workitem; False if there is no such workitem."""
    with journal.writing() as database:
        owners.check(database, ae_title, by)
        if transitions.by_uid(database, workitem_uid) is None:
            return False
        database.conn.execute(
            "insert into subscriptions (ae_title, workitem_uid, active, deletion_lock) values (?, ?, 0, 0)"
            " on conflict (ae_title, workitem_uid) do update set active = 0, deletion_lock = 0",
            (ae_title, workitem_uid),
        )
        return True


def unsubscribe_globally(journal: Journal, ae_title: str, now: float, *, by: Asking | None = None) -> None:
    """End all subscriptions of an AE title; what was to be reported is not any more."""
    with journal.writing() as database:
        owners.check(database, ae_title, by)
        _end_all(journal, database, ae_title, now)


def _end_all(journal: Journal, database: sqlite_utils.Database, ae_title: str, now: float) -> None:
    for table in ("global_subscriptions", "subscriptions"):
        database.conn.execute(f"delete from {table} where ae_title = ?", (ae_title,))
    database.conn.execute("delete from reports where ae_title = ? and state = 'queued'", (ae_title,))
    # the first reports of a new subscription, which are not queued yet
    database.conn.execute("update workitem_events set dispatched = 1 where only_for = ?", (ae_title,))
    journal.note(database, "worklist unsubscribed", at=now, by=ae_title)


def keep_only(journal: Journal, ae_titles: Collection[str], now: float) -> list[str]:
    """End the subscriptions of all other AE titles, which the configuration does not know any more; returns whose.

    Otherwise their reports would wait for ever, and no event could be forgotten.
    """
    with journal.writing() as database:
        there = database.conn.execute(
            "select ae_title from global_subscriptions union select ae_title from subscriptions"
            " union select ae_title from reports where state = 'queued' order by ae_title"
        ).fetchall()
        gone = [ae_title for (ae_title,) in there if ae_title not in ae_titles]
        for ae_title in gone:
            _end_all(journal, database, ae_title, now)
        return gone


def suspend_globally(journal: Journal, ae_title: str, *, by: Asking | None = None) -> None:
    """Go on with what is subscribed to, add nothing that comes."""
    with journal.writing() as database:
        owners.check(database, ae_title, by)
        database.conn.execute("update global_subscriptions set suspended = 1 where ae_title = ?", (ae_title,))


# ------------------------------------------------------------------ from events to reports


def dispatch(journal: Journal, matches: Callable[[str, str], bool], now: float, *, limit: int = BATCH) -> int:
    """Make a report of each new event for each subscriber; returns how many events there were.

    `matches(filter_json, workitem_uid)` says whether a workitem is one of those that a filter wants. A workitem that
    begins to match is subscribed to, unless its subscription was ended by name.
    """
    events = _new_events(journal, limit)
    if not events:
        return 0
    everyone = _global(journal)
    wanted = {
        (one.ae_title, event.workitem_uid)
        for one in everyone
        if one.filter_json is not None
        for event in events
        if event.only_for is None and matches(one.filter_json, event.workitem_uid)
    }
    with journal.writing() as database:
        for event in events:
            for one in everyone if event.only_for is None and event.kind is not EventKind.SCP_STATUS else ():
                # without a filter only what is new is added: what was there before was entered by the subscription
                new = one.filter_json is None and event.kind is EventKind.STATE
                if new or (one.ae_title, event.workitem_uid) in wanted:
                    database.conn.execute(
                        "insert or ignore into subscriptions (ae_title, workitem_uid, active, deletion_lock)"
                        " values (?, ?, 1, ?)",
                        (one.ae_title, event.workitem_uid, one.deletion_lock),
                    )
            _queue(database, event, now)
            database.conn.execute("update workitem_events set dispatched = 1 where id = ?", (event.id,))
    return len(events)


def _queue(database: sqlite_utils.Database, event: Event, now: float) -> None:
    if event.kind is EventKind.NONE:
        return
    if event.only_for is not None:
        receivers = [event.only_for]
    elif event.kind is EventKind.SCP_STATUS:
        receivers = [row[0] for row in database.conn.execute("select ae_title from global_subscriptions").fetchall()]
    else:
        receivers = [
            row[0]
            for row in database.conn.execute(
                "select ae_title from subscriptions where workitem_uid = ? and active", (event.workitem_uid,)
            ).fetchall()
        ]
    for ae_title in receivers:
        database.conn.execute(
            "insert or ignore into reports (event_id, ae_title, state, attempts, queued_at, next_at, words)"
            " values (?, ?, 'queued', 0, ?, ?, '')",
            (event.id, ae_title, now, now),
        )


def _new_events(journal: Journal, limit: int) -> list[Event]:
    rows = journal.rows("select * from workitem_events where dispatched = 0 order by id limit ?", limit)
    return [
        Event(
            id=row["id"],
            workitem_uid=row["workitem_uid"],
            at=row["at"],
            kind=EventKind(row["kind"]),
            detail=json.loads(row["detail_json"]),
            only_for=row["only_for"],
        )
        for row in rows
    ]


def _global(journal: Journal) -> list[GlobalSubscription]:
    return [
        GlobalSubscription(
            ae_title=row["ae_title"], filter_json=row["filter_json"], deletion_lock=bool(row["deletion_lock"])
        )
        for row in journal.rows("select * from global_subscriptions where not suspended order by ae_title")
    ]


def told_priorities(journal: Journal) -> dict[str, str]:
    """The priorities that were last noted, by UID of the workitem."""
    rows = journal.rows("select workitem_uid, told_priority from workitems where told_priority is not null")
    return {row["workitem_uid"]: row["told_priority"] for row in rows}


def tell_priorities(journal: Journal, changed: Mapping[str, tuple[str, str | None]], now: float) -> None:
    """Note the priorities of workitems by UID; with words subscribers are told of the change."""
    uids = list(changed)
    for first in range(0, len(uids), BATCH):
        with journal.writing() as database:
            for uid in uids[first : first + BATCH]:
                priority, words = changed[uid]
                database.conn.execute("update workitems set told_priority = ? where workitem_uid = ?", (priority, uid))
                if words is not None:
                    database.conn.execute("update workitems set changed_at = ? where workitem_uid = ?", (now, uid))
                    detail = {"priority": priority, "words": words}
                    transitions.tell(database, uid, EventKind.PROGRESS, now, detail)


def restarted(journal: Journal, instance_uid: str, now: float) -> None:
    """Whoever subscribed to everything hears that the node is back and has forgotten nothing."""
    with journal.writing() as database:
        transitions.tell(database, instance_uid, EventKind.SCP_STATUS, now, {"status": "RESTARTED"})


def forget(journal: Journal, now: float) -> int:
    """Drop events that were reported long ago; returns how many.

    The newest stays: an empty table would count from 1 again, and who has seen a larger number would see nothing new.
    """
    with journal.writing() as database:
        old = (now - KEEP_DISPATCHED_S,)
        where = (
            "select id from workitem_events where dispatched = 1 and at < ?"
            " and id < (select max(id) from workitem_events)"
            " and id not in (select event_id from reports where state = 'queued')"
        )
        database.conn.execute(f"delete from reports where event_id in ({where})", old)
        return database.conn.execute(f"delete from workitem_events where id in ({where})", old).rowcount


# ------------------------------------------------------------------ sending reports


def due(journal: Journal, ae_title: str, now: float, *, limit: int = BATCH) -> list[Report]:
    """What a subscriber is to hear now, in the order in which it happened; nothing while the first is not due."""
    rows = journal.rows(
        "select reports.id, ae_title, event_id, attempts, queued_at, next_at, workitem_events.workitem_uid, at, kind,"
        " detail_json, only_for, workitems.state from reports join workitem_events on workitem_events.id = event_id"
        " left join workitems on workitems.workitem_uid = workitem_events.workitem_uid"
        " where ae_title = ? and reports.state = 'queued' order by reports.id limit ?",
        ae_title,
        limit,
    )
    if not rows or rows[0]["next_at"] > now:
        return []
    return [
        Report(
            id=row["id"],
            ae_title=row["ae_title"],
            event=Event(
                id=row["event_id"],
                workitem_uid=row["workitem_uid"],
                at=row["at"],
                kind=EventKind(row["kind"]),
                detail=json.loads(row["detail_json"]),
                only_for=row["only_for"],
            ),
            attempts=row["attempts"],
            queued_at=row["queued_at"],
            state=None if row["state"] is None else StepState(row["state"]),
        )
        for row in rows
    ]


def next_at(journal: Journal, ae_title: str) -> float | None:
    """When the next report is due for a subscriber; None when nothing is queued."""
    row = journal.row(
        "select next_at as at from reports where ae_title = ? and state = 'queued' order by id limit 1", ae_title
    )
    return None if row is None else float(row["at"])


def expire(journal: Journal, ae_title: str, queued_before: float, words: str, now: float) -> int:
    """Give up what has been queued for too long for a subscriber that does not answer; returns how many reports."""
    with journal.writing() as database:
        return database.conn.execute(
            "update reports set state = 'given up', finished_at = ?, words = ? where ae_title = ? and state = 'queued'"
            " and queued_at <= ?",
            (now, words, ae_title, queued_before),
        ).rowcount


def record(
    journal: Journal, report: Report, outcome: Outcome, words: str, now: float, *, retry_at: float | None = None
) -> None:
    """Write down an attempt; without `retry_at` a failed report is given up."""
    state = outcome if outcome != "failed" else ("queued" if retry_at is not None else "given up")
    with journal.writing() as database:
        database.conn.execute(
            "update reports set state = ?, attempts = attempts + 1, next_at = coalesce(?, next_at), finished_at = ?,"
            " words = ? where id = ? and state = 'queued'",
            (state, retry_at, None if state == "queued" else now, words, report.id),
        )
