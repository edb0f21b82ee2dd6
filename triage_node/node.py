"""The composition root: configuration -> processes, and the supervisor that keeps them alive.

The supervisor holds the lock of the state directory, the doorbells and one end of a lifeline. Children inherit the
lock (so that a second node is refused until the last process of the first is gone) and the other end of the
lifeline: when the supervisor dies, however, they read its end of file and stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triage_node import logbook
from triage_node.archive import Archive
from triage_node.doorbell import Doorbell
from triage_node.errors import StateInUse, TriageError
from triage_node.journal import Journal, queue

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.config import Settings

ROLES = ("receiver", "analyst", "desk")
# Exit statuses of a child for which a restart changes nothing
MISCONFIGURED, CANNOT_LISTEN = 2, 3
_HOPELESS = {
    MISCONFIGURED: "node stops: the configuration cannot be used",
    CANNOT_LISTEN: "node stops: a port is in use",
}
STOP_GRACE_S = 9.0
LASTING_S = 10.0  # a child that lived this long was not in a crash loop
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_FDS = "TRIAGE_NODE_FDS"
_LOCK = "node.lock"
_LOCK_ATTEMPTS, _LOCK_PAUSE_S = 40, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Bells:
    """The doorbells of the node."""

    desk: Doorbell
    analyst: Doorbell


class StateLock:
    """Holds a state directory for one node, as long as any of its processes lives."""

    def __init__(self, state_dir: Path) -> None:
        """Take the lock. Raises StateInUse if another node has it, TriageError if it cannot be made."""
        path = state_dir / _LOCK
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise TriageError(f"the state directory {state_dir} cannot be used: {error.strerror}") from error
        if not _locked(self.fd):
            holder = os.read(self.fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self.fd)
            raise StateInUse(
                f"another node (process {holder}) works on {state_dir}: stop it first, or set node.state_dir to another"
                " folder"
            )
        os.ftruncate(self.fd, 0)
        os.write(self.fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let the directory go."""
        os.close(self.fd)


def _locked(fd: int) -> bool:
    """Take the lock; `is_running` of another process holds it for an instant, so once is not enough."""
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


class _Child:
    """One child process and what is known of its past lives."""

    def __init__(self, role: str, command: list[str], environment: dict[str, str], fds: tuple[int, ...]) -> None:
        self.role = role
        self._command = command
        self._environment = environment
        self._fds = fds
        self._started_at = 0.0
        self._failures = 0
        self._starts = 0
        self._has_lasted = False
        self._due_at: float | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._due_at = None
        self._starts += 1
        self._started_at = time.monotonic()
        self.process = subprocess.Popen(
            self._command, env=self._environment, pass_fds=self._fds, stdin=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def has_been_up(self) -> bool:
        """Whether an earlier life was more than a start; a port that is taken later is waited for."""
        return self._has_lasted and self._starts > 1

    def look(self) -> int | None:
        """Restart the child when it is dead and its pause is over; returns the exit status of a fresh death."""
        now = time.monotonic()
        if self._due_at is not None:
            if now >= self._due_at:
                self.start()
            return None
        assert self.process is not None
        status = self.process.poll()
        if status is None:
            return None
        lasted = now - self._started_at >= LASTING_S
        self._has_lasted = self._has_lasted or lasted
        self._failures = 0 if lasted else self._failures + 1
        self._due_at = now + PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
        return status


def is_running(state_dir: Path) -> bool:
    """Whether any process of a node works on the state directory."""
    try:
        fd = os.open(state_dir / _LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: many may ask at once
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def serve(settings: Settings, config_path: Path, lock: StateLock) -> int:
    """Run the node in the foreground until SIGTERM or SIGINT; returns the exit status."""
    log = logbook.get()
    Archive(settings.state_dir).prepare()
    Journal(settings.state_dir, "node").close()  # the tables exist before three processes want them at once
    bells = Bells(desk=Doorbell.make(), analyst=Doorbell.make())
    lifeline_read, lifeline_write = os.pipe()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    inherited = (
        bells.desk.read_fd,
        bells.desk.write_fd,
        bells.analyst.read_fd,
        bells.analyst.write_fd,
        lifeline_read,
        lock.fd,
    )
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, _FDS: ",".join(str(fd) for fd in inherited)}
    children = [
        _Child(
            role,
            [sys.executable, "-m", "triage_node", "child", role, "--config", str(config_path)],
            environment,
            inherited,
        )
        for role in ROLES
    ]
    for child in children:
        child.start()
    log.info("node started", state_dir=str(settings.state_dir), destinations=len(settings.destinations))
    exit_status = 0
    while not stop.wait(0.1):
        for child in children:
            status = child.look()
            if status in _HOPELESS and not child.has_been_up:
                log.error(_HOPELESS[status], role=child.role)
                exit_status = status
                stop.set()
            elif status is not None:
                log.error("child died and is restarted", role=child.role, status=status)
    _stop(children)
    journal = Journal(settings.state_dir, "node")
    queue.hand_back(journal, None, fault=False)  # of an analyst that had to be killed; a stop is nobody's fault
    journal.close()
    os.close(lifeline_write)
    lock.release()
    log.info("node stopped")
    return exit_status


def _stop(children: list[_Child]) -> None:
    running = [child.process for child in children if child.process is not None and child.process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_GRACE_S
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logbook.get().warning("child did not stop in time and is killed", pid=process.pid)
            process.kill()
            process.wait()


def run_child(role: str, settings: Settings) -> int:
    """The body of a child process; returns its exit status."""
    desk_read, desk_write, analyst_read, analyst_write, lifeline, _ = map(int, os.environ[_FDS].split(","))
    bells = Bells(
        desk=Doorbell(read_fd=desk_read, write_fd=desk_write),
        analyst=Doorbell(read_fd=analyst_read, write_fd=analyst_write),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_hold_the_lifeline, args=(lifeline, stop), daemon=True).start()
    # Each role imports its own libraries here: the receiver stays free of the analyst's.
    if role == "receiver":
        from triage_node import receiver

        return receiver.run(settings, ring=bells.desk.ring, stop=stop)
    if role == "analyst":
        from triage_node import analyst

        return analyst.run(settings, bells.analyst, ring_desk=bells.desk.ring, stop=stop)
    from triage_node import desk

    return desk.run(settings, bells.desk, ring_analyst=bells.analyst.ring, stop=stop)


def _hold_the_lifeline(fd: int, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        os.read(fd, 1)  # returns only when the supervisor is gone
    stop.set()
    time.sleep(STOP_GRACE_S)
    os._exit(1)
