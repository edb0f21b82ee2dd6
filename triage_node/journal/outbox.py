"""What is to be delivered to whom: a queue for each destination, every attempt on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from triage_node.identity import LABEL_MAPS
from triage_node.journal import messages

if TYPE_CHECKING:
    from pathlib import Path

    import sqlite_utils

    from triage_node.config import DestinationSection
    from triage_node.identity import ResultKind
    from triage_node.journal.store import Journal, Row

# 'stored' and 'refused' are the destination's words; 'failed' means that it said nothing final and is asked again
Outcome = Literal["stored", "refused", "failed"]
# Objects of a study that fail one after the other are due within this time of each other; they stay together.
TOGETHER_S = 2.0
# A report refers to the segmentations, so they go first.
_ORDER = (
    "case kind when 'lungs' then 0 when 'lung map' then 0 when 'lesions' then 1 when 'lesion map' then 1"
    " when 'overview' then 2 else 3 end"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One object that is due at one destination."""

    outbox_id: int
    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    kind: str
    path: Path
    attempts: int
    queued_at: float


_OUTGOING = (
    "select outbox.id, outbox.study_instance_uid, sop_class_uid, sop_instance_uid, kind, path, attempts, queued_at"
    " from outbox join objects using (sop_instance_uid) where destination = ? and state = 'queued'"
)


def due(journal: Journal, destination: str, now: float) -> list[Outgoing]:
    """The due objects of the study that has waited longest at a destination: they share one association."""
    rows = journal.rows(
        f"{_OUTGOING} and next_at <= ? and outbox.study_instance_uid = (select study_instance_uid from outbox where"
        f" destination = ? and state = 'queued' and next_at <= ? order by next_at, id limit 1) order by {_ORDER}",
        destination,
        now + TOGETHER_S,
        destination,
        now,
    )
    return [_outgoing(journal, row) for row in rows]


def any_study(journal: Journal, destination: str) -> list[Outgoing]:
    """The queued objects of the study whose turn would be next, due or not: a destination is probed with these."""
    rows = journal.rows(
        f"{_OUTGOING} and outbox.study_instance_uid = (select study_instance_uid from outbox where destination = ? and"
        f" state = 'queued' order by next_at, id limit 1) order by {_ORDER}",
        destination,
        destination,
    )
    return [_outgoing(journal, row) for row in rows]


