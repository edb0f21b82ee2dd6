"""Proof of delivery: what is to be committed or found again, and what the destinations said.

An object is 'stored' by its C-STORE, 'committed' by a storage commitment report and 'confirmed' by read-back. One that
the destination has lost is queued again, a bounded number of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    import sqlite_utils

    from triage_node.config import DestinationSection
    from triage_node.journal.store import Journal, Row

Reception = Literal["applied", "known already", "unknown"]
_KEPT = "('stored', 'committed', 'confirmed')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unproven:
    """An object that a destination has taken and that is still to be committed or found."""

    outbox_id: int
    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    kind: str
    path: Path
    stored_at: float
    attempts: int  # at this proof, since the object was stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an N-EVENT-REPORT says (PS3.4 table J.3-3); the numbers are failure reasons (PS3.3 section C.14)."""

    transaction_uid: str
    committed: tuple[str, ...]  # SOP Instance UIDs
    failed: tuple[tuple[str, int], ...]


def uncommitted(journal: Journal, destination: str, now: float) -> list[Unproven]:
    """The objects of one study for which commitment is due to be asked, once no more of it is under way."""
    return _due(journal, destination, now, "commit_at", "commit_attempts")


def unfound(journal: Journal, destination: str, now: float) -> list[Unproven]:
    """The objects of one study that are due to be looked for."""
    return _due(journal, destination, now, "find_at", "find_attempts")


def _due(journal: Journal, destination: str, now: float, at: str, attempts: str) -> list[Unproven]:
    due = (
        f"outbox.destination = ? and outbox.state in {_KEPT} and outbox.{at} <= ? and not exists (select 1 from outbox"
        " as other where other.destination = outbox.destination and other.state = 'queued'"
        " and other.study_instance_uid = outbox.study_instance_uid and other.next_at <= ?)"
    )
    rows = journal.rows(
        f"select outbox.*, sop_class_uid, kind, path from outbox join objects using (sop_instance_uid) where {due}"
        f" and outbox.study_instance_uid = (select study_instance_uid from outbox where {due} order by {at}, id"
        " limit 1) order by outbox.id",
        *(destination, now, now) * 2,
    )
    return [
        Unproven(
            outbox_id=row["id"],
            study_instance_uid=row["study_instance_uid"],
            sop_class_uid=row["sop_class_uid"],
            sop_instance_uid=row["sop_instance_uid"],
            kind=row["kind"],
            path=journal.state_dir / row["path"],
            stored_at=row["stored_at"],
            attempts=row[attempts],
        )
        for row in rows
    ]


def next_at(journal: Journal, destination: str) -> float | None:
    """When the next proof is due at a destination; None when none is awaited."""
    row = journal.row(
        f"select min(min(coalesce(commit_at, find_at), coalesce(find_at, commit_at))) as at from outbox"
        f" where destination = ? and state in {_KEPT}",
        destination,
    )
    return None if row is None or row["at"] is None else float(row["at"])


# ---------------------------------------------------------------------- commitment


def ask(
    journal: Journal, transaction_uid: str, destination: str, objects: list[Unproven], now: float, again_at: float
) -> None:
    """Write down a request before it leaves: its report may be faster than the answer to it."""
    with journal.writing() as database:
        database.conn.execute(
            "insert into commitments (transaction_uid, destination, study_instance_uid, asked_at) values (?, ?, ?, ?)",
            (transaction_uid, destination, objects[0].study_instance_uid, now),
        )
        for each in objects:
            database.conn.execute(
                "insert into commitment_items (transaction_uid, outbox_id) values (?, ?)",
                (transaction_uid, each.outbox_id),
            )
            database.conn.execute(
                f"update outbox set commit_at = ? where id = ? and state in {_KEPT}", (again_at, each.outbox_id)
            )


def accepted(journal: Journal, transaction_uid: str, objects: list[Unproven], now: float) -> None:
    """The destination has taken a request and will report."""
    with journal.writing() as database:
        database.conn.execute(
            "update commitments set accepted_at = ? where transaction_uid = ?", (now, transaction_uid)
        )
        for each in objects:
            words = f"transaction {transaction_uid}, request {each.attempts + 1}"
            _line(database, each.outbox_id, now, "commitment asked", 0, words)
            database.conn.execute(
                "update outbox set commit_attempts = commit_attempts + 1 where id = ?", (each.outbox_id,)
            )


def not_asked(
    journal: Journal, objects: list[Unproven], status: int | None, words: str, now: float, again_at: float
) -> None:
    """The destination did not take a request."""
    with journal.writing() as database:
        for each in objects:
            _line(database, each.outbox_id, now, "commitment failed", status, words)
            database.conn.execute(
                "update outbox set commit_attempts = commit_attempts + 1, commit_at = ? where id = ?"
                " and commit_at is not null",
                (again_at, each.outbox_id),
            )


