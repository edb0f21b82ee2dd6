"""Studies that were ordered ahead of their images, and what of each study's header reading systems want to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node import workitem
from triage_node.errors import ReadingRefused
from triage_node.journal import transitions
from triage_node.workitem import EventKind, StepState

if TYPE_CHECKING:
    from pathlib import Path

    import sqlite_utils

    from triage_node.journal.store import Journal
    from triage_node.journal.transitions import Workitem
    from triage_node.study import ReadingPriority

REPLACED = "replaced by an order"
ONE_AT_A_TIME = 0x0110  # processing failure, PS3.7 section 10.1.5.1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an N-CREATE asks for: a study to be read, before or after its images are here."""

    workitem_uid: str
    study_instance_uid: str | None
    accession_number: str  # "" where none was given
    priority: ReadingPriority
    attributes_json: str  # DICOM JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Undescribed:
    """A study whose header nobody has looked at yet, with the file of an image of it."""

    study_instance_uid: str
    path: Path


def place(journal: Journal, order: Order, by: str, now: float) -> Workitem:
    """Make the workitem of an order (PS3.4 CC.2.5).

    A study that is here and that nobody reads gets it instead of the one that the node has made; one that has ended is
    to be read again. Raises ReadingRefused where the UID is taken, or a reader or another order has the study already.
    """
    with journal.writing() as database:
        taken = transitions.by_uid(database, order.workitem_uid)
        outcome = workitem.decide(None if taken is None else taken.state, workitem.Request.CREATE)
        if outcome.is_refusal:
            raise ReadingRefused(outcome.words, status=outcome.status)
        study, number = order.study_instance_uid, 1
        if study is None and order.accession_number:
            row = database.conn.execute(
                "select study_instance_uid from studies where accession_number = ? order by arrived_at desc limit 1",
                (order.accession_number,),
            ).fetchone()
            study = None if row is None else str(row[0])
        before = None
        if study is not None:
            here = database.conn.execute("select 1 from studies where study_instance_uid = ?", (study,)).fetchone()
            before = transitions.current_or_made(database, study, now) if here else _awaiting(database, study)
        if before is not None:
            number = before.number + 1
            if before.state is StepState.IN_PROGRESS or (before.state is StepState.SCHEDULED and before.created_by):
                why = "is being read" if before.state is StepState.IN_PROGRESS else "has been ordered already"
                raise ReadingRefused(f"the study {why}: workitem {before.workitem_uid}", status=ONE_AT_A_TIME)
            if before.state is StepState.SCHEDULED:
                transitions.replace(database, before, REPLACED, now)
        database.conn.execute(
            "insert into workitems (workitem_uid, study_instance_uid, number, accession_number, state, created_at,"
            " created_by, changed_at, ordered_priority, ordered_json) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                order.workitem_uid,
                study,
                number,
                order.accession_number,
                StepState.SCHEDULED,
                now,
                by,
                now,
                order.priority,
                order.attributes_json,
            ),
        )
        transitions.tell(database, order.workitem_uid, EventKind.STATE, now, {"state": StepState.SCHEDULED})
        if study is not None:
            transitions.back_in_queue(database, study)
            transitions.pass_on_priority(database, study)
        journal.note(database, "reading ordered", study=study, at=now, by=by, priority=order.priority)
        item = transitions.by_uid(database, order.workitem_uid)
        assert item is not None
        return item


def _awaiting(database: sqlite_utils.Database, study: str) -> Workitem | None:
    row = next(
        database.query(
            f"select {transitions.COLUMNS} from workitems where study_instance_uid = ? order by number desc limit 1",
            (study,),
        ),
        None,
    )
    return None if row is None else transitions.workitem_of(row)


def register(journal: Journal, now: float) -> int:
    """Give a workitem to every study that has none, and to studies what was ordered of them; returns how many."""
    new = journal.rows(
        "select study_instance_uid from studies where not exists (select 1 from workitems where"
        " workitems.study_instance_uid = studies.study_instance_uid) order by arrived_at"
    )
    for first in range(0, len(new), 500):  # a writer that takes long keeps the receiver waiting
        with journal.writing() as database:
            for row in new[first : first + 500]:
                transitions.current_or_made(database, row["study_instance_uid"], now)
    came = journal.rows(
        "select workitem_uid, studies.study_instance_uid from workitems join studies using (study_instance_uid)"
        f" where ordered_priority is not null and workitems.state = ? and {transitions.MORE_URGENT}",
        StepState.SCHEDULED,
    )
    if came:
        with journal.writing() as database:
            for row in came:
                transitions.pass_on_priority(database, row["study_instance_uid"])
                state = {"state": StepState.SCHEDULED}
                transitions.tell(database, row["workitem_uid"], EventKind.STATE, now, state)
                journal.note(database, "order met by its images", study=row["study_instance_uid"], at=now)
    return len(new) + len(came) + _settle(journal, now)


def _settle(journal: Journal, now: float) -> int:
    """Images that come for an order that somebody has claimed already, or ended; returns how many studies.

    What is claimed is being read; what has ended before there was anything to read is still to be read.
    """
    rows = journal.rows(
        f"select {', '.join(f'workitems.{name}' for name in transitions.COLUMNS.split(', '))} from workitems"
        " join studies using (study_instance_uid) where ordered_priority is not null and workitems.state <> ?"
        " and studies.state in ('waiting', 'judged', 'not_analysed') and number = (select max(number) from workitems"
        " as others where others.study_instance_uid = workitems.study_instance_uid)",
        StepState.SCHEDULED,
    )
    for row in rows:
        item = transitions.workitem_of(row)
        with journal.writing() as database:
            transitions.settle(journal, database, item, now)
    return len(rows)


def newest(journal: Journal) -> int:
    """A number that changes when a study comes."""
    row = journal.row("select coalesce(max(rowid), 0) as number from studies")
    return 0 if row is None else int(row["number"])


def undescribed(journal: Journal, limit: int) -> list[Undescribed]:
    """Studies whose header has not been looked at, the newest first, with their first image."""
    rows = journal.rows(
        "select studies.study_instance_uid, (select path from instances where instances.study_instance_uid ="
        " studies.study_instance_uid order by instances.id limit 1) as path from studies left join study_headers"
        " using (study_instance_uid) where header_json is null order by arrived_at desc limit ?",
        limit,
    )
    return [
        Undescribed(study_instance_uid=row["study_instance_uid"], path=journal.state_dir / row["path"])
        for row in rows
        if row["path"] is not None
    ]


def describe(journal: Journal, headers: dict[str, str]) -> None:
    """Keep what was found in the headers of studies, as DICOM JSON by Study Instance UID."""
    with journal.writing() as database:
        database.conn.executemany(
            "insert or replace into study_headers (study_instance_uid, header_json) values (?, ?)", headers.items()
        )
        for study in headers:
            journal.note(database, "study described", study=study)
