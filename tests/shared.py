"""Real CT that lies beside the project and is no part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
DRIVER = SHARED / "acceptance" / "straight_line.py"
SERIES = SHARED / "data" / "dicom"


def require_shared() -> None:
    """Real CT is not part of the project; under CI it must be there."""
    if not (DRIVER.exists() and SERIES.exists()):
        words = "../shared/data/dicom and ../shared/acceptance are not here"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(words, pytrace=False)
        pytest.skip(words)
