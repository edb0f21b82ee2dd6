"""What people and programs read from the journal, as frozen records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node.journal.queue import ASSESSMENT, NOT_ANALYSED, PASSED_OVER
from triage_node.study import Assessment, NotAnalysed, OrderPriority, PassedOver, StudyState

if TYPE_CHECKING:
    from triage_node.journal.store import Journal, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """A study with its current answer."""

    study_instance_uid: str
    accession_number: str
    description: str
    study_date: str
    arrived_at: float
    state: StudyState
    result_id: int | None
    generation: int | None
    judged_at: float | None
    assessment: Assessment | None
    not_analysed: NotAnalysed | None
    order_priority: OrderPriority | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """A series as it stands in the journal."""

    series_instance_uid: str
    modality: str
    description: str
    instances: int
    state: str
    generation: int
    closed_at: float | None
    evidence: tuple[str, ...]
    basis: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """On which images a study was answered, and where the objects of the answer lie."""

    generation: int
    series_instance_uid: str | None  # that was judged; None where none was
    last_instance_id: int  # later instances are no part of it
    paths: dict[str, str]  # kind of object -> path relative to the state directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to deliver an object or to have its delivery proven, and what the destination said."""

    at: float
    state: str
    status: int | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRow:
    """One object of ours at one destination (None where it is sent nowhere)."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str  # relative to the state directory
    size_bytes: int
    generation: int
    destination: str | None
    state: str | None
    awaiting: tuple[str, ...]  # "commitment", "read-back": the proofs that are still to come
    stored_at: float | None
    committed_at: float | None
    confirmed_at: float | None
    resends: int
    attempts: int
    next_at: float | None
    status: int | None  # of the last answer
    words: str
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An object that a destination has refused, lost too often or not taken in time; it stays until it is requeued."""

    study_instance_uid: str
    kind: str
    sop_instance_uid: str
    destination: str
    state: str
    at: float
    attempts: int
    status: int | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """Something that happened to a study."""

    at: float
    process: str
    event: str
    detail: dict[str, object]


_STUDY = (
    "select studies.*, results.generation, results.created_at as judged_at, assessment_json, not_analysed_json"
    " from studies left join results on results.id = studies.result_id"
)


def studies(journal: Journal) -> list[StudyRow]:
    """Every study, in order of arrival."""
    return [_study(row) for row in journal.rows(f"{_STUDY} order by arrived_at, studies.study_instance_uid")]


def studies_after(journal: Journal, revision: int) -> tuple[list[StudyRow], int, int]:
    """The studies that were added or changed after `revision`; the revision now, and how many studies there are."""
    with journal.reading() as database:
        rows = list(database.query(f"{_STUDY} where studies.revision > ? order by studies.revision", (revision,)))
        ((number,),) = database.conn.execute("select count(*) from studies")
    return [_study(row) for row in rows], rows[-1]["revision"] if rows else revision, number


def taken_at(journal: Journal, number: int) -> list[float]:
    """When readers took the latest so many studies, oldest first."""
    rows = journal.rows(
        "select claimed_at from workitems where claimed_at is not null order by claimed_at desc limit ?", number
    )
    return [row["claimed_at"] for row in reversed(rows)]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """When a study got its first answer, was taken by a reader and was reported; None where that did not happen."""

    answered_at: float | None
    taken_at: float | None
    reported_at: float | None


def histories(journal: Journal, since: float) -> dict[str, History]:
    """What became of the studies that have arrived since, by Study Instance UID."""
    return {
        row["study_instance_uid"]: History(
            answered_at=row["answered_at"], taken_at=row["taken_at"], reported_at=row["reported_at"]
        )
        for row in journal.rows(
            "select study_instance_uid,"
            " (select min(created_at) from results where results.study_instance_uid = studies.study_instance_uid)"
            " as answered_at, min(claimed_at) as taken_at,"
            " max(case when workitems.state = 'COMPLETED' then ended_at end) as reported_at"
            " from studies left join workitems using (study_instance_uid) where arrived_at >= ? group by 1",
            since,
        )
    }


