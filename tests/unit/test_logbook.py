from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import structlog

from tests.running import until
from triage_node import logbook
from triage_node.config import LogSection

if TYPE_CHECKING:
    from pathlib import Path

PATIENT = {"patient_name": "Doe^Jane", "patient_id": "4711", "patient_birth_date": "19700101"}


def lines(state_dir: Path) -> list[dict]:
    return [json.loads(line) for line in logbook.file_of(state_dir).read_text().splitlines()]


def test_the_file_has_one_json_line_an_event_with_time_process_and_level(tmp_path: Path) -> None:
    logbook.configure("receiver", tmp_path, LogSection(), console=False)
    logbook.get().info("instance kept", study="1.2", bytes=512)
    logbook.get().debug("too fine")
    (event,) = lines(tmp_path)
    assert event.pop("at").endswith("Z")
    assert event == {"process": "receiver", "level": "info", "event": "instance kept", "study": "1.2", "bytes": 512}


def test_the_bound_study_is_in_every_line_also_in_those_of_libraries(tmp_path: Path) -> None:
    logbook.configure("analyst", tmp_path, LogSection(), console=False)
    with structlog.contextvars.bound_contextvars(study="1.2"):
        logbook.get().info("one")
        logging.getLogger("some.library").warning("two")
    logbook.get().info("three")
    assert [(event["event"], event.get("study")) for event in lines(tmp_path)] == [
        ("one", "1.2"),
        ("two", "1.2"),
        ("three", None),
    ]


def test_the_console_line_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logbook.configure("desk", tmp_path, LogSection())
    logbook.get().warning("object failed", destination="pacs", answer="no answer to the C-STORE request")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for words in ("desk", "warning", "object failed", "destination=pacs", "answer='no answer to the C-STORE request'"):
        assert words in line
    assert "\x1b" not in line


@pytest.mark.parametrize("wanted", [False, True])
def test_the_patient_is_named_only_where_the_configuration_asks_for_it(tmp_path: Path, capsys, wanted: bool) -> None:
    logbook.configure("receiver", tmp_path, LogSection(patient_identity=wanted))
    with structlog.contextvars.bound_contextvars(**PATIENT):
        logbook.get().info("bound")
    logbook.get().info("passed", **PATIENT)
    for text in (logbook.file_of(tmp_path).read_text(), capsys.readouterr().err):
        assert [text.count(value) for value in PATIENT.values()] == ([2, 2, 2] if wanted else [0, 0, 0])


def test_a_traceback_stays_in_its_line(tmp_path: Path) -> None:
    logbook.configure("analyst", tmp_path, LogSection(), console=False)
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logbook.get().exception("analysis failed", study="1.2")
    (event,) = lines(tmp_path)
    assert event["exception"].endswith("ZeroDivisionError: division by zero")
    assert logbook.sentence(event).splitlines()[0].endswith("[error] analysis failed  study=1.2")


def test_configuring_twice_does_not_write_twice(tmp_path: Path) -> None:
    for _ in range(2):
        logbook.configure("desk", tmp_path, LogSection(), console=False)
    logbook.get().info("once")
    assert len(lines(tmp_path)) == 1


def test_a_value_from_outside_cannot_forge_a_line_or_steer_the_terminal() -> None:
    event = {"at": "2026-01-01T00:00:00Z", "process": "receiver", "event": "rejected", "level": "warning"}
    text = logbook.sentence({**event, "peer": "X\n2026 node stopped\x1b[2J"})
    assert text == "2026-01-01 00:00:00 receiver   [warning] rejected  peer='X\\n2026 node stopped\\x1b[2J'"


# ---------------------------------------------------------------------- rotation


def test_rotation_keeps_as_many_files_as_configured_and_touches_no_other(tmp_path: Path) -> None:
    file = logbook.file_of(tmp_path)
    file.parent.mkdir()
    foreign = [file.with_name("node.log.1.gz"), file.with_name("node.log.old")]
    for path in foreign:
        path.write_text("not ours")
    for number in range(6):
        file.write_text(json.dumps({"event": str(number), "filler": "x" * 70_000}) + "\n")
        assert logbook.rotate(tmp_path, LogSection(maximum_bytes=65_536, keep=4))
    assert not logbook.rotate(tmp_path, LogSection(maximum_bytes=65_536, keep=4))
    assert [event["event"] for event in logbook.read(tmp_path)] == ["2", "3", "4", "5"]
    file.write_text("y" * 70_000)
    assert logbook.rotate(tmp_path, LogSection(maximum_bytes=65_536, keep=2))
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "node.log.1",
        "node.log.1.gz",
        "node.log.2",
        "node.log.old",
    ]


