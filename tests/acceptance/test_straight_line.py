"""The whole node against real series: the acceptance driver that lies beside the data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import peers

SHARED = Path(__file__).parents[3] / "shared"
DRIVER = SHARED / "acceptance" / "straight_line.py"
SERIES = SHARED / "data" / "dicom"


def require_shared() -> None:
    """Real CT is not part of the project; under CI it must be there."""
    if not (DRIVER.exists() and SERIES.exists()):
        words = "../shared/data/dicom and ../shared/acceptance are not here"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(words, pytrace=False)
        pytest.skip(words)


@pytest.mark.peers
@pytest.mark.timeout(600)
def test_every_real_series_comes_back_judged_and_its_objects_reach_the_pacs(tmp_path: Path) -> None:
    require_shared()
    for program in ("dcmsend", "storescp", "echoscu", "dsrdump"):
        peers.require(program, package="dcmtk")
    dciodvfy = peers.require("dciodvfy", package="dicom3tools")
    done = subprocess.run(
        [
            sys.executable,
            str(DRIVER),
            "--node",
            str(Path(sys.executable).with_name("triage-node")),
            "--data",
            str(SERIES),
            "--keep",
            str(tmp_path),
        ],
        env={**os.environ, "PATH": f"{os.environ['PATH']}{os.pathsep}{dciodvfy.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 series, 0 failures" in done.stdout
