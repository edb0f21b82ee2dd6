from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nets import weights
from tests.chests import Chest, chest
from triage_node import inference, threshold
from triage_node.config import AnalysisSection


@pytest.fixture(scope="module")
def plain() -> Chest:
    return chest(slice_mm=8.0)


def test_the_configured_method_is_loaded_by_name() -> None:
    method = inference.load(AnalysisSection(method="threshold"))
    assert method.model.name == "threshold"
    assert len(method.model.digest) == 64
    assert method.model == threshold.model()


def test_every_method_of_the_configuration_is_behind_the_door() -> None:
    allowed = AnalysisSection.model_json_schema()["properties"]["method"]
    assert set(inference.METHODS) == set(allowed.get("enum", [allowed.get("const")]))


def test_the_same_volume_gives_the_same_findings_bit_for_bit(plain: Chest) -> None:
    first = inference.load(AnalysisSection(method="threshold"))(plain.volume)
    second = inference.load(AnalysisSection(method="threshold"))(plain.volume)
    assert first.lungs.tobytes() == second.lungs.tobytes()
    assert first.lesions.tobytes() == second.lesions.tobytes()
    assert first.model == second.model
    assert first.covid_probability is None


def test_progress_grows_to_the_end(plain: Chest) -> None:
    told: list[tuple[str, float]] = []
    inference.load(AnalysisSection(method="threshold"))(plain.volume, lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert all(what for what, _ in told)


def test_a_gpu_that_is_not_used_is_a_warning(plain: Chest) -> None:
    findings = inference.load(AnalysisSection(method="threshold", device="cuda:1"))(plain.volume)
    assert any("'cuda:1'" in warning and "CPU" in warning for warning in findings.warnings)
    assert inference.load(AnalysisSection(method="threshold", device="auto"))(plain.volume).warnings == ()


def test_the_threshold_method_does_not_import_torch() -> None:
    code = (
        "import sys; from triage_node import inference; from triage_node.config import AnalysisSection; "
        "inference.load(AnalysisSection(method='threshold')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_weights_it_is_said_at_once_what_makes_them(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from triage_node import errors, inference\n"
        "from triage_node.config import AnalysisSection\n"
        "try: inference.load(AnalysisSection(method='multitask'), Path(sys.argv[1]))\n"
        "except errors.ConfigurationError as error: print(error)\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, "torch takes seconds to load: without weights nobody waits for it"
    assert done.stdout.startswith(f'analysis.method: "multitask" has no weights in {tmp_path}: missing lungs')
    assert "tools/train_lungs.py" in done.stdout
    assert "tools/train_multitask.py" in done.stdout
    assert 'set "threshold"' in done.stdout


def test_the_weights_that_ship_lie_in_the_networks_package() -> None:
    assert inference.packaged_weights() == weights.PACKAGED
