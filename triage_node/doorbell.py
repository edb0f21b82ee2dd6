"""How processes wake each other: a pipe that survives the death of whoever holds it.

A doorbell carries no message: who hears it looks into the journal. A lost ring costs one polling interval. Locks
shared between processes would not do here: a process killed while it holds one would stop all the others.
"""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorbell:
    """Both ends of a non-blocking pipe; every process of the node may hold them."""

    read_fd: int
    write_fd: int

    @classmethod
    def make(cls) -> Doorbell:
        """A new doorbell, its ends inheritable by child processes."""
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
        os.set_inheritable(read_fd, True)
        os.set_inheritable(write_fd, True)
        return cls(read_fd=read_fd, write_fd=write_fd)

    def ring(self) -> None:
        """Wake whoever waits; never blocks (a full pipe rings already)."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self.write_fd, b"!")

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring or until `timeout_s` has passed; True if it rang."""
        ready, _, _ = select.select([self.read_fd], [], [], max(0.0, timeout_s))
        if not ready:
            return False
        with contextlib.suppress(BlockingIOError):
            while os.read(self.read_fd, 4096):
                pass
        return True

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_fd)
        os.close(self.write_fd)