def awaited(journal: Journal, transaction_uids: list[str]) -> bool:
    """Whether any of these requests has not been reported on."""
    marks = ", ".join("?" * len(transaction_uids))
    sql = f"select 1 from commitments where reported_at is null and transaction_uid in ({marks}) limit 1"
    return journal.row(sql, *transaction_uids) is not None


def report(journal: Journal, said: Report, destinations: tuple[DestinationSection, ...], now: float) -> Reception:
    """Write down a report, once: what it said of an object before is not changed by a repetition."""
    outcomes: dict[str, int | None] = dict.fromkeys(said.committed) | dict(said.failed)
    with journal.writing() as database:
        asked = database.query("select * from commitments where transaction_uid = ?", (said.transaction_uid,))
        known = next(asked, None)
        if known is None:
            return "unknown"
        rules = next((each for each in destinations if each.name == known["destination"]), None)
        items = list(
            database.query(
                "select outbox.*, objects.kind, result_id is not (select result_id from studies where"
                " studies.study_instance_uid = outbox.study_instance_uid) as old from commitment_items join outbox"
                " on outbox.id = outbox_id join objects using (sop_instance_uid)"
                " where transaction_uid = ? and outcome is null order by outbox.id",
                (said.transaction_uid,),
            )
        )
        told = [item for item in items if item["sop_instance_uid"] in outcomes]
        if not told and known["reported_at"] is not None:
            return "known already"
        for item in told:
            reason = outcomes[item["sop_instance_uid"]]
            database.conn.execute(
                "update commitment_items set outcome = ? where transaction_uid = ? and outbox_id = ?",
                ("committed" if reason is None else "not committed", said.transaction_uid, item["id"]),
            )
            if reason is None:
                _committed(database, item, said.transaction_uid, now)
            else:
                words = f"not committed: {reason_words(reason)}"
                _line(database, item["id"], now, "not committed", reason, words)
                # A request from before the object was sent anew, or one that came after a promise, decides nothing.
                if item["committed_at"] is None and known["asked_at"] >= (item["stored_at"] or 0.0):
                    _lost(journal, database, item, rules, words, now)
        database.conn.execute(
            "update commitments set reported_at = coalesce(reported_at, ?) where transaction_uid = ?",
            (now, said.transaction_uid),
        )
        journal.note(
            database,
            "commitment reported",
            study=known["study_instance_uid"],
            at=now,
            destination=known["destination"],
            committed=sum(outcomes[item["sop_instance_uid"]] is None for item in told),
            not_committed=sum(outcomes[item["sop_instance_uid"]] is not None for item in told),
            not_named=len(items) - len(told),
        )
    return "applied"


def _committed(database: sqlite_utils.Database, item: Row, transaction_uid: str, now: float) -> None:
    if item["committed_at"] is None:
        _line(database, item["id"], now, "committed", 0, f"committed in transaction {transaction_uid}")
    # One that was given up while its report was late is well after all; one that is being sent again begins anew.
    database.conn.execute(
        "update outbox set committed_at = coalesce(committed_at, ?), commit_at = null,"
        " state = case when state = 'confirmed' then state else 'committed' end"
        f" where id = ? and (state in {_KEPT} or state = 'given up' and stored_at is not null)",
        (now, item["id"]),
    )


# PS3.3 section C.14.1.1
_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0213: "resource limitation",
    0x0122: "referenced SOP class not supported",
    0x0119: "class / instance conflict",
    0x0131: "duplicate transaction UID",
}


def reason_words(reason: int) -> str:
    """A failure reason as number and words."""
    return f"0x{reason:04X} {_REASONS.get(reason, 'unknown failure reason')}"


# ---------------------------------------------------------------------- read-back


def found(journal: Journal, one: Unproven, now: float) -> None:
    """The destination has found the object when it was asked for it."""
    with journal.writing() as database:
        _line(database, one.outbox_id, now, "confirmed", 0, "found by its SOP Instance UID")
        database.conn.execute(
            "update outbox set confirmed_at = ?, find_at = null, state = 'confirmed' where id = ? and find_at is not"
            f" null and state in {_KEPT}",
            (now, one.outbox_id),
        )
        _note(journal, database, one.outbox_id, "object confirmed", now)


