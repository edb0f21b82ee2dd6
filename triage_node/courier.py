"""What all threads that serve one partner outside have in common: they do what the journal says is due, and then sleep.

The journal alone knows what is due. A courier that is woken too often, or not at all, loses nothing but time.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from triage_node import logbook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDLE_POLL_S = 5.0
LEAST_PAUSE_S = 0.2  # what is due by the journal but cannot be done yet does not keep a core busy
AT_ONCE = 0.0  # something was done, and there may be more


class Courier(threading.Thread, ABC):
    """Serves one partner until it is stopped."""

    def __init__(self, name: str, partner: str, *, grace_s: float) -> None:
        """Prepare a thread; `start` starts it. `grace_s` is how long what is under way may take when it is stopped."""
        super().__init__(name=f"{name}-{partner}", daemon=True)
        self._woken = threading.Event()
        self._stopped = False
        self._grace_s = grace_s
        self._log = logbook.get().bind(destination=partner)

    def wake(self) -> None:
        """There may be something new to do."""
        self._woken.set()

    def stop(self) -> None:
        """Finish what is under way and end; a partner that takes its time is cut off."""
        self._stopped = True
        self._woken.set()
        cut = threading.Timer(self._grace_s, self._cut)
        cut.daemon = True
        cut.start()

    def run(self) -> None:
        """Do what is due, sleep until the next is."""
        while not self._stopped:
            try:
                at = self._next()
            except Exception:  # noqa: BLE001  # the border of delivery: a fault with one object must not end the queue
                self._log.exception("delivery failed")
                at = None
            if at != AT_ONCE:
                wait_s = IDLE_POLL_S if at is None else min(IDLE_POLL_S, at - time.time())
                self._woken.wait(max(LEAST_PAUSE_S, wait_s))
                self._woken.clear()

    @abstractmethod
    def _next(self) -> float | None:
        """Do what is due; returns AT_ONCE after work, else when there may be more (None: when woken)."""

    @abstractmethod
    def _cut(self) -> None:
        """End the connection that is open, if one is, whatever is under way on it."""


def start_all(couriers: Sequence[Courier]) -> Callable[[], None]:
    """Start them; what comes back wakes them all."""
    for courier in couriers:
        courier.start()

    def wake() -> None:
        for courier in couriers:
            courier.wake()

    return wake
