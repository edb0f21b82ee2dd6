"""Which answers a new answer puts out of date, and studies that are to be answered anew on the same images.

An archive must be told of every object that it holds or may hold, and of none that never left. So an attempt to send
an object is noted before it is made (`outbox.begin`), and what an earlier answer has still queued is withdrawn before
the new one is made: from then on it is settled which earlier objects an archive may hold.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from triage_node.journal.queue import IDENTITY

if TYPE_CHECKING:
    import sqlite_utils

    from triage_node.identity import ResultIdentity, ResultKind
    from triage_node.journal.queue import Job
    from triage_node.journal.store import Journal

REANALYSIS_PRIORITY = -1  # behind every study that nobody has judged yet


class Again(StrEnum):
    """What became of the wish to judge a study again."""

    QUEUED = "queued"
    UNCHANGED = "unchanged"  # it was judged by this very model and configuration
    PENDING = "pending"  # an analysis of it is queued or running, or its images are still arriving
    UNKNOWN = "unknown"


def predecessor(journal: Journal, job: Job, now: float) -> ResultIdentity | None:
    """The newest earlier answer of which an archive holds or may hold an object; withdraws what was not sent yet.

    Its `kinds` are those objects. It names its own predecessor in turn as long as no report is among them, since no
    report in an archive speaks of that one. Where nothing is delivered at all, the latest answer is meant.
    """
    with journal.writing() as database:
        database.conn.execute(
            "update outbox set state = 'superseded', finished_at = ? where state = 'queued' and sop_instance_uid in"
            " (select sop_instance_uid from objects join results on results.id = result_id where"
            " results.study_instance_uid = ? and generation < ?)",
            (now, job.study_instance_uid, job.generation),
        )
        chain = []
        for row in list(
            database.query(
                "select id, identity_json from results where study_instance_uid = ? and generation < ?"
                " order by generation desc",
                (job.study_instance_uid, job.generation),
            )
        ):
            kinds = _kinds_held(database, row["id"])
            if kinds:
                chain.append(replace(IDENTITY.validate_json(row["identity_json"]), predecessor=None, kinds=kinds))
            if "report" in kinds:
                break
    newest: ResultIdentity | None = None
    for identity in reversed(chain):
        newest = replace(identity, predecessor=newest)
    return newest


def _kinds_held(database: sqlite_utils.Database, result_id: int) -> tuple[ResultKind, ...]:
    """The objects of an answer that a destination holds or may hold; all of them where none is sent anywhere."""
    rows = list(
        database.query(
            "select kind, count(outbox.id) as sent_to, sum(stored_at is not null or"
            " (tried_at is not null and outbox.state <> 'refused')) as held_by"
            " from objects left join outbox using (sop_instance_uid) where result_id = ? group by kind order by kind",
            (result_id,),
        )
    )
    if not any(row["sent_to"] for row in rows):
        return tuple(row["kind"] for row in rows)
    return tuple(row["kind"] for row in rows if row["held_by"])


def judge_again(journal: Journal, study: str, judge_digest: str, *, force: bool, now: float) -> Again:
    """Queue a new generation of a study on the images of its last one, behind all that was never judged.

    `judge_digest` says what would judge it (`analyst.judge_digest`); without `force` nothing is queued where the last
    answer comes from the same.
    """
    with journal.writing() as database:
        if not list(database.query("select 1 from studies where study_instance_uid = ?", (study,))):
            return Again.UNKNOWN
        jobs = list(
            database.query("select * from jobs where study_instance_uid = ? order by generation desc limit 1", (study,))
        )
        arriving = list(
            database.query("select 1 from series where study_instance_uid = ? and state = 'open' limit 1", (study,))
        )
        if not jobs or arriving or jobs[0]["state"] in {"queued", "running"}:
            return Again.PENDING
        answers = list(
            database.query(
                "select identity_json from results where study_instance_uid = ? order by generation desc limit 1",
                (study,),
            )
        )
        same = bool(answers) and IDENTITY.validate_json(answers[0]["identity_json"]).model_digest == judge_digest
        if same and not force:
            return Again.UNCHANGED
        last = jobs[0]
        generation = last["generation"] + 1
        database.conn.execute(
            "insert into jobs (study_instance_uid, generation, last_instance_id, inputs_digest, priority, state,"
            " attempts, created_at) values (?, ?, ?, ?, ?, 'queued', 0, ?)",
            (study, generation, last["last_instance_id"], last["inputs_digest"], REANALYSIS_PRIORITY, now),
        )
        journal.note(database, "study queued again", study=study, at=now, generation=generation, forced=same)
        return Again.QUEUED


def judged_studies(journal: Journal) -> list[str]:
    """Every study with an answer, the one that arrived last first."""
    rows = journal.rows(
        "select study_instance_uid from studies where result_id is not null"
        " order by arrived_at desc, study_instance_uid"
    )
    return [str(row["study_instance_uid"]) for row in rows]


def note_judge(journal: Journal, judge_digest: str, now: float) -> None:
    """Say by what this node judges from now on."""
    with journal.writing() as database:
        journal.note(database, "analyst ready", at=now, judge=judge_digest)


def running_judge(journal: Journal) -> str | None:
    """By what the node that started last judges; None where that is not on record."""
    row = journal.row(
        "select json_extract(detail_json, '$.judge') as judge from events where study_instance_uid is null"
        " and event = 'analyst ready' order by id desc limit 1"
    )
    return None if row is None else row["judge"]
