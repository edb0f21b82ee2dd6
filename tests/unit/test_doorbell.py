"""A doorbell wakes who waits, in this process or another, and outlives whoever holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from triage_node.doorbell import Doorbell

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bell() -> Iterator[Doorbell]:
    made = Doorbell.make()
    yield made
    made.close()


def test_a_ring_is_heard_once_even_by_who_waits_later(bell: Doorbell) -> None:
    bell.ring()
    bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.01)


def test_waiting_ends_with_the_time_or_the_ring(bell: Doorbell) -> None:
    started = time.monotonic()
    assert not bell.wait(0.1)
    assert time.monotonic() - started >= 0.09
    threading.Timer(0.1, bell.ring).start()
    assert bell.wait(10.0)
    assert time.monotonic() - started < 5.0


def test_a_bell_that_nobody_hears_never_blocks_who_rings(bell: Doorbell) -> None:
    for _ in range(100_000):  # more than the pipe holds
        bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.01)


def test_a_ring_from_another_process_is_heard_and_its_death_does_no_harm(bell: Doorbell) -> None:
    program = (
        "import sys, time; from triage_node.doorbell import Doorbell;"
        f" Doorbell(read_fd={bell.read_fd}, write_fd={bell.write_fd}).ring(); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", program], pass_fds=(bell.read_fd, bell.write_fd))
    assert bell.wait(20.0)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert not bell.wait(0.01)
    bell.ring()
    assert bell.wait(0.0)
