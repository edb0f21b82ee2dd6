"""DICOM intake: Verification and Storage SCP (PS3.4 annexes A and B), and reports of storage commitment (annex J).

A C-STORE request is answered 0x0000 only when the instance is written, synced, in its place and journalled. Nothing
is decoded and nothing else runs in this process. What a peer may make it hold is bounded in `transport`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.pdu_primitives import A_RELEASE

from triage_node import admission, conformance, filing, logbook, transport
from triage_node.archive import Archive
from triage_node.commitment import Reports
from triage_node.custody import Custody
from triage_node.errors import (
    CannotUnderstand,
    DataSetMismatch,
    OutOfResources,
    StorageRefused,
)
from triage_node.journal import Journal, intake

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association

    from triage_node.config import Settings

SUCCESS = 0x0000
REJECT_TRANSIENT_LIMIT = (0x02, 0x03, 0x02)  # PS3.8 table 9-21: local limit exceeded, the peer may try again
REJECT_CALLING_AE = (0x01, 0x01, 0x03)  # calling AE title not recognised
STOP_GRACE_S = 4.0
ABORT_GRACE_S = 2.0
WRITABLE_CHECK_S = 1.0
PROBE = bytes(4096)  # nothing at all can still be written to a full disk


@dataclass(slots=True)
class _Sender:
    """What one association has brought so far."""

    peer_ae: str
    address: str
    opened_at: float
    association_id: int | None = None  # None while the journal takes nothing
    counts: Counter[str] = field(default_factory=Counter)
    study_uids: set[str] = field(default_factory=set)


class Receiver:
    """The Storage SCP of one state directory."""

    def __init__(self, settings: Settings, journal: Journal, *, ring: Callable[[], None]) -> None:
        """`ring` wakes the desk when something worth a look has arrived."""
        self.settings = settings
        self.journal = journal
        self.archive = Archive(settings.state_dir)
        self._custody = Custody(journal, self.archive)
        self._reports = Reports(settings, journal, ring=ring)
        self._ring = ring
        self._log = logbook.get()
        self._lock = threading.Lock()
        self._admitted: set[Association] = set()
        self._senders: dict[Association, _Sender] = {}
        self._unclosed: list[tuple[int, str, float]] = []
        self._recovered = False
        self._room_checked_at = float("-inf")
        self._room_problem: str | None = None
        self._server: transport.Server | None = None

    def start(self) -> tuple[str, int]:
        """Adopt what an earlier receiver left, then listen; returns the address. Raises OSError if it is in use."""
        problem = self._room()
        if problem:
            self._log.error("associations are rejected", why=problem)
        section = self.settings.intake
        _config.LOG_HANDLER_LEVEL = "none"  # its handlers cost time and print identifiers
        ae = AE(ae_title=self.settings.node.ae_title)
        ae.require_called_aet = True
        connections = section.maximum_associations + transport.SPARE_CONNECTIONS
        ae.maximum_associations = connections + 1  # pynetdicom counts bare connections; `_on_requested` does not
        ae.maximum_pdu_size = section.maximum_pdu_bytes
        ae.network_timeout = section.network_timeout_s
        for context in conformance.accepted(keep_other_sop_classes=section.keep_other_sop_classes):
            ae.add_supported_context(
                context.sop_class_uid,
                list(context.transfer_syntaxes),
                scu_role=context.peer_may_be_scu,
                scp_role=context.peer_may_be_scp,
            )
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_REJECTED, transport.on_rejected),
            (evt.EVT_ACSE_SENT, self._on_acse_sent),
            (evt.EVT_CONN_CLOSE, transport.on_connection_closed),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_EVENT_REPORT, self._on_report),
        ]
        server = ae.make_server(
            (section.host, section.port),
            evt_handlers=handlers,
            server_class=transport.Server,
            maximum_connections=connections,
            maximum_instance_bytes=section.maximum_instance_bytes,
            on_ended=self._on_ended,
        )
        assert isinstance(server, transport.Server)
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        host, port = server.server_address[:2]
        self._log.info("listening", ae_title=self.settings.node.ae_title, host=host, port=port)
        return str(host), int(port)

    def stop(self) -> None:
        """Accept nothing new, let running associations finish for a few seconds, abort the rest."""
        assert self._server is not None
        self._server.accept_nothing_new()
        deadline = time.monotonic() + STOP_GRACE_S
        while self._senders and time.monotonic() < deadline:
            time.sleep(0.05)
        self._server.end(ABORT_GRACE_S)
        for association in list(self._senders):
            self._close(association, "aborted")

    def _recover(self) -> None:
        """Put in order what an earlier receiver left. Raises OSError or sqlite3.Error when nothing can be written."""
        self.archive.prepare()
        cut_off = intake.cut_off_associations(self.journal, time.time())
        adopted = self._custody.adopt()
        if cut_off or adopted:
            self._log.warning("recovered", associations_cut_off=cut_off, instances_adopted=adopted)
        self._recovered = True

    # ------------------------------------------------------------------ association

    def _on_requested(self, event: evt.Event) -> None:
        address = event.assoc.requestor.address
        request = event.assoc.requestor.primitive
        calling = "" if request is None else str(request.calling_ae_title).strip()
        if not admission.is_peer(self.settings.intake.peers, calling, address):
            self._log.warning("association rejected", peer=calling, address=address, why="not among intake.peers")
            event.assoc.acse.send_reject(*REJECT_CALLING_AE)
            event.assoc.kill()
            return
        problem = self._room() or self._admit(event.assoc)
        if problem:
            self._log.error("association rejected", peer=calling, address=address, why=problem)
            event.assoc.acse.send_reject(*REJECT_TRANSIENT_LIMIT)
            event.assoc.kill()

    def _admit(self, association: Association) -> str | None:
        limit = self.settings.intake.maximum_associations
        with self._lock:
            if len(self._admitted) >= limit:
                return f"{limit} associations are open already (intake.maximum_associations)"
            self._admitted.add(association)
        return None

    def _room(self) -> str | None:
        """Why nothing can be kept at the moment, or None; looked at once a second."""
        with self._lock:
            now = time.monotonic()
            if now - self._room_checked_at >= WRITABLE_CHECK_S:
                self._room_problem = self._look_for_room()
                self._room_checked_at = now
            return self._room_problem

    def _look_for_room(self) -> str | None:
        probe = self.archive.incoming_dir / "probe.part"
        try:
            if not self._recovered:
                self._recover()
            try:
                probe.write_bytes(PROBE)
            finally:
                probe.unlink(missing_ok=True)
            free = self.archive.free_bytes()
        except OSError as error:
            return f"the state directory cannot be written: {error.strerror}"
        except sqlite3.Error as error:
            return f"the journal cannot be written: {error}"
        if free < self.settings.intake.minimum_free_bytes:
            return f"{free} bytes free, intake.minimum_free_bytes is {self.settings.intake.minimum_free_bytes}"
        return None

    def _on_accepted(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        sender = _Sender(peer_ae=requestor.ae_title, address=requestor.address, opened_at=time.time())
        self._senders[event.assoc] = sender
        try:
            self._close_what_is_left()
            self._number_of(sender)
        except sqlite3.Error as error:  # the first C-STORE tries again
            self._log.error("association not journalled", peer=sender.peer_ae, why=str(error))

    def _number_of(self, sender: _Sender) -> int:
        if sender.association_id is None:
            sender.association_id = intake.open_association(
                self.journal, sender.peer_ae, sender.address, sender.opened_at
            )
        return sender.association_id

    def _on_acse_sent(self, event: evt.Event) -> None:
        # Before the answer to a release is sent: once the peer has it, the journal has it too.
        if isinstance(getattr(event, "primitive", None), A_RELEASE):
            self._close(event.assoc, "released")

    def _on_ended(self, association: Association) -> None:
        self._close(association, "aborted")

    def _close(self, association: Association, ending: str) -> None:
        """Note the end of an association, once."""
        with self._lock:
            self._admitted.discard(association)
        sender = self._senders.pop(association, None)
        if sender is None:
            return
        now = time.time()
        if sender.association_id is not None:
            self._unclosed.append((sender.association_id, ending, now))
            try:
                self._close_what_is_left()
            except sqlite3.Error as error:  # the next association tries again
                self._log.error("end of association not journalled", peer=sender.peer_ae, why=str(error))
        line = {
            "peer": sender.peer_ae,
            "address": sender.address,
            **sender.counts,
            "seconds": round(now - sender.opened_at, 2),
        }
        write = self._log.info if ending == "released" else self._log.warning
        for study in sorted(sender.study_uids):
            write(f"association {ending}", study=study, **line)
        if not sender.study_uids:
            write(f"association {ending}", **line)
        self._ring()

    def _close_what_is_left(self) -> None:
        for one in list(self._unclosed):
            intake.close_association(self.journal, *one)
            if one in self._unclosed:  # another thread may have been as fast: closing twice changes nothing
                self._unclosed.remove(one)

    # ------------------------------------------------------------------ services

    def _on_echo(self, _: evt.Event) -> int:
        return SUCCESS

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        request = event.request
        assert isinstance(request, N_EVENT_REPORT)
        status = self._reports.receive(request, str(event.context.transfer_syntax), event.assoc.requestor.ae_title)
        assert self._server is not None
        self._server.memory.free(event.assoc)
        return status, None

    def _on_store(self, event: evt.Event) -> Dataset:
        sender = self._senders.get(event.assoc)
        answer = Dataset()
        answer.Status = SUCCESS
        outcome = "kept"
        try:
            outcome, study = self._store(event, sender)
            if sender:
                sender.study_uids.add(study)
        except StorageRefused as refusal:
            outcome = "refused"
            answer.Status = refusal.status
            answer.ErrorComment = str(refusal)[:64]  # (0000,0902) LO
            self._log.warning(
                "instance refused",
                status=f"0x{refusal.status:04X}",
                why=str(refusal),
                peer=event.assoc.requestor.ae_title,
            )
        except Exception:  # noqa: BLE001  # the border of the SCP: the association and the receiver live on
            outcome = "refused"
            answer.Status = OutOfResources.status
            self._log.exception("instance refused", status=f"0x{OutOfResources.status:04X}")
        if answer.Status == OutOfResources.status:
            self._room_checked_at = float("-inf")
        if sender:
            sender.counts[outcome] += 1
        assert self._server is not None
        self._server.memory.free(event.assoc)
        return answer

    def _store(self, event: evt.Event, sender: _Sender | None) -> tuple[str, str]:
        """Keep the instance of a request; returns the outcome and its Study Instance UID."""
        request = event.request
        assert isinstance(request, C_STORE)
        limit = self.settings.intake.maximum_instance_bytes
        if isinstance(request.DataSet, transport.Overflow):
            raise OutOfResources(f"the data set is over intake.maximum_instance_bytes ({limit}), or memory is short")
        if request.DataSet is None:
            raise CannotUnderstand("the request carries no data set")
        data = request.DataSet.getbuffer()
        if len(data) > limit:
            raise OutOfResources(f"the data set has {len(data)} bytes, over intake.maximum_instance_bytes")
        syntax = str(event.context.transfer_syntax)
        header = filing.read_header(data, syntax)
        if header.sop_instance_uid != str(request.AffectedSOPInstanceUID):
            raise DataSetMismatch("SOP Instance UID differs between request and data set")
        if header.sop_class_uid != str(request.AffectedSOPClassUID):
            raise DataSetMismatch("SOP Class UID differs between request and data set")
        if header.sop_class_uid != str(event.context.abstract_syntax):
            raise DataSetMismatch("SOP Class UID is not that of the presentation context")
        parts = (b"\0" * 128 + b"DICM" + encode_file_meta(event.file_meta), data)
        try:
            association_id = self._number_of(sender) if sender else None
            new = self._custody.keep(header, syntax, parts, association_id=association_id)
        except sqlite3.Error as error:
            raise OutOfResources(f"the journal cannot take the instance: {error}") from error
        return "kept" if new else "known already", header.study_instance_uid


def run(settings: Settings, *, ring: Callable[[], None], stop: threading.Event) -> int:
    """The receiver process: listen until `stop`; returns the exit status."""
    log = logbook.get()
    journal = Journal(settings.state_dir, "receiver")
    receiver = Receiver(settings, journal, ring=ring)
    try:
        receiver.start()
    except OSError as error:
        section = settings.intake
        why = error.strerror or str(error)
        log.error("cannot listen", host=section.host, port=section.port, why=why)  # noqa: TRY400  # says it all
        return 3
    stop.wait()
    receiver.stop()
    journal.close()
    log.info("stopped")
    return 0
