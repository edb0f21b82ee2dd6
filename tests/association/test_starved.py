"""A state directory that is full or unwritable: associations are refused, images answered 0xA700, and it passes."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from tests import wire
from tests.association.conftest import alone, associate, listening, store
from tests.association.test_admission import rejection
from tests.running import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def is_turned_away(port: int) -> bool:
    association = associate(port)
    if association.is_established:
        association.release()
        return False
    return rejection(association) == (2, 3, 2)


def takes_an_image(port: int, number: int) -> bool:
    association = associate(port)
    if not association.is_established:
        return False
    status = store(association, wire.ct(number))
    association.release()
    return status == 0x0000


def test_a_disk_that_fills_up_refuses_images_and_associations_until_there_is_room(
    receive_alone: Callable[..., Any],
) -> None:
    """RLIMIT_FSIZE from outside: from one moment on the process can write nothing, as on a full disk."""
    with receive_alone() as node:
        association = associate(node.port)
        assert store(association, wire.ct(0)) == 0x0000
        node.allow_files_of(0)
        assert store(association, wire.ct(1)) == 0xA700
        assert store(association, wire.ct(2)) == 0xA700
        assert is_turned_away(node.port)
        association.release()  # its end cannot be journalled now
        assert node.process.poll() is None
        node.allow_files_of(1 << 40)
        until(lambda: takes_an_image(node.port, 1), 5, "an image is taken again")
        assert set(node.kept()) == {wire.ct(0).SOPInstanceUID, wire.ct(1).SOPInstanceUID}
        assert not list((node.state_dir / "incoming").iterdir())
        assert node.endings() == ["released", "released"]


def test_a_journal_that_takes_nothing_costs_no_image(receive_alone: Callable[..., Any]) -> None:
    """There is room for the image's own file, but the journal, larger already, cannot grow."""
    with receive_alone() as node:
        association = associate(node.port)
        assert store(association, wire.ct(0)) == 0x0000
        node.allow_files_of(8192)
        assert store(association, wire.ct(1)) == 0xA700
        node.allow_files_of(1 << 40)
        assert store(association, wire.ct(1)) == 0x0000
        association.release()
        assert len(node.kept()) == len(node.files()) == 2


def test_a_receiver_that_starts_on_a_full_disk_listens_and_recovers(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        association = associate(node.port)
        assert store(association, wire.ct(0)) == 0x0000
        association.release()
    incoming = tmp_path / "state" / "incoming"
    shutil.rmtree(incoming)
    incoming.touch()  # what should be a folder cannot be made or written
    (tmp_path / "state" / "journal.sqlite").rename(tmp_path / "lost")  # and there is something to recover
    with listening(tmp_path) as node:
        assert is_turned_away(node.port)
        assert node.rows("select * from instances") == []
        incoming.unlink()
        until(lambda: takes_an_image(node.port, 1), 5, "an image is taken")
        assert set(node.kept()) == {wire.ct(0).SOPInstanceUID, wire.ct(1).SOPInstanceUID}


def test_a_state_directory_that_cannot_be_written_turns_associations_away(
    receive: Callable[..., Any], logs: list[Any]
) -> None:
    with receive() as node:
        under_way = associate(node.port)
        incoming = node.state_dir / "incoming"
        incoming.rename(node.state_dir / "away")
        incoming.touch()
        assert store(under_way, wire.ct(0)) == 0xA700
        assert is_turned_away(node.port)
        incoming.unlink()
        (node.state_dir / "away").rename(incoming)
        assert store(under_way, wire.ct(0)) == 0x0000
        under_way.release()
        time.sleep(1.0)
        assert node.echoes()
    (line, *_) = [line for line in logs if line["event"] == "association rejected"]
    assert "cannot be written" in line["why"]


def test_less_room_than_the_watermark_turns_associations_away(receive: Callable[..., Any], logs: list[Any]) -> None:
    with receive(minimum_free_bytes=1 << 60) as node:
        assert is_turned_away(node.port)
    assert any("intake.minimum_free_bytes" in line.get("why", "") for line in logs)


def test_a_port_in_use_ends_the_receiver_with_its_own_status(tmp_path: Path) -> None:
    with alone(tmp_path) as node:
        import subprocess
        import sys

        from tests.association.conftest import ALONE

        second = subprocess.run(
            [sys.executable, "-c", ALONE, str(tmp_path / "node.toml")], capture_output=True, check=False, timeout=30
        )
        assert second.returncode == 3
        assert b"cannot listen" in second.stderr
        assert node.echoes()
