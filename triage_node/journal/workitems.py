"""Reading tasks: who has claimed which study, in one place for UPS, the page, the API and `triage-node mark`.

What may happen is decided by the table in `workitem`. Each function is one transaction, in which the study's place on
the list follows: being read, read, called off, or back in the queue.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from triage_node import workitem
from triage_node.errors import ReadingRefused
from triage_node.journal import transitions
from triage_node.workitem import EventKind, StepState

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlite_utils

    from triage_node.journal.store import Journal
    from triage_node.journal.transitions import Workitem
    from triage_node.workitem import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who reads a study, since when."""

    performer: str
    since: float


# ------------------------------------------------------------------ what people and programs do to a study


def claim(journal: Journal, study_uid: str, by: str, now: float, *, transaction_uid: str | None = None) -> str:
    """Begin to read a study; returns the Transaction UID of the claim.

    Who has it already gets the same one again. Raises ReadingRefused when it is unknown, ended or somebody else's.
    """
    with journal.writing() as database:
        item = transitions.current_or_made(database, study_uid, now)
        if item.state is StepState.IN_PROGRESS and item.performer == by and item.transaction_uid:
            return item.transaction_uid
        if item.state not in workitem.OPEN:
            raise ReadingRefused(
                f"{_stands(item)}; put it back into the queue first", status=workitem.NO_LONGER_CHANGED
            )
        given = transaction_uid or f"2.25.{uuid.uuid4().int}"
        _change(journal, database, item, StepState.IN_PROGRESS, given, by, now)
        return given


def finish(journal: Journal, study_uid: str, by: str, now: float, *, force: bool = False) -> None:
    """The study has been read; one that nobody has claimed is claimed and finished at once. Twice changes nothing.

    Raises ReadingRefused when it is unknown, or being read by somebody else and no administrator insists (`force`).
    """
    with journal.writing() as database:
        item = transitions.current_or_made(database, study_uid, now)
        if item.state is StepState.COMPLETED:
            return
        if item.state is StepState.CANCELED:
            item = transitions.renew(journal, database, item, by, now)
        if item.state is StepState.SCHEDULED:
            item = _change(journal, database, item, StepState.IN_PROGRESS, f"2.25.{uuid.uuid4().int}", by, now)
        _owned(item, by, force=force)
        _change(journal, database, item, StepState.COMPLETED, item.transaction_uid, by, now)


def release(journal: Journal, study_uid: str, by: str, now: float, *, force: bool = False) -> None:
    """Put a study back into the queue, where it keeps its time of arrival; one that is there stays so.

    Raises ReadingRefused when it is unknown, or being read by somebody else and no administrator insists (`force`).
    """
    with journal.writing() as database:
        item = transitions.current_or_made(database, study_uid, now)
        if item.state is StepState.SCHEDULED:
            return
        if item.state is StepState.IN_PROGRESS:
            _owned(item, by, force=force)
            _change(journal, database, item, StepState.CANCELED, item.transaction_uid, by, now, words="put back")
        else:
            transitions.renew(journal, database, item, by, now)


def cancel(journal: Journal, study_uid: str, by: str, now: float, *, words: str = "") -> None:
    """Nobody needs to read the study any more; it stays on the list, below. Twice changes nothing.

    Raises ReadingRefused when it is unknown, being read or has been read.
    """
    with journal.writing() as database:
        item = transitions.current_or_made(database, study_uid, now)
        outcome = workitem.request_cancel(item.state, somebody_listens=False)
        if outcome.is_refusal:
            raise ReadingRefused(_stands(item), status=outcome.status)
        transitions.go_through(journal, database, item, outcome, by, now, words=words)


def _owned(item: Workitem, by: str, *, force: bool) -> None:
    if item.performer != by and not force:
        raise ReadingRefused(_stands(item), status=workitem.WRONG_TRANSACTION_UID)


def _stands(item: Workitem) -> str:
    """Where a reading task stands, for who wanted something else."""
    match item.state:
        case StepState.IN_PROGRESS:
            return f"the study is being read by {item.performer} since {_clock(item.claimed_at)}"
        case StepState.COMPLETED:
            return f"the study has been read by {item.performer} at {_clock(item.ended_at)}"
        case StepState.CANCELED:
            return f"the reading was called off at {_clock(item.ended_at)}"
        case StepState.SCHEDULED:
            return "the study waits to be read"


def _clock(at: float | None) -> str:
    return "?" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


# ------------------------------------------------------------------ what the protocol does to a workitem


def change_state(
    journal: Journal,
    workitem_uid: str,
    wanted: StepState,
    by: str,
    now: float,
    *,
    transaction_uid: str | None,
    is_described: Callable[[Workitem], bool] = lambda _: True,
    words: str = "",
) -> Outcome:
    """Change UPS State (PS3.4 CC.2.1); nothing has changed where the outcome is a refusal.

    `is_described` says whether a workitem may end as it is.
    """
    with journal.writing() as database:
        item = transitions.by_uid(database, workitem_uid)
        if item is None:
            return workitem.change(None, wanted, recorded=None, given=transaction_uid)
        outcome = workitem.change(
            item.state,
            wanted,
            recorded=item.transaction_uid,
            given=transaction_uid,
            is_described=is_described(item),
        )
        transitions.go_through(journal, database, item, outcome, by, now, transaction_uid=transaction_uid, words=words)
        return outcome


