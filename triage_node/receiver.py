"""DICOM intake: Verification and Storage SCP (PS3.4 annexes A and B).

A C-STORE request is answered 0x0000 only when the instance is written, synced, in its place and journalled. Nothing
is decoded and nothing else runs in this process. What a peer may claim is bounded before memory is given to it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import socketserver
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from triage_node import conformance, filing, logbook
from triage_node.archive import Archive, digest_from, digest_of_file
from triage_node.errors import (
    CannotUnderstand,
    ConflictingInstance,
    DataSetMismatch,
    OutOfResources,
    StorageRefused,
)
from triage_node.journal import Journal, intake

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association

    from triage_node.config import IntakeSection, Settings

SUCCESS = 0x0000
REJECT_TRANSIENT_LIMIT = (0x02, 0x03, 0x02)  # PS3.8 table 9-21: local limit exceeded, the peer may try again
REJECT_CALLING_AE = (0x01, 0x01, 0x03)  # calling AE title not recognised
STOP_GRACE_S = 4.0
READ_BYTES = 65_536
# An A-ASSOCIATE-RQ with 128 contexts of 45 transfer syntaxes each stays under this.
MAXIMUM_CONTROL_PDU_BYTES = 1_048_576
WRITABLE_CHECK_S = 1.0
SPARE_CONNECTIONS = 32  # TCP connections above the association limit, for health checks and for polite rejections


class _BoundedSocket(AssociationSocket):
    """Reads in larger pieces, and never more than a PDU may be long (PS3.8 section 9.3.1)."""

    def recv(self, nr_bytes: int) -> bytearray:
        limit = max(MAXIMUM_CONTROL_PDU_BYTES, (self.assoc.acceptor.maximum_length or 0) + 6)
        if nr_bytes > limit:
            # pynetdicom treats this as a lost connection and frees the association
            raise OSError(f"the peer announces a PDU of {nr_bytes} bytes; at most {limit} were agreed")
        data = bytearray()
        while len(data) < nr_bytes:
            assert self.socket is not None
            piece = self.socket.recv(min(READ_BYTES, nr_bytes - len(data)))
            if not piece:
                break
            data += piece
        return data


class _Handler(RequestHandler):
    def _create_association(self) -> Association:
        assert isinstance(self.request, socket.socket)
        # Without this a sender that waits for each answer loses 40 ms an image to delayed acknowledgements.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association = super()._create_association()
        assert association.dul.socket is not None
        # The library makes the socket itself and offers no other place to say of which class.
        association.dul.socket.__class__ = _BoundedSocket
        return association


class _Server(ThreadedAssociationServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["request_handler"] = _Handler
        super().__init__(*args, **kwargs)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse a flood of connections before each costs a thread."""
        return len(self.active_associations) < self.ae.maximum_associations + SPARE_CONNECTIONS


@dataclass(slots=True)
class _Sender:
    """What one association has brought so far."""

    association_id: int
    opened_at: float
    counts: Counter[str] = field(default_factory=Counter)
    study_uids: set[str] = field(default_factory=set)


