"""Measure the time from a sender's release to the judged study on the list and to the last object at the PACS.

Starts a node and DCMTK's storescp on loopback and sends a phantom study with DCMTK's dcmsend, again and again. The
quiet time of the configuration is part of every figure, so the floor is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from triage_node import phantom_dicom, worklist
from triage_node.config import load
from triage_node.journal import Journal, outbox
from triage_node.phantom import PhantomSpec
from triage_node.study import StudyState

QUIET_S = 2.0
CONFIG = """\
[intake]
port = {intake}
minimum_free_bytes = 0
[completion]
quiet_s = {quiet_s}
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
[web]
enabled = false
"""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(slices: int, matrix: int, repetitions: int) -> dict[str, object]:
    """Run the node and return seconds a step, as medians over the repetitions."""
    for program in ("dcmsend", "storescp"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is needed: install the Debian package dcmtk")
    environment = {**os.environ, "TCP_NODELAY": "1"}
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-latency-") as name:
        work = Path(name)
        (work / "received").mkdir()
        intake, pacs = free_port(), free_port()
        config_path = work / "node.toml"
        config_path.write_text(CONFIG.format(intake=intake, pacs=pacs, quiet_s=QUIET_S), encoding="utf-8")
        settings = load(config_path)
        archive = subprocess.Popen(
            ["storescp", "-aet", "PACS", "-od", str(work / "received"), "+xa", str(pacs)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with (work / "log").open("wb") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "triage_node", "serve", "--config", str(config_path)], stdout=log, stderr=log
            )
        try:
            for number in range(repetitions + 1):
                spacing = (300.0 / slices, 380.0 / matrix, 380.0 / matrix)
                spec = PhantomSpec(
                    seed=number + 1,
                    slices=slices,
                    rows=matrix,
                    columns=matrix,
                    spacing_zyx_mm=spacing,
                    right_fraction=0.3,
                )
                phantom_dicom.write_study(
                    work / "study" / str(number), spec, person=phantom_dicom.Person(number=number + 1)
                )
                _wait_for_port(intake)
                journal = Journal(settings.state_dir)
                runs.append(_one(work / "study" / str(number), intake, environment, journal, number))
                journal.close()
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(20)
            archive.terminate()
            archive.wait()
    # The first study meets cold caches; it is measured apart.
    medians = {key: round(statistics.median(run[key] for run in runs[1:]), 2) for key in runs[0]}
    first = {key: round(value, 2) for key, value in runs[0].items()}
    return {
        "slices": slices,
        "matrix": matrix,
        "repetitions": repetitions,
        "quiet_s": QUIET_S,
        "first": first,
        **medians,
    }


def _wait_for_port(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the node did not start")


def _one(study: Path, port: int, environment: dict[str, str], journal: Journal, number: int) -> dict[str, float]:
    started = time.monotonic()
    subprocess.run(
        ["dcmsend", "+sd", "+r", "-aec", "TRIAGE", "127.0.0.1", str(port), str(study)],
        env=environment,
        check=True,
        capture_output=True,
    )
    released = time.monotonic()
    settings = load(journal.state_dir.parent / "node.toml")
    while True:
        items = worklist.reading_list(journal, settings, time.time())
        if len(items) == number + 1 and all(item.state is not StudyState.WAITING for item in items):
            break
        if time.monotonic() - released > 120:
            raise SystemExit("the study was not judged within two minutes")
        time.sleep(0.02)
    listed = time.monotonic()
    while outbox.next_at(journal, "pacs") is not None:
        time.sleep(0.02)
    return {
        "send_s": released - started,
        "release_to_list_s": listed - released,
        "release_to_list_without_quiet_s": listed - released - QUIET_S,
        "release_to_last_object_s": time.monotonic() - released,
    }


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300, help="slices of the series (default 300)")
    parser.add_argument("--matrix", type=int, default=512, help="rows and columns (default 512)")
    parser.add_argument("--repetitions", type=int, default=3, help="studies after the first (default 3)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = measure(arguments.slices, arguments.matrix, arguments.repetitions)
    for key, value in figures.items():
        print(f"{key:34} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