def _outgoing(journal: Journal, row: Row) -> Outgoing:
    return Outgoing(
        outbox_id=row["id"],
        study_instance_uid=row["study_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        kind=row["kind"],
        path=journal.state_dir / row["path"],
        attempts=row["attempts"],
        queued_at=row["queued_at"],
    )


def next_at(journal: Journal, destination: str) -> float | None:
    """When the next object is due at a destination; None when nothing is queued."""
    row = journal.row("select min(next_at) as at from outbox where destination = ? and state = 'queued'", destination)
    return None if row is None or row["at"] is None else float(row["at"])


def begin(journal: Journal, outgoing: Outgoing, now: float) -> bool:
    """Note that an object is about to be sent; False when it is to be sent no more, since a newer answer is coming.

    Noted before, because nobody knows how much arrives of an attempt that is cut off.
    """
    with journal.writing() as database:
        cursor = database.conn.execute(
            "update outbox set tried_at = ? where id = ? and state = 'queued'", (now, outgoing.outbox_id)
        )
        return cursor.rowcount > 0


def record(
    journal: Journal,
    outgoing: Outgoing,
    outcome: Outcome,
    *,
    status: int | None,
    words: str,
    now: float,
    retry_at: float | None,
    commit: bool = False,
    read_back: bool = False,
) -> None:
    """Write down an attempt; without `retry_at` a failed object is given up.

    What was stored is to be committed and read back, as far as the destination does so.
    """
    state: str = outcome if outcome != "failed" else ("queued" if retry_at is not None else "given up")
    with journal.writing() as database:
        if state == "refused" and outgoing.kind in LABEL_MAPS:
            state, words = "superseded", f"{words}; sent as BINARY instead"
            _queue_binary(database, outgoing, now)
        database.conn.execute(
            "insert into deliveries (outbox_id, at, state, status, words) values (?, ?, ?, ?, ?)",
            (outgoing.outbox_id, now, outcome, status, words),
        )
        database.conn.execute(
            "update outbox set state = ?, attempts = attempts + 1, next_at = coalesce(?, next_at), finished_at = ?"
            " where id = ? and state = 'queued'",
            (state, retry_at, None if state == "queued" else now, outgoing.outbox_id),
        )
        if state == "stored":
            database.conn.execute(
                "update outbox set stored_at = ?, commit_at = ?, commit_attempts = 0, find_at = ?, find_attempts = 0"
                " where id = ? and state = 'stored'",
                (now, now if commit else None, now if read_back else None, outgoing.outbox_id),
            )
        if state != "queued":
            destination = database.conn.execute(
                "select destination from outbox where id = ?", (outgoing.outbox_id,)
            ).fetchone()[0]
            journal.note(
                database,
                f"object {state}",
                study=outgoing.study_instance_uid,
                at=now,
                kind=outgoing.kind,
                destination=destination,
            )


def expire(journal: Journal, destination: str, queued_before: float, words: str, now: float) -> int:
    """Give up what has been queued for too long at a destination that is not reached; returns how many objects."""
    with journal.writing() as database:
        rows = database.query(
            "update outbox set state = 'given up', finished_at = ? where destination = ? and state = 'queued'"
            " and queued_at <= ? returning id, study_instance_uid, sop_instance_uid",
            (now, destination, queued_before),
        )
        given_up = list(rows)
        for row in given_up:
            database.conn.execute(
                "insert into deliveries (outbox_id, at, state, words) values (?, ?, 'failed', ?)",
                (row["id"], now, words),
            )
            kind = database.conn.execute(
                "select kind from objects where sop_instance_uid = ?", (row["sop_instance_uid"],)
            ).fetchone()[0]
            journal.note(
                database,
                "object given up",
                study=row["study_instance_uid"],
                at=now,
                kind=kind,
                destination=destination,
            )
        return len(given_up)


def wanted(kind: ResultKind, destination: DestinationSection) -> bool:
    """Whether objects of a kind are for a destination."""
    if kind in LABEL_MAPS:
        return LABEL_MAPS[kind] in destination.send and destination.segmentations != "binary"
    return kind in destination.send and (destination.segmentations != "label map" or kind not in LABEL_MAPS.values())


def _queue_binary(database: sqlite_utils.Database, outgoing: Outgoing, now: float) -> None:
    """The object that a label map stands for goes to the destination that takes no label map."""
    database.conn.execute(
        "insert or ignore into outbox (sop_instance_uid, study_instance_uid, destination, state, attempts, queued_at,"
        " next_at) select other.sop_instance_uid, outbox.study_instance_uid, destination, 'queued', 0, ?, ?"
        " from outbox join objects using (sop_instance_uid) join objects other"
        " on other.result_id = objects.result_id and other.kind = ?"
        # not where the answer was withdrawn while the label map was under way
        " where outbox.id = ? and outbox.state = 'queued'",
        (now, now, {str(kind): binary for kind, binary in LABEL_MAPS.items()}[outgoing.kind], outgoing.outbox_id),
    )


def requeue(journal: Journal, now: float, *, study: str | None = None, destination: str | None = None) -> int:
    """Send again what was refused or given up, and at once what waits for its next attempt; returns how many.

    Objects and messages alike. Only objects of a study's current answer: an older one must not arrive after it.
    """
    where = (
        "state in ('refused', 'given up', 'queued') and sop_instance_uid in"
        " (select sop_instance_uid from objects join studies using (result_id))"
    )
    parameters: list[str] = []
    if study is not None:
        where += " and study_instance_uid = ?"
        parameters.append(study)
    if destination is not None:
        where += " and destination = ?"
        parameters.append(destination)
    with journal.writing() as database:
        cursor = database.conn.execute(
            "update outbox set state = 'queued', attempts = 0, resends = 0, next_at = ?, queued_at = ?,"
            " finished_at = null, committed_at = null, confirmed_at = null, commit_at = null, find_at = null"
            f" where {where}",
            (now, now, *parameters),
        )
        database.conn.execute(  # a destination that was not reached is tried at once
            "update circuits set probe_at = min(probe_at, ?) where probe_at is not null and destination ="
            " coalesce(?, destination)",
            (now, destination),
        )
        number = cursor.rowcount + messages.requeue(database, now, study=study, destination=destination)
        journal.note(database, "deliveries requeued", study=study, at=now, objects=number)
        return number


def depth(journal: Journal) -> dict[str, dict[str, int]]:
    """How many objects are in which state, for each destination."""
    found: dict[str, dict[str, int]] = {}
    for row in journal.rows("select destination, state, count(*) as number from outbox group by 1, 2"):
        found.setdefault(row["destination"], {})[row["state"]] = row["number"]
    return found


def unproven(journal: Journal) -> dict[str, int]:
    """How many stored objects still await a proof, for each destination."""
    rows = journal.rows(
        "select destination, count(*) as number from outbox where (commit_at is not null or find_at is not null)"
        " and state in ('stored', 'committed', 'confirmed') group by 1"
    )
    return {row["destination"]: row["number"] for row in rows}
