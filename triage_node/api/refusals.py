"""What UPS-RS answers where it does not do what was asked: the statuses of the state table as those of HTTP."""

from __future__ import annotations

import functools
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from triage_node import audit, logbook, workitem
from triage_node.api.operation import BadRequest, refused
from triage_node.errors import ReadingRefused
from triage_node.ups import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from triage_node.journal import Journal
    from triage_node.workitem import Outcome

    Handler = Callable[[Any, Request], Coroutine[Any, Any, Response]]

# PS3.18 sections 11.4.3 to 11.11.3: what of these is the request's fault, what does not exist, what may not be; all
# other refusals of a state table are conflicts.
HTTP: Final[Mapping[int, int]] = MappingProxyType({
    workitem.NO_SUCH_WORKITEM: 404,
    workitem.WRONG_TRANSACTION_UID: 400,
    workitem.NOT_SCHEDULED_AT_CREATION: 400,
    workitem.ONLY_BY_CREATION: 400,
    workitem.RECEIVING_AE_UNKNOWN: 403,
    workitem.NOT_AUTHORIZED: 403,
    workitem.ACTION_NOT_APPROPRIATE: 400,
    requests.INVALID_VALUE: 400,
    requests.MISSING_ATTRIBUTE: 400,
    requests.MISSING_VALUE: 400,
    requests.MISTYPED_ARGUMENT: 400,
})  # fmt: skip
CONFLICT: Final = 409


def bordered(handler: Handler) -> Handler:
    """Answer a refusal with its words and the status that PS3.18 has for it."""

    @functools.wraps(handler)
    async def answered(self: Any, request: Request) -> Response:
        try:
            return await handler(self, request)
        except BadRequest as error:
            return refused(str(error), 400)
        except ReadingRefused as refusal:
            logbook.get().warning("worklist request refused", by=request.user.name, why=str(refusal))
            if refusal.status == workitem.NOT_AUTHORIZED:
                await run_in_threadpool(_restricted, self._journal, request)
            return refusal_of(refusal, request)

    return answered


def _restricted(journal: Journal, request: Request) -> None:
    """What the role alone does not decide, and the access control therefore does not tell."""
    told = audit.Entry(
        event=audit.AuditEvent.SECURITY_ALERT,
        kind=audit.AuditType.RESTRICTED,
        outcome=audit.Outcome.MINOR_FAILURE,
        user=request.user.name,
        role=request.user.role,
        address=request.scope["visit"].address,
        words=f"{request.method} {request.url.path[:200]}",
    )
    audit.record(journal, told, time.time())


def accept(outcome: Outcome, uid: str) -> None:
    """Raise ReadingRefused unless the outcome is a success or a warning."""
    if outcome.status == workitem.NO_SUCH_WORKITEM:
        raise no_such(uid)
    if outcome.is_refusal:
        raise ReadingRefused(outcome.words, status=outcome.status)


def no_such(uid: str) -> ReadingRefused:
    """What to raise where there is no such workitem."""
    return ReadingRefused(f"{workitem.MEANINGS[workitem.NO_SUCH_WORKITEM]}: {uid}", status=workitem.NO_SUCH_WORKITEM)


def refusal_of(error: ReadingRefused, request: Request) -> Response:
    """A refusal with the words of the standard, in the body and as a warning (PS3.18 section 11.7.3)."""
    answer = refused(str(error), HTTP.get(error.status, CONFLICT), dimse_status=f"0x{error.status:04X}")
    answer.headers["Warning"] = warning(request, str(error))
    return answer


def warning(request: Request, words: str) -> str:
    """The value of a Warning header (RFC 7234 section 5.5), which has no signs beyond ASCII."""
    plain = "".join(sign if sign.isascii() and sign.isprintable() and sign not in '"\\' else "?" for sign in words)
    return f'299 {request.base_url.netloc or "-"} "{plain[:200]}"'


def fresh(headers: dict[str, str]) -> dict[str, str]:
    """Headers of an answer that no cache keeps."""
    return {"Cache-Control": "no-store", **headers}
