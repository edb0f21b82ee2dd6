"""An archive that stores, commits and can be queried, as well or as badly as a test tells it to; a peer over TCP."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]  # made at import

from tests.delivering import KINDS
from triage_node import conformance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetdicom.association import Association

INSTANCE = "1.2.840.10008.1.20.1.1"
NO_SUCH_OBJECT = 0x0112


@dataclass
class Request:
    """One request for commitment as the archive has it."""

    transaction_uid: str
    objects: list[tuple[str, str]]  # SOP class and instance UID
    association: Association


@dataclass
class Archive:
    """What the archive holds, has been asked and answers."""

    port: int = 0
    kept: set[str] = field(default_factory=set)
    stored: list[str] = field(default_factory=list)  # every C-STORE, in order
    requests: list[Request] = field(default_factory=list)
    queries: list[Dataset] = field(default_factory=list)
    associations: int = 0
    action_status: int = 0x0000
    find_status: int = 0x0000
    on_store: Callable[[str], None] = lambda _: None
    on_request: Callable[[Request], None] = lambda _: None
    answers: list[int | None] = field(default_factory=list)  # the statuses its reports were answered with

    def forget(self) -> None:
        """Lose everything."""
        self.kept.clear()

    def information(self, request: Request) -> tuple[int, Dataset]:
        """Event type and data set of a report that is true."""
        told = Dataset()
        told.TransactionUID = request.transaction_uid
        told.RetrieveAETitle = "PACS"
        told.ReferencedSOPSequence, failed = [], []
        for sop_class, instance in request.objects:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
            if instance in self.kept:
                told.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = NO_SUCH_OBJECT
                failed.append(item)
        if failed:
            told.FailedSOPSequence = failed
        return (2 if failed else 1), told

    def report_here(self, request: Request) -> None:
        """Report on the association of the request, once it has been answered."""

        def later() -> None:
            time.sleep(0.1)
            self._send(request.association, *self.information(request))

        threading.Thread(target=later, daemon=True).start()

    def report_to(self, port: int, request: Request, *, roles: bool = True) -> int | None:
        """Report on an association of the archive's own, with the roles reversed; the status of the answer."""
        return self.tell(port, *self.information(request), roles=roles)

    def tell(self, port: int, event_type: int, information: Dataset | None, *, roles: bool = True) -> int | None:
        """Send any report to the receiver; the status of the answer, None where there was none."""
        ae = AE(ae_title="PACS")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        ae.add_requested_context(StorageCommitmentPushModel)
        wants = [build_role(StorageCommitmentPushModel, scp_role=True)] if roles else []
        association = ae.associate("127.0.0.1", port, ae_title="TRIAGE", ext_neg=wants)
        assert association.is_established
        (context,) = association.accepted_contexts
        assert context.as_scp is roles
        context._as_scp = True  # some archives report without having asked for the role
        try:
            return self._send(association, event_type, information)
        finally:
            association.release()

    def _send(self, association: Association, event_type: int, information: Dataset | None) -> int | None:
        for context in association.accepted_contexts:
            context._as_scp = True
        answer, _ = association.send_n_event_report(information, event_type, StorageCommitmentPushModel, INSTANCE)
        self.answers.append(answer.get("Status"))
        return self.answers[-1]


@contextmanager
def archive(port: int = 0, *, commits: bool = True, finds: bool = True) -> Iterator[Archive]:
    """A listening archive."""
    peer = Archive()
    ae = AE(ae_title="PACS")
    for sop_class in {*KINDS.values(), conformance.VERIFICATION}:
        ae.add_supported_context(sop_class)
    if commits:
        ae.add_supported_context(StorageCommitmentPushModel)
    if finds:
        ae.add_supported_context(conformance.STUDY_ROOT_FIND)

    def on_accepted(_: evt.Event) -> None:
        peer.associations += 1

    def on_store(event: evt.Event) -> int:
        instance = str(event.request.AffectedSOPInstanceUID)
        peer.stored.append(instance)
        peer.kept.add(instance)
        peer.on_store(instance)
        return 0x0000

    def on_action(event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        request = Request(
            transaction_uid=str(asked.TransactionUID),
            objects=[
                (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                for item in asked.ReferencedSOPSequence
            ],
            association=event.assoc,
        )
        peer.requests.append(request)
        if peer.action_status == 0x0000:
            peer.on_request(request)
        return peer.action_status, None

    def on_find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        peer.queries.append(event.identifier)
        if peer.find_status != 0x0000:
            yield peer.find_status, None
            return
        if str(event.identifier.SOPInstanceUID) in peer.kept:
            yield 0xFF00, event.identifier

    handlers = [
        (evt.EVT_ACCEPTED, on_accepted),
        (evt.EVT_C_STORE, on_store),
        (evt.EVT_N_ACTION, on_action),
        (evt.EVT_C_FIND, on_find),
    ]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    peer.port = int(server.server_address[1])
    try:
        yield peer
    finally:
        server.shutdown()