def study(journal: Journal, study_instance_uid: str) -> StudyRow | None:
    """One study, or None if it is unknown."""
    row = journal.row(f"{_STUDY} where studies.study_instance_uid = ?", study_instance_uid)
    return None if row is None else _study(row)


def _study(row: Row) -> StudyRow:
    return StudyRow(
        study_instance_uid=row["study_instance_uid"],
        accession_number=row["accession_number"],
        description=row["description"],
        study_date=row["study_date"],
        arrived_at=row["arrived_at"],
        state=StudyState(row["state"]),
        result_id=row["result_id"],
        generation=row["generation"],
        judged_at=row["judged_at"],
        assessment=ASSESSMENT.validate_json(row["assessment_json"]) if row["assessment_json"] else None,
        not_analysed=NOT_ANALYSED.validate_json(row["not_analysed_json"]) if row["not_analysed_json"] else None,
        order_priority=OrderPriority(row["order_priority"]) if row["order_priority"] else None,
    )


def series(journal: Journal, study_instance_uid: str) -> list[SeriesRow]:
    """The series of a study, in order of arrival."""
    found = []
    for row in journal.rows(
        "select * from series where study_instance_uid = ? order by first_at, series_instance_uid", study_instance_uid
    ):
        evidence = json.loads(row["evidence_json"]) if row["evidence_json"] else {}
        found.append(
            SeriesRow(
                series_instance_uid=row["series_instance_uid"],
                modality=row["modality"],
                description=row["description"],
                instances=row["instances"],
                state=row["state"],
                generation=row["generation"],
                closed_at=row["closed_at"],
                evidence=tuple(evidence.get("words", ())),
                basis=evidence.get("basis"),
            )
        )
    return found


def judged_series(journal: Journal, result_id: int | None) -> tuple[str | None, tuple[PassedOver, ...], float]:
    """UID of the series that was judged (None if none was), the series passed over, and seconds it took."""
    row = journal.row("select series_instance_uid, passed_over_json, duration_s from results where id = ?", result_id)
    if row is None:
        return None, (), 0.0
    return row["series_instance_uid"], PASSED_OVER.validate_json(row["passed_over_json"]), row["duration_s"]


def answer(journal: Journal, study_instance_uid: str) -> AnswerRow | None:
    """The current answer to a study; None where there is none yet."""
    row = journal.row(
        "select results.id, results.generation, series_instance_uid, last_instance_id"
        " from studies join results on results.id = studies.result_id join jobs on"
        " jobs.study_instance_uid = results.study_instance_uid and jobs.generation = results.generation"
        " where studies.study_instance_uid = ?",
        study_instance_uid,
    )
    if row is None:
        return None
    paths = journal.rows("select kind, path from objects where result_id = ?", row["id"])
    return AnswerRow(
        generation=row["generation"],
        series_instance_uid=row["series_instance_uid"],
        last_instance_id=row["last_instance_id"],
        paths={each["kind"]: each["path"] for each in paths},
    )


def last_instance_id(journal: Journal, study_instance_uid: str) -> int:
    """Id of the instance of a study that arrived last; 0 where there is none."""
    row = journal.row("select max(id) as id from instances where study_instance_uid = ?", study_instance_uid)
    return 0 if row is None else int(row["id"] or 0)


