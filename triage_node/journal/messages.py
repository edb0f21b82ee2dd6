"""The answers that go to a RIS as HL7 messages: a queue for each receiver, every attempt on record.

A table of its own beside the outbox. A row there is a DICOM object that lies on disk under a UID of its own, is
answered with a DIMSE status, and may have to be proven by commitment and read-back. A message is one whole answer for
one receiver, is answered with an acknowledgement code and text, and must not lie on disk at all, since it names the
patient: it is put together from the journal and the images at the moment it is sent, each time from the same facts.
What both have in common is shared: the way to a receiver (`circuits`, by name), its pauses, `outbox.requeue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlite_utils

    from triage_node.journal.store import Journal

# 'acknowledged' and 'refused' are the receiver's words; 'failed' means that it said nothing final and is asked again
Outcome = Literal["acknowledged", "refused", "failed"]
BATCH = 20  # messages on one connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An answer that is due at one receiver."""

    id: int
    study_instance_uid: str
    result_id: int
    destination: str
    attempts: int
    queued_at: float


def enqueue(
    database: sqlite_utils.Database, study: str, result_id: int, destinations: Iterable[str], now: float
) -> None:
    """Queue a new answer for every receiver, in the transaction that files it; what older ones have queued ends."""
    database.conn.execute(
        "update messages set state = 'superseded', finished_at = ? where study_instance_uid = ? and state = 'queued'",
        (now, study),
    )
    for destination in destinations:
        database.conn.execute(
            "insert into messages (result_id, study_instance_uid, destination, state, attempts, queued_at, next_at)"
            " values (?, ?, ?, 'queued', 0, ?, ?)",
            (result_id, study, destination, now, now),
        )


_COLUMNS = "id, study_instance_uid, result_id, destination, attempts, queued_at"


def due(journal: Journal, destination: str, now: float) -> list[Message]:
    """The messages that are due at a receiver, the one that has waited longest first; they share one connection."""
    rows = journal.rows(
        f"select {_COLUMNS} from messages where destination = ? and state = 'queued' and next_at <= ?"
        " order by next_at, id limit ?",
        destination,
        now,
        BATCH,
    )
    return [Message(**row) for row in rows]


def any_one(journal: Journal, destination: str) -> list[Message]:
    """The message whose turn would be next, due or not: a receiver is probed with it; none where nothing is queued."""
    rows = journal.rows(
        f"select {_COLUMNS} from messages where destination = ? and state = 'queued' order by next_at, id limit 1",
        destination,
    )
    return [Message(**row) for row in rows]


def next_at(journal: Journal, destination: str) -> float | None:
    """When the next message is due at a receiver; None when nothing is queued."""
    row = journal.row("select min(next_at) as at from messages where destination = ? and state = 'queued'", destination)
    return None if row is None or row["at"] is None else float(row["at"])


def begin(journal: Journal, message: Message, now: float) -> bool:
    """Note that a message is about to be sent; False when it is to be sent no more, since a newer answer is there.

    Noted before, because nobody knows how much arrives of an attempt that is cut off.
    """
    with journal.writing() as database:
        cursor = database.conn.execute(
            "update messages set tried_at = ? where id = ? and state = 'queued' and queued_at = ?",
            (now, message.id, message.queued_at),
        )
        return cursor.rowcount > 0


def corrects(journal: Journal, message: Message) -> bool:
    """Whether the receiver has, or may have, an earlier answer to the same study: then this one is a correction."""
    row = journal.row(
        "select 1 from messages where study_instance_uid = ? and destination = ? and result_id < ?"
        " and tried_at is not null and state <> 'refused' limit 1",
        message.study_instance_uid,
        message.destination,
        message.result_id,
    )
    return row is not None


def record(
    journal: Journal,
    message: Message,
    outcome: Outcome,
    *,
    code: str | None,
    words: str,
    now: float,
    retry_at: float | None,
) -> None:
    """Write down an attempt; without `retry_at` a failed message is given up."""
    state: str = outcome if outcome != "failed" else ("queued" if retry_at is not None else "given up")
    with journal.writing() as database:
        _note_attempt(database, message.id, now, outcome, code, words)
        database.conn.execute(
            "update messages set state = ?, attempts = attempts + 1, next_at = coalesce(?, next_at), finished_at = ?,"
            " acknowledged_at = ? where id = ? and state = 'queued'",
            (
                state,
                retry_at,
                None if state == "queued" else now,
                now if state == "acknowledged" else None,
                message.id,
            ),
        )
        if state != "queued":
            journal.note(
                database,
                f"message {state}",
                study=message.study_instance_uid,
                at=now,
                destination=message.destination,
            )


def _note_attempt(
    database: sqlite_utils.Database, message_id: int, now: float, outcome: Outcome, code: str | None, words: str
) -> None:
    database.conn.execute(
        "insert into acknowledgements (message_id, at, state, code, words) values (?, ?, ?, ?, ?)",
        (message_id, now, outcome, code, words),
    )


def expire(journal: Journal, destination: str, queued_before: float, words: str, now: float) -> int:
    """Give up what has been queued for too long at a receiver that is not reached; returns how many messages."""
    with journal.writing() as database:
        given_up = list(
            database.query(
                "update messages set state = 'given up', finished_at = ? where destination = ? and state = 'queued'"
                " and queued_at <= ? returning id, study_instance_uid",
                (now, destination, queued_before),
            )
        )
        for row in given_up:
            _note_attempt(database, row["id"], now, "failed", None, words)
            journal.note(database, "message given up", study=row["study_instance_uid"], at=now, destination=destination)
        return len(given_up)


def requeue(database: sqlite_utils.Database, now: float, *, study: str | None, destination: str | None) -> int:
    """The messages' part of `outbox.requeue`, in its transaction: of each study its current answer alone."""
    cursor = database.conn.execute(
        "update messages set state = 'queued', attempts = 0, next_at = ?, queued_at = ?, finished_at = null"
        " where state in ('refused', 'given up', 'queued') and result_id in (select result_id from studies)"
        " and study_instance_uid = coalesce(?, study_instance_uid) and destination = coalesce(?, destination)",
        (now, now, study, destination),
    )
    return cursor.rowcount


def depth(journal: Journal) -> dict[str, dict[str, int]]:
    """How many messages are in which state, for each receiver."""
    found: dict[str, dict[str, int]] = {}
    for row in journal.rows("select destination, state, count(*) as number from messages group by 1, 2"):
        found.setdefault(row["destination"], {})[row["state"]] = row["number"]
    return found
