"""The JSON API: the list, a study, claims, the state of the node, and sending results again.

Claims go through the same state table as those of the page, of `triage-node mark` and of UPS.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from triage_node import logbook, priority, workitem, worklist
from triage_node.api import schemas
from triage_node.api.operation import BadRequest, Operation, Parameter, Said, answered, body_of, refused
from triage_node.errors import ReadingRefused
from triage_node.journal import outbox, views, workitems
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, StudyState
from triage_node.web.facts import node_facts
from triage_node.web.guard import for_user
from triage_node.web.rights import Right
from triage_node.workitem import StepState

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.journal.transitions import Workitem
    from triage_node.study import ReadingPriority

ROOT: Final = "/api/v1"
LONGEST_REQUEST: Final = 4096
_STUDY: Final = Parameter(
    name="study_instance_uid", where="path", words="Study Instance UID (0020,000D)", schema=schemas.UID
)
_FORCE: Final = schemas.record({}, force={"type": "boolean", "description": "An administrator overrules the claim."})
_UNKNOWN: Final = Said(words="The node knows no such study.", schema=schemas.ref("Error"))
_BAD: Final = Said(words="The request cannot be understood.", schema=schemas.ref("Error"))
_OTHERS: Final = Said(words="The study is somebody else's, or has ended: in words.", schema=schemas.ref("Error"))


class JsonApi:
    """Answers of one node."""

    def __init__(self, settings: Settings, journal: Journal, *, describe: Callable[[], dict[str, object]]) -> None:
        """`describe` makes the description of the whole API."""
        self._settings = settings
        self._journal = journal
        self._describe = describe

    def operations(self) -> tuple[Operation, ...]:
        """Every address of this API."""
        return (
            Operation(
                method="GET", path=f"{ROOT}/openapi.json", name="description", tag="description",
                words="This description.", answer=self.description,
                answers={200: Said(words="An OpenAPI 3.1 document.", schema={"type": "object"})},
            ),
            Operation(
                method="GET", path=f"{ROOT}/worklist", name="worklist", tag="worklist",
                words="The reading list in reading order.", answer=self.worklist,
                parameters=(
                    Parameter(name="first", where="query", words="So many studies at most.",
                              schema={"type": "integer", "minimum": 1}),
                    Parameter(name="state", where="query", words="Only studies in this state; may be repeated.",
                              schema={"type": "array", "items": {"enum": [state.value for state in StudyState]}}),
                ),
                answers={200: Said(words="The list.", schema=schemas.ref("Worklist")), 400: _BAD},
            ),
            Operation(
                method="GET", path=f"{ROOT}/studies/{{study_instance_uid}}", name="study", tag="studies",
                words="All that is known of a study: measurements, evidence, objects, delivery ledger, events.",
                answer=self.study, parameters=(_STUDY,),
                answers={200: Said(words="The study.", schema=schemas.ref("Study")), 404: _UNKNOWN},
            ),
            Operation(
                method="GET", path=f"{ROOT}/claims", name="claims", tag="claims",
                words="Which studies are being read, by whom and since when.", answer=self.claims,
                answers={200: Said(words="The claims.", schema=schemas.listed(schemas.record({
                    "study_instance_uid": schemas.UID, "performer": schemas.TEXT, "claimed_at": schemas.WHEN,
                })))},
            ),
            Operation(
                method="GET", path=f"{ROOT}/studies/{{study_instance_uid}}/claim", name="claim_of", tag="claims",
                words="Where the reading of a study stands.", answer=self.claim_of, parameters=(_STUDY,),
                answers={200: Said(words="The reading task.", schema=schemas.ref("Claim")), 404: _UNKNOWN},
            ),
            Operation(
                method="POST", path=f"{ROOT}/studies/{{study_instance_uid}}/claim", name="claim", tag="claims",
                words="Begin to read a study; who has it already gets the same claim again.", answer=self.claim,
                right=Right.CLAIM, parameters=(_STUDY,),
                answers={200: Said(words="The claim, with its Transaction UID.", schema=schemas.ref("Claim")),
                         404: _UNKNOWN, 409: _OTHERS},
            ),
            Operation(
                method="DELETE", path=f"{ROOT}/studies/{{study_instance_uid}}/claim", name="release", tag="claims",
                words="Put a study back into the queue, where it keeps its time of arrival.", answer=self.release,
                right=Right.CLAIM,
                parameters=(_STUDY, Parameter(name="force", where="query", words="An administrator overrules a claim.",
                                              schema={"type": "boolean"})),
                answers={204: Said(words="It is back."), 400: _BAD, 404: _UNKNOWN, 409: _OTHERS},
            ),
            Operation(
                method="POST", path=f"{ROOT}/studies/{{study_instance_uid}}/finish", name="finish", tag="claims",
                words="Say that a study has been read.", answer=self.finish, right=Right.CLAIM, parameters=(_STUDY,),
                body=_FORCE, body_required=False,
                answers={200: Said(words="The reading task.", schema=schemas.ref("Claim")), 400: _BAD, 404: _UNKNOWN,
                         409: _OTHERS},
            ),
            Operation(
                method="GET", path=f"{ROOT}/status", name="status", tag="node",
                words="What came, what waits, what failed; destinations for administrators alone.", answer=self.status,
                answers={200: Said(words="The numbers.", schema=schemas.ref("Status"))},
            ),
            Operation(
                method="GET", path=f"{ROOT}/dead-letters", name="dead_letters", tag="deliveries",
                words="What was refused or given up; empty for who may not see destinations.",
                answer=self.dead_letters,
                answers={200: Said(words="Oldest first.", schema=schemas.listed(schemas.ref("DeadLetter")))},
            ),
            Operation(
                method="POST", path=f"{ROOT}/requeue", name="requeue", tag="deliveries",
                words="Send again what was refused or given up, and at once what waits for its next attempt.",
                answer=self.requeue, right=Right.REQUEUE, body_required=False,
                body=schemas.record({}, study=schemas.UID, destination=schemas.TEXT),
                answers={200: Said(words="How many deliveries.", schema=schemas.record({"requeued": schemas.COUNT})),
                         400: _BAD},
            ),
        )  # fmt: skip

    # ------------------------------------------------------------------ reading

    def description(self, _: Request) -> Response:
        """The OpenAPI document."""
        return answered(self._describe())

    def worklist(self, request: Request) -> Response:
        """The list, or the beginning of it."""
        try:
            first, states = _first(request), _states(request)
        except BadRequest as error:
            return refused(str(error), 400)
        now = time.time()
        items = worklist.reading_list(self._journal, self._settings, now, None if states else first)
        chosen = [item for item in items if not states or item.state in states]
        return answered(
            {
                "notice": NOT_FOR_DIAGNOSTIC_USE,
                "at": worklist.iso(now),
                "strategy": self._settings.worklist.strategy,
                "total": views.totals(self._journal)["studies"],
                "studies": [asdict(item) for item in chosen[:first]],
            }
        )

    def study(self, request: Request) -> Response:
        """A study's report."""
        uid = request.path_params["study_instance_uid"]
        report = worklist.study_report(self._journal, uid)
        return _unknown(uid) if report is None else answered(report)

    def claims(self, _: Request) -> Response:
        """Everything that is being read."""
        return answered(
            [
                {"study_instance_uid": uid, "performer": claim.performer, "claimed_at": worklist.iso(claim.since)}
                for uid, claim in workitems.claims(self._journal).items()
            ]
        )

    def claim_of(self, request: Request) -> Response:
        """One reading task."""
        return self._claim(request.path_params["study_instance_uid"])

    def status(self, request: Request) -> Response:
        """The node's own numbers."""
        return answered(for_user(node_facts(self._journal, self._settings), request.user))

    def dead_letters(self, request: Request) -> Response:
        """What will not be sent again by itself."""
        return answered(worklist.dead_letters(self._journal) if request.user.may(Right.DESTINATIONS) else [])

    # ------------------------------------------------------------------ writing

    def claim(self, request: Request) -> Response:
        """Claim a study."""
        uid, by = request.path_params["study_instance_uid"], request.user.name
        try:
            transaction_uid = workitems.claim(self._journal, uid, by, time.time())
        except ReadingRefused as refusal:
            return _not(uid, refusal)
        logbook.get().info("study claimed", study=uid, by=by)
        return self._claim(uid, transaction_uid=transaction_uid)

    def release(self, request: Request) -> Response:
        """Put a study back."""
        uid, user = request.path_params["study_instance_uid"], request.user
        wish = request.query_params.get("force", "false")
        if wish not in ("true", "false"):
            return refused("force is true or false", 400)
        force = wish == "true" and user.may(Right.MARK_OTHERS)
        try:
            workitems.release(self._journal, uid, user.name, time.time(), force=force)
        except ReadingRefused as refusal:
            return _not(uid, refusal)
        logbook.get().info("study released", study=uid, by=user.name, force=force)
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    async def finish(self, request: Request) -> Response:
        """The study has been read."""
        uid, user = request.path_params["study_instance_uid"], request.user
        try:
            wish = _keys(await body_of(request, LONGEST_REQUEST), force=bool)
        except BadRequest as error:
            return refused(str(error), 400)
        force = bool(wish.get("force")) and user.may(Right.MARK_OTHERS)

        def finished() -> Response:
            try:
                workitems.finish(self._journal, uid, user.name, time.time(), force=force)
            except ReadingRefused as refusal:
                return _not(uid, refusal)
            logbook.get().info("study marked as read", study=uid, by=user.name, force=force)
            return self._claim(uid)

        return await run_in_threadpool(finished)

    async def requeue(self, request: Request) -> Response:
        """As `triage-node requeue`."""
        try:
            wish = _keys(await body_of(request, LONGEST_REQUEST), study=str, destination=str)
        except BadRequest as error:
            return refused(str(error), 400)
        study, destination = wish.get("study"), wish.get("destination")
        known = self._settings.destination_names
        if destination is not None and destination not in known:
            return refused(f"no destination {destination!r}; configured are: {', '.join(known) or 'none'}", 400)

        def requeued() -> int:
            return outbox.requeue(self._journal, time.time(), study=study, destination=destination)

        number = await run_in_threadpool(requeued)
        logbook.get().info("objects queued again", by=request.user.name, objects=number, **wish)
        return answered({"requeued": number})

    def _claim(self, uid: str, *, transaction_uid: str | None = None) -> Response:
        row = views.study(self._journal, uid)
        if row is None:
            return _unknown(uid)
        level = priority.level(worklist.facts_of(row), self._settings.worklist)
        return answered(_task(uid, workitems.current(self._journal, uid), level, transaction_uid))


