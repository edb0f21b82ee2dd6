from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "bench_worklist.py"


def run(*options: str) -> str:
    done = subprocess.run([sys.executable, str(TOOL), *options], check=True, capture_output=True, text=True)
    return done.stdout


def test_the_list_is_measured_beside_the_former_way_in_the_same_run() -> None:
    answer = json.loads(run("--studies", "300", "--repeat", "2", "--json"))
    assert (answer["studies"], answer["repetitions"]) == (300, 2)
    assert answer["median_ms"].keys() == answer["longest_ms"].keys() == answer["median_processor_ms"].keys()
    assert {"the first 50", "the first 50 after the result", "former way"} <= answer["median_ms"].keys()
    assert all(answer["longest_ms"][name] >= median > 0 for name, median in answer["median_ms"].items())
    assert answer["times_as_fast_as_the_former_way"] > 0


def test_people_get_a_table() -> None:
    shown = run("--studies", "100", "--repeat", "1")
    assert "100 open studies" in shown
    assert "the first 50 after the result" in shown
    assert "times as fast as in the former way" in shown
