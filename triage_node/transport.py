"""The TCP side of the Storage SCP: what a peer may make this process hold, in threads, time and memory.

pynetdicom gives each connection an `Association` with two threads. Here these are counted before they are made, end
when the connection does, and keep only what was agreed:

- a connection that no thread is left for is closed at once;
- a PDU may be as long as agreed (PS3.8 section 9.3.1) and must arrive whole within the network timeout;
- a peer is not read from while an earlier request of its own waits: TCP holds it back;
- a data set over the limit, or for which all together there is no memory, is received but not kept: its sender gets a
  status for it, and the association goes on. One that never ends is cut.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from io import BytesIO
from socketserver import BaseServer
from typing import TYPE_CHECKING, Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from triage_node import logbook

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom import evt
    from pynetdicom.pdu_primitives import P_DATA

READ_BYTES = 65_536
# An A-ASSOCIATE-RQ with 128 contexts of 45 transfer syntaxes each stays under this.
MAXIMUM_CONTROL_PDU_BYTES = 1_048_576
SPARE_CONNECTIONS = 32  # TCP connections above the association limit, for health checks and for polite rejections
_LOOK_UP_S = 0.5  # how soon a thread that waits for bytes notices that it is to end


class Overflow(BytesIO):
    """Stands in for a data set that is not kept: takes everything, holds nothing."""

    def write(self, data: Any) -> int:
        """Drop the bytes."""
        return len(data)


class Memory:
    """The bytes of data sets that all associations together hold at the moment."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` for all of them."""
        self._limit_bytes = limit_bytes
        self._held: dict[object, int] = {}
        self._lock = threading.Lock()

    def hold(self, holder: object, held_bytes: int) -> bool:
        """Say how much `holder` is about to hold; False, and nothing noted, when that is too much."""
        with self._lock:
            others = sum(self._held.values()) - self._held.get(holder, 0)
            if others + held_bytes > self._limit_bytes:
                return False
            self._held[holder] = held_bytes
            return True

    def free(self, holder: object) -> None:
        """`holder` holds nothing any more."""
        with self._lock:
            self._held.pop(holder, None)


class _Acceptor(Association):
    """Says when it has ended, however it did; serves one request after the other."""

    def run(self) -> None:
        try:
            super().run()
        finally:
            assert isinstance(self._server, Server)
            self._server.memory.free(self)
            self._server.on_ended(self)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        # pynetdicom makes a thread for each N-EVENT-REPORT as it comes in: that thread only puts it in its place.
        if threading.current_thread() is self:
            super()._serve_request(msg, context_id)
        else:
            self.dimse.msg_queue.put((context_id, msg))


