"""A state directory of an earlier version opens, with everything that is in it."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node import worklist
from triage_node.config import DestinationSection
from triage_node.errors import TriageError
from triage_node.journal import Journal, outbox, proofs, queue, schema

if TYPE_CHECKING:
    from pathlib import Path

PACS = DestinationSection(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)

# Version 1, as version 0.1.0 of the program wrote it
FIRST = """
create table if not exists associations ( id integer primary key, peer_ae text not null, peer_address text not null,
opened_at real not null, closed_at real, ending text );
create table if not exists instances ( id integer primary key, sop_instance_uid text not null unique, sop_class_uid
text not null, transfer_syntax_uid text not null, study_instance_uid text not null, series_instance_uid text not null,
path text not null, digest text not null, size_bytes integer not null, association_id integer, received_at real not
null, volumetric integer not null, frames integer not null, geometry_json text );
create index if not exists instances_by_series on instances (study_instance_uid, series_instance_uid, id);
create table if not exists series ( study_instance_uid text not null, series_instance_uid text not null, modality text
not null, description text not null, instances integer not null, first_at real not null, last_at real not null,
last_instance_id integer not null, state text not null, generation integer not null, closed_at real, evidence_json
text, primary key (study_instance_uid, series_instance_uid) );
create index if not exists series_by_state on series (state);
create table if not exists studies ( study_instance_uid text primary key, accession_number text not null, description
text not null, study_date text not null, arrived_at real not null, state text not null, result_id integer );
create table if not exists jobs ( id integer primary key, study_instance_uid text not null, generation integer not
null, last_instance_id integer not null, inputs_digest text not null, priority integer not null, state text not null,
owner text, attempts integer not null, created_at real not null, claimed_at real, finished_at real, unique
(study_instance_uid, generation) );
create index if not exists jobs_to_claim on jobs (state, priority desc, id);
create table if not exists results ( id integer primary key, study_instance_uid text not null, generation integer not
null, series_instance_uid text, assessment_json text, not_analysed_json text, passed_over_json text not null,
identity_json text not null, created_at real not null, duration_s real not null, unique (study_instance_uid,
generation) );
create table if not exists objects ( sop_instance_uid text primary key, result_id integer not null references results
(id), kind text not null, sop_class_uid text not null, path text not null, size_bytes integer not null );
create index if not exists objects_by_result on objects (result_id);
create table if not exists outbox ( id integer primary key, sop_instance_uid text not null references objects
(sop_instance_uid), study_instance_uid text not null, destination text not null, state text not null, attempts integer
not null, queued_at real not null, next_at real not null, finished_at real, unique (sop_instance_uid, destination) );
create index if not exists outbox_due on outbox (destination, state, next_at);
create table if not exists deliveries ( id integer primary key, outbox_id integer not null references outbox (id), at
real not null, state text not null, status integer, words text not null );
create index if not exists deliveries_by_object on deliveries (outbox_id);
create table if not exists events ( id integer primary key, at real not null, process text not null, event text not
null, study_instance_uid text, detail_json text not null );
create index if not exists events_by_study on events (study_instance_uid, id);
pragma user_version = 1;
"""


def first(folder: Path) -> None:
    """A journal of version 1 with a judged study, of which three objects are stored and one is queued."""
    made = folder / "made"
    journal = Journal(made, "test")
    filed.queued(journal, "1.2", now=100.0)
    job = queue.claim(journal, "test", 100.0)
    assert job is not None
    assert queue.finish(journal, job, "test", filed.result(job), (PACS,), 100.0)
    for outgoing in outbox.due(journal, "pacs", 200.0)[:3]:
        outbox.record(journal, outgoing, "stored", status=0, words="well", now=201.0, retry_at=None)
    journal.close()
    old = sqlite3.connect(folder / "journal.sqlite")
    old.executescript(FIRST)
    old.execute("attach ? as made", (str(made / "journal.sqlite"),))
    names = [row[0] for row in old.execute("select name from main.sqlite_master where type = 'table'")]
    for name in names:
        columns = ", ".join(row[1] for row in old.execute(f"pragma main.table_info({name})"))
        old.execute(f"insert into main.{name} ({columns}) select {columns} from made.{name}")
    old.commit()
    old.close()


def columns(journal: Journal) -> dict[str, set[str]]:
    """The columns and indexes of all tables."""
    tables = [row["name"] for row in journal.rows("select name from sqlite_master where type = 'table'")]
    found = {name: {row["name"] for row in journal.rows(f"pragma table_info({name})")} for name in tables}
    return {
        **found,
        "indexes": {row["name"] for row in journal.rows("select name from sqlite_master where type='index'")},
    }


def test_a_journal_of_the_first_version_opens_and_what_was_stored_stays_so(tmp_path: Path) -> None:
    first(tmp_path)
    journal = Journal(tmp_path, "test")
    report = worklist.study_report(journal, "1.2")
    assert report is not None
    objects = report["objects"]
    assert isinstance(objects, list)
    assert sorted(entry["state"] for entry in objects) == ["queued", "stored", "stored", "stored"]
    assert [entry["stored_at"] for entry in objects if entry["state"] == "stored"] == [worklist.iso(201.0)] * 3
    assert all(entry["awaiting"] == () and entry["resends"] == 0 for entry in objects)
    assert proofs.uncommitted(journal, "pacs", 1e10) == []
    (waiting,) = outbox.due(journal, "pacs", 300.0)
    outbox.record(journal, waiting, "stored", status=0, words="", now=301.0, retry_at=None, commit=True)
    assert len(proofs.uncommitted(journal, "pacs", 302.0)) == 1
    journal.close()


def test_what_was_brought_up_to_date_has_the_tables_of_a_new_journal(tmp_path: Path) -> None:
    first(tmp_path)
    old, new = Journal(tmp_path, "test"), Journal(tmp_path / "new", "test")
    assert columns(old) == columns(new)
    assert old.row("pragma user_version") == {"user_version": schema.SCHEMA_VERSION}
    old.close()
    new.close()


def test_processes_that_open_it_at_once_bring_it_up_to_date_once(tmp_path: Path) -> None:
    first(tmp_path)
    faults: list[BaseException] = []

    def opens() -> None:
        try:
            Journal(tmp_path, "test").close()
        except BaseException as fault:  # noqa: BLE001  # told to the test
            faults.append(fault)

    threads = [threading.Thread(target=opens) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_journal_of_a_later_version_is_refused_with_words(tmp_path: Path) -> None:
    Journal(tmp_path, "test").close()
    later = sqlite3.connect(tmp_path / "journal.sqlite")
    later.execute(f"pragma user_version = {schema.SCHEMA_VERSION + 1}")
    later.close()
    with pytest.raises(TriageError, match="newer version of triage-node"):
        Journal(tmp_path, "test")