class Receiver:
    """The Storage SCP of one state directory."""

    def __init__(self, settings: Settings, journal: Journal, *, ring: Callable[[], None]) -> None:
        """`ring` wakes the desk when something worth a look has arrived."""
        self.settings = settings
        self.journal = journal
        self.archive = Archive(settings.state_dir)
        self._ring = ring
        self._log = logbook.get()
        self._senders: dict[Association, _Sender] = {}
        self._room_checked_at = float("-inf")
        self._room_problem: str | None = None
        self._server: _Server | None = None

    def start(self) -> tuple[str, int]:
        """Adopt what an earlier receiver left, then listen; returns the address. Raises OSError if it is in use."""
        self.archive.prepare()
        cut_off = intake.cut_off_associations(self.journal, time.time())
        adopted = adopt(self.journal, self.archive)
        if cut_off or adopted:
            self._log.warning("recovered", associations_cut_off=cut_off, instances_adopted=adopted)
        section = self.settings.intake
        _config.LOG_HANDLER_LEVEL = "none"  # its handlers cost time and print identifiers
        ae = AE(ae_title=self.settings.node.ae_title)
        ae.require_called_aet = True
        ae.maximum_associations = section.maximum_associations
        ae.maximum_pdu_size = section.maximum_pdu_bytes
        ae.network_timeout = section.network_timeout_s
        for sop_class_uid, syntaxes in accepted_contexts(section):
            ae.add_supported_context(sop_class_uid, list(syntaxes))
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_RELEASED, self._on_released),
            (evt.EVT_ABORTED, self._on_aborted),
            (evt.EVT_CONN_CLOSE, self._on_aborted),
            (evt.EVT_REJECTED, self._on_rejected),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_C_STORE, self._on_store),
        ]
        server = ae.make_server((section.host, section.port), evt_handlers=handlers, server_class=_Server)
        assert isinstance(server, _Server)
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        host, port = server.server_address[:2]
        self._log.info("listening", ae_title=self.settings.node.ae_title, host=host, port=port)
        return str(host), int(port)

    def stop(self) -> None:
        """Accept nothing new, let running associations finish for a few seconds, abort the rest."""
        assert self._server is not None
        socketserver.BaseServer.shutdown(self._server)  # pynetdicom's own would abort at once
        deadline = time.monotonic() + STOP_GRACE_S
        while self._senders and time.monotonic() < deadline:
            time.sleep(0.05)
        for association in self._server.active_associations:
            association.abort()
        self._server.server_close()
        for association in list(self._senders):
            self._close(association, "aborted")

    # ------------------------------------------------------------------ association

    def _on_requested(self, event: evt.Event) -> None:
        address = event.assoc.requestor.address
        request = event.assoc.requestor.primitive
        calling = "" if request is None else str(request.calling_ae_title).strip()
        if not may_send(self.settings.intake, calling, address):
            self._log.warning("association rejected", peer=calling, address=address, why="not among intake.peers")
            event.assoc.acse.send_reject(*REJECT_CALLING_AE)
            event.assoc.kill()
            return
        problem = self._room()
        if problem:
            self._log.error("association rejected", peer=calling, address=address, why=problem)
            event.assoc.acse.send_reject(*REJECT_TRANSIENT_LIMIT)
            event.assoc.kill()

    def _on_rejected(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        called = "" if requestor.primitive is None else str(requestor.primitive.called_ae_title).strip()
        why = (
            f"called AE title {called!r}, but this is {self.settings.node.ae_title!r}"
            if called != self.settings.node.ae_title
            else f"{self.settings.intake.maximum_associations} associations are open already"
        )
        self._log.warning("association rejected", peer=requestor.ae_title, address=requestor.address, why=why)

    def _room(self) -> str | None:
        """Why nothing can be kept at the moment, or None; looked at once a second."""
        now = time.monotonic()
        if now - self._room_checked_at >= WRITABLE_CHECK_S:
            self._room_checked_at = now
            self._room_problem = self._look_for_room()
        return self._room_problem

    def _look_for_room(self) -> str | None:
        probe = self.archive.incoming_dir / "probe.part"
        try:
            probe.write_bytes(b"")
            probe.unlink()
            free = self.archive.free_bytes()
        except OSError as error:
            return f"the state directory cannot be written: {error.strerror}"
        if free < self.settings.intake.minimum_free_bytes:
            return f"{free} bytes free, intake.minimum_free_bytes is {self.settings.intake.minimum_free_bytes}"
        return None

    def _on_accepted(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        now = time.time()
        number = intake.open_association(self.journal, requestor.ae_title, requestor.address, now)
        self._senders[event.assoc] = _Sender(association_id=number, opened_at=now)

    def _on_released(self, event: evt.Event) -> None:
        self._close(event.assoc, "released")

    def _on_aborted(self, event: evt.Event) -> None:
        self._close(event.assoc, "aborted")

    def _close(self, association: Association, ending: str) -> None:
        sender = self._senders.pop(association, None)
        if sender is None:
            return
        now = time.time()
        intake.close_association(self.journal, sender.association_id, ending, now)
        peer = {"peer": association.requestor.ae_title, "address": association.requestor.address}
        line = {**peer, **sender.counts, "seconds": round(now - sender.opened_at, 2)}
        write = self._log.info if ending == "released" else self._log.warning
        for study in sorted(sender.study_uids):
            write(f"association {ending}", study=study, **line)
        if not sender.study_uids:
            write(f"association {ending}", **line)
        self._ring()

    # ------------------------------------------------------------------ services

    def _on_echo(self, event: evt.Event) -> int:
        return SUCCESS

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
                "instance refused", status=f"0x{refusal.status:04X}", why=str(refusal), peer=event.assoc.requestor.ae_title
            )
        except Exception:  # the border of the SCP: the association and the receiver live on
            outcome = "refused"
            answer.Status = OutOfResources.status
            self._log.exception("instance refused", status=f"0x{OutOfResources.status:04X}")
        if sender:
            sender.counts[outcome] += 1
        return answer

    def _store(self, event: evt.Event, sender: _Sender | None) -> tuple[str, str]:
        """Keep the instance of a request; returns the outcome and its Study Instance UID."""
        request = event.request
        assert isinstance(request, C_STORE)
        if request.DataSet is None:
            raise CannotUnderstand("the request carries no data set")
        data = request.DataSet.getbuffer()
        if len(data) > self.settings.intake.maximum_instance_bytes:
            raise OutOfResources(f"the data set has {len(data)} bytes, over intake.maximum_instance_bytes")
        syntax = str(event.context.transfer_syntax)
        header = filing.read_header(data, syntax)
        if header.sop_instance_uid != str(request.AffectedSOPInstanceUID):
            raise DataSetMismatch("SOP Instance UID differs between request and data set")
        if header.sop_class_uid != str(request.AffectedSOPClassUID):
            raise DataSetMismatch("SOP Class UID differs between request and data set")
        digest = hashlib.sha256(data).hexdigest()
        prefix = b"\0" * 128 + b"DICM" + encode_file_meta(event.file_meta)
        parts = (prefix, data)
        known = intake.digest_kept(self.journal, header.sop_instance_uid)
        if known is None:
            file = self.archive.keep(header, parts)
            if file.already_there:  # a receiver died between file and journal, or another association is as far
                known = digest_of_file(file.path)
            if known in (None, digest):
                kept = intake.Kept(
                    header=header,
                    transfer_syntax_uid=syntax,
                    path=self.archive.relative(file.path),
                    digest=digest,
                    size_bytes=len(prefix) + len(data),
                )
                association_id = sender.association_id if sender else None
                if intake.add_instance(self.journal, kept, association_id=association_id, now=time.time()):
                    return "kept", header.study_instance_uid
                known = intake.digest_kept(self.journal, header.sop_instance_uid)
        if known != digest:
            place = self.archive.quarantine(header, digest, parts)
            with self.journal.writing() as database:
                self.journal.note(
                    database,
                    "conflicting instance quarantined",
                    study=header.study_instance_uid,
                    file=self.archive.relative(place),
                )
            raise ConflictingInstance("another object is kept under this SOP Instance UID")
        return "known already", header.study_instance_uid


def accepted_contexts(section: IntakeSection) -> list[tuple[str, tuple[str, ...]]]:
    """Abstract syntaxes with their transfer syntaxes as the receiver accepts them."""
    contexts = [
        (service.sop_class_uid, service.transfer_syntaxes) for service in conformance.services(conformance.Role.SCP)
    ]
    if section.keep_other_sop_classes:
        listed = {uid for uid, _ in contexts}
        contexts += [
            (str(context.abstract_syntax), conformance.EVERY_SYNTAX)
            for context in AllStoragePresentationContexts
            if context.abstract_syntax not in listed
        ]
    return contexts


def may_send(section: IntakeSection, calling_ae_title: str, address: str) -> bool:
    """Whether one of the configured peers has this AE title and this address."""
    try:
        peer_address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(peer_address, ipaddress.IPv6Address) and peer_address.ipv4_mapped:
        peer_address = peer_address.ipv4_mapped
    return any(
        peer.ae_title in ("*", calling_ae_title.strip())
        and (peer.address == "*" or peer_address in ipaddress.ip_network(peer.address, strict=False))
        for peer in section.peers
    )


def adopt(journal: Journal, archive: Archive) -> int:
    """File what the archive holds and the journal lacks; returns how many instances."""
    known = {row["path"] for row in journal.rows("select path from instances")}
    adopted = 0
    for path in archive.instance_files():
        relative = archive.relative(path)
        if relative in known:
            continue
        try:
            header, syntax, offset = filing.read_file(path)
        except CannotUnderstand as error:
            logbook.get().error("file in the archive cannot be read", file=relative, why=str(error))
            continue
        kept = intake.Kept(
            header=header,
            transfer_syntax_uid=syntax,
            path=relative,
            digest=digest_from(path, offset),
            size_bytes=path.stat().st_size,
        )
        adopted += intake.add_instance(journal, kept, association_id=None, now=path.stat().st_mtime)
    return adopted


def run(settings: Settings, *, ring: Callable[[], None], stop: threading.Event) -> int:
    """The receiver process: listen until `stop`; returns the exit status."""
    log = logbook.get()
    journal = Journal(settings.state_dir, "receiver")
    receiver = Receiver(settings, journal, ring=ring)
    try:
        receiver.start()
    except OSError as error:
        section = settings.intake
        log.error("cannot listen", host=section.host, port=section.port, why=error.strerror or str(error))
        return 3
    stop.wait()
    receiver.stop()
    journal.close()
    log.info("stopped")
    return 0