def not_found(
    journal: Journal, one: Unproven, rules: DestinationSection, now: float, *, again_at: float | None
) -> None:
    """The destination does not find the object: it is looked for again at `again_at`, or (None) it counts as lost."""
    with journal.writing() as database:
        words = "not found by its SOP Instance UID"
        _line(database, one.outbox_id, now, "not found", None, words)
        _look_again(database, one, again_at)
        item = next(
            database.query(
                "select outbox.*, kind, result_id is not (select result_id from studies where"
                " studies.study_instance_uid = outbox.study_instance_uid) as old from outbox join objects"
                " using (sop_instance_uid) where outbox.id = ?",
                (one.outbox_id,),
            )
        )
        if again_at is None:
            _lost(journal, database, item, rules, words, now)


def not_looked_for(
    journal: Journal, one: Unproven, status: int | None, words: str, now: float, again_at: float
) -> None:
    """The destination gave no answer to a query."""
    with journal.writing() as database:
        _line(database, one.outbox_id, now, "read-back failed", status, words)
        _look_again(database, one, again_at)


def _look_again(database: sqlite_utils.Database, one: Unproven, again_at: float | None) -> None:
    database.conn.execute(
        "update outbox set find_attempts = find_attempts + 1, find_at = coalesce(?, find_at) where id = ?"
        " and find_at is not null",
        (again_at, one.outbox_id),
    )


# ---------------------------------------------------------------------- ends


def give_up(journal: Journal, one: Unproven, words: str, now: float) -> None:
    """Wait for no more proofs: an object of which the destination has said nothing but "stored" is given up."""
    with journal.writing() as database:
        _line(database, one.outbox_id, now, "failed", None, words)
        database.conn.execute(
            "update outbox set state = iif(state = 'stored', 'given up', state), finished_at = ?, commit_at = null,"
            f" find_at = null where id = ? and state in {_KEPT}",
            (now, one.outbox_id),
        )
        _note(journal, database, one.outbox_id, "proof of delivery given up", now)


def begin(journal: Journal, destination: DestinationSection, now: float) -> None:
    """After a restart: ask anew what was not taken before, and await nothing that is not configured any more."""
    with journal.writing() as database:
        database.conn.execute(
            f"update outbox set commit_at = ? where destination = ? and state in {_KEPT} and commit_at > ? and id in"
            " (select outbox_id from commitment_items join commitments using (transaction_uid) where accepted_at is"
            " null and reported_at is null) and id not in (select outbox_id from commitment_items join commitments"
            " using (transaction_uid) where accepted_at is not null and outcome is null)",
            (now, destination.name, now),
        )
        for column, wanted in (("commit_at", destination.storage_commitment), ("find_at", destination.read_back)):
            if not wanted:
                database.conn.execute(f"update outbox set {column} = null where destination = ?", (destination.name,))


def _lost(
    journal: Journal,
    database: sqlite_utils.Database,
    item: Row,
    rules: DestinationSection | None,
    words: str,
    now: float,
) -> None:
    """Queue the object again, unless that was done often enough or a newer answer has taken its place."""
    if item["state"] not in ("stored", "committed", "confirmed"):
        return
    resends = item["resends"]
    if item["old"]:
        _end(database, item["id"], "superseded", now)
    elif rules is None or resends >= rules.resends:
        _line(database, item["id"], now, "refused", None, f"sent {resends + 1} times and lost each time; {words}")
        _end(database, item["id"], "refused", now)
        _note(journal, database, item["id"], "object refused", now)
    else:
        pause_s = min(rules.retry_first_s * 2.0**resends, rules.retry_longest_s)
        database.conn.execute(
            "update outbox set state = 'queued', resends = resends + 1, queued_at = ?, next_at = ?, finished_at = null,"
            " committed_at = null, confirmed_at = null, commit_at = null, commit_attempts = 0, find_at = null,"
            " find_attempts = 0 where id = ?",
            (now, now + pause_s, item["id"]),
        )
        _note(journal, database, item["id"], "object is sent again", now)


def _end(database: sqlite_utils.Database, outbox_id: object, state: str, now: float) -> None:
    database.conn.execute(
        "update outbox set state = ?, finished_at = ?, commit_at = null, find_at = null where id = ?",
        (state, now, outbox_id),
    )


def _line(
    database: sqlite_utils.Database, outbox_id: object, now: float, state: str, status: int | None, words: str
) -> None:
    database.conn.execute(
        "insert into deliveries (outbox_id, at, state, status, words) values (?, ?, ?, ?, ?)",
        (outbox_id, now, state, status, words),
    )


def _note(journal: Journal, database: sqlite_utils.Database, outbox_id: object, event: str, now: float) -> None:
    study, destination, kind = database.conn.execute(
        "select study_instance_uid, destination, kind from outbox join objects using (sop_instance_uid)"
        " where outbox.id = ?",
        (outbox_id,),
    ).fetchone()
    journal.note(database, event, study=study, at=now, kind=kind, destination=destination)
