"""What people and programs read of the messages to a RIS, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node.journal.views import DeadLetter

if TYPE_CHECKING:
    from triage_node.journal.store import Journal, Row

KIND = "HL7 result"  # what a message is called beside the kinds of object


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to deliver a message, and what the receiver said."""

    at: float
    state: str
    code: str | None  # MSA-1 of the acknowledgement
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow:
    """The message of one answer to one receiver, with the ledger of its delivery."""

    generation: int
    destination: str
    state: str
    attempts: int
    next_at: float | None
    acknowledged_at: float | None
    code: str | None  # of the last answer
    words: str
    deliveries: tuple[Attempt, ...]


def dead_letters(journal: Journal) -> list[DeadLetter]:
    """What will not be sent again by itself, oldest first; of each study only its current answer."""
    return [
        DeadLetter(
            study_instance_uid=row["study_instance_uid"],
            kind=KIND,
            sop_instance_uid="",
            destination=row["destination"],
            state=row["state"],
            at=row["finished_at"],
            attempts=row["attempts"],
            status=None,
            words=row["words"] or "",
        )
        for row in journal.rows(
            "select messages.*, words from messages join studies using (result_id) left join acknowledgements on"
            " acknowledgements.id = (select max(id) from acknowledgements where message_id = messages.id)"
            " where messages.state in ('refused', 'given up') order by finished_at, messages.id"
        )
    ]


def ledger(journal: Journal, study_instance_uid: str) -> list[MessageRow]:
    """All messages of all answers to a study, with every attempt."""
    attempts: dict[int, list[Attempt]] = {}
    for row in journal.rows(
        "select acknowledgements.* from acknowledgements join messages on messages.id = message_id"
        " where study_instance_uid = ? order by acknowledgements.id",
        study_instance_uid,
    ):
        attempts.setdefault(row["message_id"], []).append(
            Attempt(at=row["at"], state=row["state"], code=row["code"], words=row["words"])
        )
    return [
        _row(row, tuple(attempts.get(row["id"], ())))
        for row in journal.rows(
            "select messages.*, generation from messages join results on results.id = result_id"
            " where messages.study_instance_uid = ? order by generation, messages.id",
            study_instance_uid,
        )
    ]


def _row(row: Row, deliveries: tuple[Attempt, ...]) -> MessageRow:
    return MessageRow(
        generation=row["generation"],
        destination=row["destination"],
        state=row["state"],
        attempts=row["attempts"],
        next_at=row["next_at"] if row["state"] == "queued" else None,
        acknowledged_at=row["acknowledged_at"],
        code=deliveries[-1].code if deliveries else None,
        words=deliveries[-1].words if deliveries else "",
        deliveries=deliveries,
    )
