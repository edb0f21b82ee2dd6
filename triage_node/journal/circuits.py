"""Which destinations answer: kept for all studies of a destination together, across restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from triage_node.journal.store import Journal

_KEPT = "('stored', 'committed', 'confirmed')"
# Commitment was asked for and accepted, and its report is still to come: no reason to ask twice
_AWAITED = (
    "select outbox_id from commitment_items join commitments using (transaction_uid)"
    " where outcome is null and accepted_at is not null"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What is known of the way to a destination."""

    destination: str
    state: Literal["answers", "not reached"]
    since: float
    failures: int  # in a row
    probe_at: float | None  # None while it answers
    words: str


def look(journal: Journal, destination: str) -> Circuit | None:
    """The circuit of a destination; None before the first attempt to reach it."""
    row = journal.row("select * from circuits where destination = ?", destination)
    return None if row is None else Circuit(**row)


def every(journal: Journal) -> dict[str, Circuit]:
    """All circuits, by the name of the destination."""
    return {row["destination"]: Circuit(**row) for row in journal.rows("select * from circuits")}


def reached(journal: Journal, destination: str, now: float) -> bool:
    """The destination answers; True if it did not before: then everything that is queued for it is due at once."""
    known = look(journal, destination)
    if known is not None and known.state == "answers":
        return False
    with journal.writing() as database:
        database.conn.execute(
            "insert into circuits values (?, 'answers', ?, 0, null, '') on conflict (destination) do update"
            " set state = 'answers', since = excluded.since, failures = 0, probe_at = null, words = ''",
            (destination, now),
        )
        if known is None:
            return False
        for column, condition in (
            ("next_at", "state = 'queued'"),
            ("commit_at", f"state in {_KEPT} and id not in ({_AWAITED})"),
            ("find_at", f"state in {_KEPT}"),
        ):
            database.conn.execute(
                f"update outbox set {column} = ? where destination = ? and {column} > ? and {condition}",
                (now, destination, now),
            )
        database.conn.execute(
            "update messages set next_at = ? where destination = ? and next_at > ? and state = 'queued'",
            (now, destination, now),
        )
        journal.note(database, "destination answers again", at=now, destination=destination, after=known.failures)
    return True


def not_reached(journal: Journal, destination: str, words: str, now: float, probe_at: float) -> None:
    """The destination did not answer: it is left alone until `probe_at`."""
    with journal.writing() as database:
        row = database.conn.execute("select state from circuits where destination = ?", (destination,)).fetchone()
        database.conn.execute(
            "insert into circuits values (?, 'not reached', ?, 1, ?, ?) on conflict (destination) do update"
            " set since = case state when 'answers' then excluded.since else since end, state = 'not reached',"
            " failures = failures + 1, probe_at = excluded.probe_at, words = excluded.words",
            (destination, now, probe_at, words),
        )
        if row is None or row[0] == "answers":
            journal.note(database, "destination not reached", at=now, destination=destination, why=words)


def hasten(journal: Journal, now: float, destination: str | None = None) -> None:
    """Probe by `now` what is not reached: after a restart, or because somebody asked for it."""
    with journal.writing() as database:
        database.conn.execute(
            "update circuits set probe_at = min(probe_at, ?) where probe_at is not null"
            " and destination = coalesce(?, destination)",
            (now, destination),
        )
