"""The port of the reading worklist: who may associate, for what, and which message goes where."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from pynetdicom import AE, _config, evt

from triage_node import admission, conformance, logbook, transport
from triage_node.ups.answers import Answers

if TYPE_CHECKING:
    from pynetdicom.association import Association

    from triage_node.config import Settings
    from triage_node.ups.service import Service

REJECT_TRANSIENT_LIMIT: Final = (0x02, 0x03, 0x02)  # PS3.8 table 9-21: local limit exceeded, the peer may try again
REJECT_CALLING_AE: Final = (0x01, 0x01, 0x03)  # calling AE title not recognised
MAXIMUM_MESSAGE_BYTES: Final = 8_388_608  # of one order or description; those of reading systems have some thousands
MAXIMUM_PDU_BYTES: Final = 131_072
STOP_GRACE_S: Final = 2.0


class Listener:
    """Accepts associations until it is stopped."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self._settings = settings
        self._service = service
        self._lock = threading.Lock()
        self._admitted: set[Association] = set()
        self._server: transport.Server | None = None

    def start(self) -> tuple[str, int]:
        """Listen; returns the address. Raises OSError if it is in use."""
        section = self._settings.ups
        _config.LOG_HANDLER_LEVEL = "none"  # its handlers cost time and print identifiers
        # it writes out every answer for a log that nobody reads, which takes longer than everything else
        _config.LOG_RESPONSE_IDENTIFIERS = _config.LOG_REQUEST_IDENTIFIERS = False
        ae = AE(ae_title=self._settings.node.ae_title)
        ae.require_called_aet = True
        connections = section.maximum_associations + transport.SPARE_CONNECTIONS
        ae.maximum_associations = connections + 1  # pynetdicom counts bare connections; `_on_requested` does not
        ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
        ae.network_timeout = section.network_timeout_s
        for context in conformance.accepted_worklist():
            ae.add_supported_context(context.sop_class_uid, list(context.transfer_syntaxes))
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_REJECTED, transport.on_rejected),
            (evt.EVT_CONN_CLOSE, transport.on_connection_closed),
            (evt.EVT_C_ECHO, lambda _: 0x0000),
            (evt.EVT_C_FIND, self._service.find),
            (evt.EVT_N_GET, self._service.get),
            (evt.EVT_N_CREATE, self._service.create),
            (evt.EVT_N_SET, self._service.set),
            (evt.EVT_N_ACTION, self._service.act),
        ]
        server = ae.make_server(
            (section.host, section.port),
            evt_handlers=handlers,
            server_class=transport.Server,
            maximum_connections=connections,
            maximum_instance_bytes=MAXIMUM_MESSAGE_BYTES,
            on_ended=self._on_ended,
            acknowledges_at_once=True,
        )
        assert isinstance(server, transport.Server)
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        host, port = server.server_address[:2]
        logbook.get().info("worklist", ae_title=self._settings.node.ae_title, host=host, port=port)
        return str(host), int(port)

    def stop(self) -> None:
        """Accept nothing new and abort what is open."""
        assert self._server is not None
        self._server.accept_nothing_new()
        self._server.end(STOP_GRACE_S)

    def _on_requested(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        calling = "" if requestor.primitive is None else str(requestor.primitive.calling_ae_title).strip()
        log = logbook.get().bind(peer=calling, address=requestor.address)
        if not admission.is_peer(self._settings.ups.peers, calling, requestor.address):
            log.warning("association rejected", why="not among ups.peers")
            event.assoc.acse.send_reject(*REJECT_CALLING_AE)
            event.assoc.kill()
            return
        limit = self._settings.ups.maximum_associations
        with self._lock:
            full = len(self._admitted) >= limit
            if not full:
                self._admitted.add(event.assoc)
        if full:
            log.error("association rejected", why=f"{limit} are open already (ups.maximum_associations)")
            event.assoc.acse.send_reject(*REJECT_TRANSIENT_LIMIT)
            event.assoc.kill()

    def _on_accepted(self, event: evt.Event) -> None:
        # The library makes this itself and offers no place to say of which class.
        event.assoc.dimse.__class__ = Answers

    def _on_ended(self, association: Association) -> None:
        with self._lock:
            self._admitted.discard(association)
