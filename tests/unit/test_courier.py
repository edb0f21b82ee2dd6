"""A courier works while there is work, rests while there is none, and ends when it is told to."""

from __future__ import annotations

import time

from tests.running import until
from triage_node.courier import AT_ONCE, LEAST_PAUSE_S, Courier


class Counting(Courier):
    """Finds `work` pieces of work, and then what the journal calls due but nobody can do yet."""

    def __init__(self, work: int = 0, *, broken: bool = False) -> None:
        super().__init__("courier", "pacs", grace_s=1.0)
        self.work = work
        self.broken = broken
        self.calls = 0
        self.cut = False

    def _next(self) -> float | None:
        self.calls += 1
        if self.broken:
            raise OSError("the disk is away")
        if self.work:
            self.work -= 1
            return AT_ONCE
        return time.time() - 60.0

    def _cut(self) -> None:
        self.cut = True


def test_what_is_due_and_cannot_be_done_keeps_no_core_busy() -> None:
    courier = Counting()
    courier.start()
    time.sleep(5 * LEAST_PAUSE_S)
    courier.stop()
    courier.join(5)
    assert 2 <= courier.calls <= 7


def test_work_is_done_without_a_pause_and_a_fault_ends_nothing() -> None:
    courier = Counting(work=1000)
    courier.start()
    until(lambda: courier.work == 0, 5, "all is done")
    courier.broken = True
    calls = courier.calls
    until(lambda: courier.calls > calls, 5, "it meets the fault")
    courier.broken = False
    courier.wake()
    calls = courier.calls
    until(lambda: courier.calls > calls, 5, "it goes on")
    courier.stop()
    courier.join(5)
    assert not courier.is_alive()
    until(lambda: courier.cut, 5, "what is open is cut")
