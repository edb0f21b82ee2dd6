"""tools/evaluate.py as it is run: a folder of many kinds, one table for all methods."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import evaluate
import nibabel
import numpy as np
import pytest
import typer
from evaluation import tables
from typer.testing import CliRunner

from tests.chests import chest
from triage_node import results, severity, volume
from triage_node.config import AnalysisSection
from triage_node.identity import ResultIdentity
from triage_node.phantom import PhantomSpec, make
from triage_node.phantom_dicom import Person, write_series
from triage_node.study import Findings, Model

REPOSITORY = Path(__file__).parents[2]
EVALUATE = REPOSITORY / "tools" / "evaluate.py"
SETTINGS = AnalysisSection(method="threshold")


def refused(*arguments: str | Path) -> str:
    """What is said of a wrong call, without the frame around it."""
    app = typer.Typer()
    app.command()(evaluate.main)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 2, done.output
    return re.sub(r"[\s│]+", " ", done.output)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run over a folder with everything in it."""

    report: dict[str, Any]
    markdown: str
    readme: str
    plots: bytes
    screen: str

    def scan(self, name: str) -> dict[str, Any]:
        return next(scan for scan in self.report["methods"]["threshold"]["scans"] if scan["study"] == name)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    data = tmp_path_factory.mktemp("data")
    _stack(data / "covid_ct_seg" / "coronacases_org_001.npz")
    (data / "covid_ct_seg" / "cut-off.npz").write_bytes(
        (data / "covid_ct_seg" / "coronacases_org_001.npz").read_bytes()[:999]
    )
    np.savez(data / "covid_ct_seg" / "short.npz", hu=np.zeros((2, 3), np.int16), slice_index=np.arange(2))
    _phantom(
        data / "dicom" / "normal-1",
        Person(number=1),
        PhantomSpec(slices=40, rows=128, columns=128, spacing_zyx_mm=(7.0, 3.0, 3.0)),
    )
    ill = PhantomSpec(
        slices=40, rows=128, columns=128, spacing_zyx_mm=(7.0, 3.0, 3.0), right_fraction=0.4, left_fraction=0.2, seed=2
    )
    _phantom(data / "dicom" / "covid-1", Person(number=2), ill, segmented=True)
    _nifti(data / "nifti")
    (data / "labels.csv").write_text("study,group\npatient_7,other\n")
    out = tmp_path_factory.mktemp("out")
    (out / "README.md").write_text("before\n<!-- evaluation: by the tool -->\nold\n<!-- end of evaluation -->\nafter\n")
    files = ["--json", out / "r.json", "--markdown", out / "r.md", "--plots", out / "r.png"]
    files += ["--readme", out / "README.md"]
    command = [sys.executable, EVALUATE, "--data", data, "--method", "threshold", "--resamples", "50", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Outcome(
        report=json.loads((out / "r.json").read_text()),
        markdown=(out / "r.md").read_text(),
        readme=(out / "README.md").read_text(),
        plots=(out / "r.png").read_bytes(),
        screen=done.stderr,
    )


def _ill_chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hounsfield units, lungs and a lesion of 60 mm in the left lung; 8 x 2 x 2 mm."""
    made = chest(slice_mm=8.0)
    z, y, x = np.ogrid[: made.hounsfield.shape[0], :200, :200]
    lesion = ((z * 8.0 - 160) ** 2 + (y * 2.0 - 200) ** 2 + (x * 2.0 - 125) ** 2 < 30.0**2) & (made.lungs > 0)
    return np.where(lesion, -500, made.hounsfield).astype(np.int16), made.lungs, lesion


def _stack(path: Path) -> None:
    hounsfield, lungs, lesion = _ill_chest()
    kept = np.s_[8:30, 50:150, 30:170]  # a crop around the lungs
    path.parent.mkdir()
    np.savez(
        path,
        hu=hounsfield[kept],
        lung=(lungs[kept] > 0).astype(np.uint8),
        lesion=lesion[kept].astype(np.uint8),
        valid_box=np.tile(np.array([0, 100, 0, 140], dtype=np.int16), (22, 1)),
        slice_index=np.arange(22, dtype=np.int16),
        pixel_spacing_mm=np.array([2.0, 2.0], dtype=np.float32),
    )


def _phantom(folder: Path, person: Person, spec: PhantomSpec, *, segmented: bool = False) -> None:
    """A series of the project's own phantom, with its truth as the node's own segmentations if asked for."""
    made = make(spec)
    write_series(folder, made, person=person)
    if not segmented:
        return
    ct = volume.read(volume.study_in(folder)[0].series[0], SETTINGS)
    model = Model(name="truth", version="1", digest="00" * 32)
    truth = Findings(lungs=made.truth.lungs, lesions=made.truth.lesions, covid_probability=None, model=model)
    identity = ResultIdentity(
        study_instance_uid=ct.instances[0].series.study_instance_uid,
        series_digest="1",
        model_digest="2",
        generation=1,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assessment = severity.assess(ct, truth, generation=1, settings=SETTINGS)
    for made_object in results.judged(ct, truth, assessment, identity):
        results.write(made_object, folder / f"{made_object.kind}.dcm")


def _nifti(folder: Path) -> None:
    hounsfield, lungs, lesion = _ill_chest()
    affine = np.diag([-2.0, -2.0, 8.0, 1.0])
    for name, values in (("ct", hounsfield), ("lungs", lungs), ("lesions", lesion.astype(np.uint8))):
        (folder / "patient_7").mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(values.transpose(2, 1, 0), affine)
        nibabel.save(image, folder / "patient_7" / f"{name}.nii.gz")


def test_every_study_is_found_and_the_broken_ones_stop_nothing(outcome: Outcome) -> None:
    scans = {scan["study"]: scan["failed"] for scan in outcome.report["methods"]["threshold"]["scans"]}
    assert {name for name, failed in scans.items() if failed is None} == {
        "coronacases_org_001",
        "dicom/normal-1",
        "dicom/covid-1",
        "patient_7",
    }
    assert scans["short"]
    assert "short" in outcome.screen
    assert [Path(entry["path"]).name for entry in outcome.report["left_out"]] == ["cut-off.npz"]


def test_a_stack_is_scored_in_fractions(outcome: Outcome) -> None:
    scan = outcome.scan("coronacases_org_001")
    _, lungs, lesion = _ill_chest()
    kept = np.s_[8:30, 50:150, 30:170]
    assert scan["expert_fraction"] == pytest.approx(np.count_nonzero(lesion[kept]) / np.count_nonzero(lungs[kept]))
    assert scan["lungs_dice"] > 0.95
    assert scan["lesion_dice"] > 0.8
    assert "expert_lesion_ml" not in scan
    assert (scan["group"], scan["patient"], scan["kind"]) == ("covid", "coronacases_001", "stack")


def test_dicom_with_segmentations_is_scored_in_fractions_and_volumes(outcome: Outcome) -> None:
    scan = outcome.scan("dicom/covid-1")
    assert scan["expert_fraction_worse"] == pytest.approx(0.4, abs=0.02)
    assert scan["expert_lungs_ml"] > 1000
    assert scan["right_lung_dice"] > 0.9
    assert scan["lungs_dice"] > 0.9
    assert scan["seconds"] > 0
    assert scan["peak_memory_mib"] > 50


def test_a_series_without_masks_still_has_a_group_and_says_what_was_not_scored(outcome: Outcome) -> None:
    scan = outcome.scan("dicom/normal-1")
    assert scan["group"] == "healthy"
    assert scan["lungs_dice"] is None
    assert scan["not_scored"]["lungs"] == "not drawn by an expert"
    assert outcome.report["methods"]["threshold"]["fraction_in_healthy"] == scan["predicted_fraction"]
    assert outcome.report["methods"]["threshold"]["auc_vs_healthy"] == 1.0


def test_nifti_is_scored_with_both_lungs(outcome: Outcome) -> None:
    scan = outcome.scan("patient_7")
    assert scan["group"] == "other"
    assert scan["left_lung_dice"] > 0.9
    assert scan["expert_lesion_ml"] == pytest.approx(np.count_nonzero(_ill_chest()[2]) * 0.032)


def test_the_figures_of_a_method_are_means_over_scans(outcome: Outcome) -> None:
    method = outcome.report["methods"]["threshold"]
    dice = [scan["lesion_dice"] for scan in method["scans"] if scan.get("lesion_dice") is not None]
    assert len(dice) == 3
    assert method["lesion_dice"] == pytest.approx(np.mean(dice))
    assert method["counts"]["lesion_dice"]["scans"] == 3
    assert method["failed"] == 1
    assert method["model"]["name"] == "threshold"
    assert method["fraction_mae"] == pytest.approx(
        np.mean(
            [
                abs(s["predicted_fraction"] - s["expert_fraction"])
                for s in method["scans"]
                if s["fraction_mae"] is not None
            ]
        )
    )


def test_the_tables_and_the_page_of_plots_are_written(outcome: Outcome) -> None:
    assert "| Dice of the lesions |" in outcome.markdown
    assert "Goncharov" in outcome.markdown
    assert "cut-off.npz" in outcome.markdown
    assert outcome.plots[:4] == b"\x89PNG"
    assert re.fullmatch(
        r"before\n<!-- evaluation: by the tool -->\n\|.*Dice of the lungs.*\n<!-- end of evaluation -->\nafter\n",
        outcome.readme,
        re.DOTALL,
    )
    assert "NOT FOR DIAGNOSTIC USE" in outcome.markdown


def test_an_empty_folder_is_an_error_that_says_what_is_looked_for(tmp_path: Path) -> None:
    assert "DICOM series" in refused("--data", tmp_path)


def test_wrong_wishes_are_refused_before_the_long_work(tmp_path: Path) -> None:
    _stack(tmp_path / "set" / "coronacases_org_001.npz")
    for wish, words in (
        (("--method", "oracle"), "no method 'oracle'"),
        (("--plots", "page.txt"), "must end in .png"),
        (("--split", "test", "--split-table", str(tmp_path / "none.json")), "cannot be read"),
    ):
        assert words in refused("--data", tmp_path, *wish)


def test_the_readme_has_the_section_with_the_rows_of_the_table() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"<!-- {tables.MARKER}:[^>]*-->\n(.*?)<!-- end of {tables.MARKER} -->", text, re.DOTALL)
    assert match is not None
    titles = {row.title: row.papers for row in tables.ROWS}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in match[1].splitlines() if line[:1] == "|"]
    named = [row for row in rows[2:] if row[0] in titles]
    assert all(row[-1] == titles[row[0]] for row in named)
