"""Opens associations as SCU, for the sender and for the command line.

pynetdicom reads answers in the calling thread, but the association's own thread also asks for messages, without
waiting, in case the peer requests something. It is told to pause while the caller waits for an answer; when it is
descheduled between being woken and saying so, the caller goes on and the thread takes the answer away, which then
looks like a peer that did not answer for the whole DIMSE time-out. Met under load; an SCU is requested nothing, with
one exception: the peer of a storage commitment request may send its N-EVENT-REPORT on the same association (PS3.4
section J.3.3). pynetdicom hands such a message to a thread of its own, whose way through the library would leave the
caller waiting for ever; here it is answered without touching what the caller waits for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, build_role
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from triage_node.errors import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pydicom.dataset import Dataset

MAXIMUM_PDU_BYTES = 131_072


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An application entity that is called."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


class _Answers(DIMSEServiceProvider):
    """Gives messages to who waits for one, and to nobody else; lets one message out at a time."""

    sending: threading.Lock

    def send_msg(self, primitive: Any, context_id: int) -> None:
        with self.sending:  # the fragments of two messages must not mix (PS3.7 section 6.3.1)
            super().send_msg(primitive, context_id)

    def get_msg(self, block: bool = False) -> tuple[int | None, object]:  # type: ignore[override]  # any message
        return super().get_msg(block=True) if block else (None, None)


class _Requestor(Association):
    """Answers the N-EVENT-REPORTs of its peer."""

    on_report: Callable[[N_EVENT_REPORT, str], int]
    serving: threading.Lock  # held until the answer to a report is sent

    def _serve_request(self, msg: Any, context_id: int) -> None:
        if not isinstance(msg, N_EVENT_REPORT):
            super()._serve_request(msg, context_id)
            return
        with self.serving:
            self._answer(msg, context_id)

    def _answer(self, msg: N_EVENT_REPORT, context_id: int) -> None:
        answer = N_EVENT_REPORT()
        answer.MessageIDBeingRespondedTo = msg.MessageID
        answer.AffectedSOPClassUID = msg.AffectedSOPClassUID
        answer.AffectedSOPInstanceUID = msg.AffectedSOPInstanceUID
        answer.EventTypeID = msg.EventTypeID
        context = self._accepted_cx.get(context_id)
        syntax = "" if context is None else str(context.transfer_syntax[0])
        answer.Status = self.on_report(msg, syntax)
        if self.is_established:
            self.dimse.send_msg(answer, context_id)


def associate(
    ae_title: str,
    peer: Peer,
    contexts: Sequence[tuple[str, tuple[str, ...]]],
    *,
    timeout_s: float,
    idle_s: float = 0.0,
    on_report: Callable[[N_EVENT_REPORT, str], int] | None = None,
    as_scp: bool = False,
) -> Association:
    """Open an association that offers `contexts`: abstract syntaxes with their transfer syntaxes.

    `as_scp` asks for the other role: who opens an association is SCU unless both agree (PS3.7 section D.3.3.4).

    It may be idle for `idle_s` where that is longer than `timeout_s`. `on_report` is called in a thread of its own with
    each N-EVENT-REPORT of the peer and the transfer syntax it came in; it returns the status to answer with.

    Raises DeliveryFailed when the peer cannot be reached, does not want to talk, or takes none of them.
    """
    _config.LOG_HANDLER_LEVEL = "none"  # its handlers cost time and print identifiers
    ae = AE(ae_title=ae_title)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = timeout_s
    ae.network_timeout = max(timeout_s, idle_s)
    ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
    # not ae.add_requested_context: it makes one context of two for the same abstract syntax
    ae.requested_contexts = [build_context(sop_class_uid, list(syntaxes)) for sop_class_uid, syntaxes in contexts]
    try:
        roles: list[Any] = [build_role(sop_class_uid, scp_role=True) for sop_class_uid, _ in contexts if as_scp]
        association = ae.associate(peer.host, peer.port, ae_title=peer.ae_title, ext_neg=roles or None)
    except OSError as error:  # the host has no address
        raise DeliveryFailed(f"{peer} cannot be reached: {error.strerror or error}", retry=True) from error
    if association.is_established:
        # Nothing has been asked yet, so no answer can be under way; the library offers no place to say of which class.
        answers = association.dimse
        answers.__class__ = _Answers
        assert isinstance(answers, _Answers)
        answers.sending = threading.Lock()
        if on_report is not None:
            association.__class__ = _Requestor
            assert isinstance(association, _Requestor)
            association.on_report = on_report
            association.serving = threading.Lock()
        return association
    if association.is_rejected:
        answer = association.acceptor.primitive
        why = "" if answer is None else f": {answer.result_str}, {answer.reason_str}"
        raise DeliveryFailed(f"{peer} rejected the association{why}", retry=True)
    if association.rejected_contexts:
        raise DeliveryFailed(f"{peer} accepts no such objects", retry=False)
    if association.is_aborted:
        raise DeliveryFailed(
            f"{peer} does not answer (no connection, or aborted): is it running, is the port right?", retry=True
        )
    raise DeliveryFailed(f"{peer} cannot be reached", retry=True)


def release(association: Association) -> None:
    """Release an association that is still open, after the answer to a report that has come on it."""
    if isinstance(association, _Requestor):
        with association.serving:
            pass
    if association.is_established:
        association.release()


def cut(association: Association) -> None:
    """End an association from another thread; who waits for an answer learns that there will be none."""
    if association.is_established:
        association.abort()
        association.dimse.msg_queue.put((None, None))


def store(association: Association, path: Path, sop_class_uid: str, kind: str) -> tuple[int, str]:
    """Send one Part 10 file, a `kind` object to people; returns the C-STORE status and its meaning.

    Raises DeliveryFailed when no status came, or when the peer takes no such object.
    """
    if not association.is_established:
        raise DeliveryFailed("the association was lost before the object was sent", retry=True)
    if sop_class_uid not in {str(context.abstract_syntax) for context in association.accepted_contexts}:
        raise DeliveryFailed(f"the destination accepts no such object ({kind}, SOP class {sop_class_uid})", retry=False)
    try:
        answer = association.send_c_store(_deflated(path) if _takes_deflated(association, sop_class_uid) else path)
    except (ValueError, AttributeError, InvalidDicomError) as error:
        raise DeliveryFailed(f"the {kind} object cannot be sent: {error}", retry=True) from error
    except (RuntimeError, OSError) as error:
        raise DeliveryFailed(f"the association was lost while sending: {error}", retry=True) from error
    if "Status" not in answer:
        raise DeliveryFailed("no answer to the C-STORE request: timed out or aborted", retry=True)
    status = int(answer.Status)
    severity, meaning = STORAGE_SERVICE_CLASS_STATUS.get(status, ("Unknown", ""))
    comment = str(answer.get("ErrorComment", ""))
    return status, ", ".join(text for text in (f"0x{status:04X} {severity}", meaning, comment) if text)


def _takes_deflated(association: Association, sop_class_uid: str) -> bool:
    """Whether the peer has accepted Deflated Explicit VR Little Endian, which is offered only where it is wanted."""
    return any(
        context.abstract_syntax == sop_class_uid and context.transfer_syntax[0] == DeflatedExplicitVRLittleEndian
        for context in association.accepted_contexts
    )


def _deflated(path: Path) -> Dataset:
    """The data set of a file as it is sent deflated (PS3.5 section A.5)."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset
