"""The whole node against real series: the acceptance driver that lies beside the data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import peers
from tests.shared import DRIVER, SERIES, require_shared


def drive(tmp_path: Path, *more: str) -> str:
    """The acceptance driver's output; it must end without a failure."""
    require_shared()
    for program in ("dcmsend", "storescp", "echoscu", "dsrdump"):
        peers.require(program, package="dcmtk")
    dciodvfy = peers.require("dciodvfy", package="dicom3tools")
    node = Path(sys.executable).with_name("triage-node")
    done = subprocess.run(
        [sys.executable, str(DRIVER), "--node", str(node), "--data", str(SERIES), "--keep", str(tmp_path), *more],
        env={**os.environ, "PATH": f"{os.environ['PATH']}{os.pathsep}{dciodvfy.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.peers
@pytest.mark.timeout(600)
def test_every_real_series_comes_back_judged_and_its_objects_reach_the_pacs(tmp_path: Path) -> None:
    assert "6 series, 0 failures" in drive(tmp_path)


@pytest.mark.peers
@pytest.mark.timeout(600)
def test_the_networks_find_lesions_in_covid_and_none_in_a_healthy_chest(tmp_path: Path) -> None:
    """The COVID-19 series and lidc-1011 are patients whom the networks have not seen."""
    numbers = tmp_path / "numbers.json"
    names = ("ct-md-covid-p001", "ricord-1a-000082", "ct-md-normal-001", "lidc-1011")
    drive(tmp_path, "--method", "multitask", "--json", str(numbers), "--only", *names)
    rows = {row["series"]: row for row in json.loads(numbers.read_text(encoding="utf-8"))["rows"]}
    for name in ("ct-md-covid-p001", "ricord-1a-000082"):
        assert rows[name]["affected_fraction_right"] > 0.01, name
        assert rows[name]["covid_probability"] > 0.5, name
    for name in ("ct-md-normal-001", "lidc-1011"):
        assert max(rows[name]["affected_fraction_right"], rows[name]["affected_fraction_left"]) < 0.002, name
        assert rows[name]["covid_probability"] < 0.2, name
