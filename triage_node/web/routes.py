"""Addresses and answers. Everything is read only, and nothing a DICOM header says is ever put into HTML here."""

from __future__ import annotations

import sqlite3
import time
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from triage_node import worklist
from triage_node.journal import views
from triage_node.web import picture
from triage_node.web.claims import Claims
from triage_node.web.facts import node_facts
from triage_node.web.feed import Feed
from triage_node.web.guard import Guard, for_user, told_to
from triage_node.web.lightbox import Lightbox
from triage_node.web.looking import width_of
from triage_node.web.viewing import Viewing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.web.mounted import Mounted

_FOLDER = Path(__file__).parent
PAGE = _FOLDER / "templates" / "page.html"
STATIC = _FOLDER / "static"
KEEP_ALIVE_S = 5
# A page that takes nothing for this long is gone.
SEND_TIMEOUT_S = 20
# A browser comes back this soon after the stream broke.
RETRY_MS = 1000

SECURITY_HEADERS = {
    # Nothing but this node's own files; the last directive makes the browser refuse every string that becomes markup.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def application(
    settings: Settings,
    journal: Journal,
    *,
    feed: Feed | None = None,
    guard: Guard | None = None,
    also: Mounted | None = None,
) -> Starlette:
    """The page's ASGI application; `feed` is made here unless the caller wants to end its streams himself.

    `guard` knows who may look; it is made here unless the caller needs its TLS context.
    """
    guard = guard or Guard(settings, journal)
    routes = _Routes(settings, journal, feed or Feed(journal, settings))

    box = Lightbox(journal)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with routes.feed.running(), guard.running(), nullcontext() if also is None else also.running():
            yield
        box.close()

    return Starlette(
        routes=[
            *guard.routes(),
            Route("/", routes.page),
            Route("/studies/{uid}", routes.study_page),
            Route("/studies/{uid}/overview.png", routes.overview),
            *Viewing(box).routes(),
            *Claims(settings, journal).routes(),
            *([] if also is None else also.routes()),
            Route("/api/worklist", routes.worklist),
            Route("/api/study/{uid}", routes.study),
            Route("/api/place/{uid}", routes.place),
            Route("/api/status", routes.status),
            Route("/events", routes.events),
            Route("/health", routes.health),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(_SecurityHeaders),
            guard.middleware(),
        ],
        exception_handlers={sqlite3.Error: _journal_unreadable},
        lifespan=lifespan,
    )


class _Routes:
    """One method an address; the plain ones run in worker threads, since they read files."""

    def __init__(self, settings: Settings, journal: Journal, feed: Feed) -> None:
        self._settings = settings
        self._journal = journal
        self.feed = feed

    def page(self, _: Request) -> Response:
        return _html(200)

    def study_page(self, request: Request) -> Response:
        # The same page: its program shows the study that the address names, or says that there is none.
        known = views.study(self._journal, request.path_params["uid"]) is not None
        return _html(200 if known else 404)

    def worklist(self, _: Request) -> Response:
        items = worklist.reading_list(self._journal, self._settings, time.time())
        return _json([asdict(item) for item in items])

    def study(self, request: Request) -> Response:
        uid = request.path_params["uid"]
        report = worklist.study_report(self._journal, uid)
        return _json({"error": f"no study {uid} is known to this node"}, 404) if report is None else _json(report)

    def place(self, request: Request) -> Response:
        uid = request.path_params["uid"]
        item = self.feed.item(uid)
        if item is None:  # no page is open: looked for anew
            now, rules = time.time(), self._settings.worklist
            turns = worklist.reading_turns(self._journal, self._settings, now)
            found = next((one for one in turns if one[0].study_instance_uid == uid), None)
            item = None if found is None else worklist.item(*found, rules, now)
        return _json({"error": f"no study {uid} is known to this node"}, 404) if item is None else _json(asdict(item))

    def status(self, request: Request) -> Response:
        return _json(for_user(node_facts(self._journal, self._settings), request.user))

    def health(self, _: Request) -> Response:
        try:
            self._journal.version()
        except (sqlite3.Error, OSError) as error:
            return PlainTextResponse(f"the journal cannot be read: {error}\n", 503, {"Cache-Control": "no-store"})
        return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})

    def overview(self, request: Request) -> Response:
        try:
            width, only_frontal = _width(request), _part(request) == "frontal"
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        uid = request.path_params["uid"]
        path = views.overview_path(self._journal, uid)
        if path is None:
            return PlainTextResponse(f"there is no overview image of study {uid}\n", 404)
        try:
            found = picture.find(self._journal.state_dir / path)
            # "no-cache" lets the browser keep the image but ask each time: a late slice brings a new one
            name = f"{found.sop_instance_uid}-{width or 'full'}{'-frontal' if only_frontal else ''}"
            headers = {"ETag": f'"{name}"', "Cache-Control": "private, no-cache"}
            if request.headers.get("if-none-match") == headers["ETag"]:
                return Response(status_code=304, headers=headers)
            data = picture.png(found, width, only_frontal=only_frontal)
            return Response(data, media_type="image/png", headers=headers)
        except picture.NoPicture as error:
            return PlainTextResponse(f"{error}\n", 404)

    async def events(self, request: Request) -> Response:
        # a browser that reconnects by itself sends the header, the page's program the parameter
        heard = request.headers.get("last-event-id") or request.query_params.get("heard", "")

        async def messages() -> AsyncIterator[ServerSentEvent]:
            async for message in self.feed.messages(heard):
                name = self.feed.name_of(message)
                data = told_to(request.user, message.data) if message.event == "status" else message.data
                yield ServerSentEvent(data, event=message.event, id=name, retry=RETRY_MS)

        return EventSourceResponse(messages(), ping=KEEP_ALIVE_S, send_timeout=SEND_TIMEOUT_S)


def _width(request: Request) -> int | None:
    text = request.query_params.get("width")
    if text is None:
        return None
    width = width_of(text)
    if width is None or not 16 <= width <= picture.MAXIMUM_WIDTH:
        raise ValueError(f"width must be a number of pixels from 16 to {picture.MAXIMUM_WIDTH}")
    return width


def _part(request: Request) -> str:
    part = request.query_params.get("part", "all")
    if part not in ("all", "frontal"):
        raise ValueError("part must be all or frontal")
    return part


def _html(status: int) -> Response:
    return FileResponse(PAGE, status, headers={"Cache-Control": "no-cache"}, media_type="text/html")


def _json(content: object, status: int = 200) -> Response:
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def _journal_unreadable(_: Request, error: Exception) -> Response:
    return _json({"error": f"the journal cannot be read: {error}"}, 503)


class _SecurityHeaders:
    """Adds SECURITY_HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                if scope["path"].startswith("/static/"):
                    headers["Cache-Control"] = "no-cache"  # an update of the node is an update of the page
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
