"""Who is logged in: sessions outlive the desk, and end for all its processes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triage_node.journal.store import Journal, Row

# Ended sessions are kept this long: from where somebody has logged in lately he is not kept out by others' attempts.
KEPT_S = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One log-in and what became of it; times in seconds since 1970."""

    digest: str
    user_name: str
    password_mark: str
    address: str
    begun_at: float
    used_at: float
    ended_at: float | None
    ending: str | None


def begin(journal: Journal, *, digest: str, user_name: str, password_mark: str, address: str, now: float) -> None:
    """A session begins; `digest` stands for the token that the browser alone keeps."""
    with journal.writing() as database:
        database.conn.execute(
            "insert into sessions (digest, user_name, password_mark, address, begun_at, used_at)"
            " values (?, ?, ?, ?, ?, ?)",
            (digest, user_name, password_mark, address, now, now),
        )


def find(journal: Journal, digest: str) -> SessionRow | None:
    """The session of this digest, ended or not; None if there never was one, or it ended long ago."""
    row = journal.row("select * from sessions where digest = ?", digest)
    return None if row is None else _session(row)


def use(journal: Journal, digest: str, now: float) -> None:
    """The session was used; one that has ended stays as it is."""
    with journal.writing() as database:
        database.conn.execute(
            "update sessions set used_at = max(used_at, ?) where digest = ? and ended_at is null", (now, digest)
        )


def end(journal: Journal, digest: str, ending: str, now: float) -> bool:
    """End a session; False if it had ended already, so that each end is told once."""
    with journal.writing() as database:
        return (
            database.conn.execute(
                "update sessions set ended_at = ?, ending = ? where digest = ? and ended_at is null",
                (now, ending, digest),
            ).rowcount
            == 1
        )


def current(journal: Journal, user_name: str | None = None) -> list[SessionRow]:
    """The sessions that have not ended, of one user or of all, oldest first."""
    rows = journal.rows(
        "select * from sessions where ended_at is null and ?1 in (user_name, '*') order by begun_at, digest",
        "*" if user_name is None else user_name,
    )
    return [_session(row) for row in rows]


def was_here(journal: Journal, user_name: str, address: str) -> bool:
    """Whether this user has lately logged in from this address."""
    return journal.row("select 1 from sessions where user_name = ? and address = ?", user_name, address) is not None


def forget(journal: Journal, now: float) -> None:
    """Delete what ended longer than KEPT_S ago; the audit keeps the story."""
    with journal.writing() as database:
        database.conn.execute("delete from sessions where ended_at < ?", (now - KEPT_S,))


def _session(row: Row) -> SessionRow:
    return SessionRow(**row)
