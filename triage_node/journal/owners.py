"""Whose the subscriptions by UPS-RS are: the user's who made them, since an AE title alone belongs to nobody.

A title is its user's as long as there is a subscription under it. Subscribers by DICOM are known by their address in
the configuration and have no owner. All but `may_hear` is part of its caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node import workitem
from triage_node.errors import ReadingRefused

if TYPE_CHECKING:
    import sqlite_utils

    from triage_node.journal.store import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who wants something of a subscription, and whether he may have everybody's."""

    user: str
    may_everybodys: bool = False


def owner(database: sqlite_utils.Database, ae_title: str) -> str | None:
    """The user who has subscribed under an AE title; None where nobody has."""
    row = database.conn.execute(
        "select user_name from subscriber_owners where ae_title = ?1 and (exists (select 1 from global_subscriptions"
        " where ae_title = ?1) or exists (select 1 from subscriptions where ae_title = ?1 and active))",
        (ae_title,),
    ).fetchone()
    return None if row is None else str(row[0])


def check(database: sqlite_utils.Database, ae_title: str, by: Asking | None) -> None:
    """Raise ReadingRefused where the subscriptions of an AE title are somebody else's; `by` is None by DICOM."""
    if by is None or by.may_everybodys or owner(database, ae_title) in (None, by.user):
        return
    raise ReadingRefused(
        f"the subscriptions of {ae_title!r} are those of another user: take another of api.subscriber_ae_titles, or ask"
        " an administrator to end them",
        status=workitem.NOT_AUTHORIZED,
    )


def take(database: sqlite_utils.Database, ae_title: str, by: Asking | None, now: float) -> None:
    """Before something is subscribed to: who comes first has the title. Raises ReadingRefused as `check` does.

    What was still to be told to who had it before is not told to the new one.
    """
    check(database, ae_title, by)
    if by is None or owner(database, ae_title) is not None:
        return
    database.conn.execute("delete from reports where ae_title = ? and state = 'queued'", (ae_title,))
    database.conn.execute(
        "insert or replace into subscriber_owners (ae_title, user_name, since) values (?, ?, ?)",
        (ae_title, by.user, now),
    )


def may_hear(journal: Journal, ae_title: str, by: Asking) -> bool:
    """Whether somebody may open the event stream of an AE title, and go on listening."""
    with journal.reading() as database:
        return by.may_everybodys or owner(database, ae_title) in (None, by.user)
