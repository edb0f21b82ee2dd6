"""Addresses by which studies are claimed, released and finished, in the name of who is logged in.

Whether it may be is decided by `journal.workitems`, the same table that the UPS service and `triage-node mark` go by.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from triage_node import logbook, workitem, worklist
from triage_node.errors import ReadingRefused
from triage_node.journal import workitems
from triage_node.study import StudyState
from triage_node.web.rights import Right

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.web.rights import User

_UNCLAIMED = frozenset({StudyState.WAITING, StudyState.JUDGED, StudyState.NOT_ANALYSED})
_LARGEST_REQUEST = 1024


class Claims:
    """Answers of one node; refusals are sentences for people."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal

    def routes(self) -> list[Route]:
        """To be mounted at the root; their rights are in `rights.WRITING`."""
        return [
            Route("/api/claims/next", self.next, methods=["POST"]),
            Route("/api/study/{uid}/claim", self.claim, methods=["POST"]),
            Route("/api/study/{uid}/release", self.release, methods=["POST"]),
            Route("/api/study/{uid}/finish", self.finish, methods=["POST"]),
        ]

    def next(self, request: Request) -> Response:
        """Claim the first study in reading order that nobody reads -> {"study_instance_uid": UID}."""
        by, now = request.user.name, time.time()
        for row, _ in worklist.reading_turns(self._journal, self._settings, now):
            uid = row.study_instance_uid
            if row.state not in _UNCLAIMED:
                continue
            try:
                workitems.claim(self._journal, uid, by, now)
            except ReadingRefused:
                continue  # somebody was faster: the next one
            _log("study claimed", uid, by)
            return JSONResponse({"study_instance_uid": uid})
        return JSONResponse({"error": "every study on the list is being read or has been read"}, 404)

    async def claim(self, request: Request) -> Response:
        """Begin to read a study."""
        return await self._do(request, "study claimed", lambda uid, by, _: self._claim(uid, by))

    async def release(self, request: Request) -> Response:
        """Put a study back into the queue; {"force": true} of an administrator takes it from somebody else."""
        return await self._do(
            request,
            "study released",
            lambda uid, by, force: workitems.release(self._journal, uid, by, time.time(), force=force),
        )

    async def finish(self, request: Request) -> Response:
        """Say that a study has been read; {"force": true} as above."""
        return await self._do(
            request,
            "study marked as read",
            lambda uid, by, force: workitems.finish(self._journal, uid, by, time.time(), force=force),
        )

    def _claim(self, uid: str, by: str) -> None:
        workitems.claim(self._journal, uid, by, time.time())

    async def _do(self, request: Request, event: str, act: Callable[[str, str, bool], None]) -> Response:
        uid, user = request.path_params["uid"], request.user
        may_force = user.may(Right.MARK_OTHERS)
        try:
            force = await _force(request) and may_force
            await run_in_threadpool(act, uid, user.name, force)
        except ValueError as error:
            return JSONResponse({"error": f"{error}"}, 400)
        except ReadingRefused as refusal:
            return self._refused(uid, user, refusal)
        _log(event, uid, user.name, force=force)
        return JSONResponse({"study_instance_uid": uid})

    def _refused(self, uid: str, user: User, refusal: ReadingRefused) -> Response:
        if refusal.status == workitem.NO_SUCH_WORKITEM:
            return JSONResponse({"error": f"no study {uid} is known to this node"}, 404)
        by_other = refusal.status == workitem.WRONG_TRANSACTION_UID
        return JSONResponse({"error": str(refusal), "may_force": by_other and user.may(Right.MARK_OTHERS)}, 409)


async def _force(request: Request) -> bool:
    """What the body, an optional JSON object, says. Raises ValueError."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_REQUEST:
            raise ValueError(f"a request has at most {_LARGEST_REQUEST} bytes")
    wish = json.loads(body or b"{}")
    if not isinstance(wish, dict) or set(wish) - {"force"} or not isinstance(wish.get("force", False), bool):
        raise ValueError('the body may be {"force": true}, {"force": false} or nothing')
    return bool(wish.get("force", False))


def _log(event: str, uid: str, by: str, **more: object) -> None:
    logbook.get().info(event, study=uid, by=by, **more)