class _Socket(AssociationSocket):
    """Reads in larger pieces, and no more than `Server` says."""

    _data_set_bytes = 0  # of the message that is being received

    @property
    def ready(self) -> bool:
        """Whether to read on; not while a request waits to be served."""
        return self.assoc.dimse.msg_queue.qsize() == 0 and super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, or fewer when the peer has closed the connection.

        Raises OSError, which pynetdicom treats as a lost connection.
        """
        server = self.assoc._server  # noqa: SLF001  # the library offers no other way from a socket to its server
        assert isinstance(server, Server)
        limit = max(MAXIMUM_CONTROL_PDU_BYTES, (self.assoc.acceptor.maximum_length or 0) + 6)
        if nr_bytes > limit:
            raise self._cut(f"a PDU of {nr_bytes} bytes is announced, at most {limit} were agreed")
        self._bound_the_message(server, nr_bytes)
        deadline = time.monotonic() + (self.assoc.network_timeout or float("inf"))
        data = bytearray()
        while len(data) < nr_bytes:
            assert self.socket is not None
            readable, _, _ = select.select([self.socket], [], [], _LOOK_UP_S)
            if readable:
                piece = self.socket.recv(min(READ_BYTES, nr_bytes - len(data)))
                if not piece:
                    break
                if server.acknowledges_at_once:
                    self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # does not last
                data += piece
            elif self.assoc._kill:  # noqa: SLF001  # set before pynetdicom waits for this very thread
                raise OSError("the association has ended")
            if len(data) < nr_bytes and time.monotonic() > deadline:
                raise self._cut(f"{nr_bytes - len(data)} bytes of a PDU did not come within the network timeout")
        return data

    def _shutdown_socket(self) -> None:
        # pynetdicom's own leaves the socket open when the peer was faster
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def _bound_the_message(self, server: Server, nr_bytes: int) -> None:
        message = self.assoc.dimse.message
        if message is None:
            self._data_set_bytes = 0
            return
        self._data_set_bytes += nr_bytes
        if self._data_set_bytes > 2 * server.maximum_instance_bytes + MAXIMUM_CONTROL_PDU_BYTES:
            raise self._cut(f"a data set does not end after {self._data_set_bytes} bytes")
        if isinstance(message.data_set, Overflow):
            return
        # The allowance is for what is not data: fragment headers and the command set
        too_long = self._data_set_bytes > server.maximum_instance_bytes + MAXIMUM_CONTROL_PDU_BYTES
        if too_long or not server.memory.hold(self.assoc, self._data_set_bytes):
            message.data_set = Overflow()
            server.memory.free(self.assoc)

    def _cut(self, why: str) -> OSError:
        requestor = self.assoc.requestor
        logbook.get().warning("connection cut", peer=requestor.ae_title, address=requestor.address, why=why)
        return OSError(why)


class Messages(DIMSEServiceProvider):
    """Ends the association on a message that is none; pynetdicom's own loses its thread over some."""

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take what has come; whatever goes wrong with it ends this association alone."""
        try:
            super().receive_primitive(primitive)
        except Exception:  # noqa: BLE001  # the border of the SCP: whatever a library stumbles over in a stranger's bytes
            requestor = self.assoc.requestor
            logbook.get().warning(
                "association ends: not a DIMSE message",
                peer=requestor.ae_title,
                address=requestor.address,
                exc_info=True,
            )
            self.dul.event_queue.put("Evt19")  # PS3.8 table 9-10: an invalid PDU, answered with an A-ABORT


class _Handler(RequestHandler):
    def _create_association(self) -> Association:
        assert isinstance(self.request, socket.socket)
        # Without this a sender that waits for each answer loses 40 ms an image to delayed acknowledgements.
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A peer that takes no answers must not hold a thread for ever.
        self.request.settimeout(self.ae.network_timeout)
        association = super()._create_association()
        # The library makes these itself and offers no place to say of which class.
        association.__class__ = _Acceptor
        association.dimse.__class__ = Messages
        assert association.dul.socket is not None
        association.dul.socket.__class__ = _Socket
        association.dul.daemon = True
        return association


class Server(AssociationServer):
    """Accepts connections one after the other, each with its association, as long as there is room for its threads."""

    request_queue_size = 128

    def __init__(
        self,
        *args: Any,
        maximum_connections: int,
        maximum_instance_bytes: int,
        on_ended: Callable[[Association], None],
        acknowledges_at_once: bool = False,
        **kwargs: Any,
    ) -> None:
        """As pynetdicom makes it, with limits; `on_ended` hears of every association once its thread is done.

        With `acknowledges_at_once` the kernel delays no acknowledgement: a peer that holds the second part of a short
        request back until the first is acknowledged (Nagle's algorithm) loses no 40 ms. Linux alone does so.
        """
        self.maximum_connections = maximum_connections
        self.maximum_instance_bytes = maximum_instance_bytes
        self.memory = Memory(2 * maximum_instance_bytes)
        self.on_ended = on_ended
        self.acknowledges_at_once = acknowledges_at_once and hasattr(socket, "TCP_QUICKACK")
        self._refusing = False
        kwargs["request_handler"] = _Handler
        super().__init__(*args, **kwargs)

    def accept_nothing_new(self) -> None:
        """Stop listening; pynetdicom's own `shutdown` would abort what is open at once."""
        BaseServer.shutdown(self)

    def end(self, grace_s: float) -> None:
        """Abort what is still open, wait for it at most `grace_s`, and close."""
        for association in self.active_associations:  # each abort blocks for a while
            # before its A-ASSOCIATE request there is nothing to abort: the state machine would raise
            end = association.abort if association.is_established else association.kill
            threading.Thread(target=end, daemon=True).start()
        deadline = time.monotonic() + grace_s
        while self.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        self.server_close()

    def verify_request(self, request: object, client_address: object) -> bool:  # noqa: ARG002  # socketserver's names
        """Refuse a flood of connections before each costs a thread."""
        refuse = len(self.active_associations) >= self.maximum_connections
        if refuse and not self._refusing:
            logbook.get().warning("connections refused", open=self.maximum_connections, address=str(client_address))
        self._refusing = refuse
        return not refuse

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  # socketserver's names
        """A connection that could not be taken is logged; the server goes on."""
        logbook.get().exception("connection lost", address=str(client_address))


def on_rejected(event: evt.Event) -> None:
    """Tell the log of a peer that called the node by another AE title; for the event of pynetdicom."""
    requestor = event.assoc.requestor
    called = "" if requestor.primitive is None else str(requestor.primitive.called_ae_title).strip()
    why = f"called AE title {called!r}, but this is {event.assoc.ae.ae_title!r}"
    logbook.get().warning("association rejected", peer=requestor.ae_title, address=requestor.address, why=why)


def on_connection_closed(event: evt.Event) -> None:
    """Let a thread that still waits for an association request learn that there will be none.

    Without this a health check that only connects would hold it for the whole ACSE timeout.
    """
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)
