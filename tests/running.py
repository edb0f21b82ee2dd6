"""A real node and a real storage SCP as child processes, for the tests that need the whole line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triage_node.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = """
[node]
ae_title = "TRIAGE"
[intake]
port = {intake}
minimum_free_bytes = 0
[completion]
quiet_s = {quiet_s}
long_quiet_s = {long_quiet_s}
[web]
port = {web}
{destinations}
[analysis]
attempts = {attempts}
method = "{method}"
"""
DESTINATION = """
[[destinations]]
name = "{name}"
ae_title = "{ae_title}"
host = "127.0.0.1"
port = {port}
retry_first_s = 0.5
{keys}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Wait until the condition is true; its value. Fails with words when it never is."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"after {timeout_s:g} s still not so: {what}")


class Node:
    """A node in its own processes; `state_dir`, `intake` and `web` say where it is."""

    def __init__(
        self,
        folder: Path,
        *,
        pacs: dict[str, int] | None = None,
        quiet_s: float = 0.5,
        long_quiet_s: float = 4.0,
        attempts: int = 3,
        keys: str = "",  # more lines of each destination
        method: str = "threshold",  # phantoms are no patients: the networks are asked about real series
        more: str = "",  # more sections
    ) -> None:
        self.folder = folder
        self.intake, self.web = free_port(), free_port()
        self.config = folder / "node.toml"
        self.state_dir = folder / "state"
        destinations = "".join(
            DESTINATION.format(name=name.lower(), ae_title=name, port=port, keys=keys)
            for name, port in (pacs or {}).items()
        )
        self.config.write_text(
            CONFIG.format(
                intake=self.intake,
                web=self.web,
                quiet_s=quiet_s,
                long_quiet_s=long_quiet_s,
                destinations=destinations,
                attempts=attempts,
                method=method,
            )
            + more
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "console.log").open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "triage_node", "serve", "--config", str(self.config)],
                stdout=console,
                stderr=console,
                stdin=subprocess.DEVNULL,
            )
        until(self.answers, 60, f"the node listens:\n{self.console()[-2000:]}")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.console()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.intake)) == 0

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")

    def journal(self) -> Journal:
        return Journal(self.state_dir, "test")

    def ask(self, *arguments: str) -> Any:
        """The JSON that a command of the node prints."""
        done = subprocess.run(
            [sys.executable, "-m", "triage_node", *arguments, "--config", str(self.config), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def worklist(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.ask("worklist")
        return listed

    def children(self) -> dict[str, int]:
        """Role and process number of the children that are alive."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "child" in words and str(self.config) in words:
                found[words[words.index("child") + 1]] = int(entry.name)
        return found


@contextmanager
def node(folder: Path, **options: Any) -> Iterator[Node]:
    """A running node; on the way out it must stop within seconds of SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Node(folder, **options)
    running.start()
    try:
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            try:
                running.stop()
            except subprocess.TimeoutExpired:
                running.process.kill()
                raise


@contextmanager
def storescp(program: str, folder: Path, port: int, ae_title: str = "PACS", *, accept: str = "+xa") -> Iterator[Path]:
    """DCMTK's storescp; yields the folder in which it puts what it gets, a file named by SOP Instance UID each.

    `accept` is its option for transfer syntaxes: "+xa" all that it knows, "+x=" the uncompressed ones.
    """
    received = folder / "received"
    received.mkdir(parents=True, exist_ok=True)
    with (folder / "storescp.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-v", "-aet", ae_title, "-od", str(received), "-uf", accept, str(port)],
            env={**os.environ, "TCP_NODELAY": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: listens(port), 20, "storescp listens")
        yield received
    finally:
        process.terminate()
        process.wait(10)


def listens(port: int) -> bool:
    """Whether anybody listens; asked of the kernel, since a peer would take a probe for a broken association."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)
