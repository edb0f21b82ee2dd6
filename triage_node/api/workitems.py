"""The reading worklist as UPS-RS (PS3.18 section 11): search, retrieve, create, update, change state, request cancel.

The rules are those of the DICOM service (`triage_node.ups`); a performer who comes by this way is known by the name of
its user, as on the page. Subscriptions: subscribing.py.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydicom.uid import UID
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from triage_node import audit, logbook, workitem
from triage_node.api import dicom_json, query, schemas
from triage_node.api.operation import DICOM_JSON, BadRequest, Operation, Parameter, Said, body_of
from triage_node.api.refusals import accept, bordered, fresh, no_such, warning
from triage_node.attributes import quiet
from triage_node.errors import ReadingRefused
from triage_node.journal import orders, workitems
from triage_node.ups import procedure_step, requests
from triage_node.web.rights import Right
from triage_node.workitem import StepState

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset
    from starlette.requests import Request

    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.journal.transitions import Workitem
    from triage_node.ups.catalogue import Catalogue
    from triage_node.ups.procedure_step import Entry
    from triage_node.workitem import Outcome

Found = TypeVar("Found")
ROOT: Final = "/ups-rs"
LONGEST_REQUEST: Final = 1_048_576
WORKITEM: Final = Parameter(name="workitem", where="path", words="UID of the workitem", schema=schemas.UID)
_TRANSACTION: Final = Parameter(
    name="transaction-uid", where="query", words="Transaction UID of the claim; or in the body (0008,1195)",
    schema=schemas.UID,
)  # fmt: skip
_DATA_SET: Final = {"anyOf": [schemas.ref("DataSet"), {**schemas.listed(schemas.ref("DataSet")), "maxItems": 1}]}
BAD: Final = Said(
    words="The request cannot be understood, or what must be said is missing.", schema=schemas.ref("Error")
)
NONE: Final = Said(words="There is no such workitem.", schema=schemas.ref("Error"))
_MAY_NOT: Final = Said(words="Nobody reads it yet: an administrator calls it off.", schema=schemas.ref("Error"))
_CONFLICT: Final = Said(words="The state of the workitem does not allow it.", schema=schemas.ref("Error"))


class Workitems:
    """Answers of one node; `wake` tells the registrar that something has changed."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        catalogue: Catalogue,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._catalogue = catalogue
        self._wake = wake

    def operations(self) -> tuple[Operation, ...]:
        """Every address of UPS-RS that is offered."""
        return (
            Operation(
                method="GET", path=f"{ROOT}/workitems", name="search_workitems", tag="workitems",
                words="Search (PS3.18 11.9): attribute=value by keyword or tag, sequences with dots; in reading order.",
                answer=self.search,
                parameters=(
                    Parameter(name="includefield", where="query", words="More attributes, or all.",
                              schema=schemas.listed(schemas.TEXT)),
                    Parameter(name="fuzzymatching", where="query", words="Names are matched literally all the same.",
                              schema={"type": "boolean"}),
                    Parameter(name="limit", where="query", words="So many at most.", schema=schemas.COUNT),
                    Parameter(name="offset", where="query", words="Leave out the first so many.", schema=schemas.COUNT),
                ),
                answers={200: Said(words="What matches.", schema=schemas.listed(schemas.ref("DataSet")),
                                   media=DICOM_JSON),
                         204: Said(words="Nothing matches."), 400: BAD},
            ),
            Operation(
                method="POST", path=f"{ROOT}/workitems", name="create_workitem", tag="workitems",
                words="Order a reading (PS3.18 11.4); the UID is the query, or chosen by the node.", answer=self.create,
                right=Right.ADMINISTER, body=_DATA_SET, body_media=DICOM_JSON,
                parameters=(Parameter(name="workitem", where="query", words="UID of the workitem.",
                                      schema=schemas.UID),),
                answers={201: Said(words="Created; Location says where, Warning what was filled in."), 400: BAD,
                         409: _CONFLICT},
            ),
            Operation(
                method="GET", path=f"{ROOT}/workitems/{{workitem}}", name="workitem", tag="workitems",
                words="Retrieve (PS3.18 11.5); the Transaction UID is nobody's to read.", answer=self.retrieve,
                parameters=(WORKITEM,),
                answers={200: Said(words="The workitem.", schema=schemas.ref("DataSet"), media=DICOM_JSON), 404: NONE},
            ),
            Operation(
                method="POST", path=f"{ROOT}/workitems/{{workitem}}", name="update_workitem", tag="workitems",
                words="Update (PS3.18 11.6): its performer describes what it does.", answer=self.update,
                right=Right.CLAIM, body=_DATA_SET, body_media=DICOM_JSON, parameters=(WORKITEM, _TRANSACTION),
                answers={200: Said(words="Updated."), 400: BAD, 404: NONE, 409: _CONFLICT},
            ),
            Operation(
                method="PUT", path=f"{ROOT}/workitems/{{workitem}}/state", name="change_state", tag="workitems",
                words="Change state (PS3.18 11.7): Procedure Step State and Transaction UID.",
                answer=self.change_state, right=Right.CLAIM, body=_DATA_SET, body_media=DICOM_JSON,
                parameters=(WORKITEM,),
                answers={200: Said(words="Changed; Warning says where it was so before."), 400: BAD, 404: NONE,
                         409: _CONFLICT},
            ),
            Operation(
                method="POST", path=f"{ROOT}/workitems/{{workitem}}/cancelrequest", name="request_cancel",
                tag="workitems",
                words="Request cancellation (PS3.18 11.8) of what is read; administrators: also of what is not yet.",
                answer=self.request_cancel, right=Right.CLAIM, body=_DATA_SET, body_media=DICOM_JSON,
                body_required=False, parameters=(WORKITEM,),
                answers={202: Said(words="Cancelled, or its performer is told."), 400: BAD, 403: _MAY_NOT, 404: NONE,
                         409: _CONFLICT},
            ),
        )  # fmt: skip

    # ------------------------------------------------------------------ reading

    @bordered
    async def search(self, request: Request) -> Response:
        """Search for workitems."""
        search = query.read(request.query_params.multi_items(), self._settings.api.largest_answer)

        def found() -> tuple[list[dict[str, Any]], int]:
            every = [entry for entry in self._catalogue.entries() if _bordered(search.matches, entry)]
            chosen = every[search.offset : search.offset + search.limit]
            answers = [_bordered(lambda one: dicom_json.written(search.answer(one)), entry) for entry in chosen]
            return [one for one in answers if one], len(every) - search.offset - len(chosen)

        content, left = await run_in_threadpool(found)
        warnings = []
        if search.is_fuzzy:
            warnings.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
        if left > 0 and search.limit:
            warnings.append(f"There are {left} additional results that can be requested.")
        headers = {"Warning": ", ".join(warning(request, words) for words in warnings)} if warnings else {}
        return _answer(content, headers=headers) if content else Response(status_code=204, headers=fresh(headers))

    @bordered
    async def retrieve(self, request: Request) -> Response:
        """All attributes of a workitem."""
        entry = await run_in_threadpool(self._entry, request.path_params["workitem"])
        said = await run_in_threadpool(lambda: dicom_json.written(procedure_step.attributes(entry)))
        await run_in_threadpool(self._tell, request, entry)
        return _answer(said)

    # ------------------------------------------------------------------ writing

    @bordered
    async def create(self, request: Request) -> Response:
        """Order a reading."""
        uid = _uid_of_query(request)
        dataset = dicom_json.read(await body_of(request, LONGEST_REQUEST))
        order, is_whole = requests.order(uid, dataset)
        item = await run_in_threadpool(orders.place, self._journal, order, request.user.name, time.time())
        self._done("worklist ordered", request, item.study_instance_uid)
        location = f"{ROOT}/workitems/{uid}"
        headers = {"Location": location, "Content-Location": location}
        if not is_whole:
            headers["Warning"] = warning(request, "The UPS was created with modifications.")
        return Response(status_code=201, headers=fresh(headers))

    @bordered
    async def update(self, request: Request) -> Response:
        """The performer describes what it does."""
        uid = request.path_params["workitem"]
        changes = dicom_json.read(await body_of(request, LONGEST_REQUEST))
        given = request.query_params.get("transaction-uid") or _transaction_uid(changes)

        def updated() -> Outcome:
            return workitems.set_performed(
                self._journal,
                uid,
                time.time(),
                transaction_uid=given,
                merged=lambda item: requests.with_changes(item, changes),
                progress=requests.progress(changes),
            )

        accept(await run_in_threadpool(updated), uid)
        self._done("worklist described", request, await self._study(uid))
        return Response(status_code=200, headers=fresh({"Content-Location": f"{ROOT}/workitems/{uid}"}))

    @bordered
    async def change_state(self, request: Request) -> Response:
        """Claim, complete or cancel a workitem."""
        uid = request.path_params["workitem"]
        said = dicom_json.read(await body_of(request, LONGEST_REQUEST))
        try:
            wanted = StepState(str(said.get("ProcedureStepState", "")))
        except ValueError:
            raise BadRequest(f"Procedure Step State (0074,1000) is one of {', '.join(StepState)}") from None
        missing: tuple[str, ...] = ()

        def is_described(item: Workitem) -> bool:
            nonlocal missing
            if wanted is StepState.COMPLETED and not self._settings.ups.complete_descriptions:
                missing = requests.missing_at_completion(item)
            return not missing

        def changed() -> Outcome:
            return workitems.change_state(
                self._journal,
                uid,
                wanted,
                request.user.name,
                time.time(),
                transaction_uid=_transaction_uid(said),
                is_described=is_described,
            )

        outcome = await run_in_threadpool(changed)
        if outcome.status == workitem.FINAL_STATE_NOT_MET:
            raise ReadingRefused(f"set first: {', '.join(missing)}", status=outcome.status)
        accept(outcome, uid)
        self._done(f"worklist {wanted.lower()}", request, await self._study(uid))
        headers = {"Content-Location": f"{ROOT}/workitems/{uid}"}
        if outcome.status != workitem.SUCCESS:
            headers["Warning"] = warning(request, f"The UPS is already in the requested state of {wanted}.")
        return Response(status_code=200, headers=fresh(headers))

    @bordered
    async def request_cancel(self, request: Request) -> Response:
        """Ask for what somebody else does to be cancelled."""
        uid = request.path_params["workitem"]
        body = await body_of(request, LONGEST_REQUEST)
        detail = {} if body is None else requests.cancellation(dicom_json.read(body))
        words = detail.pop("words", "")

        def asked() -> Outcome:
            return workitems.request_cancel(
                self._journal,
                uid,
                request.user.name,
                time.time(),
                detail=detail,
                words=words,
                may_call_off=request.user.may(Right.CALL_OFF),
            )

        outcome = await run_in_threadpool(asked)
        accept(outcome, uid)
        self._done("worklist cancel requested", request, await self._study(uid))
        headers = {}
        if outcome.status != workitem.SUCCESS:
            headers["Warning"] = warning(request, "The UPS is already in the requested state of CANCELED.")
        return Response(status_code=202, headers=fresh(headers))

    # ------------------------------------------------------------------ what all have in common

    def _entry(self, uid: str) -> Entry:
        entry = self._catalogue.entry(uid)
        if entry is None:
            raise no_such(uid)
        return entry

    async def _study(self, uid: str) -> str | None:
        item = await run_in_threadpool(workitems.by_uid, self._journal, uid)
        return None if item is None else item.study_instance_uid

    def _done(self, what: str, request: Request, study: str | None) -> None:
        logbook.get().info(what, by=request.user.name, study=study)
        self._wake()

    def _tell(self, request: Request, entry: Entry) -> None:
        """Whose study it is can be seen only now: the access control knows no workitems."""
        told = audit.Entry(
            event=audit.AuditEvent.INSTANCES_ACCESSED,
            user=request.user.name,
            role=request.user.role,
            address=request.scope["visit"].address,
            study=entry.item.study_instance_uid,
            words="workitem, by UPS-RS",
        )
        audit.record(self._journal, told, time.time())


def _bordered(look: Callable[[Entry], Found], entry: Entry) -> Found | None:
    """What is found in an entry, or None: one that cannot be answered is left out and must not end the list."""
    try:
        return look(entry)
    except Exception:  # noqa: BLE001  # the border of each entry
        logbook.get().exception("left out of an answer", workitem=entry.item.workitem_uid)
        return None


def _answer(content: object, *, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(content, headers=fresh(headers or {}), media_type=DICOM_JSON)


def _transaction_uid(dataset: Dataset) -> str | None:
    return str(dataset.get("TransactionUID", "") or "") or None


def _uid_of_query(request: Request) -> str:
    """PS3.18 section 11.4.1: the query is the UID itself; others name it."""
    named = [value or name for name, value in request.query_params.multi_items()]
    if not named:
        return f"2.25.{uuid.uuid4().int}"
    with quiet():
        is_one = len(named) == 1 and UID(named[0]).is_valid
    if not is_one:
        raise BadRequest("the query is the UID of the workitem, and nothing else")
    return named[0]