def test_a_small_file_is_not_rotated(tmp_path: Path) -> None:
    logbook.configure("desk", tmp_path, LogSection(), console=False)
    logbook.get().info("one")
    assert not logbook.rotate(tmp_path, LogSection())


WRITER = """
import sys
from pathlib import Path
from triage_node import logbook
from triage_node.config import LogSection
logbook.configure(sys.argv[2], Path(sys.argv[1]), LogSection(), console=False)
log = logbook.get()
for number in range(1500):
    log.info("line", study=f"1.{number % 3}", number=number, filler="x" * (number * 37 % 12_000))
"""


def test_no_line_is_lost_or_torn_while_processes_write_and_the_file_is_rotated(tmp_path: Path) -> None:
    """Read at the end and followed meanwhile, it is the same 4,500 lines."""
    followed: Counter[tuple[str, int]] = Counter()

    def follow() -> None:
        for event in logbook.read(tmp_path, follow=True):
            if event["event"] == "end":
                return
            followed[event["process"], event["number"]] += 1

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"writer-{number}"]) for number in range(3)
    ]
    turns = 0
    section = LogSection(maximum_bytes=1_000_000, keep=100)
    while any(writer.poll() is None for writer in writers):
        turns += logbook.rotate(tmp_path, section)
        time.sleep(0.005)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert turns >= 3
    logbook.configure("test", tmp_path, LogSection(), console=False)
    logbook.get().info("end")
    follower.join(30)
    assert not follower.is_alive()
    expected = Counter({(f"writer-{writer}", number): 1 for writer in range(3) for number in range(1500)})
    everything = list(logbook.read(tmp_path))
    assert Counter((event["process"], event["number"]) for event in everything[:-1]) == expected
    assert followed == expected
    torn = [path for path in logbook.file_of(tmp_path).parent.iterdir() if not path.read_bytes().endswith(b"}\n")]
    assert torn == []
    assert sum(1 for _ in logbook.read(tmp_path, study="1.1")) == 1500


def test_following_begins_before_the_file_is_there(tmp_path: Path) -> None:
    seen: list[str] = []

    def follow() -> None:
        for event in logbook.read(tmp_path, follow=True, study="1.2"):
            seen.append(event["event"])
            if event["event"] == "last":
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    logbook.configure("desk", tmp_path, LogSection(), console=False)
    logbook.get().info("another", study="9.9")
    logbook.get().info("first", study="1.2")
    until(lambda: seen == ["first"], 5, "the first line is seen while it is followed")
    logbook.get().info("last", study="1.2")
    follower.join(5)
    assert seen == ["first", "last"]


def test_a_line_that_a_full_disk_cut_off_is_left_out(tmp_path: Path) -> None:
    file = logbook.file_of(tmp_path)
    file.parent.mkdir()
    file.write_bytes(b'{"event": "one"}\n{"event": "tw\n[]\n\xff\n{"event": "three"}\n{"event": "fo')
    assert [event["event"] for event in logbook.read(tmp_path)] == ["one", "three"]


# ---------------------------------------------------------------------- faults of the disk


def test_a_full_disk_disturbs_neither_the_work_nor_the_console(tmp_path: Path, capsys) -> None:
    file = logbook.file_of(tmp_path)
    file.parent.mkdir()
    file.symlink_to("/dev/full")  # every write to it fails with ENOSPC
    logbook.configure("receiver", tmp_path, LogSection())
    for number in range(3):
        logbook.get().info("instance kept", number=number)
    assert capsys.readouterr().err.count("\n") == 3


def test_a_log_folder_that_vanishes_does_not_stop_the_work(tmp_path: Path, capsys) -> None:
    logbook.configure("receiver", tmp_path, LogSection())
    shutil.rmtree(tmp_path / "log")
    logbook.get().info("one")
    logbook.get().info("two")
    assert capsys.readouterr().err.count("\n") == 2
    (tmp_path / "log").mkdir()
    logbook.get().info("three")
    assert [event["event"] for event in lines(tmp_path)] == ["three"]
