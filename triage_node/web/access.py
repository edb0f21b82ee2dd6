"""Nothing is answered before it is known who asks: the middleware around every address of the page.

A request is let through when its host is ours, its user is known (session cookie, name and password, trusted proxy, or
on loopback without configured users whoever is there), a writing one comes from our own page, and the user's role has
the right that its address asks for (rights.py). What it then shows of patients is told to the audit, and a stream of
events ends with the session that opened it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.websockets import WebSocketClose

from triage_node import audit
from triage_node.audit import AuditEvent, AuditType, Entry, Outcome
from triage_node.web import caller, forgery, looking, rights, session
from triage_node.web.gate import Gate, NotLetIn
from triage_node.web.rights import LOCAL, User

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.datastructures import Headers
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from triage_node.journal import Journal

# How soon an open stream learns that its session has ended, in seconds.
CHECK_S: Final = 1.0
LOGIN: Final = "/login"
_FORMS: Final = (LOGIN, "/logout")  # these look for the token in the form themselves
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Who asks, from where, and how that is known; `scope["visit"]` of every request."""

    user: User | None
    how: str  # "local", "proxy", "password", "session", "" for nobody
    address: str
    secure: bool  # the browser speaks TLS, as far as is known
    token: str | None = None  # the session's
    ending: str | None = None  # why the session that the browser knows is over

    def csrf(self, cookie: str | None) -> str | None:
        """The token that a writing request must bring along, None where there is none yet."""
        if self.token is not None and self.user is not None:
            return forgery.token_of(self.token)
        return cookie if forgery.well_formed(cookie) else None