def objects(journal: Journal, study_instance_uid: str) -> list[ObjectRow]:
    """All objects of all generations of a study, with the ledger of their delivery."""
    attempts: dict[int, list[Delivery]] = {}
    for row in journal.rows(
        "select deliveries.* from deliveries join outbox on outbox.id = outbox_id where study_instance_uid = ?"
        " order by deliveries.id",
        study_instance_uid,
    ):
        attempts.setdefault(row["outbox_id"], []).append(
            Delivery(at=row["at"], state=row["state"], status=row["status"], words=row["words"])
        )
    return [
        _object(row, tuple(attempts.get(row["outbox_id"], ())))
        for row in journal.rows(
            "select objects.*, results.generation, outbox.id as outbox_id, destination, outbox.state, attempts,"
            " next_at, stored_at, committed_at, confirmed_at, commit_at, find_at, resends"
            " from objects join results on results.id = result_id left join outbox using (sop_instance_uid)"
            " where results.study_instance_uid = ? order by results.generation, objects.rowid, outbox.id",
            study_instance_uid,
        )
    ]


def _object(row: Row, deliveries: tuple[Delivery, ...]) -> ObjectRow:
    awaiting = (("commitment", row["commit_at"]), ("read-back", row["find_at"]))
    return ObjectRow(
        kind=row["kind"],
        sop_class_uid=row["sop_class_uid"],
        sop_instance_uid=row["sop_instance_uid"],
        path=row["path"],
        size_bytes=row["size_bytes"],
        generation=row["generation"],
        destination=row["destination"],
        state=row["state"],
        awaiting=tuple(proof for proof, at in awaiting if at is not None),
        stored_at=row["stored_at"],
        committed_at=row["committed_at"],
        confirmed_at=row["confirmed_at"],
        resends=row["resends"] or 0,
        attempts=row["attempts"] or 0,
        next_at=row["next_at"] if row["state"] == "queued" else None,
        status=deliveries[-1].status if deliveries else None,
        words=deliveries[-1].words if deliveries else "",
        deliveries=deliveries,
    )


def dead_letters(journal: Journal) -> list[DeadLetter]:
    """What will not be sent again by itself, oldest first; of each study only its current answer."""
    return [
        DeadLetter(
            study_instance_uid=row["study_instance_uid"],
            kind=row["kind"],
            sop_instance_uid=row["sop_instance_uid"],
            destination=row["destination"],
            state=row["state"],
            at=row["finished_at"],
            attempts=row["attempts"],
            status=row["status"],
            words=row["words"] or "",
        )
        for row in journal.rows(
            "select outbox.*, kind, status, words from outbox join objects using (sop_instance_uid)"
            " join studies using (result_id) left join deliveries on deliveries.id ="
            " (select max(id) from deliveries where outbox_id = outbox.id)"
            " where outbox.state in ('refused', 'given up') order by finished_at, outbox.id"
        )
    ]


def report_uid(journal: Journal, result_id: int) -> str | None:
    """SOP Instance UID of the structured report of an answer; None where it has none."""
    row = journal.row("select sop_instance_uid from objects where result_id = ? and kind = 'report'", result_id)
    return None if row is None else str(row["sop_instance_uid"])


def overview_path(journal: Journal, study_instance_uid: str) -> str | None:
    """Path (relative to the state directory) of the current overview image of a study."""
    row = journal.row(
        "select path from objects join studies on studies.result_id = objects.result_id"
        " where studies.study_instance_uid = ? and kind = 'overview'",
        study_instance_uid,
    )
    return None if row is None else str(row["path"])


def events(journal: Journal, study_instance_uid: str) -> list[EventRow]:
    """What happened to a study, oldest first."""
    return [
        EventRow(at=row["at"], process=row["process"], event=row["event"], detail=json.loads(row["detail_json"]))
        for row in journal.rows("select * from events where study_instance_uid = ? order by id", study_instance_uid)
    ]


def totals(journal: Journal) -> dict[str, int]:
    """Counts for the status display: instances, series, studies and what went into quarantine."""
    row = journal.row(
        "select (select count(*) from instances) as instances,"
        " (select count(*) from series where state = 'open') as open_series,"
        " (select count(*) from studies) as studies,"
        " (select count(*) from associations where closed_at is null) as open_associations,"
        " (select count(*) from events where event = 'conflicting instance quarantined') as quarantined"
    )
    assert row is not None
    return {key: int(value) for key, value in row.items()}
