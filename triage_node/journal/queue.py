"""The queue of studies to analyse, and the one transaction that ends a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from triage_node.identity import ResultIdentity, ResultKind
from triage_node.journal import messages, outbox
from triage_node.study import Assessment, NotAnalysed, PassedOver, StudyState

if TYPE_CHECKING:
    import sqlite_utils

    from triage_node.config import DestinationSection
    from triage_node.journal.store import Journal

ASSESSMENT = TypeAdapter(Assessment)
NOT_ANALYSED = TypeAdapter(NotAnalysed)
PASSED_OVER = TypeAdapter(tuple[PassedOver, ...])
IDENTITY = TypeAdapter(ResultIdentity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One study to analyse, claimed by one analyst."""

    id: int
    study_instance_uid: str
    generation: int
    last_instance_id: int  # later instances belong to the next generation
    attempts: int  # this one included
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FiledObject:
    """An object of ours that lies on disk."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    path: str  # relative to the state directory
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to a job: judged (`assessment`) or not (`not_analysed`), never both."""

    series_instance_uid: str | None
    assessment: Assessment | None
    not_analysed: NotAnalysed | None
    passed_over: tuple[PassedOver, ...]
    identity: ResultIdentity
    objects: tuple[FiledObject, ...]
    duration_s: float

    def __post_init__(self) -> None:
        if (self.assessment is None) == (self.not_analysed is None):
            raise ValueError("a result is either an assessment or a refusal")


def claim(journal: Journal, owner: str, now: float) -> Job | None:
    """Take the next queued job, in one statement (two would race); None when there is none.

    What failed before waits behind what was not tried yet.
    """
    with journal.writing() as database:
        row = next(
            database.query(
                "update jobs set state = 'running', owner = ?, attempts = attempts + 1, claimed_at = ? where id ="
                " (select id from jobs where state = 'queued' order by priority desc, attempts, id limit 1)"
                " returning id, study_instance_uid, generation, last_instance_id, attempts, created_at",
                (owner, now),
            ),
            None,
        )
    return None if row is None else Job(**row)


def hand_back(journal: Journal, owner: str | None, *, fault: bool) -> int:
    """Queue again what `owner` (None: anybody) holds; without `fault` (an orderly stop) the attempt does not count."""
    with journal.writing() as database:
        cursor = database.conn.execute(
            "update jobs set state = 'queued', owner = null, attempts = attempts - ? where state = 'running'"
            " and owner = coalesce(?, owner)",
            (0 if fault else 1, owner),
        )
        return cursor.rowcount


def finish(
    journal: Journal,
    job: Job,
    owner: str,
    result: Result,
    destinations: tuple[DestinationSection, ...],
    now: float,
    *,
    systems: tuple[str, ...] = (),
) -> bool:
    """Result, worklist, outbox, messages to `systems` (names of RIS) and end of the job in one transaction.

    False, and nothing is kept of the result, when the job is no longer `owner`'s or a newer answer is there already.
    """
    study = job.study_instance_uid
    with journal.writing() as database:
        ended = database.conn.execute(
            "update jobs set state = 'done', finished_at = ? where id = ? and state = 'running' and owner = ?",
            (now, job.id, owner),
        )
        if ended.rowcount == 0:
            return False
        newer = database.conn.execute(
            "select 1 from results where study_instance_uid = ? and generation > ?", (study, job.generation)
        ).fetchone()
        if newer:
            database.conn.execute("update jobs set state = 'superseded' where id = ?", (job.id,))
            return False
        cursor = database.conn.execute(
            "insert into results (study_instance_uid, generation, series_instance_uid, assessment_json,"
            " not_analysed_json, passed_over_json, identity_json, created_at, duration_s)"
            " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                study,
                job.generation,
                result.series_instance_uid,
                None if result.assessment is None else ASSESSMENT.dump_json(result.assessment).decode(),
                None if result.not_analysed is None else NOT_ANALYSED.dump_json(result.not_analysed).decode(),
                PASSED_OVER.dump_json(result.passed_over).decode(),
                IDENTITY.dump_json(result.identity).decode(),
                now,
                result.duration_s,
            ),
        )
        result_id = int(cursor.lastrowid or 0)
        _file_objects(database, study, result_id, result.objects, destinations, now)
        database.conn.execute(
            "update outbox set state = 'superseded', finished_at = ? where study_instance_uid = ? and state = 'queued'"
            " and sop_instance_uid not in (select sop_instance_uid from objects where result_id = ?)",
            (now, study, result_id),
        )
        messages.enqueue(database, study, result_id, systems, now)
        state = StudyState.JUDGED if result.assessment is not None else StudyState.NOT_ANALYSED
        # What a radiologist has opened or read stays so; only its facts are replaced.
        database.conn.execute(
            "update studies set result_id = ?, state = case when state in ('reading', 'read', 'cancelled') then state"
            " else ? end where study_instance_uid = ?",
            (result_id, state, study),
        )
        journal.note(
            database,
            "study judged" if result.assessment is not None else "study not analysed",
            study=study,
            at=now,
            generation=job.generation,
            series=result.series_instance_uid,
            seconds=round(result.duration_s, 2),
            reason=None if result.not_analysed is None else result.not_analysed.reason,
        )
        return True


def _file_objects(
    database: sqlite_utils.Database,
    study: str,
    result_id: int,
    objects: tuple[FiledObject, ...],
    destinations: tuple[DestinationSection, ...],
    now: float,
) -> None:
    for filed in objects:
        database.conn.execute(
            "insert into objects (sop_instance_uid, result_id, kind, sop_class_uid, path, size_bytes)"
            " values (?, ?, ?, ?, ?, ?)",
            (filed.sop_instance_uid, result_id, filed.kind, filed.sop_class_uid, filed.path, filed.size_bytes),
        )
        for destination in destinations:
            if outbox.wanted(filed.kind, destination):
                database.conn.execute(
                    "insert into outbox (sop_instance_uid, study_instance_uid, destination, state, attempts,"
                    " queued_at, next_at) values (?, ?, ?, 'queued', 0, ?, ?)",
                    (filed.sop_instance_uid, study, destination.name, now, now),
                )


def depth(journal: Journal) -> dict[str, int]:
    """How many jobs are in which state."""
    return {
        row["state"]: row["number"] for row in journal.rows("select state, count(*) as number from jobs group by 1")
    }
