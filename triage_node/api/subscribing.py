"""Subscriptions of UPS-RS (PS3.18 sections 11.10 to 11.14): who hears of which workitem, and the event stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from triage_node import logbook, workitem
from triage_node.api import query, schemas
from triage_node.api.operation import EVENTS, BadRequest, Operation, Parameter, Said
from triage_node.api.refusals import bordered, fresh, no_such
from triage_node.api.workitems import BAD, NONE, ROOT, WORKITEM
from triage_node.errors import ReadingRefused
from triage_node.journal import owners, subscriptions
from triage_node.journal.owners import Asking
from triage_node.ups import matching, values
from triage_node.ups.service import FILTERED, GLOBAL
from triage_node.web.rights import Right

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset
    from starlette.requests import Request

    from triage_node.api.channel import Channels
    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.ups.catalogue import Catalogue

KEEP_ALIVE_S: Final = 5
SEND_TIMEOUT_S: Final = 20
_AE_TITLE: Final = Parameter(
    name="aetitle", where="path", words="AE title of the subscriber, one of api.subscriber_ae_titles",
    schema={"type": "string", "minLength": 1, "maxLength": 16},
)  # fmt: skip
_NOT_HE: Final = Said(
    words="No such subscriber is configured, or the title is another user's.", schema=schemas.ref("Error")
)


class Subscribing:
    """Answers of one node; `wake` tells the registrar that something has changed."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        catalogue: Catalogue,
        channels: Channels,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._catalogue = catalogue
        self._channels = channels
        self._wake = wake

    def operations(self) -> tuple[Operation, ...]:
        """Every address of subscriptions that is offered."""
        subscriber = f"{ROOT}/workitems/{{workitem}}/subscribers/{{aetitle}}"
        return (
            Operation(
                method="POST", path=subscriber, name="subscribe", tag="subscriptions",
                words=f"Subscribe (PS3.18 11.10) to a workitem, to all ({GLOBAL}) or to those that match ({FILTERED}).",
                answer=self.subscribe, right=Right.CLAIM,
                parameters=(
                    WORKITEM, _AE_TITLE,
                    Parameter(name="deletionlock", where="query", words="Keep ended workitems.",
                              schema={"type": "boolean"}),
                    Parameter(name="filter", where="query", words="attribute=value, more after commas."),
                ),
                answers={201: Said(words="Subscribed; Content-Location is the event stream."), 400: BAD, 403: _NOT_HE,
                         404: NONE},
            ),
            Operation(
                method="DELETE", path=subscriber, name="unsubscribe", tag="subscriptions",
                words="Unsubscribe (PS3.18 11.11).", answer=self.unsubscribe, right=Right.CLAIM,
                parameters=(WORKITEM, _AE_TITLE),
                answers={200: Said(words="Unsubscribed."), 403: _NOT_HE, 404: NONE},
            ),
            Operation(
                method="POST", path=f"{subscriber}/suspend", name="suspend", tag="subscriptions",
                words="Suspend a global subscription (PS3.18 11.12): nothing that comes is added.", answer=self.suspend,
                right=Right.CLAIM, parameters=(WORKITEM, _AE_TITLE),
                answers={200: Said(words="Suspended."), 400: BAD, 403: _NOT_HE},
            ),
            Operation(
                method="GET", path=f"{ROOT}/subscribers/{{aetitle}}", name="event_stream", tag="subscriptions",
                words="Event reports (PS3.18 11.14) as server-sent events instead of a web socket.",
                answer=self.listen, parameters=(_AE_TITLE,),
                answers={200: Said(words="Each message a data set: workitem, event type, what has changed.",
                                   schema=schemas.TEXT, media=EVENTS), 403: _NOT_HE},
            ),
        )  # fmt: skip

    @bordered
    async def listen(self, request: Request) -> Response:
        """The event stream of a subscriber."""
        ae_title, by = self._subscriber(request), _asking(request)

        def may_hear() -> bool:
            return owners.may_hear(self._journal, ae_title, by)

        if not await run_in_threadpool(may_hear):
            raise ReadingRefused(
                f"the subscriptions of {ae_title!r} are those of another user", status=workitem.NOT_AUTHORIZED
            )

        def readiness(uid: str) -> str:
            entry = self._catalogue.entry(uid)
            return "READY" if entry is None else entry.readiness

        messages = self._channels.messages(ae_title, readiness, may_hear)
        return EventSourceResponse(messages, ping=KEEP_ALIVE_S, send_timeout=SEND_TIMEOUT_S)

    @bordered
    async def subscribe(self, request: Request) -> Response:
        """Subscribe an AE title."""
        uid, ae_title = request.path_params["workitem"], self._subscriber(request)
        lock = request.query_params.get("deletionlock", "false")
        if lock not in ("true", "false"):
            raise BadRequest("deletionlock is true or false")
        wanted = query.filter_of(request.query_params.get("filter", "")) if uid == FILTERED else None
        await run_in_threadpool(self._enter, uid, ae_title, wanted, _asking(request), lock=lock == "true")
        self._done("worklist subscribed", request, ae_title)
        return Response(status_code=201, headers=fresh({"Content-Location": f"{ROOT}/subscribers/{ae_title}"}))

    def _enter(self, uid: str, ae_title: str, wanted: Dataset | None, by: Asking, *, lock: bool) -> None:
        now = time.time()
        if uid == GLOBAL:
            subscriptions.subscribe_globally(self._journal, ae_title, now, deletion_lock=lock, by=by)
        elif wanted is not None:
            try:
                keys, text = matching.keys_of(wanted), values.to_json(wanted)
            except ValueError as error:
                raise BadRequest(str(error)) from None
            found = [one.item.workitem_uid for one in self._catalogue.entries() if matching.matches(keys, one.get)]
            subscriptions.subscribe_globally(
                self._journal, ae_title, now, deletion_lock=lock, filter_json=text, matching=found, by=by
            )
        elif not subscriptions.subscribe(self._journal, ae_title, uid, now, deletion_lock=lock, by=by):
            raise no_such(uid)

    @bordered
    async def unsubscribe(self, request: Request) -> Response:
        """End a subscription."""
        uid, ae_title, by = request.path_params["workitem"], self._subscriber(request), _asking(request)
        if uid in (GLOBAL, FILTERED):
            await run_in_threadpool(subscriptions.unsubscribe_globally, self._journal, ae_title, time.time(), by=by)
        elif not await run_in_threadpool(subscriptions.unsubscribe, self._journal, ae_title, uid, by=by):
            raise no_such(uid)
        self._done("worklist unsubscribed", request, ae_title)
        return Response(status_code=200, headers=fresh({}))

    @bordered
    async def suspend(self, request: Request) -> Response:
        """Go on with what is subscribed to, add nothing that comes."""
        uid, ae_title = request.path_params["workitem"], self._subscriber(request)
        if uid not in (GLOBAL, FILTERED):
            raise ReadingRefused("only a global subscription is suspended", status=workitem.ACTION_NOT_APPROPRIATE)
        await run_in_threadpool(subscriptions.suspend_globally, self._journal, ae_title, by=_asking(request))
        return Response(status_code=200, headers=fresh({}))

    def _subscriber(self, request: Request) -> str:
        ae_title = str(request.path_params["aetitle"])
        if ae_title not in self._settings.api.subscriber_ae_titles:
            raise ReadingRefused(
                f"{ae_title!r} is not among api.subscriber_ae_titles", status=workitem.RECEIVING_AE_UNKNOWN
            )
        return ae_title

    def _done(self, what: str, request: Request, ae_title: str) -> None:
        logbook.get().info(what, by=request.user.name, subscriber=ae_title)
        self._wake()


def _asking(request: Request) -> Asking:
    return Asking(user=request.user.name, may_everybodys=request.user.may(Right.OTHERS_SUBSCRIPTIONS))
