from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.chests import chest

EVALUATE = Path(__file__).parents[2] / "tools" / "evaluate.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(EVALUATE), *arguments], capture_output=True, text=True, check=False)


def test_a_method_is_measured_against_expert_masks(tmp_path: Path) -> None:
    made = chest(slice_mm=8.0)
    z, y, x = np.ogrid[: made.hounsfield.shape[0], :200, :200]
    lesion = ((z * 8.0 - 160) ** 2 + (y * 2.0 - 200) ** 2 + (x * 2.0 - 125) ** 2 < 30.0**2) & (made.lungs > 0)
    folder = tmp_path / "volumes" / "medseg_9"
    folder.mkdir(parents=True)
    np.savez(
        folder / "made.npz",
        hu_approx=np.where(lesion, -500, made.hounsfield).astype(np.int16),
        lung=(made.lungs > 0).astype(np.uint8),
        lesion=lesion.astype(np.uint8),
        spacing_zyx_mm_unreliable=np.array([8.0, 2.0, 2.0]),
    )
    done = run(str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (case,) = result["cases"]
    assert case["dice_lungs"] > 0.95
    assert case["dice_lesions"] > 0.8
    assert case["expert_fraction_both"] == np.count_nonzero(lesion) / np.count_nonzero(made.lungs)
    assert result["model"]["name"] == "threshold"
    assert result["summary"]["peak_memory_mib"] > 0


def test_an_empty_folder_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.returncode != 0
    assert "medseg_9" in done.stderr
