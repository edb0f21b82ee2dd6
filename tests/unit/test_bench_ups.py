from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "bench_ups.py"


def run(*options: str) -> str:
    done = subprocess.run([sys.executable, str(TOOL), *options], check=True, capture_output=True, text=True)
    return done.stdout


def test_the_worklist_is_asked_by_a_reading_system_and_a_result_reorders_it() -> None:
    answer = json.loads(run("--studies", "200", "--repeat", "2", "--json"))
    assert (answer["studies"], answer["repetitions"]) == (200, 2)
    assert answer["median_ms"].keys() == answer["longest_ms"].keys() == answer["median_processor_ms"].keys()
    assert {"the first 50", "the first 50 after a result", "all 200"} <= answer["median_ms"].keys()
    assert all(answer["longest_ms"][name] >= median > 0 for name, median in answer["median_ms"].items())
    assert answer["median_processor_ms"]["all 200"] > 0


def test_people_get_a_table() -> None:
    shown = run("--studies", "100", "--repeat", "1")
    assert "100 open studies" in shown
    assert "the first 50 after a result" in shown