class Refused(Exception):
    """The request is answered with words instead of what it asks for."""

    def __init__(self, status: int, words: str, *, retry_s: float | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.retry_s = retry_s


class Access:
    """The middleware; sets `scope["user"]` and `scope["visit"]`."""

    def __init__(self, app: ASGIApp, *, gate: Gate, journal: Journal, names: Iterable[str]) -> None:
        """`names`: hosts under which the page may be asked for, "*.domain" for all below one."""
        self._app = app
        self._gate = gate
        self._rules = gate.rules
        self._journal = journal
        self._names = frozenset(name.lower() for name in (*_LOOPBACK, *names))
        self._proxies = caller.networks(gate.rules)
        self._told = audit.Told()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or what uvicorn says of its own life."""
        if scope["type"] == "websocket":
            await WebSocketClose(1008, "this page has no web sockets")(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        conn = HTTPConnection(scope)
        visit: Visit | None = None
        try:
            self._check_host(conn)
            visit = await self._visit(conn)
            scope["visit"], scope["user"] = visit, visit.user
            await self._check(conn, visit)
        except (sqlite3.Error, OSError) as error:
            words = f"the journal cannot be read: {error}"
            await self._answer(conn, visit, Refused(503, words))(scope, receive, send)
            return
        except Refused as refusal:
            await self._answer(conn, visit, refusal)(scope, receive, send)
            return
        await self._follow(scope, receive, send, visit)

    # ---- may it?

    def _check_host(self, conn: HTTPConnection) -> None:
        """A page elsewhere that lets its own name point here (DNS rebinding) is known by the name it asks for."""
        given = conn.headers.get("host", "")
        try:
            host = (urlsplit(f"//{given}").hostname or "").lower()
        except ValueError:
            host = ""
        server = conn.scope.get("server") or ("", 0)
        if host and (host in self._names or host == server[0]):
            return
        if host and any(name.startswith("*.") and host.endswith(name[1:]) for name in self._names):
            return
        raise Refused(400, f"this page is not served as {given[:80]!r}; if it should be, add the name to web.names")

    async def _visit(self, conn: HTTPConnection) -> Visit:
        """Find out who asks. Raises Refused where that is claimed and not true."""
        peer = conn.client.host if conn.client else ""
        try:
            by = caller.caller(peer, conn.headers, self._proxies, self._rules.proxy_header)
        except caller.Spoofed as error:
            raise Refused(400, str(error)) from None
        if not (self._rules.loopback or self._rules.certificate or by.by_proxy or by.loopback):
            raise Refused(403, "this page is reached through the proxy alone: from here nothing would be encrypted")
        secure = bool(self._rules.certificate) or (by.by_proxy and conn.headers.get("x-forwarded-proto") == "https")
        if rights.needed(conn.scope["method"], conn.scope["path"]) is None and conn.scope["path"] != LOGIN:
            return Visit(user=None, how="", address=by.address, secure=secure)
        if self._rules.open_to_this_machine:
            return Visit(user=LOCAL, how="local", address=by.address, secure=secure)
        if by.user is not None:
            return await self._proxied(by.user, by.address, secure=secure)
        name_and_password = _basic(conn.headers)
        if name_and_password is not None:
            try:
                user = await self._gate.check_each_time(*name_and_password, by.address)
            except NotLetIn as error:
                raise Refused(429 if error.retry_s else 401, str(error), retry_s=error.retry_s) from None
            return Visit(user=user, how="password", address=by.address, secure=secure)
        token = conn.cookies.get(session.cookie_name(self._rules))
        if token is None:
            return Visit(user=None, how="", address=by.address, secure=secure)
        used = _navigates(conn) or conn.scope["method"] not in rights.READING_METHODS
        standing = await run_in_threadpool(self._gate.standing, token, used=used)
        return Visit(
            user=standing.user if standing else None,
            how="session" if standing and standing.user else "",
            address=by.address,
            secure=secure,
            token=token if standing else None,
            ending=standing.ending if standing else None,
        )

    async def _proxied(self, name: str, address: str, *, secure: bool) -> Visit:
        user = self._gate.named(name)
        if user is None:
            await run_in_threadpool(self._restricted, User(name=name, role=rights.Role.READER), address, "not listed")
            raise Refused(
                403,
                f"the proxy says that you are {name!r}, and this user is not listed: an administrator of the node can"
                ' add a [[web.users]] of this name, or set web.proxy_unlisted = "reader"',
            )
        await run_in_threadpool(self._gate.seen, user, address, f"named by the proxy ({self._rules.proxy_header})")
        return Visit(user=user, how="proxy", address=address, secure=secure)

    async def _check(self, conn: HTTPConnection, visit: Visit) -> None:
        """Raises Refused unless this user may do this, and it is he who wishes it."""
        method, path = conn.scope["method"], conn.scope["path"]
        right = rights.needed(method, path)
        if right is None:
            return
        if visit.user is None:
            ended = f" The session has ended: {visit.ending}." if visit.ending else ""
            raise Refused(401, f"Log in first.{ended}")
        if method not in rights.READING_METHODS and path not in _FORMS:
            try:
                self._check_token(conn, visit)
            except forgery.Forged as error:
                raise Refused(403, str(error)) from None
        if not visit.user.may(right):
            await run_in_threadpool(self._restricted, visit.user, visit.address, f"{method} {path[:200]}")
            raise Refused(403, f"As a {visit.user.role} you may not {right}.")

    def _check_token(self, conn: HTTPConnection, visit: Visit) -> None:
        by_browser = forgery.check_origin(conn.headers) or bool(conn.cookies)
        if visit.how == "password" or (visit.how != "session" and not by_browser):
            return  # a program: nothing that a page elsewhere could have borrowed
        expected = visit.csrf(conn.cookies.get(forgery.COOKIE))
        if not forgery.same(conn.headers.get(forgery.HEADER), expected):
            raise forgery.Forged("the token of the page is missing or another one: reload the page and try again")

    def _restricted(self, user: User, address: str, words: str) -> None:
        if self._told.again(("restricted", user.name, address, words), time.monotonic()):
            audit.record(
                self._journal,
                Entry(
                    event=AuditEvent.SECURITY_ALERT,
                    kind=AuditType.RESTRICTED,
                    outcome=Outcome.MINOR_FAILURE,
                    user=user.name,
                    role=user.role,
                    address=address,
                    words=words,
                ),
                time.time(),
            )

    def _answer(self, conn: HTTPConnection, visit: Visit | None, refusal: Refused) -> Response:
        words = str(refusal)
        headers = {"Cache-Control": "no-store"}
        if refusal.retry_s:
            headers["Retry-After"] = str(max(1, round(refusal.retry_s)))
        if refusal.status == 401 and visit is not None and _navigates(conn):
            return RedirectResponse(f"{LOGIN}?next={quote(_wanted(conn), safe='')}", 303, headers=headers)
        if refusal.status == 401 and "sec-fetch-mode" not in conn.headers:
            headers["WWW-Authenticate"] = 'Basic realm="triage-node", charset="UTF-8"'  # a browser would ask by itself
        if _navigates(conn):
            return PlainTextResponse(f"{words}\n", refusal.status, headers)
        return JSONResponse({"error": words, "login": LOGIN}, refusal.status, headers)

    # ---- what comes of it

    async def _follow(self, scope: Scope, receive: Receive, send: Send, visit: Visit) -> None:
        """Pass the request on; look at what is answered."""
        conn = HTTPConnection(scope)
        reading = scope["method"] in rights.READING_METHODS and visit.user is not None
        shown = looking.look(scope["path"], conn.url.query) if reading else None
        stream = _Stream(send)

        async def send_and_tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                if shown is not None and (message["status"] < 300 or message["status"] == 304):
                    await run_in_threadpool(self._tell, visit, shown)
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html") and scope["path"] not in _FORMS:
                    self._give_token(conn, visit, headers)
                if headers.get("content-type", "").startswith("text/event-stream") and visit.how == "session":
                    stream.watch(self._gate, visit.token or "")
            await stream.send(message)

        try:
            await self._app(scope, receive, send_and_tell)
        except asyncio.CancelledError:
            if not stream.ended or stream.task is None:
                raise
            stream.task.uncancel()
        finally:
            stream.leave()

    def _tell(self, visit: Visit, shown: looking.Look) -> None:
        assert visit.user is not None
        key = (visit.user.name, visit.address, visit.token or "", shown.study or "")
        if not self._told.again(key, time.monotonic()):
            return
        audit.record(
            self._journal,
            Entry(
                event=AuditEvent.QUERY if shown.study is None else AuditEvent.INSTANCES_ACCESSED,
                user=visit.user.name,
                role=visit.user.role,
                address=visit.address,
                study=shown.study,
                words="the reading list" if shown.study is None else "the page",
            ),
            time.time(),
        )

    def _give_token(self, conn: HTTPConnection, visit: Visit, headers: MutableHeaders) -> None:
        """The page's program needs the token of writing requests before it writes."""
        if visit.user is None:
            return
        cookie = conn.cookies.get(forgery.COOKIE)
        expected = visit.csrf(cookie) or forgery.new_token()
        if cookie != expected:
            headers.append("set-cookie", csrf_cookie(expected, secure=visit.secure))


class _Stream:
    """Passes messages on, and ends a stream of events when its session ends."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self.task = asyncio.current_task()
        self.ended = False

    async def send(self, message: Message) -> None:
        async with self._lock:
            if not self.ended:
                await self._send(message)

    def watch(self, gate: Gate, token: str) -> None:
        self._watcher = asyncio.create_task(self._watch(gate, token))

    def leave(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self, gate: Gate, token: str) -> None:
        why = None
        while why is None:
            await asyncio.sleep(CHECK_S)
            with contextlib.suppress(sqlite3.Error, OSError):  # the stream itself says that the journal is in trouble
                why = await run_in_threadpool(gate.lasts, token)
        last = f"event: ended\ndata: {json.dumps({'words': why, 'login': LOGIN})}\n\n".encode()
        async with self._lock:
            self.ended = True
            await self._send({"type": "http.response.body", "body": last, "more_body": False})
        if self.task is not None:
            self._watcher = None
            self.task.cancel()


def csrf_cookie(token: str, *, secure: bool) -> str:
    """The header that gives the page its token; scripts of this origin may read it, other sites never cause it."""
    return f"{forgery.COOKIE}={token}; Path=/; SameSite=Strict{'; Secure' if secure else ''}"


def _navigates(conn: HTTPConnection) -> bool:
    """Whether somebody opens a page, and not a program of it something else."""
    html = "text/html" in conn.headers.get("accept", "")
    return conn.scope["method"] == "GET" and html and not conn.scope["path"].startswith(("/api/", "/events"))


def _wanted(conn: HTTPConnection) -> str:
    return f"{conn.url.path}?{conn.url.query}" if conn.url.query else conn.url.path


def _basic(headers: Headers) -> tuple[str, str] | None:
    """Name and password of RFC 7617; None where nothing of the kind is there."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Refused(400, "the header Authorization is not what RFC 7617 asks for") from None
    return name, password
