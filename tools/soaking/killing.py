"""Ends the node's children with SIGKILL at random moments, as a crash or an out-of-memory killer would."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHORTEST_S, LONGEST_S = 1.0, 8.0


class Killer(threading.Thread):
    """Kills a random child every few seconds until it is stopped; `killed` counts by role."""

    def __init__(self, children: Callable[[], Mapping[str, int]], seed: int) -> None:
        super().__init__(daemon=True)
        self.killed: dict[str, int] = {}
        self._children = children
        self._dice = random.Random(f"{seed} kill")
        self._stopping = threading.Event()

    def run(self) -> None:
        """Kill."""
        while not self._stopping.wait(self._dice.uniform(SHORTEST_S, LONGEST_S)):
            alive = sorted(self._children().items())
            if not alive:
                continue
            role, pid = self._dice.choice(alive)
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
                self.killed[role] = self.killed.get(role, 0) + 1

    def stop(self) -> None:
        """Let them live from now on."""
        self._stopping.set()
        self.join()
