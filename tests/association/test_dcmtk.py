"""DCMTK as the sender: what most PACS gateways behave like."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests import builders, peers, wire
from triage_node import filing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.peers
# storescu option that proposes a syntax first, PS3.5 section 10
OPTIONS = {
    str(RLELossless): "-xr",
    str(JPEG2000Lossless): "-xv",
    str(JPEGLSLossless): "-xt",
    str(JPEGLosslessSV1): "-xs",
    wire.IMPLICIT: "-xi",
    wire.BIG_ENDIAN: "-xb",
    wire.EXPLICIT: "-xe",
    wire.DEFLATED: "-xd",
}


def run(program: str, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = peers.require(program, package="dcmtk")
    return subprocess.run(
        [str(path), *arguments[:-1], "-v", "127.0.0.1", str(port), *arguments[-1:]],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def data_sets(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.glob("*.dcm"):
        header, _, offset = filing.read_file(path)
        found[header.sop_instance_uid] = path.read_bytes()[offset:]
    return found


def test_echoscu_is_answered(receive: Callable[..., Any]) -> None:
    echoscu = peers.require("echoscu", package="dcmtk")
    with receive() as node:
        command = [str(echoscu), "-aec", "TRIAGE", "127.0.0.1", str(node.port)]
        assert subprocess.run(command, check=False, timeout=30).returncode == 0
        command[2] = "WRONG"
        assert subprocess.run(command, check=False, timeout=30, capture_output=True).returncode != 0


@pytest.mark.parametrize("syntax", [wire.EXPLICIT, str(JPEG2000Lossless), str(JPEGLSLossless), str(RLELossless)])
def test_storescu_sends_a_series_and_every_byte_is_kept(
    receive: Callable[..., Any], tmp_path: Path, syntax: str
) -> None:
    folder = tmp_path / "series"
    builders.ct_series(folder, slices=12, transfer_syntax=syntax)
    with receive() as node:
        done = run("storescu", node.port, "-aec", "TRIAGE", OPTIONS[syntax], "+sd", str(folder))
        assert done.returncode == 0, done.stderr
        assert node.kept() == data_sets(folder)
        assert node.endings() == ["released"]
        assert {row["transfer_syntax_uid"] for row in node.rows("select * from instances")} == {syntax}


@pytest.mark.parametrize("syntax", [wire.EXPLICIT, wire.IMPLICIT, str(RLELossless)])
def test_the_priority_of_the_order_comes_with_the_images(
    receive: Callable[..., Any], tmp_path: Path, syntax: str
) -> None:
    """DCMTK's dcmodify puts Requested Procedure Priority into the images of one of two studies."""
    dcmodify = peers.require("dcmodify", package="dcmtk")
    hurried = builders.ct_series(tmp_path / "hurried", slices=3, study="hurried", transfer_syntax=syntax)
    builders.ct_series(tmp_path / "other", slices=3, study="other", transfer_syntax=syntax)
    insert = [str(dcmodify), "-nb", "-i", "(0040,1003)=STAT", *map(str, hurried.paths)]
    assert subprocess.run(insert, check=False, timeout=30).returncode == 0
    with receive() as node:
        for folder in ("other", "hurried"):
            path = str(tmp_path / folder)
            assert run("storescu", node.port, "-aec", "TRIAGE", OPTIONS[syntax], "+sd", path).returncode == 0
        rows = node.rows("select order_priority from studies order by arrived_at")
        assert [row["order_priority"] for row in rows] == [None, "STAT"]


def test_dcmsend_sends_what_it_finds_and_every_byte_is_kept(receive: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "series"
    builders.ct_series(folder, slices=5)
    builders.enhanced_ct(folder, slices=5, series="enhanced")
    with receive() as node:
        done = run("dcmsend", node.port, "-aec", "TRIAGE", "+sd", "+r", str(folder))
        assert done.returncode == 0, done.stderr
        assert node.kept() == data_sets(folder)
        assert len(node.kept()) == 6


def test_one_association_for_each_image_is_served(receive: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "series"
    built = builders.ct_series(folder, slices=5)
    with receive() as node:
        for path in built.paths:
            assert run("storescu", node.port, "-aec", "TRIAGE", str(path)).returncode == 0
        assert len(node.kept()) == 5
        assert node.endings() == ["released"] * 5


def test_storescu_that_is_interrupted_leaves_what_was_acknowledged(receive: Callable[..., Any], tmp_path: Path) -> None:
    from tests.running import until

    folder = tmp_path / "series"
    builders.ct_series(folder, slices=300, rows=64, columns=64)
    storescu = peers.require("storescu", package="dcmtk")

    def acknowledged() -> int:
        return (tmp_path / "storescu.log").read_text().count("Received Store Response (Success)")

    with receive() as node:
        command = [str(storescu), "-v", "-aec", "TRIAGE", "127.0.0.1", str(node.port), "+sd", str(folder)]
        with (tmp_path / "storescu.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            until(lambda: acknowledged() > 20, 20, "images flow")
            process.kill()
            process.wait()
        until(lambda: node.endings() == ["aborted"], 5, "the association is noted as aborted")
        kept = node.kept()
        assert 20 < acknowledged() <= len(kept) < 300
        whole = data_sets(folder)
        assert all(whole[uid] == data for uid, data in kept.items())
