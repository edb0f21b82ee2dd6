"""The minimal lower layer protocol, as client: blocks of bytes on a TCP connection (HL7 2.5.1 appendix C).

A block is <VT> data <FS><CR>. hl7apy has a server for it and no client, and the client of its neighbour `hl7` takes
whatever one read brings for a whole answer; so the three bytes are counted here. Every wait ends at a deadline: a peer
that sends a byte now and then is as silent as one that sends nothing.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Final, Self

from triage_node.errors import DeliveryFailed

START: Final = b"\x0b"
END: Final = b"\x1c\x0d"
# An acknowledgement is some hundred bytes; who sends this much without an end sends no acknowledgement.
LONGEST_BLOCK_BYTES: Final = 1_048_576
_READ_BYTES: Final = 4096


class Connection:
    """A connection to a receiver; a context that closes it."""

    def __init__(self, host: str, port: int, *, timeout_s: float) -> None:
        """Connect. Raises DeliveryFailed, worth another try, when the receiver is not reached."""
        self._received = bytearray()
        self._timeout_s = timeout_s
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
        except OSError as error:
            raise DeliveryFailed(f"no connection to {host}:{port}: {_why(error)}", retry=True) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def cut(self) -> None:
        """End the connection from another thread: what waits on it fails at once."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, data: bytes) -> None:
        """Send one block. Raises DeliveryFailed, worth another try, when it cannot be sent."""
        if END[:1] in data or START in data:
            raise DeliveryFailed("the message has a byte that would end the block", retry=False)
        self._received.clear()  # what came before the message was sent does not answer it
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.sendall(START + data + END)
        except OSError as error:
            raise DeliveryFailed(f"the message could not be sent: {_why(error)}", retry=True) from error

    def receive(self, deadline: float) -> bytes:
        """The next block; `deadline` is on the monotonic clock.

        Raises DeliveryFailed, worth another try, when none comes, or when what comes is no block.
        """
        while (end := self._received.find(END)) < 0:
            if len(self._received) > LONGEST_BLOCK_BYTES:
                raise DeliveryFailed(f"{LONGEST_BLOCK_BYTES} bytes came, and no end of a block", retry=True)
            self._received += self._read(deadline)
        block = bytes(self._received[:end])
        del self._received[: end + len(END)]
        # Bytes before the start of a block belong to none (some receivers end theirs with one line break too many)
        start = block.rfind(START)
        if start < 0:
            raise DeliveryFailed("an answer came that is no MLLP block: it has no start", retry=True)
        return block[start + 1 :]

    def _read(self, deadline: float) -> bytes:
        left_s = deadline - time.monotonic()
        part = "in the middle of an answer" if self._received else "without an answer"
        try:
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            received = self._socket.recv(_READ_BYTES)
        except TimeoutError as error:
            silence = "no whole acknowledgement" if self._received else "no acknowledgement"
            raise DeliveryFailed(f"{silence} within {self._timeout_s:g} s", retry=True) from error
        except OSError as error:
            raise DeliveryFailed(f"the connection broke {part}: {_why(error)}", retry=True) from error
        if not received:
            raise DeliveryFailed(f"the receiver closed the connection {part}", retry=True)
        return received


def _why(error: OSError) -> str:
    return error.strerror or str(error) or "timed out"
