"""What the page's application mounts of access control: the middleware, its routes, and what goes on beside them."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from triage_node import logbook, tls
from triage_node.errors import ConfigurationError
from triage_node.journal import outbox
from triage_node.web.access import Access
from triage_node.web.gate import Gate
from triage_node.web.login import LogIn
from triage_node.web.rights import Right, User

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from triage_node.config import Settings
    from triage_node.journal import Journal

# How often sessions that are over are ended, and the certificate's files are looked at.
SWEEP_S: Final = 15.0
LARGEST_REQUEST: Final = 4096
# What of the node's own numbers concerns destinations.
_OF_DESTINATIONS: Final = ("destinations", "deliveries")


class Guard:
    """Made once for an application; `context` is what its server speaks TLS with, None for plain HTTP."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        """Raises ConfigurationError where certificate and key cannot be used."""
        self._settings = settings
        self._journal = journal
        self._pair = tls.pair(settings)
        self._complained = ""
        self.context: ssl.SSLContext | None = None if self._pair is None else tls.context(self._pair)
        self._gate = Gate(settings.web, journal)
        self._log_in = LogIn(self._gate, settings.node.ae_title)

    def middleware(self) -> Middleware:
        """To stand before every route."""
        return Middleware(Access, gate=self._gate, journal=self._journal, names=self._names())

    def routes(self) -> list[Route]:
        """To be mounted before the page's own."""
        return [*self._log_in.routes(), Route("/api/requeue", self.requeue, methods=["POST"])]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End sessions and renew the certificate as long as the context is open."""
        self._warn()
        task = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def requeue(self, request: Request) -> Response:
        """`triage-node requeue`: {"study": UID, "destination": name}, both optional -> {"requeued": number}."""
        try:
            wish = await _json(request)
            unknown = set(wish) - {"study", "destination"}
            if unknown or not all(isinstance(value, str | None) for value in wish.values()):
                raise ValueError('{"study": "UID", "destination": "NAME"}, each of which may be left out')
            known = self._settings.destination_names
            if wish.get("destination") not in (None, *known):
                raise ValueError(f"no such destination; configured are: {', '.join(known) or 'none'}")
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)

        def do() -> int:
            study, destination = wish.get("study"), wish.get("destination")
            return outbox.requeue(self._journal, time.time(), study=study, destination=destination)

        number = await run_in_threadpool(do)
        user: User = request.user
        logbook.get().info("objects queued again", by=user.name, objects=number, **wish)
        return JSONResponse({"requeued": number})

    def _names(self) -> tuple[str, ...]:
        rules = self._settings.web
        of_certificate = self._pair.names if self._pair else ()
        return (rules.host, *rules.names, *of_certificate, *([] if rules.loopback else [socket.gethostname()]))

    def _warn(self) -> None:
        log, rules = logbook.get(), self._settings.web
        for words in self._pair.warnings(tls.now()) if self._pair else ():
            log.warning(words)
        if not rules.loopback and not rules.certificate:
            log.warning("between proxy and page there is no TLS", proxies=", ".join(rules.proxy_addresses))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            with suppress(sqlite3.Error, OSError):  # next time
                await run_in_threadpool(self._gate.sweep)
            await run_in_threadpool(self._renew)

    def _renew(self) -> None:
        if self._pair is None or self.context is None:
            return
        try:
            found = tls.renewed(self._settings, self.context, self._pair)
        except ConfigurationError as error:
            if str(error) != self._complained:
                self._complained = str(error)
                logbook.get().error("the changed certificate is not taken up", why=str(error))
            return
        if found is not self._pair:
            self._pair, self._complained = found, ""
            logbook.get().info("renewed certificate", valid_to=found.valid_to.isoformat())
            self._warn()


def for_user(facts: dict[str, Any], user: User) -> dict[str, Any]:
    """The node's own facts without those that this user may not see."""
    if user.may(Right.DESTINATIONS):
        return facts
    return {**facts, **{key: type(facts[key])() for key in _OF_DESTINATIONS if key in facts}}


def told_to(user: User, facts: str) -> str:
    """The same with facts as JSON text, for the stream of events."""
    return facts if user.may(Right.DESTINATIONS) else json.dumps(for_user(json.loads(facts), user), allow_nan=False)


async def _json(request: Request) -> dict[str, Any]:
    """The object of a request. Raises ValueError."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_REQUEST:
            raise ValueError(f"a request has at most {LARGEST_REQUEST} bytes")
    wish = json.loads(body or b"{}")
    if not isinstance(wish, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # the caller answers it like other wrong requests
    return wish