def _task(uid: str, item: Workitem | None, level: ReadingPriority, transaction_uid: str | None) -> dict[str, object]:
    task: dict[str, object] = {
        "study_instance_uid": uid,
        # one that nobody has asked for yet gets this one
        "workitem_uid": item.workitem_uid if item else workitem.uid_of(uid, 1),
        "state": item.state if item else StepState.SCHEDULED,
        "performer": item.performer if item else None,
        "claimed_at": worklist.iso(item.claimed_at) if item else None,
        "ended_at": worklist.iso(item.ended_at) if item else None,
        "priority": level,
    }
    return task if transaction_uid is None else {**task, "transaction_uid": transaction_uid}


def _unknown(uid: str) -> Response:
    return refused(f"no study {uid} is known to this node", 404)


def _not(uid: str, refusal: ReadingRefused) -> Response:
    if refusal.status == workitem.NO_SUCH_WORKITEM:
        return _unknown(uid)
    return refused(str(refusal), 409)


def _first(request: Request) -> int | None:
    text = request.query_params.get("first")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
        raise BadRequest("first is a number of studies, from 1 on")
    return int(text[:9])


def _states(request: Request) -> frozenset[StudyState]:
    given = request.query_params.getlist("state")
    try:
        return frozenset(StudyState(each) for each in given)
    except ValueError:
        raise BadRequest(f"state is one of {', '.join(StudyState)}") from None


def _keys(body: Any, **kinds: type) -> dict[str, Any]:
    """The object of a request, which has none but these keys. Raises BadRequest."""
    wish = {} if body is None else body
    if not isinstance(wish, dict) or not all(
        key in kinds and isinstance(value, kinds[key]) for key, value in wish.items()
    ):
        allowed = ", ".join(f"{key} ({kind.__name__})" for key, kind in kinds.items())
        raise BadRequest(f"the body is a JSON object with at most: {allowed}")
    return wish
