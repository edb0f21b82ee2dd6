"""Coming in and going out: a page that works without JavaScript, and what the other pages ask of their session."""

from __future__ import annotations

import html
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from triage_node.study import NOT_FOR_DIAGNOSTIC_USE
from triage_node.web import forgery, session
from triage_node.web.access import LOGIN, Visit, csrf_cookie
from triage_node.web.gate import Gate, NotLetIn
from triage_node.web.rights import RIGHTS

if TYPE_CHECKING:
    from starlette.requests import Request

_TEMPLATE: Final = Path(__file__).parent / "templates" / "login.html"
LARGEST_FORM: Final = 8192
# The token of the log-in form, before there is a session that one could follow from.
FORM_COOKIE: Final = "login"
# An address of this page: a path of plain signs without an empty part, perhaps with a query and a fragment.
_OWN: Final = re.compile(r"(?:/[\w.~-]+)*/?(?:\?[\w.~=&%+-]*)?(?:#[\w.~-]*)?", re.ASCII)


def next_page(wish: str | None) -> str:
    """Where to go after the log-in: an address of this page, and never one elsewhere."""
    wish = wish or "/"
    return wish if wish.startswith("/") and len(wish) <= 512 and _OWN.fullmatch(wish) else "/"


class LogIn:
    """The routes; each looks into `scope["visit"]`, which Access has set."""

    def __init__(self, gate: Gate, ae_title: str) -> None:
        self._gate = gate
        self._ae_title = ae_title
        self._template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))

    def routes(self) -> list[Route]:
        """To be mounted before the page's own."""
        return [
            Route(LOGIN, self.form),
            Route(LOGIN, self.log_in, methods=["POST"]),
            Route("/logout", self.log_out, methods=["POST"]),
            Route("/session", self.who),
            Route("/session/active", self.active, methods=["POST"]),
        ]

    def form(self, request: Request) -> Response:
        """The page on which one logs in, or out again."""
        visit = _visit(request)
        wish = next_page(request.query_params.get("next"))
        if visit.user is not None and visit.how != "session":
            return RedirectResponse(wish, 303)  # there is nothing to log in to
        words = "" if visit.ending in (None, "by the user") else f"Your session has ended: {visit.ending}."
        return self._page(request, 200, words, wish)

    async def log_in(self, request: Request) -> Response:
        """A name and a password come in."""
        visit = _visit(request)
        fields = await _fields(request)
        wish = next_page(fields.get("next"))
        try:
            forgery.check_origin(request.headers)
            if not forgery.same(fields.get("csrf"), request.cookies.get(FORM_COOKIE)):
                raise forgery.Forged("this form is too old, or cookies are switched off")
        except forgery.Forged as error:
            return self._page(request, 403, f"Please try again: {error}.", wish)
        name = fields.get("name", "").strip()
        previous = request.cookies.get(session.cookie_name(self._gate.rules))
        try:
            _, token = await self._gate.log_in(name, fields.get("password", ""), visit.address, replaces=previous)
        except NotLetIn as error:
            answer = self._page(request, 429 if error.retry_s else 401, str(error), wish, name=name)
            if error.retry_s:
                answer.headers["Retry-After"] = str(max(1, round(error.retry_s)))
            return answer
        answer = RedirectResponse(wish, 303, headers={"Cache-Control": "no-store"})
        answer.set_cookie(
            session.cookie_name(self._gate.rules), token, path="/", httponly=True, samesite="lax", secure=visit.secure
        )
        answer.headers.append("set-cookie", csrf_cookie(forgery.token_of(token), secure=visit.secure))
        answer.delete_cookie(FORM_COOKIE, path=LOGIN)
        return answer

    async def log_out(self, request: Request) -> Response:
        """End the session, here and in every window of this browser."""
        visit = _visit(request)
        fields = await _fields(request)
        try:
            forgery.check_origin(request.headers)
            given = fields.get("csrf") or request.headers.get(forgery.HEADER)
            if visit.how == "session" and not forgery.same(given, visit.csrf(None)):
                raise forgery.Forged("this page is too old")
        except forgery.Forged as error:
            return self._page(request, 403, f"You are still logged in: {error}. Log out here.", "/")
        digest = session.digest_of(visit.token)
        if digest is not None:
            await run_in_threadpool(self._gate.log_out, digest)
        answer = RedirectResponse(LOGIN, 303, headers={"Cache-Control": "no-store"})
        answer.headers["Clear-Site-Data"] = '"cache"'  # images of studies do not stay on a workstation of many
        answer.delete_cookie(
            session.cookie_name(self._gate.rules), path="/", httponly=True, samesite="lax", secure=visit.secure
        )
        answer.delete_cookie(forgery.COOKIE, path="/", samesite="strict", secure=visit.secure)
        return answer

    def who(self, request: Request) -> Response:
        """Who is logged in, and what he may do."""
        visit = _visit(request)
        assert visit.user is not None
        rights = sorted(right.name for right in RIGHTS[visit.user.role])
        facts = {"name": visit.user.name, "role": visit.user.role, "rights": rights, "how": visit.how}
        return JSONResponse(
            {**facts, "idle_min": self._gate.rules.idle_min if visit.how == "session" else None},
            headers={"Cache-Control": "no-store"},
        )

    def active(self, _: Request) -> Response:
        """Somebody is at the page: Access has taken note of it."""
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    def _page(self, request: Request, status: int, words: str, wish: str, *, name: str = "") -> Response:
        visit = _visit(request)
        logged_in = visit.user is not None and visit.how == "session"
        token = request.cookies.get(FORM_COOKIE)
        if not forgery.well_formed(token):
            token = forgery.new_token()
        if not self._gate.has_passwords:
            words = words or "Nobody logs in here by password: ask for this page through the proxy that knows you."
        values = {
            "ae_title": self._ae_title,
            "notice": NOT_FOR_DIAGNOSTIC_USE,
            "words": words,
            "no_words": "" if words else "hidden",
            "csrf": token,
            "csrf_out": visit.csrf(None) or "" if logged_in else "",
            "next": wish,
            "name": name,
            "focus_name": "" if name else "autofocus",
            "focus_password": "autofocus" if name else "",
            "user": visit.user.name if visit.user else "",
            "inside": "" if logged_in else "hidden",
            "outside": "hidden" if logged_in or not self._gate.has_passwords else "",
        }
        shown = self._template.substitute({key: html.escape(str(value)) for key, value in values.items()})
        answer = HTMLResponse(shown, status, headers={"Cache-Control": "no-store"})
        answer.set_cookie(FORM_COOKIE, str(token), path=LOGIN, httponly=True, samesite="strict", secure=visit.secure)
        return answer


def _visit(request: Request) -> Visit:
    visit: Visit = request.scope["visit"]
    return visit


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name; nothing of what is too long or no form."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            return {}
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=False, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}
