"""Storage Commitment Push Model as SCP (PS3.4 annex J): reports on the same association, on a new one, late, never."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import AE, build_role, evt

from soaking import register as registers
from soaking.misbehaviour import Dice, Misbehaviour, Occasion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pynetdicom.association import Association

    from soaking.register import Register
    from soaking.unreliable import Pace

PUSH_MODEL = "1.2.840.10008.1.20.1"  # the SOP class, and its one well-known instance
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST = 1  # the only action type, PS3.4 table J.3-1
ALL_WELL, FAILURES = 1, 2  # event types, PS3.4 table J.3-2
NO_SUCH_ACTION, RESOURCE_LIMITATION = 0x0123, 0x0213
NO_SUCH_OBJECT = 0x0112  # failure reason, PS3.3 section C.14.1.1
REPORT_TRIES, REPORT_AGAIN_S = 3, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Where a sender listens for reports."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request: its transaction and the objects it is about as (SOP Class UID, SOP Instance UID)."""

    transaction_uid: str
    objects: tuple[tuple[str, str], ...]
    calling_ae: str


class Committing:
    """Answers N-ACTION and sends N-EVENT-REPORT as the dice decide."""

    def __init__(
        self,
        register: Register,
        dice: Dice,
        pace: Pace,
        ae_title: str,
        report_to: Mapping[str, Node],
        stopping: threading.Event,
    ) -> None:
        self._register = register
        self._dice = dice
        self._pace = pace
        self._ae_title = ae_title
        self._report_to = report_to
        self._stopping = stopping
        self._reporting: list[threading.Thread] = []

    def on_action(self, event: evt.Event) -> tuple[int, Dataset | None]:
        """Handle one request; the report goes out from a thread of its own."""
        if event.action_type != REQUEST:
            return NO_SUCH_ACTION, None
        information = event.action_information
        asked = Asked(
            transaction_uid=str(information.TransactionUID),
            objects=tuple(
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in information.ReferencedSOPSequence
            ),
            calling_ae=event.assoc.requestor.ae_title.strip(),
        )
        about = " ".join(sorted(uid for _, uid in asked.objects))
        misbehaviour = self._dice.throw(Occasion.COMMITMENT, about)
        self._register.write(
            registers.COMMITMENT,
            transaction_uid=asked.transaction_uid,
            objects=[uid for _, uid in asked.objects],
            how=misbehaviour,
        )
        if misbehaviour is not None:
            self._register.write(
                registers.MISBEHAVED, what=misbehaviour, occasion=Occasion.COMMITMENT, about=asked.transaction_uid
            )
        match misbehaviour:
            case Misbehaviour.COMMIT_REFUSED:
                return RESOURCE_LIMITATION, None
            case Misbehaviour.COMMIT_ABORT:
                event.assoc.abort(block=False)
                return RESOURCE_LIMITATION, None
            case Misbehaviour.COMMIT_FORGET:
                any(self._register.forget(uid) for _, uid in asked.objects)
                self._later(self._on_same, event.assoc, asked)
            case Misbehaviour.REPORT_EARLY:
                self._on_new(asked)
            case Misbehaviour.REPORT_ANEW:
                self._later(self._on_new, asked)
            case Misbehaviour.REPORT_LATE:
                self._later(self._late, asked)
            case Misbehaviour.REPORT_TWICE:
                self._later(self._twice, event.assoc, asked)
            case Misbehaviour.REPORT_NEVER:
                pass
            case _:
                self._later(self._on_same, event.assoc, asked)
        return 0x0000, None

    def join(self) -> None:
        """Wait for the reports that are under way."""
        for thread in self._reporting:
            thread.join(10)

    def _later(self, report: object, *arguments: object) -> None:
        thread = threading.Thread(target=report, args=arguments, daemon=True)  # type: ignore[arg-type]  # callables
        self._reporting = [one for one in self._reporting if one.is_alive()] + [thread]
        thread.start()

    def _on_same(self, association: Association, asked: Asked) -> None:
        """Report on the association of the request; on a new one where it has been released meanwhile."""
        if not (association.is_established and self._report(association, asked, "same association")):
            self._on_new(asked)

    def _late(self, asked: Asked) -> None:
        if not self._stopping.wait(self._pace.late_s):
            self._on_new(asked)

    def _twice(self, association: Association, asked: Asked) -> None:
        self._on_same(association, asked)
        self._on_new(asked)

    def _on_new(self, asked: Asked) -> None:
        """Call the sender, as SCP of the service (PS3.7 section D.3.3.4); a sender that is away is called again."""
        node = self._report_to.get(asked.calling_ae)
        if node is None:
            return
        ae = AE(ae_title=self._ae_title)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
        ae.add_requested_context(PUSH_MODEL)
        for _ in range(REPORT_TRIES):
            association = ae.associate(
                node.host,
                node.port,
                ae_title=asked.calling_ae,
                ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
            )
            if association.is_established:
                done = bool(association.accepted_contexts) and self._report(association, asked, "new association")
                association.release()
                if done:
                    return
            if self._stopping.wait(REPORT_AGAIN_S):
                return

    def _report(self, association: Association, asked: Asked, where: str) -> bool:
        """Say which of the objects lie here now; whether the sender answered with success."""
        with self._register.lock:
            safe = [one for one in asked.objects if self._register.held(one[1])]
            lost = [one for one in asked.objects if one not in safe]
            # Before it is sent: who has the report may count on it, whatever happens to this process.
            self._register.write(
                registers.REPORTED,
                transaction_uid=asked.transaction_uid,
                committed=[uid for _, uid in safe],
                failed=[uid for _, uid in lost],
                where=where,
            )
        information = Dataset()
        information.TransactionUID = asked.transaction_uid
        information.RetrieveAETitle = self._ae_title
        if safe:
            information.ReferencedSOPSequence = Items([_reference(*one) for one in safe])
        if lost:
            information.FailedSOPSequence = Items([_reference(*one, failure=NO_SUCH_OBJECT) for one in lost])
        try:
            status, _ = association.send_n_event_report(
                information,
                FAILURES if lost else ALL_WELL,
                PUSH_MODEL,
                PUSH_MODEL_INSTANCE,
            )
        except (RuntimeError, ValueError, OSError):  # the association ended meanwhile
            return False
        return "Status" in status and status.Status == 0x0000


def _reference(sop_class_uid: str, sop_instance_uid: str, *, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    if failure is not None:
        item.FailureReason = failure
    return item
