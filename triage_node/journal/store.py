"""Connections, transactions and the events of the journal.

SQLite in WAL mode with synchronous=NORMAL: a killed process loses nothing that was committed; after a loss of power
the journal is consistent but may lack its last transactions. These are found again: instance files are synced before
they are journalled, so that `intake.adopt` files what the journal lacks, and an analysis that is not in the journal
is run again and writes the same objects under the same UIDs.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlite_utils

from triage_node.errors import TriageError
from triage_node.journal import schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_TIMEOUT_S = 30.0
Row = dict[str, Any]


class Journal:
    """The one place where processes meet: a pool of connections, each used by one thread at a time."""

    def __init__(self, state_dir: Path, process: str = "cli") -> None:
        """Open the journal of `state_dir`, creating the tables where there are none."""
        self.state_dir = state_dir
        self.process = process
        self.path = state_dir / "journal.sqlite"
        self.memory: dict[object, object] = {}  # what rooms above keep of its content, each under a key of its own
        self._idle: queue.LifoQueue[sqlite_utils.Database] = queue.LifoQueue()
        state_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            raise TriageError(f"the journal {self.path} cannot be used: {error}") from error

    def _prepare(self) -> None:
        with self._connection() as database:
            version = database.conn.execute("pragma user_version").fetchone()[0]
            if version > schema.SCHEMA_VERSION:
                raise TriageError(
                    f"the journal {self.path} was written by a newer version of triage-node (schema {version}, this"
                    f" version knows {schema.SCHEMA_VERSION}): use that version, or another node.state_dir"
                )
            if version < schema.SCHEMA_VERSION:
                _enable_wal(database)
                self._bring_up_to_date(database)

    def _bring_up_to_date(self, database: sqlite_utils.Database) -> None:
        """Make the tables, or change those of an earlier version, in one transaction."""
        database.conn.execute("begin immediate")
        try:
            # Asked again under the lock: another process may have been faster.
            version = database.conn.execute("pragma user_version").fetchone()[0]
            steps = [schema.MIGRATIONS[each] for each in range(version, schema.SCHEMA_VERSION) if version]
            for script in (*steps, schema.TABLES):
                for statement in _statements(script):
                    database.conn.execute(statement)
            database.conn.execute(f"pragma user_version = {schema.SCHEMA_VERSION}")
            database.conn.execute("commit")
        finally:
            if database.conn.in_transaction:
                database.conn.execute("rollback")

    def _connect(self) -> sqlite_utils.Database:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        connection.execute("pragma synchronous = normal")
        connection.execute("pragma foreign_keys = on")
        return sqlite_utils.Database(connection)

    @contextmanager
    def _connection(self) -> Iterator[sqlite_utils.Database]:
        try:
            database = self._idle.get_nowait()
        except queue.Empty:
            database = self._connect()
        try:
            yield database
        finally:
            self._idle.put(database)

    @contextmanager
    def writing(self) -> Iterator[sqlite_utils.Database]:
        """One transaction that takes the write lock at once: all of it is kept, or nothing."""
        with self._connection() as database:
            database.conn.execute("begin immediate")
            try:
                yield database
                database.conn.execute("commit")
            finally:
                # A full disk may have ended the transaction already, and a commit that failed has not.
                if database.conn.in_transaction:
                    database.conn.execute("rollback")

    @contextmanager
    def reading(self) -> Iterator[sqlite_utils.Database]:
        """One consistent view of the journal."""
        with self._connection() as database:
            database.conn.execute("begin")
            try:
                yield database
            finally:
                if database.conn.in_transaction:
                    database.conn.execute("rollback")

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """The rows of one query."""
        with self.reading() as database:
            return list(database.query(sql, parameters))

    def row(self, sql: str, *parameters: object) -> Row | None:
        """The first row of one query, if there is one."""
        found = self.rows(sql, *parameters)
        return found[0] if found else None

    def version(self) -> int:
        """A number that grows with every event: has anything happened since?"""
        found = self.row("select coalesce(max(id), 0) as id from events")
        return int(found["id"]) if found else 0

    def note(
        self,
        database: sqlite_utils.Database,
        event: str,
        *,
        study: str | None = None,
        at: float | None = None,
        **detail: object,
    ) -> None:
        """Write an event as part of the transaction that it tells of."""
        database.conn.execute(
            "insert into events (at, process, event, study_instance_uid, detail_json) values (?, ?, ?, ?, ?)",
            (time.time() if at is None else at, self.process, event, study, json.dumps(detail)),
        )

    def close(self) -> None:
        """Close the idle connections; call it when no thread uses the journal any more."""
        while True:
            try:
                self._idle.get_nowait().conn.close()
            except queue.Empty:
                return


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, each of which ends a line; sqlite3's own executescript would end the transaction."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _enable_wal(database: sqlite_utils.Database) -> None:
    """Switch to WAL; SQLite's busy timeout does not cover this when several processes open a new journal at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            database.enable_wal()
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return
