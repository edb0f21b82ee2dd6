from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.running import Node, until
from tests.running import node as running_node
from triage_node import logbook, node
from triage_node.errors import StateInUse, TriageError


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory):
    """A node that the tests of this module share; they leave it as they found it."""
    with running_node(tmp_path_factory.mktemp("node")) as started:
        until(lambda: set(started.children()) == set(node.ROLES), 30, "all children run")
        yield started


def serve(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "triage_node", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def log_of(started: Node) -> list[str]:
    return [event["event"] for event in logbook.read(started.state_dir)]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# ---------------------------------------------------------------------- the state directory belongs to one node


def test_a_second_lock_is_refused_and_names_the_process_that_has_the_first(tmp_path: Path) -> None:
    lock = node.StateLock(tmp_path / "state")
    assert node.is_running(tmp_path / "state")
    with pytest.raises(StateInUse, match=rf"another node \(process {os.getpid()}\) works on .*/state: stop it first"):
        node.StateLock(tmp_path / "state")
    lock.release()
    assert not node.is_running(tmp_path / "state")
    node.StateLock(tmp_path / "state").release()


def test_a_state_directory_without_a_lock_has_no_node(tmp_path: Path) -> None:
    assert not node.is_running(tmp_path / "none")


def test_a_state_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TriageError, match=r"the state directory .*/file/state cannot be used: Not a directory"):
        node.StateLock(tmp_path / "file" / "state")


def test_who_asks_whether_the_node_runs_does_not_keep_one_from_starting(tmp_path: Path) -> None:
    """The question takes the lock for an instant."""
    node.StateLock(tmp_path).release()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            node.is_running(tmp_path)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(50):
            node.StateLock(tmp_path).release()
    finally:
        stop.set()
        for thread in asking:
            thread.join()


def test_a_second_node_on_the_same_state_directory_is_refused_with_status_4(alive: Node) -> None:
    done = serve(alive.config)
    assert done.returncode == 4
    assert alive.process is not None
    assert re.fullmatch(
        rf"another node \(process {alive.process.pid}\) works on .*/state: stop it first, or set node\.state_dir to"
        r" another folder\n",
        done.stderr,
    )
    assert alive.ask("status")["running"]


# ---------------------------------------------------------------------- children


def test_a_killed_child_is_restarted_and_its_death_is_in_the_log(alive: Node) -> None:
    before = alive.children()
    assert alive.process is not None
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def all_new() -> bool:
        now = alive.children()
        return set(now) == set(node.ROLES) and not set(now.values()) & set(before.values())

    until(all_new, 30, "every child is started again")
    until(alive.answers, 30, "the port is open again")
    deaths = [event for event in logbook.read(alive.state_dir) if event["event"] == "child died and is restarted"]
    assert {(death["role"], death["status"]) for death in deaths} == {(role, -signal.SIGKILL) for role in node.ROLES}


def test_children_die_with_their_supervisor(tmp_path: Path) -> None:
    """Even where it is killed: they read the end of its lifeline, and the state directory is free again."""
    started = Node(tmp_path)
    started.start()
    until(lambda: set(started.children()) == set(node.ROLES), 30, "all children run")
    children = started.children()
    assert started.process is not None
    started.process.kill()
    started.process.wait()
    until(lambda: all(ended(pid) for pid in children.values()), 15, "the children have stopped")
    until(lambda: not node.is_running(started.state_dir), 5, "the state directory is free")


def test_sigterm_stops_the_node_within_seconds_with_open_connections(tmp_path: Path) -> None:
    started = Node(tmp_path)
    started.start()
    until(lambda: log_of(started).count("ready") == 2, 30, "desk and analyst are ready, too")
    children = started.children()
    with socket.create_connection(("127.0.0.1", started.intake)), socket.create_connection(("127.0.0.1", started.web)):
        begun = time.monotonic()
        assert started.stop() == 0
        assert time.monotonic() - begun < node.STOP_GRACE_S
    assert all(ended(pid) for pid in children.values())
    events = log_of(started)
    assert events[-1] == "node stopped"
    assert "child did not stop in time and is killed" not in events
    assert "Traceback" not in started.console()


def test_a_node_may_be_stopped_while_it_starts(tmp_path: Path) -> None:
    for delay_s in (0.4, 1.0):
        started = Node(tmp_path)
        started.process = subprocess.Popen(
            [sys.executable, "-m", "triage_node", "serve", "--config", str(started.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay_s)
        assert started.stop() in (0, -signal.SIGTERM)
        until(lambda: started.children() == {}, 10, "no child is left")  # noqa: B023  # called in this turn


@pytest.mark.parametrize("section", ["intake", "web"])
def test_a_port_in_use_ends_the_node_with_status_3_and_names_the_port(tmp_path: Path, section: str) -> None:
    configured = Node(tmp_path)
    port = getattr(configured, section)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = serve(configured.config)
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if "cannot listen" in line]
    assert f"port={port}" in line
    assert "Address already in use" in line
    assert "Traceback" not in done.stderr
    assert configured.children() == {}


def test_a_threshold_against_the_model_card_ends_the_node_with_status_2_and_names_the_key(tmp_path: Path) -> None:
    configured = Node(tmp_path)
    configured.config.write_text(f"{configured.config.read_text()}\n[worklist]\nfraction_high = 0.1\n")
    done = serve(configured.config)
    assert done.returncode == node.MISCONFIGURED
    (line,) = [
        line for line in done.stderr.splitlines() if "the configuration cannot be used" in line and "why=" in line
    ]
    assert "worklist.fraction_high: found 0.1; allowed: 0.25 or more" in line
    assert "Traceback" not in done.stderr
    assert configured.children() == {}
