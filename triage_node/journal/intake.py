"""What arrives: associations, instances, the opening and closing of series."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from triage_node.completion import Evidence
from triage_node.conformance import CT_SOP_CLASSES
from triage_node.filing import Geometry
from triage_node.journal import transitions
from triage_node.study import Instance, Series, SeriesKey, Study, StudyState, digest_of

if TYPE_CHECKING:
    from pathlib import Path

    import sqlite_utils

    from triage_node.completion import Verdict
    from triage_node.filing import Header
    from triage_node.journal.store import Journal, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An instance on disk that is to be journalled."""

    header: Header
    transfer_syntax_uid: str
    path: str  # relative to the state directory
    digest: str
    size_bytes: int


def open_association(journal: Journal, peer_ae: str, peer_address: str, now: float) -> int:
    """Note a new association; returns its number."""
    with journal.writing() as database:
        cursor = database.conn.execute(
            "insert into associations (peer_ae, peer_address, opened_at) values (?, ?, ?)",
            (peer_ae, peer_address, now),
        )
        return int(cursor.lastrowid or 0)


def close_association(journal: Journal, association_id: int, ending: str, now: float) -> None:
    """Note how an association ended: 'released' or 'aborted'."""
    with journal.writing() as database:
        database.conn.execute(
            "update associations set closed_at = ?, ending = ? where id = ? and closed_at is null",
            (now, ending, association_id),
        )


def cut_off_associations(journal: Journal, now: float) -> int:
    """A new receiver finds associations that its predecessor never closed: they are gone; returns how many."""
    with journal.writing() as database:
        cursor = database.conn.execute(
            "update associations set closed_at = ?, ending = 'cut off' where closed_at is null", (now,)
        )
        return cursor.rowcount


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBefore:
    """What the journal knows of an instance by its UID."""

    digest: str
    path: str  # relative to the state directory


def kept_before(journal: Journal, sop_instance_uid: str) -> KeptBefore | None:
    """The instance that is kept under this UID, or None."""
    row = journal.row("select digest, path from instances where sop_instance_uid = ?", sop_instance_uid)
    return None if row is None else KeptBefore(digest=str(row["digest"]), path=str(row["path"]))


def add_instance(journal: Journal, kept: Kept, *, association_id: int | None, now: float) -> bool:
    """Journal an instance; opens its series, or reopens it. False when the UID is journalled already."""
    header = kept.header
    with journal.writing() as database:
        try:
            cursor = database.conn.execute(
                "insert into instances (sop_instance_uid, sop_class_uid, transfer_syntax_uid, study_instance_uid,"
                " series_instance_uid, path, digest, size_bytes, association_id, received_at, volumetric, frames,"
                " geometry_json) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    header.sop_instance_uid,
                    header.sop_class_uid,
                    kept.transfer_syntax_uid,
                    header.study_instance_uid,
                    header.series_instance_uid,
                    kept.path,
                    kept.digest,
                    kept.size_bytes,
                    association_id,
                    now,
                    header.volumetric,
                    header.frames,
                    None if header.geometry is None else json.dumps(asdict(header.geometry)),
                ),
            )
        except sqlite3.IntegrityError:
            return False
        instance_id = int(cursor.lastrowid or 0)
        ours = database.conn.execute(
            "select 1 from objects where sop_instance_uid = ?", (header.sop_instance_uid,)
        ).fetchone()
        if ours is not None:  # a PACS that forwards everything sends our answer back: kept, and no news
            return True
        _open_series(journal, database, header, instance_id, now)
        return True


