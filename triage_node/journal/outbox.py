"""What is to be delivered to whom: a queue for each destination, every attempt on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.journal.store import Journal

# 'stored' and 'refused' are the destination's words; 'failed' means that it said nothing final and is asked again
Outcome = Literal["stored", "refused", "failed"]
# Objects of a study that fail one after the other are due within this time of each other; they stay together.
TOGETHER_S = 2.0
# A report refers to the segmentations, so they go first.
_ORDER = "case kind when 'lungs' then 0 when 'lesions' then 1 when 'overview' then 2 else 3 end"


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


def due(journal: Journal, destination: str, now: float) -> list[Outgoing]:
    """The due objects of the study that has waited longest at a destination: they share one association."""
    rows = journal.rows(
        "select outbox.id, outbox.study_instance_uid, sop_class_uid, sop_instance_uid, kind, path, attempts, queued_at"
        " from outbox join objects using (sop_instance_uid) where destination = ? and state = 'queued'"
        " and next_at <= ? and outbox.study_instance_uid = (select study_instance_uid from outbox where destination = ?"
        f" and state = 'queued' and next_at <= ? order by next_at, id limit 1) order by {_ORDER}",
        destination,
        now + TOGETHER_S,
        destination,
        now,
    )
    return [
        Outgoing(
            outbox_id=row["id"],
            study_instance_uid=row["study_instance_uid"],
            sop_class_uid=row["sop_class_uid"],
            sop_instance_uid=row["sop_instance_uid"],
            kind=row["kind"],
            path=journal.state_dir / row["path"],
            attempts=row["attempts"],
            queued_at=row["queued_at"],
        )
        for row in rows
    ]


def next_at(journal: Journal, destination: str) -> float | None:
    """When the next object is due at a destination; None when nothing is queued."""
    row = journal.row("select min(next_at) as at from outbox where destination = ? and state = 'queued'", destination)
    return None if row is None or row["at"] is None else float(row["at"])


def record(
    journal: Journal,
    outgoing: Outgoing,
    outcome: Outcome,
    *,
    status: int | None,
    words: str,
    now: float,
    retry_at: float | None,
) -> None:
    """Write down an attempt; without `retry_at` a failed object is given up."""
    state = outcome if outcome != "failed" else ("queued" if retry_at is not None else "given up")
    with journal.writing() as database:
        database.conn.execute(
            "insert into deliveries (outbox_id, at, state, status, words) values (?, ?, ?, ?, ?)",
            (outgoing.outbox_id, now, outcome, status, words),
        )
        database.conn.execute(
            "update outbox set state = ?, attempts = attempts + 1, next_at = coalesce(?, next_at), finished_at = ?"
            " where id = ? and state = 'queued'",
            (state, retry_at, None if state == "queued" else now, outgoing.outbox_id),
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


def requeue(journal: Journal, now: float, *, study: str | None = None, destination: str | None = None) -> int:
    """Send again what was refused or given up, and at once what waits for its next attempt; returns how many.

    Only objects of a study's current answer: an older one must not arrive after it.
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
            "update outbox set state = 'queued', attempts = 0, next_at = ?, queued_at = ?, finished_at = null"
            f" where {where}",
            (now, now, *parameters),
        )
        journal.note(database, "deliveries requeued", study=study, at=now, objects=cursor.rowcount)
        return cursor.rowcount


def depth(journal: Journal) -> dict[str, dict[str, int]]:
    """How many objects are in which state, for each destination."""
    found: dict[str, dict[str, int]] = {}
    for row in journal.rows("select destination, state, count(*) as number from outbox group by 1, 2"):
        found.setdefault(row["destination"], {})[row["state"]] = row["number"]
    return found
