"""A real node and the archives it delivers to, each in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from triage_node.__main__ import app

if TYPE_CHECKING:
    from collections.abc import Sequence

ARCHIVE_PROGRAM = Path(__file__).parent.parent / "unreliable_archive.py"
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
NODE_AE = "TRIAGE"
TIMEOUT_S, STALL_S = 3.0, 4.5  # of the node's sender, and what is longer than that

CONFIG = """\
[node]
ae_title = "TRIAGE"
[intake]
port = {intake}
minimum_free_bytes = 0
[completion]
quiet_s = 0.5
long_quiet_s = 5.0
[analysis]
method = "threshold"
attempts = 10
[web]
enabled = false
"""
# Everything that takes minutes to hours beside a real PACS takes seconds here.
DESTINATION = """
[[destinations]]
name = "{name}"
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {port}
storage_commitment = {commitment}
commitment_wait_s = 0.5
commitment_timeout_s = 6.0
read_back = {read_back}
resends = 20
timeout_s = {timeout_s}
retry_first_s = 0.3
retry_longest_s = 3.0
probe_longest_s = 2.0
"""


class Unworkable(Exception):
    """The soak cannot be run at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One archive: how it behaves, and which proof of delivery the node asks it for."""

    name: str
    words: str
    scale: float = 0.0  # of the default shares of misbehaviour
    shares: tuple[str, ...] = ()  # NAME=SHARE where another than the default is wanted
    away_every_s: float = 0.0
    late: bool = False  # its port is closed in the first half
    commitment: bool = True
    read_back: bool = True

    @property
    def ae_title(self) -> str:
        """AE title under which it is called."""
        return self.name.upper()


def destinations(scale: float = 1.0, shares: tuple[str, ...] = ()) -> tuple[Destination, ...]:
    """The archives of a soak; `scale` multiplies the shares of the unreliable one, `shares` replaces some."""
    return (
        Destination(name="honest", words="does its duty"),
        Destination(
            name="unreliable",
            words="refuses, stalls, aborts, forgets, goes away",
            scale=scale,
            shares=shares,
            away_every_s=20.0,
        ),
        Destination(
            name="slow",
            words="takes its time for everything",
            shares=("accept-slowly=1", "store-slowly=1"),
            read_back=False,
        ),
        Destination(name="late", words="is not there in the first half", late=True, commitment=False),
    )


@dataclass(slots=True)
class Archive:
    """The process of a destination."""

    destination: Destination
    port: int
    place: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self, intake: int, seed: int) -> None:
        """Start the process; `listening` says when it can be reached."""
        one = self.destination
        command = [
            sys.executable, str(ARCHIVE_PROGRAM), "--keep", str(self.place), "--port", str(self.port),
            "--ae-title", one.ae_title, "--seed", str(seed), "--scale", str(one.scale),
            "--report-to", f"{NODE_AE}=127.0.0.1:{intake}", "--stall-s", str(STALL_S), "--late-s", str(STALL_S),
            "--away-every-s", str(one.away_every_s),
        ]  # fmt: skip
        for share in one.shares:
            command += ["--share", share]
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.place / "console.log").open("ab") as console:
            self.process = _start(command, console)

    def listening(self) -> bool:
        """Whether the port is open."""
        return _listens(self.port, self.process, self.place / "console.log")

    def stop(self) -> None:
        """End the process."""
        _stop(self.process)


@dataclass(slots=True)
class Node:
    """The node's processes, and its commands."""

    folder: Path
    intake: int
    process: subprocess.Popen[bytes] | None = None
    config: Path = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.folder / "node.toml"

    @property
    def state_dir(self) -> Path:
        """Where journal, archive and results lie."""
        return self.folder / "state"

    def start(self, archives: Sequence[Archive]) -> None:
        """Write the configuration and start `triage-node serve`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(intake=self.intake) + "".join(
            DESTINATION.format(
                name=one.destination.name,
                ae_title=one.destination.ae_title,
                port=one.port,
                commitment=str(one.destination.commitment).lower(),
                read_back=str(one.destination.read_back).lower(),
                timeout_s=TIMEOUT_S,
            )
            for one in archives
        )
        self.config.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "triage_node", "serve", "--config", str(self.config)]
        with (self.folder / "console.log").open("ab") as console:
            self.process = _start(command, console)

    def listening(self) -> bool:
        """Whether the intake's port is open."""
        return _listens(self.intake, self.process, self.folder / "console.log")

    def ask(self, *words: str) -> Any:
        """What a command of the node prints with --json; run in this process, since a process each would take long."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            app([*words, "--config", str(self.config), "--json"], standalone_mode=False)
        return json.loads(printed.getvalue())

    def children(self) -> dict[str, int]:
        """Role and process number of the children that are alive."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if "child" in words and str(self.config.resolve()) in words:
                    found[words[words.index("child") + 1]] = int(entry.name)
        return found

    def stop(self) -> None:
        """End the node as an administrator would."""
        _stop(self.process)


def free_ports(number: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_for(*started: Archive | Node) -> None:
    """Wait until all can be reached. Raises Unworkable when one ends or does not come up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not all(one.listening() for one in started):
        if time.monotonic() > deadline:
            raise Unworkable(f"not everything listens after {START_TIMEOUT_S:g} s")
        time.sleep(0.2)


def _start(command: Sequence[str], console: IO[bytes]) -> subprocess.Popen[bytes]:
    # A group of their own: Ctrl-C ends the soak, which ends them in order.
    return subprocess.Popen(command, stdout=console, stderr=console, stdin=subprocess.DEVNULL, process_group=0)


def _stop(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _listens(port: int, process: subprocess.Popen[bytes] | None, console: Path) -> bool:
    if process is not None and process.poll() is not None:
        last = " / ".join(console.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:])
        raise Unworkable(f"a process ended with status {process.returncode}, {console} says why: {last}")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