def _open_series(
    journal: Journal, database: sqlite_utils.Database, header: Header, instance_id: int, now: float
) -> None:
    key = (header.study_instance_uid, header.series_instance_uid)
    before = database.conn.execute(
        "select state, generation from series where study_instance_uid = ? and series_instance_uid = ?", key
    ).fetchone()
    if before is None:
        database.conn.execute(
            "insert into series (study_instance_uid, series_instance_uid, modality, description, instances, first_at,"
            " last_at, last_instance_id, state, generation) values (?, ?, ?, ?, 1, ?, ?, ?, 'open', 0)",
            (*key, header.modality, header.series_description, now, now, instance_id),
        )
        database.conn.execute(
            "insert into studies (study_instance_uid, accession_number, description, study_date, arrived_at, state,"
            " order_priority) values (?, ?, ?, ?, ?, ?, ?) on conflict (study_instance_uid) do update set"
            " order_priority = excluded.order_priority where "
            + transitions.more_urgent("excluded.order_priority", "studies.order_priority"),
            (
                header.study_instance_uid,
                header.accession_number,
                header.study_description,
                header.study_date,
                now,
                StudyState.WAITING,
                header.order_priority,
            ),
        )
        journal.note(database, "series opened", study=key[0], at=now, series=key[1], modality=header.modality)
        return
    database.conn.execute(
        "update series set state = 'open', instances = instances + 1, last_at = ?, last_instance_id = ?"
        " where study_instance_uid = ? and series_instance_uid = ?",
        (now, instance_id, *key),
    )
    if before[0] == "closed":
        journal.note(
            database, "series reopened by a late instance", study=key[0], at=now, series=key[1], generation=before[1]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSeries:
    """A series that has not been closed, with the evidence so far."""

    key: SeriesKey
    last_instance_id: int
    evidence: Evidence


def open_series(journal: Journal) -> list[OpenSeries]:
    """Every open series with its evidence, oldest first."""
    with journal.reading() as database:
        rows = list(database.query("select * from series where state = 'open' order by first_at"))
        return [
            OpenSeries(
                key=SeriesKey(
                    study_instance_uid=row["study_instance_uid"], series_instance_uid=row["series_instance_uid"]
                ),
                last_instance_id=row["last_instance_id"],
                evidence=_evidence(database, row),
            )
            for row in rows
        ]


def _evidence(database: sqlite_utils.Database, series: Row) -> Evidence:
    key = (series["study_instance_uid"], series["series_instance_uid"])
    where = "where instances.study_instance_uid = ? and instances.series_instance_uid = ?"
    counted = next(
        database.query(
            "select count(*) as instances, sum(volumetric) as volumetric,"
            " sum(volumetric and frames > 1) as multi_frame, max(association_id is null) as adopted"
            f" from instances {where}",
            key,
        )
    )
    associations = next(
        database.query(
            "select coalesce(sum(ending is null), 0) as open, coalesce(sum(ending <> 'released'), 0) as broken from"
            f" associations where id in (select distinct association_id from instances {where})",
            key,
        )
    )
    geometries = database.query(
        f"select geometry_json from instances {where} and volumetric and frames = 1 and geometry_json is not null",
        key,
    )
    return Evidence(
        instances=counted["instances"],
        volumetric_instances=counted["volumetric"],
        multi_frame_instances=counted["multi_frame"],
        geometries=[Geometry(**json.loads(row["geometry_json"])) for row in geometries],
        open_associations=associations["open"],
        # Adopted instances came on an association of which nothing is known but that it was not seen to the end.
        broken_associations=associations["broken"] + counted["adopted"],
        last_received_at=series["last_at"],
    )


def close_series(journal: Journal, series: OpenSeries, verdict: Verdict, now: float) -> bool:
    """Close a series unless an instance has come meanwhile; queue its study once all its series are closed."""
    key = (series.key.study_instance_uid, series.key.series_instance_uid)
    with journal.writing() as database:
        evidence = {"basis": verdict.basis, "words": verdict.words, "instances": series.evidence.instances}
        cursor = database.conn.execute(
            "update series set state = 'closed', closed_at = ?, generation = generation + 1, evidence_json = ?"
            " where study_instance_uid = ? and series_instance_uid = ? and state = 'open' and last_instance_id = ?",
            (now, json.dumps(evidence), *key, series.last_instance_id),
        )
        if cursor.rowcount == 0:
            return False
        journal.note(database, "series closed", study=key[0], at=now, series=key[1], **evidence)
        _queue_study(journal, database, key[0], now)
        return True


def _queue_study(journal: Journal, database: sqlite_utils.Database, study: str, now: float) -> None:
    still_open = database.conn.execute(
        "select count(*) from series where study_instance_uid = ? and state = 'open'", (study,)
    ).fetchone()[0]
    if still_open:
        return
    rows = list(
        database.query(
            "select id, sop_instance_uid, sop_class_uid, digest from instances where study_instance_uid = ?"
            " and sop_instance_uid not in (select sop_instance_uid from objects) order by id",
            (study,),
        )
    )
    # A report that comes later changes nothing about the images, so it makes no new answer.
    judged_on = [row for row in rows if row["sop_class_uid"] in CT_SOP_CLASSES] or rows
    inputs_digest = digest_of([(row["sop_instance_uid"], row["digest"]) for row in judged_on])
    last = database.conn.execute(
        "select generation, inputs_digest from jobs where study_instance_uid = ? order by generation desc limit 1",
        (study,),
    ).fetchone()
    generation = 1 if last is None else int(last[0]) + 1
    if last is not None and last[1] == inputs_digest:
        return
    database.conn.execute(
        "update jobs set state = 'superseded', finished_at = ? where study_instance_uid = ? and state = 'queued'",
        (now, study),
    )
    database.conn.execute(
        "insert into jobs (study_instance_uid, generation, last_instance_id, inputs_digest, priority, state, attempts,"
        " created_at) select ?, ?, ?, ?, case order_priority when 'STAT' then 2 when 'HIGH' then 1 else 0 end,"
        " 'queued', 0, ? from studies where study_instance_uid = ?",
        (study, generation, rows[-1]["id"], inputs_digest, now, study),
    )
    journal.note(database, "study queued", study=study, at=now, generation=generation)


def study(journal: Journal, study_instance_uid: str, *, last_instance_id: int, state_dir: Path) -> Study:
    """The instances of a study up to a job's last one, by series."""
    rows = journal.rows(
        "select * from instances where study_instance_uid = ? and id <= ?"
        " and sop_instance_uid not in (select sop_instance_uid from objects) order by id",
        study_instance_uid,
        last_instance_id,
    )
    by_series: dict[str, list[Instance]] = {}
    for row in rows:
        key = SeriesKey(study_instance_uid=study_instance_uid, series_instance_uid=row["series_instance_uid"])
        by_series.setdefault(key.series_instance_uid, []).append(
            Instance(
                sop_instance_uid=row["sop_instance_uid"],
                sop_class_uid=row["sop_class_uid"],
                transfer_syntax_uid=row["transfer_syntax_uid"],
                series=key,
                path=state_dir / row["path"],
                digest=row["digest"],
            )
        )
    return Study(
        study_instance_uid=study_instance_uid,
        series=tuple(Series(key=found[0].series, instances=tuple(found)) for found in by_series.values()),
    )
