from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bench_inference
import pytest

from tests import networks

ROOT = Path(__file__).parents[2]


def test_every_stage_is_measured_and_the_networks_are_compared_with_the_floor(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tools" / "bench_inference.py"),
            *("--slices", "30", "--matrix", "96", "--repeat", "1", "--leak", "2", "--device", "cpu", "--json"),
            *("--weights", str(networks.write(tmp_path))),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout)
    assert list(answer["seconds"]) == list(bench_inference.STAGES)
    assert answer["seconds_total"] == pytest.approx(sum(answer["seconds"].values()), abs=0.01)
    assert answer["network_slices"]["lungs"] == [30, 1, 192, 192]  # 190 pixels of 2 mm, aligned
    assert answer["network_seconds"]["lungs"] <= answer["seconds"]["finding the lungs"]
    assert answer["networks_over_floor"] > 0
    assert 0 < answer["share_outside_networks"] < 1
    assert answer["memory"]["series"] == 2
    assert answer["peak_memory_mib"] >= answer["memory"]["last_mib"]


def test_memory_that_stays_has_no_growth_and_memory_that_grows_is_told() -> None:
    assert bench_inference.growth([500.0] * 9)["growth_mib_a_series"] == 0
    assert bench_inference.growth([500.0 + 2 * number for number in range(30)])["growth_mib_a_series"] == 2
    assert bench_inference.growth([100.0, 400.0, 500.0, *[500.0] * 6])["growth_mib_a_series"] == 0
