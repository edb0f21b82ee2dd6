"""A receiver in this process, and one in a process of its own that can be measured, starved and killed."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from pynetdicom import AE
from structlog.testing import capture_logs

from tests import delivering, wire
from tests.running import free_port, until
from triage_node import config, conformance
from triage_node.journal import Journal
from triage_node.receiver import Receiver

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from pydicom.dataset import Dataset
    from pynetdicom.association import Association

    from triage_node.config import Settings

ALONE = """
import signal, sys, threading
from pathlib import Path
from triage_node import config, logbook, receiver
settings = config.load(Path(sys.argv[1]))
logbook.configure("receiver", None, settings.log)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
sys.exit(receiver.run(settings, ring=lambda: None, stop=stop))
"""


@dataclass(kw_only=True)
class Listening:
    """A receiver that listens, and what it has kept."""

    settings: Settings
    port: int
    receiver: Receiver | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir

    def rows(self, sql: str) -> list[dict[str, Any]]:
        journal = Journal(self.state_dir, "test")
        try:
            return journal.rows(sql)
        finally:
            journal.close()

    def kept(self) -> dict[str, bytes]:
        """Data set bytes of every journalled instance, read from its file, by SOP Instance UID."""
        from triage_node import filing

        found = {}
        for row in self.rows("select sop_instance_uid, path from instances"):
            path = self.state_dir / row["path"]
            found[row["sop_instance_uid"]] = path.read_bytes()[filing.read_file(path)[2] :]
        return found

    def files(self) -> list[Path]:
        return sorted((self.state_dir / "archive").rglob("*.dcm"))

    def endings(self) -> list[str | None]:
        return [row["ending"] for row in self.rows("select ending from associations order by id")]

    def echoes(self) -> bool:
        association = associate(self.port, contexts=[(conformance.VERIFICATION, wire.IMPLICIT)])
        if not association.is_established:
            return False
        answer = association.send_c_echo()
        association.release()
        return "Status" in answer and answer.Status == 0

    def rss_bytes(self) -> int:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def allow_files_of(self, size_bytes: int) -> None:
        """Let the process write no file beyond this size: what a full disk is to it."""
        assert self.process is not None
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def settings_in(folder: Path, **intake: Any) -> Settings:
    settings = config.parse("", folder=folder)
    section = settings.intake.model_copy(update={"port": 0, "minimum_free_bytes": 0, **intake})
    return settings.model_copy(update={"intake": section})


@contextmanager
def listening(folder: Path, **intake: Any) -> Iterator[Listening]:
    settings = settings_in(folder, **intake)
    journal = Journal(settings.state_dir, "receiver")
    receiver = Receiver(settings, journal, ring=lambda: None)
    _, port = receiver.start()
    try:
        yield Listening(settings=settings, port=port, receiver=receiver)
    finally:
        receiver.stop()
        journal.close()


@pytest.fixture
def receive(tmp_path: Path) -> Callable[..., Any]:
    """Makes a receiver below tmp_path; keywords change its [intake] section."""
    return lambda **intake: listening(tmp_path, **intake)


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Callable[..., delivering.Sending]]:
    """Makes a Sending for destinations given as name=port; other keywords are of their sections."""
    begun: list[delivering.Sending] = []

    def make(ports: dict[str, int], **section: Any) -> delivering.Sending:
        destinations = tuple(delivering.destination(name, port, **section) for name, port in ports.items())
        begun.append(delivering.made(settings_in(tmp_path).model_copy(update={"destinations": destinations})))
        return begun[-1]

    yield make
    for one in begun:
        delivering.end(one)


@contextmanager
def alone(folder: Path, *, log: str = "console.log", **intake: Any) -> Iterator[Listening]:
    port = free_port()
    lines = "\n".join(f"{key} = {value!r}" for key, value in {"minimum_free_bytes": 0, **intake}.items())
    file = folder / "node.toml"
    file.write_text(f"[intake]\nport = {port}\n{lines}\n")
    with (folder / log).open("ab") as console:
        process = subprocess.Popen(
            [sys.executable, "-c", ALONE, str(file)], stdout=console, stderr=console, stdin=subprocess.DEVNULL
        )
    running = Listening(settings=config.load(file), port=port, process=process)
    try:
        until(lambda: b"listening" in (folder / log).read_bytes(), 30, "the receiver listens")
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        process.wait()


@pytest.fixture
def receive_alone(tmp_path: Path) -> Callable[..., Any]:
    """Makes a receiver in a process of its own."""
    return lambda **intake: alone(tmp_path, **intake)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """The log lines of this process, as dictionaries."""
    structlog.reset_defaults()
    with capture_logs() as lines:
        yield lines


def associate(
    port: int, *, contexts: list[tuple[str, str]] | None = None, calling: str = "MODALITY", called: str = "TRIAGE"
) -> Association:
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for abstract_syntax, transfer_syntax in contexts or [(wire.CT, wire.EXPLICIT)]:
        ae.add_requested_context(abstract_syntax, transfer_syntax)
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if association.dul.socket is not None and association.dul.socket.socket is not None:
        _SOCKETS.append(association.dul.socket.socket)
    return association


# pynetdicom forgets to close a requestor's socket when the peer has closed it already
_SOCKETS: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _close_sockets() -> Iterator[None]:
    yield
    while _SOCKETS:
        _SOCKETS.pop().close()


def store(association: Association, dataset: Dataset) -> int:
    """Send a data set in Explicit VR Little Endian; the status."""
    return store_bytes(association, wire.encoded(dataset), str(dataset.SOPInstanceUID), str(dataset.SOPClassUID))


def store_bytes(
    association: Association,
    data: bytes,
    sop_instance_uid: str,
    sop_class_uid: str = wire.CT,
    syntax: str | None = None,
) -> int:
    """Send bytes as the data set of a C-STORE request, whatever they are; the status, -1 where none came."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class_uid
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.Priority = 2
    request.DataSet = BytesIO(data)
    context = next(
        c.context_id
        for c in association.accepted_contexts
        if c.abstract_syntax == sop_class_uid and syntax in (None, str(c.transfer_syntax[0]))
    )
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        pass
    association.dimse.send_msg(request, context)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return -1 if answer is None or answer.Status is None else int(answer.Status)


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