def request_cancel(
    journal: Journal,
    workitem_uid: str,
    by: str,
    now: float,
    *,
    detail: dict[str, str],
    words: str = "",
    may_call_off: bool = True,
) -> Outcome:
    """Request UPS Cancel (PS3.4 CC.2.2); `detail` and `words` are what the performer is told.

    Refused where nobody else is subscribed who could be told: then the performer will not learn of it. Raises
    ReadingRefused where nobody performs it yet, so that the request alone would end it, and `may_call_off` is false.
    """
    with journal.writing() as database:
        item = transitions.by_uid(database, workitem_uid)
        listeners = database.conn.execute(
            "select count(*) from subscriptions where workitem_uid = ? and active and 'AE ' || ae_title <> ?",
            (workitem_uid, by),
        ).fetchone()[0]
        outcome = workitem.request_cancel(None if item is None else item.state, somebody_listens=bool(listeners))
        if item is not None and outcome.tells_performer:
            transitions.tell(
                database, workitem_uid, EventKind.CANCEL_REQUESTED, now, {"by": by, "words": words, **detail}
            )
        elif item is not None:
            if outcome.states and not may_call_off:
                raise ReadingRefused(
                    f"{_stands(item)}, and only an administrator calls it off", status=workitem.NOT_AUTHORIZED
                )
            transitions.go_through(journal, database, item, outcome, by, now, words=words)
        return outcome


def set_performed(
    journal: Journal,
    workitem_uid: str,
    now: float,
    *,
    transaction_uid: str | None,
    merged: Callable[[Workitem], str],
    progress: dict[str, str] | None = None,
) -> Outcome:
    """The performer describes what it does (N-SET, PS3.4 CC.2.6); `merged` gives the attributes after that."""
    with journal.writing() as database:
        item = transitions.by_uid(database, workitem_uid)
        if item is None:
            return workitem.Outcome(workitem.NO_SUCH_WORKITEM)
        if item.state not in workitem.OPEN:
            return workitem.Outcome(workitem.NO_LONGER_CHANGED)
        if item.state is not StepState.IN_PROGRESS:
            return workitem.Outcome(workitem.NOT_YET_IN_PROGRESS)
        if not transaction_uid or transaction_uid != item.transaction_uid:
            return workitem.Outcome(workitem.WRONG_TRANSACTION_UID)
        database.conn.execute(
            "update workitems set performed_json = ?, changed_at = ? where workitem_uid = ?",
            (merged(item), now, workitem_uid),
        )
        transitions.tell(database, workitem_uid, EventKind.NONE, now, {})
        if progress is not None:
            transitions.tell(database, workitem_uid, EventKind.PROGRESS, now, progress)
        journal.note(database, "reading described", study=item.study_instance_uid, at=now, by=item.performer)
        return workitem.Outcome(workitem.SUCCESS)


def _change(
    journal: Journal,
    database: sqlite_utils.Database,
    item: Workitem,
    wanted: StepState,
    transaction_uid: str | None,
    by: str,
    now: float,
    *,
    words: str = "",
) -> Workitem:
    outcome = workitem.change(item.state, wanted, recorded=item.transaction_uid, given=transaction_uid)
    if outcome.is_refusal:
        raise ReadingRefused(_stands(item), status=outcome.status)
    return transitions.go_through(
        journal, database, item, outcome, by, now, transaction_uid=transaction_uid, words=words
    )


# ------------------------------------------------------------------ what there is


def current(journal: Journal, study_uid: str) -> Workitem | None:
    """The current workitem of a study; None where there is none yet."""
    row = journal.row(
        f"select {transitions.COLUMNS} from workitems where study_instance_uid = ? order by number desc limit 1",
        study_uid,
    )
    return None if row is None else transitions.workitem_of(row)


def by_uid(journal: Journal, workitem_uid: str) -> Workitem | None:
    """A workitem by its SOP Instance UID."""
    with journal.reading() as database:
        return transitions.by_uid(database, workitem_uid)


def claims(journal: Journal) -> dict[str, Claim]:
    """Who is reading which study."""
    rows = journal.rows(
        "select study_instance_uid, performer, claimed_at from workitems where state = ? and study_instance_uid is not"
        " null",
        StepState.IN_PROGRESS,
    )
    return {
        row["study_instance_uid"]: Claim(performer=row["performer"] or "", since=row["claimed_at"] or 0.0)
        for row in rows
    }


def header_json(journal: Journal, study_uid: str) -> str | None:
    """Whose study it is and who ordered it, from its first image, as DICOM JSON; None before it was looked at."""
    row = journal.row("select header_json from study_headers where study_instance_uid = ?", study_uid)
    return None if row is None else str(row["header_json"])
