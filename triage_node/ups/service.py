"""The reading worklist as SCP: what each message of PS3.4 annex CC does, and what is answered.

All messages name the UPS Push SOP Class; which of them are allowed is decided by the presentation context. A border:
whatever goes wrong with one message is logged and answered, and the association and the desk live on.
"""

from __future__ import annotations

import time
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID

from triage_node import audit, conformance, logbook, workitem
from triage_node.audit import AuditEvent
from triage_node.errors import ReadingRefused
from triage_node.journal import orders, subscriptions, workitems
from triage_node.ups import encoding, matching, modality_worklist, procedure_step, requests, values
from triage_node.workitem import StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pynetdicom import evt

    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.journal.transitions import Workitem
    from triage_node.ups.catalogue import Catalogue
    from triage_node.ups.procedure_step import Entry
    from triage_node.workitem import Outcome

    Answer = tuple[int | Dataset, Dataset | None]

GLOBAL: Final = "1.2.840.10008.5.1.4.34.5"  # UPS Global Subscription SOP Instance
FILTERED: Final = "1.2.840.10008.5.1.4.34.5.1"  # UPS Filtered Global Subscription SOP Instance
PENDING, PENDING_WITHOUT_SOME_KEYS, CANCELLED = 0xFF00, 0xFF01, 0xFE00
NO_SUCH_SOP_CLASS, NO_SUCH_ACTION, NOT_ALLOWED = 0x0118, 0x0123, 0x0211
KEY_NOT_UNDERSTOOD, NOT_PROCESSED = 0xA900, 0xC000
# Action types of PS3.4 tables CC.2.1-1, CC.2.2-1 and CC.2.3-1
CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND = 1, 2, 3, 4, 5
# PS3.4 tables CC.2-1 to CC.2-5: which messages, and of N-ACTION which types, a presentation context carries
ALLOWED: Final[Mapping[str, frozenset[str | int]]] = {
    conformance.UPS_PUSH: frozenset({"N-CREATE", "N-GET", REQUEST_CANCEL}),
    conformance.UPS_PULL: frozenset({"C-FIND", "N-GET", "N-SET", CHANGE_STATE}),
    conformance.UPS_WATCH: frozenset({"C-FIND", "N-GET", REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND}),
    conformance.UPS_QUERY: frozenset({"C-FIND"}),
    conformance.MODALITY_WORKLIST_FIND: frozenset({"C-FIND"}),
}


def _bordered(handler: Callable[[Service, evt.Event], Answer]) -> Callable[[Service, evt.Event], Answer]:
    """Answer a refusal with its status and its words, and a fault of ours with a processing failure."""

    @wraps(handler)
    def answered(self: Service, event: evt.Event) -> Answer:
        try:
            return handler(self, event)
        except ReadingRefused as refusal:
            return self.refused(event, refusal.status, str(refusal))
        except Exception:  # noqa: BLE001  # the border of the SCP: the association and the desk live on
            logbook.get().exception("worklist request failed", peer=_calling(event))
            return _status(requests.PROCESSING_FAILURE, "a fault of the node; its log has more"), None

    return answered


