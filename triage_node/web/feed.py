"""The live list: one task looks into the journal for all open pages, each page gets the newest snapshot.

A page that reads slowly skips snapshots instead of queueing them. While no page is open nothing is computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from triage_node import logbook, worklist
from triage_node.web.facts import node_facts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from triage_node.config import Settings
    from triage_node.journal import Journal

POLL_S = 0.25
# Waiting times pass the configured maximum without any event in the journal.
REFRESH_S = 10.0
# Computing a long list takes at most this share of the time, the desk has other work.
_LARGEST_LOAD = 0.2
_PAUSE_IN_TROUBLE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an open page shows, as it goes over the wire."""

    number: int
    event: str  # "worklist", or "trouble" when the journal could not be read
    data: str  # JSON on one line


class Feed:
    """Polls the journal in one task and hands the newest snapshot to every listener."""

    def __init__(
        self, journal: Journal, settings: Settings, *, poll_s: float = POLL_S, refresh_s: float = REFRESH_S
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._poll_s = poll_s
        self._refresh_s = refresh_s
        self._latest: Snapshot | None = None
        self._version = -1
        self._read_at = 0.0
        self._number = 0
        self._listeners = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()

    def close(self) -> None:
        """End every stream; to be called on the event loop."""
        self._closed = True
        self._wanted.set()
        self._changed.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll as long as the context is open."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.close()
            await task

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """The list now, and again after every change, until the feed is closed."""
        if self._listeners == 0:
            self._latest = None  # nobody kept it up to date
            self._wanted.set()
        self._listeners += 1
        seen = 0
        try:
            while not self._closed:
                changed, latest = self._changed, self._latest
                if latest is not None and latest.number != seen:
                    seen = latest.number
                    yield latest
                else:
                    await changed.wait()
        finally:
            self._listeners -= 1

    async def _run(self) -> None:
        while not self._closed:
            self._wanted.clear()
            pause_s = await self._look() if self._listeners else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause_s)

    async def _look(self) -> float:
        """Publish the list if it may have changed; returns how long to pause."""
        started_at = time.monotonic()
        try:
            version = await run_in_threadpool(self._journal.version)
            if version != self._version or self._latest is None or started_at - self._read_at >= self._refresh_s:
                data = await run_in_threadpool(self._read, version)
                self._version, self._read_at = version, started_at
                self._publish("worklist", data)
        except (sqlite3.Error, OSError) as error:
            self._version = -1
            logbook.get().error("the page cannot read the journal", why=str(error))
            self._publish("trouble", json.dumps({"words": f"the journal cannot be read: {error}"}))
            return _PAUSE_IN_TROUBLE_S
        took_s = time.monotonic() - started_at
        return max(self._poll_s, took_s / _LARGEST_LOAD - took_s)

    def _publish(self, event: str, data: str) -> None:
        self._number += 1
        self._latest = Snapshot(number=self._number, event=event, data=data)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _read(self, version: int) -> str:
        now = time.time()
        items = worklist.reading_list(self._journal, self._settings, now)
        return json.dumps(
            {
                "version": version,
                "at": worklist.iso(now),
                "status": node_facts(self._journal, self._settings),
                "studies": [asdict(item) for item in items],
            },
            allow_nan=False,
        )
