"""The steps of a reading task in the journal: one workitem from state to state, its study and its subscribers with it.

Each function is a part of its caller's transaction.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node import workitem
from triage_node.errors import ReadingRefused
from triage_node.study import ReadingPriority, StudyState
from triage_node.workitem import EventKind, StepState

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlite_utils

    from triage_node.journal.store import Journal, Row
    from triage_node.workitem import Outcome

UNKNOWN_PERFORMER = "unknown"  # of what was marked before there were workitems


@dataclass(frozen=True, slots=True, kw_only=True)
class Workitem:
    """One reading task as the journal has it; the JSON is the DICOM JSON Model of PS3.18 annex F."""

    workitem_uid: str
    study_instance_uid: str | None  # None: ordered, nothing came yet
    number: int  # from 1, of the study's workitems
    accession_number: str
    state: StepState
    transaction_uid: str | None
    performer: str | None
    created_at: float
    created_by: str  # "" where the node made it for images that came
    changed_at: float
    claimed_at: float | None
    ended_at: float | None
    words: str  # why it was cancelled
    ordered_priority: ReadingPriority | None
    ordered_json: str | None
    performed_json: str | None


def go_through(
    journal: Journal,
    database: sqlite_utils.Database,
    item: Workitem,
    outcome: Outcome,
    by: str,
    now: float,
    *,
    transaction_uid: str | None = None,
    words: str = "",
) -> Workitem:
    """The states of an outcome, one after the other, each with what follows for study and subscribers."""
    called_off = len(outcome.states) > 1
    for state in outcome.states:
        if state is StepState.IN_PROGRESS:
            given = transaction_uid or f"2.25.{uuid.uuid4().int}"
            database.conn.execute(
                "update workitems set state = ?, transaction_uid = ?, performer = ?, claimed_at = ?, changed_at = ?"
                " where workitem_uid = ?",
                (state, given, by, now, now, item.workitem_uid),
            )
        else:
            database.conn.execute(
                "update workitems set state = ?, ended_at = ?, changed_at = ?, words = ? where workitem_uid = ?",
                (state, now, now, words, item.workitem_uid),
            )
        tell(database, item.workitem_uid, EventKind.STATE, now, {"state": state, "words": words})
        if state is StepState.IN_PROGRESS and not called_off:
            tell(database, item.workitem_uid, EventKind.ASSIGNED, now, {"to": by})
    found = by_uid(database, item.workitem_uid)
    assert found is not None
    if outcome.states:
        _move_study(journal, database, found, by, now, called_off=called_off)
    return found


def _move_study(
    journal: Journal, database: sqlite_utils.Database, item: Workitem, by: str, now: float, *, called_off: bool
) -> None:
    study = item.study_instance_uid
    here = (
        study is not None
        and database.conn.execute("select 1 from studies where study_instance_uid = ?", (study,)).fetchone()
    )
    match item.state:
        case StepState.IN_PROGRESS:
            state, event = StudyState.READING, "reading begun"
        case StepState.COMPLETED:
            state, event = StudyState.READ, "reading finished"
        case _:
            state, event = StudyState.CANCELLED, "reading called off"
    if item.state is StepState.CANCELED and not called_off and study is not None:
        renew(journal, database, item, by, now)
        return
    if here:
        database.conn.execute("update studies set state = ? where study_instance_uid = ?", (state, study))
    journal.note(database, event, study=study, at=now, by=by, why=item.words)


def renew(journal: Journal, database: sqlite_utils.Database, item: Workitem, by: str, now: float) -> Workitem:
    """A new workitem for a study whose last one has ended: the study is back in the queue."""
    assert item.study_instance_uid is not None
    study, number = item.study_instance_uid, item.number + 1
    database.conn.execute(
        "insert into workitems (workitem_uid, study_instance_uid, number, accession_number, state, created_at,"
        " created_by, changed_at, ordered_priority, ordered_json) values (?, ?, ?, ?, ?, ?, '', ?, ?, ?)",
        (
            workitem.uid_of(study, number),
            study,
            number,
            item.accession_number,
            StepState.SCHEDULED,
            now,
            now,
            item.ordered_priority,
            item.ordered_json,
        ),
    )
    back_in_queue(database, study)
    tell(database, workitem.uid_of(study, number), EventKind.STATE, now, {"state": StepState.SCHEDULED})
    journal.note(database, "reading put back", study=study, at=now, by=by)
    found = by_uid(database, workitem.uid_of(study, number))
    assert found is not None
    return found


def settle(journal: Journal, database: sqlite_utils.Database, item: Workitem, now: float) -> None:
    """A study that has come after its workitem was claimed or had ended stands where that leaves it."""
    assert item.study_instance_uid is not None
    if item.state is StepState.IN_PROGRESS:
        state = (StudyState.READING, item.study_instance_uid)
        database.conn.execute("update studies set state = ? where study_instance_uid = ?", state)
        journal.note(database, "reading begun", study=item.study_instance_uid, at=now, by=item.performer)
    else:
        renew(journal, database, item, item.performer or "", now)


def back_in_queue(database: sqlite_utils.Database, study: str) -> None:
    """The study stands where its images put it, whoever has read it before."""
    database.conn.execute(
        "update studies set state = coalesce((select case when assessment_json is null then ? else ? end from results"
        " where id = result_id), ?) where study_instance_uid = ?",
        (StudyState.NOT_ANALYSED, StudyState.JUDGED, StudyState.WAITING, study),
    )


# The later in this text, the less urgent; what nobody ordered comes last (study.OrderPriority)
_URGENCY = "coalesce(instr('STAT HIGH MEDIUM ROUTINE LOW', {}), 99)"


def more_urgent(one: str, other: str) -> str:
    """The SQL condition that one column was ordered more urgently than another."""
    return f"{_URGENCY.format(one)} < {_URGENCY.format(other)}"


MORE_URGENT = more_urgent("workitems.ordered_priority", "studies.order_priority")


def pass_on_priority(database: sqlite_utils.Database, study: str) -> None:
    """The list knows with which priority a study was ordered; what came with the images is never lowered by it."""
    database.conn.execute(
        "update studies set order_priority = ordered_priority from workitems where workitems.study_instance_uid ="
        f" studies.study_instance_uid and studies.study_instance_uid = ? and {MORE_URGENT}",
        (study,),
    )


def replace(database: sqlite_utils.Database, item: Workitem, words: str, now: float) -> None:
    """End a workitem that another one stands for from now on."""
    database.conn.execute(
        "update workitems set state = ?, ended_at = ?, changed_at = ?, words = ? where workitem_uid = ?",
        (StepState.CANCELED, now, now, words, item.workitem_uid),
    )
    tell(database, item.workitem_uid, EventKind.STATE, now, {"state": StepState.CANCELED, "words": words})


def tell(
    database: sqlite_utils.Database,
    workitem_uid: str,
    kind: EventKind,
    now: float,
    detail: Mapping[str, str],
    *,
    only_for: str | None = None,
) -> None:
    """Something happened to a workitem that subscribers may want to know, as part of the transaction that does it."""
    database.conn.execute(
        "insert into workitem_events (workitem_uid, at, kind, detail_json, only_for) values (?, ?, ?, ?, ?)",
        (workitem_uid, now, kind, json.dumps(dict(detail)), only_for),
    )


COLUMNS = (
    "workitem_uid, study_instance_uid, number, accession_number, state, transaction_uid, performer, created_at,"
    " created_by, changed_at, claimed_at, ended_at, words, ordered_priority, ordered_json, performed_json"
)


def current_or_made(database: sqlite_utils.Database, study: str, now: float) -> Workitem:
    """The current workitem of a study, made where there is none; raises ReadingRefused where the study is unknown.

    Images that come for an order without a Study Instance UID are known by its accession number.
    """
    found = next(
        database.query(
            f"select {COLUMNS} from workitems where study_instance_uid = ? order by number desc limit 1", (study,)
        ),
        None,
    )
    if found is not None:
        return workitem_of(found)
    here = database.conn.execute(
        "select accession_number, state from studies where study_instance_uid = ?", (study,)
    ).fetchone()
    if here is None:
        raise ReadingRefused(f"no study {study} in this node", status=workitem.NO_SUCH_WORKITEM)
    accession_number, marked = here
    ordered = database.conn.execute(
        "select workitem_uid, state from workitems where study_instance_uid is null and accession_number = ?"
        " and accession_number <> '' and state in (?, ?) order by created_at limit 1",
        (accession_number, StepState.SCHEDULED, StepState.IN_PROGRESS),
    ).fetchone()
    if ordered is not None:
        uid, state = str(ordered[0]), StepState(ordered[1])
        database.conn.execute(
            "update workitems set study_instance_uid = ?, changed_at = ? where workitem_uid = ?", (study, now, uid)
        )
        pass_on_priority(database, study)
    else:
        uid = workitem.uid_of(study, 1)
        state = _MARKED.get(marked, StepState.SCHEDULED)
        begun = state is not StepState.SCHEDULED
        database.conn.execute(
            "insert into workitems (workitem_uid, study_instance_uid, number, accession_number, state, transaction_uid,"
            " performer, created_at, created_by, changed_at, claimed_at, ended_at) values (?, ?, 1, ?, ?, ?, ?, ?, '',"
            " ?, ?, ?)",
            (
                uid,
                study,
                accession_number,
                state,
                f"2.25.{uuid.uuid4().int}" if begun else None,
                UNKNOWN_PERFORMER if begun else None,
                now,
                now,
                now if begun else None,
                now if state not in workitem.OPEN else None,
            ),
        )
    tell(database, uid, EventKind.STATE, now, {"state": state})
    item = by_uid(database, uid)
    assert item is not None
    return item


# what was marked before there were workitems
_MARKED = {StudyState.READING: StepState.IN_PROGRESS, StudyState.READ: StepState.COMPLETED}


def by_uid(database: sqlite_utils.Database, workitem_uid: str) -> Workitem | None:
    """A workitem by its SOP Instance UID."""
    row = next(database.query(f"select {COLUMNS} from workitems where workitem_uid = ?", (workitem_uid,)), None)
    return None if row is None else workitem_of(row)


def workitem_of(row: Row) -> Workitem:
    """A row of COLUMNS as a record."""
    priority = row["ordered_priority"]
    return Workitem(
        **{
            **row,
            "state": StepState(row["state"]),
            "ordered_priority": None if priority is None else ReadingPriority(priority),
        }
    )