class Service:
    """Answers the messages of all associations; `ring` wakes who sends reports."""

    def __init__(self, settings: Settings, journal: Journal, catalogue: Catalogue, *, ring: Callable[[], None]) -> None:
        self._settings = settings
        self._journal = journal
        self._catalogue = catalogue
        self._ring = ring
        self._told = audit.Told()

    def refused(self, event: evt.Event, status: int, words: str) -> Answer:
        """The answer that says no."""
        logbook.get().warning("worklist request refused", peer=_calling(event), status=f"0x{status:04X}", why=words)
        return _status(status, words), None

    # ------------------------------------------------------------------ C-FIND, N-GET

    def find(self, event: evt.Event) -> Iterator[tuple[int | Dataset, Dataset | None]]:
        """Search for UPS (PS3.4 CC.2.8), or the Modality Worklist for who knows no UPS (PS3.4 K.4.1)."""
        started = time.monotonic()
        if "C-FIND" not in ALLOWED.get(str(event.context.abstract_syntax), frozenset()):
            yield self.refused(event, NOT_ALLOWED, "no queries in this presentation context")
            return
        try:
            keys = matching.keys_of(event.identifier)
            entries = self._catalogue.entries()
        except matching.BadKey as bad:
            yield self.refused(event, KEY_NOT_UNDERSTOOD, str(bad))
            return
        except Exception:  # noqa: BLE001  # the border of the SCP
            logbook.get().exception("worklist request failed", peer=_calling(event))
            yield _status(NOT_PROCESSED, "a fault of the node; its log has more"), None
            return
        as_modality_worklist = event.context.abstract_syntax == conformance.MODALITY_WORKLIST_FIND
        known = {*procedure_step.ATTRIBUTES, *(modality_worklist.ATTRIBUTES if as_modality_worklist else ())}
        pending = PENDING if all(key.tag in known for key in keys) else PENDING_WITHOUT_SOME_KEYS
        words = "Modality Worklist, by DICOM" if as_modality_worklist else "reading worklist, by DICOM"
        self._tell(event, AuditEvent.QUERY, None, words)
        implicit = UID(str(event.context.transfer_syntax)).is_implicit_VR
        found = 0
        for entry in entries:
            if event.is_cancelled:
                yield CANCELLED, None
                break
            try:
                answer = _answer(entry, keys, as_modality_worklist=as_modality_worklist, implicit=implicit)
            except Exception:  # noqa: BLE001  # a border round each: one that cannot be answered must not end the list
                logbook.get().exception("left out of an answer", workitem=entry.item.workitem_uid)
                continue
            if answer is not None:
                found += 1
                yield pending, answer
        logbook.get().info(
            "worklist queried", peer=_calling(event), found=found, seconds=round(time.monotonic() - started, 3)
        )

    @_bordered
    def get(self, event: evt.Event) -> Answer:
        """Get UPS information (PS3.4 CC.2.7)."""
        entry = self._entry(self._named(event, "N-GET"))
        tags = tuple(int(tag) for tag in event.attribute_identifiers)
        answer = values.to_dataset(procedure_step.attributes(entry, tags))
        self._tell(event, AuditEvent.INSTANCES_ACCESSED, entry.item.study_instance_uid, "workitem, by DICOM")
        return workitem.SUCCESS, answer

    def _entry(self, uid: str) -> Entry:
        entry = self._catalogue.entry(uid)
        if entry is None:
            raise _no_such(uid)
        return entry

    # ------------------------------------------------------------------ N-CREATE, N-SET

    @_bordered
    def create(self, event: evt.Event) -> Answer:
        """Create a UPS (PS3.4 CC.2.5): a study that is ordered."""
        uid = self._named(event, "N-CREATE")
        if not UID(uid).is_valid:
            raise ReadingRefused("the request names no SOP Instance UID", status=0x0117)
        order, is_whole = requests.order(uid, event.attribute_list)
        item = orders.place(self._journal, order, f"{procedure_step.AE_PREFIX}{_calling(event)}", time.time())
        self._done("worklist ordered", event, item.study_instance_uid)
        answer = Dataset()
        answer.ScheduledProcedureStepModificationDateTime = procedure_step.moment(item.changed_at)
        answer.InputReadinessState = self._entry(uid).readiness
        return workitem.SUCCESS if is_whole else requests.CREATED_WITH_MODIFICATIONS, answer

    @_bordered
    def set(self, event: evt.Event) -> Answer:
        """Set UPS information (PS3.4 CC.2.6): its performer describes what it does."""
        changes, uid = event.modification_list, self._named(event, "N-SET")
        outcome = workitems.set_performed(
            self._journal,
            uid,
            time.time(),
            transaction_uid=_transaction_uid(changes),
            merged=lambda item: requests.with_changes(item, changes),
            progress=requests.progress(changes),
        )
        self._accept(outcome, uid)
        self._done("worklist described", event, self._entry(uid).item.study_instance_uid)
        answer = Dataset()
        answer.ScheduledProcedureStepModificationDateTime = procedure_step.moment(self._entry(uid).item.changed_at)
        return workitem.SUCCESS, answer

    # ------------------------------------------------------------------ N-ACTION

    @_bordered
    def act(self, event: evt.Event) -> Answer:
        """Change state, request cancel, subscribe, unsubscribe, suspend (PS3.4 CC.2.1 to CC.2.3)."""
        action = int(event.action_type or 0)
        if action not in range(CHANGE_STATE, SUSPEND + 1):
            raise ReadingRefused(f"there is no action of type {action}", status=NO_SUCH_ACTION)
        uid, request = self._named(event, action), cast("Any", event.request)
        information = event.action_information if request.ActionInformation else Dataset()
        status = self._ACTIONS[action](self, event, uid, information)
        self._ring()
        return (status, None) if status == workitem.SUCCESS else (_status(status, workitem.MEANINGS[status]), None)

    def _change_state(self, event: evt.Event, uid: str, information: Dataset) -> int:
        try:
            wanted = StepState(str(information.get("ProcedureStepState", "")))
        except ValueError:
            allowed = ", ".join(StepState)
            raise ReadingRefused(f"Procedure Step State must be one of {allowed}", status=0x0115) from None
        missing: tuple[str, ...] = ()

        def is_described(item: Workitem) -> bool:
            nonlocal missing
            if wanted is StepState.COMPLETED and not self._settings.ups.complete_descriptions:
                missing = requests.missing_at_completion(item)
            return not missing

        by = f"{procedure_step.AE_PREFIX}{_calling(event)}"
        outcome = workitems.change_state(
            self._journal,
            uid,
            wanted,
            by,
            time.time(),
            transaction_uid=_transaction_uid(information),
            is_described=is_described,
        )
        if outcome.status == workitem.FINAL_STATE_NOT_MET:
            raise ReadingRefused(f"set first: {', '.join(missing)}", status=outcome.status)
        self._accept(outcome, uid)
        self._done(f"worklist {wanted.lower()}", event, self._entry(uid).item.study_instance_uid)
        return outcome.status

    def _request_cancel(self, event: evt.Event, uid: str, information: Dataset) -> int:
        detail = requests.cancellation(information)
        words = detail.pop("words", "")
        by = f"{procedure_step.AE_PREFIX}{_calling(event)}"
        outcome = workitems.request_cancel(self._journal, uid, by, time.time(), detail=detail, words=words)
        self._accept(outcome, uid)
        self._done("worklist cancel requested", event, self._entry(uid).item.study_instance_uid)
        return outcome.status

    def _subscribe(self, event: evt.Event, uid: str, information: Dataset) -> int:
        ae_title = self._subscriber(event, information)
        lock = requests.is_locked(information)
        if uid == GLOBAL:
            subscriptions.subscribe_globally(self._journal, ae_title, time.time(), deletion_lock=lock)
        elif uid == FILTERED:
            self._subscribe_filtered(ae_title, information, lock=lock)
        elif not subscriptions.subscribe(self._journal, ae_title, uid, time.time(), deletion_lock=lock):
            raise _no_such(uid)
        logbook.get().info("worklist subscribed", peer=ae_title, workitem=uid)
        return workitem.SUCCESS

    def _subscribe_filtered(self, ae_title: str, information: Dataset, *, lock: bool) -> None:
        wanted = Dataset()
        wanted.update(
            {element.tag: element for element in information if element.keyword not in ("DeletionLock", "ReceivingAE")}
        )
        try:
            keys = matching.keys_of(wanted)
            filter_json = values.to_json(wanted)
        except ValueError as error:
            raise ReadingRefused(str(error), status=requests.INVALID_VALUE) from error
        found = [entry.item.workitem_uid for entry in self._catalogue.entries() if matching.matches(keys, entry.get)]
        subscriptions.subscribe_globally(
            self._journal, ae_title, time.time(), deletion_lock=lock, filter_json=filter_json, matching=found
        )

    def _unsubscribe(self, event: evt.Event, uid: str, information: Dataset) -> int:
        ae_title = self._subscriber(event, information)
        if uid in (GLOBAL, FILTERED):
            subscriptions.unsubscribe_globally(self._journal, ae_title, time.time())
        elif not subscriptions.unsubscribe(self._journal, ae_title, uid):
            raise _no_such(uid)
        logbook.get().info("worklist unsubscribed", peer=ae_title, workitem=uid)
        return workitem.SUCCESS

    def _suspend(self, event: evt.Event, uid: str, information: Dataset) -> int:
        if uid not in (GLOBAL, FILTERED):
            raise ReadingRefused("only a global subscription is suspended", status=workitem.ACTION_NOT_APPROPRIATE)
        subscriptions.suspend_globally(self._journal, self._subscriber(event, information))
        return workitem.SUCCESS

    def _subscriber(self, event: evt.Event, information: Dataset) -> str:
        """The AE title that is to hear; it must be configured, since its address is in no message (PS3.4 CC.2.3.2)."""
        ae_title = str(information.get("ReceivingAE", "") or "").strip() or _calling(event)
        if ae_title not in {one.ae_title for one in self._settings.ups.subscribers}:
            raise ReadingRefused(f"{ae_title!r} is not among ups.subscribers", status=workitem.RECEIVING_AE_UNKNOWN)
        return ae_title

    _ACTIONS: Final[Mapping[int, Callable[[Service, evt.Event, str, Dataset], int]]] = {
        CHANGE_STATE: _change_state,
        REQUEST_CANCEL: _request_cancel,
        SUBSCRIBE: _subscribe,
        UNSUBSCRIBE: _unsubscribe,
        SUSPEND: _suspend,
    }

    # ------------------------------------------------------------------ what all have in common

    def _named(self, event: evt.Event, what: str | int) -> str:
        """SOP Instance UID that the message names. Raises ReadingRefused where its context does not carry it."""
        request = cast("Any", event.request)
        side = "Affected" if what == "N-CREATE" else "Requested"
        sop_class_uid = str(getattr(request, f"{side}SOPClassUID"))
        if sop_class_uid != conformance.UPS_PUSH:
            raise ReadingRefused(
                f"SOP class {sop_class_uid}: every message names UPS Push (PS3.4 CC.3.1)", status=NO_SUCH_SOP_CLASS
            )
        if what not in ALLOWED.get(str(event.context.abstract_syntax), frozenset()):
            name = UID(str(event.context.abstract_syntax)).name
            words = what if isinstance(what, str) else f"action {what}"
            status = NO_SUCH_ACTION if isinstance(what, int) else NOT_ALLOWED
            raise ReadingRefused(f"{words} is not for {name}", status=status)
        return str(getattr(request, f"{side}SOPInstanceUID") or "")

    def _accept(self, outcome: Outcome, uid: str) -> None:
        if outcome.status == workitem.NO_SUCH_WORKITEM:
            raise _no_such(uid)
        if outcome.is_refusal:
            raise ReadingRefused(outcome.words, status=outcome.status)

    def _tell(self, event: evt.Event, what: AuditEvent, study: str | None, words: str) -> None:
        """Who looks at what, as often as the page tells it; the title is what the peer calls itself."""
        user, address = f"{procedure_step.AE_PREFIX}{_calling(event)}", str(event.assoc.requestor.address)
        if self._told.again((what, user, address, study or "", words), time.monotonic()):
            told = audit.Entry(event=what, user=user, address=address, study=study, words=words)
            audit.record(self._journal, told, time.time())

    def _done(self, what: str, event: evt.Event, study: str | None) -> None:
        logbook.get().info(what, peer=_calling(event), study=study)
        self._ring()


def _answer(
    entry: Entry, keys: tuple[matching.Key, ...], *, as_modality_worklist: bool, implicit: bool
) -> Dataset | None:
    """What is answered of a reading task to a query; None where it does not match."""
    get = partial(modality_worklist.get, entry) if as_modality_worklist else entry.get
    if as_modality_worklist and not modality_worklist.stands_in_it(entry):
        return None
    if not matching.matches(keys, get):
        return None
    answer = matching.answer(keys, get)
    if not as_modality_worklist:
        answer |= values.of(SOPClassUID=conformance.UPS_PUSH, SOPInstanceUID=entry.item.workitem_uid)
    return encoding.dataset(answer, implicit=implicit)


def _no_such(uid: str) -> ReadingRefused:
    return ReadingRefused(f"{workitem.MEANINGS[workitem.NO_SUCH_WORKITEM]}: {uid}", status=workitem.NO_SUCH_WORKITEM)


def _calling(event: evt.Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _transaction_uid(dataset: Dataset) -> str | None:
    return str(dataset.get("TransactionUID", "") or "") or None


def _status(status: int, words: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = words[:64]  # (0000,0902) LO
    return answer
