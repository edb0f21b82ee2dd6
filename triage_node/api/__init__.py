"""The node for programs that speak HTTP: a JSON API with an OpenAPI description, and UPS-RS (PS3.18 section 11).

operation.py says what an address is, json_api.py and workitems.py list theirs and answer them, openapi.py makes the
description of all, schemas.py has what requests and answers look like; of UPS-RS subscribing.py has the subscriptions,
query.py reads searches, dicom_json.py data sets, refusals.py has the statuses, and channel.py sends event reports. Who
may do what is decided before, by `web.access`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from triage_node import logbook
from triage_node.api import openapi
from triage_node.api.channel import Channels
from triage_node.api.json_api import JsonApi
from triage_node.api.subscribing import Subscribing
from triage_node.api.workitems import Workitems
from triage_node.journal import subscriptions
from triage_node.ups.catalogue import Catalogue
from triage_node.ups.registrar import Registrar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from triage_node.api.operation import Operation
    from triage_node.config import Settings
    from triage_node.journal import Journal

__all__ = ["Api"]

SWEEP_S = 60.0


class Api:
    """The routes of what the configuration switches on, and what goes on beside them."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        """Nothing runs yet."""
        self._settings = settings
        self._journal = journal
        self._registrar: Registrar | None = None
        self._channels = Channels(journal)
        self.operations: tuple[Operation, ...] = ()
        if settings.api.enabled:
            self.operations += JsonApi(settings, journal, describe=self.description).operations()
        if settings.api.ups_rs:
            catalogue = Catalogue(settings, journal)
            # With the worklist's DICOM port its registrar does this work, and hears of changes by polling the journal
            if not settings.ups.enabled:
                self._registrar = Registrar(journal, catalogue, ring=lambda: None)
            wake = self._registrar.wake if self._registrar is not None else lambda: None
            self.operations += Workitems(settings, journal, catalogue, wake=wake).operations()
            self.operations += Subscribing(settings, journal, catalogue, self._channels, wake=wake).operations()

    def description(self) -> dict[str, object]:
        """The OpenAPI document of what is served here."""
        return openapi.document(self._settings, self.operations)

    def routes(self) -> list[Route]:
        """To be mounted at the root of the page."""
        return [Route(each.path, each.answer, methods=[each.method], name=each.name) for each in self.operations]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep workitems in step and drop what nobody fetches, as long as the context is open."""
        if not self._settings.api.ups_rs:
            yield
            return
        if self._registrar is not None:
            await run_in_threadpool(self._registrar.work, time.time())
            self._registrar.start()
        task = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if self._registrar is not None:
                self._registrar.stop()
                await run_in_threadpool(threading.Thread.join, self._registrar, 3.0)

    def close(self) -> None:
        """End open streams; to be called on the event loop."""
        self._channels.close()

    async def _sweep(self) -> None:
        while True:
            await run_in_threadpool(self._drop_old_reports)
            await asyncio.sleep(SWEEP_S)

    def _drop_old_reports(self) -> None:
        now, limit_h = time.time(), self._settings.api.give_up_after_h
        for ae_title in self._settings.api.subscriber_ae_titles:
            words = f"not fetched within {limit_h:g} h"
            dropped = subscriptions.expire(self._journal, ae_title, now - limit_h * 3600, words, now)
            if dropped:
                logbook.get().warning("reports dropped", subscriber=ae_title, reports=dropped, why=words)
