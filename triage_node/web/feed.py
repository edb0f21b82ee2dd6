"""The live list: one task looks into the journal for all open pages and tells them what has changed.

A page first gets the whole list, then changes alone, each with a number. Who comes back says which number it has heard
last and gets what it has missed; who missed more than is kept gets the whole list again. Nobody is queued for: a page
that reads slowly is at worst given the list anew. While no page is open nothing is computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from triage_node import logbook, worklist
from triage_node.journal import workitems
from triage_node.web import changes
from triage_node.web.facts import node_facts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from triage_node.config import Settings
    from triage_node.journal import Journal

POLL_S = 0.25
# Waiting times pass the configured maximum without any event in the journal.
REFRESH_S = 10.0
# Computing a long list takes at most this share of the time, the desk has other work; but nobody waits longer for it.
_LARGEST_LOAD = 0.3
_LONGEST_PAUSE_S = 0.7
_PAUSE_IN_TROUBLE_S = 1.0
# The node's own numbers are counted over whole tables.
_STATUS_S = 2.0
_KEPT = 64  # changes, for pages that come back


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something an open page is told, as it goes over the wire."""

    number: int
    event: str  # "status", "list", "change", or "trouble" when the journal could not be read
    data: str  # JSON on one line


class Feed:
    """Polls the journal in one task and tells every listener."""

    def __init__(
        self, journal: Journal, settings: Settings, *, poll_s: float = POLL_S, refresh_s: float = REFRESH_S
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._poll_s = poll_s
        self._refresh_s = refresh_s
        self._run_id = secrets.token_hex(4)  # numbers of another run mean nothing
        self._listing: changes.Listing | None = None
        self._status: dict[str, object] = {}
        self._status_at = -_STATUS_S
        self._told: deque[Message] = deque(maxlen=_KEPT)
        self._whole: Message | None = None  # the list at the latest number, once somebody has asked for it
        self._number = 0
        self._version = -1
        self._at = 0.0  # of the listing
        self._read_at = 0.0
        self._is_fresh = False
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

    def item(self, study: str) -> worklist.WorklistItem | None:
        """The study as it stood when the list was read last; None where nobody looks, or it is unknown."""
        found = self._listing.turns.get(study) if self._listeners and self._listing else None
        return None if found is None else worklist.item(*found, self._settings.worklist, time.time())

    def name_of(self, message: Message) -> str:
        """What a page says it has heard when it comes back."""
        return f"{self._run_id}-{message.number}"

    async def messages(self, heard: str = "") -> AsyncIterator[Message]:
        """The list, or what has changed since `heard` (a `name_of`); then every change, until the feed is closed."""
        if self._listeners == 0:
            self._is_fresh = False  # nobody kept it up to date
            self._wanted.set()
        self._listeners += 1
        run_id, _, number = heard.partition("-")
        seen = int(number) if run_id == self._run_id and number.isdigit() else None
        try:
            while not self._closed:
                changed = self._changed
                if self._is_fresh:
                    for message in await self._since(seen):
                        yield message
                        seen = message.number
                if changed is self._changed:
                    await changed.wait()
        finally:
            self._listeners -= 1

    async def _since(self, seen: int | None) -> list[Message]:
        """What a page that has heard `seen` has to be told now."""
        if seen == self._number:
            return []
        told, status = list(self._told), self._status_message()
        trouble = told[-1:] if told and told[-1].event == "trouble" else []
        if seen is not None and told and told[0].number <= seen + 1 <= self._number:
            return [one for one in told if one.number > seen and (one.event != "trouble" or one in trouble)]
        if self._listing is None:
            return trouble
        if self._whole is None or self._whole.number != self._number:
            self._whole = await run_in_threadpool(self._as_list, self._listing, self._number)
        return [status, self._whole, *trouble]

    async def _run(self) -> None:
        while not self._closed:
            self._wanted.clear()
            pause_s = await self._look() if self._listeners else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause_s)

    async def _look(self) -> float:
        """Tell what has changed, if something may have; returns how long to pause."""
        started_at = time.monotonic()
        try:
            version = await run_in_threadpool(self._journal.version)
            is_late = started_at - self._read_at >= self._refresh_s
            has_old_status = self._read_at > self._status_at and started_at - self._status_at >= _STATUS_S
            if version != self._version or not self._is_fresh or is_late or has_old_status:
                listing, status = await run_in_threadpool(self._read, started_at)
                self._version, self._read_at = version, started_at
                await self._tell(status, listing)
        except (sqlite3.Error, OSError) as error:
            self._version = -1
            logbook.get().error("the page cannot read the journal", why=str(error))
            self._publish("trouble", {"words": f"the journal cannot be read: {error}"})
            return _PAUSE_IN_TROUBLE_S
        took_s = time.monotonic() - started_at
        return max(self._poll_s, min(took_s / _LARGEST_LOAD - took_s, _LONGEST_PAUSE_S))

    def _read(self, at: float) -> tuple[changes.Listing, dict[str, object]]:
        self._at = time.time()
        status = self._status
        if at - self._status_at >= _STATUS_S:
            status, self._status_at = node_facts(self._journal, self._settings), at
        turns = worklist.reading_turns(self._journal, self._settings, self._at)
        claims = workitems.claims(self._journal)
        return changes.listing(turns, claims, self._settings.worklist, self._at, self._listing), status

    async def _tell(self, status: dict[str, object], listing: changes.Listing) -> None:
        old = self._listing
        change = None if old is None else await run_in_threadpool(changes.between, old, listing)
        # from here on nothing is awaited: list and number belong together
        if status != self._status:
            self._status = status
            self._publish("status", status)
        self._listing = listing
        if change is not None and change.is_small:
            content = {
                "changed": change.changed,
                "gone": change.gone,
                "moved": change.moved,
                "moved_by_arrival": change.moved_by_arrival,
            }
            self._publish("change", {**self._head(), **content})
        else:
            self._publish("change", {})
            self._told.clear()  # so that everybody gets the whole list

    def _publish(self, event: str, content: dict[str, object]) -> None:
        self._number += 1
        self._told.append(Message(number=self._number, event=event, data=json.dumps(content, allow_nan=False)))
        self._is_fresh = True
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _head(self) -> dict[str, object]:
        return {"version": self._version, "at": worklist.iso(self._at)}

    def _status_message(self) -> Message:
        return Message(number=self._number, event="status", data=json.dumps(self._status, allow_nan=False))

    def _as_list(self, listing: changes.Listing, number: int) -> Message:
        places = {uid: place for place, uid in enumerate(listing.order)}
        content = {
            **self._head(),
            "fields": changes.FIELDS,
            "studies": list(listing.rows.values()),
            "arrival": [places[uid] for uid in listing.arrival],
        }
        return Message(number=number, event="list", data=json.dumps(content, allow_nan=False))
