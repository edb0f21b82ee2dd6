"""Preparing a download: patients on one side, resuming, bad studies, sentences for what is missing."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import prepare_mosmed
import pytest
from annotations.unusable import Unusable
from hypothesis import given
from hypothesis import strategies as st
from training import layout, preparation, published
from training.layout import StudyCard
from training.preparation import Made, ToPrepare, split_of
from typer.testing import CliRunner

from tests import published_sets
from triage_node.errors import Refused
from triage_node.study import NotAnalysed, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOOLS = Path(__file__).parents[2] / "tools"
PUBLIC = ("mosmed", "covid_ct_seg", "medseg", "nsclc", "luna16", "covid_19_20", "lctsc")


def card(patient: str) -> StudyCard:
    return StudyCard(
        patient=patient, source="made", licence="none", covid=True, spacing_zyx_mm=(5.0, 2.0, 2.0), contiguous=False
    )


def study(name: str, patient: str, make: Callable[[], Made] | None = None) -> ToPrepare:
    def made() -> Made:
        return Made(card(patient), {"hounsfield": np.full((2, 4, 4), -700, dtype=np.int16)})

    return ToPrepare(name=name, source="made", patient=patient, make=make or made)


def run(studies: list[ToPrepare], out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, summary and what was said on the way."""

    def listed(_: Path) -> Iterator[ToPrepare]:
        yield from studies

    app = preparation.program(listed)
    result = CliRunner().invoke(app, [str(out.parent), str(out), "--json", *options])
    return result.exit_code, json.loads(result.stdout), result.stderr


def splits(out: Path) -> dict[str, str | None]:
    return {path.stem: StudyCard.model_validate_json(path.read_text()).split for path in out.rglob("*.json")}


# ---------------------------------------------------------------------- split


@given(patient=st.text(), seed=st.integers(), smaller=st.floats(0, 1), larger=st.floats(0, 1))
def test_who_is_kept_out_stays_out_when_more_are(patient: str, seed: int, smaller: float, larger: float) -> None:
    smaller, larger = sorted((smaller, larger))
    if split_of(patient, smaller, seed) == "validation":
        assert split_of(patient, larger, seed) == "validation"
    assert split_of(patient, 0.0, seed) == "train"
    assert split_of(patient, 1.0, seed) == "validation"


def test_the_share_of_patients_kept_out_is_about_what_was_asked_and_depends_on_the_seed() -> None:
    patients = [f"patient {number}" for number in range(2000)]
    out = [{p for p in patients if split_of(p, 0.2, seed) == "validation"} for seed in (0, 1)]
    assert all(abs(len(each) - 400) < 60 for each in out)
    assert abs(len(out[0] & out[1]) - 80) < 40


def test_the_split_of_a_patient_is_the_same_on_every_machine() -> None:
    sides = {name: split_of(name, 0.3, 7) for name in "fghij"}
    assert [name for name, side in sides.items() if side == "validation"] == ["h", "i"]


def test_all_studies_of_a_patient_lie_on_one_side(tmp_path: Path) -> None:
    studies = [study(f"s{number}", f"p{number // 4}") for number in range(40)]
    code, _, _ = run(studies, tmp_path / "out", "--patients-out", "0.5", "--seed", "3")
    assert code == 0
    by_patient = {f"p{n}": {splits(tmp_path / "out")[f"s{4 * n + k}"] for k in range(4)} for n in range(10)}
    assert all(len(sides) == 1 for sides in by_patient.values())
    assert {next(iter(sides)) for sides in by_patient.values()} == {"train", "validation"}


def test_patients_of_a_split_file_keep_their_side(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"p1": "test", "p2": "train"}')
    studies = [study(f"s{number}", f"p{number}") for number in range(4)]
    run(studies, tmp_path / "out", "--split", str(tmp_path / "split.json"), "--patients-out", "1")
    assert splits(tmp_path / "out") == {"s0": "validation", "s1": "test", "s2": "train", "s3": "validation"}


def test_patients_of_the_shipped_weights_keep_their_side(tmp_path: Path) -> None:
    shipped = json.loads(preparation.SHIPPED_SPLIT.read_text())
    sides = {side: next(name for name, of in shipped.items() if of == side) for side in ("train", "test")}
    studies = [study(side, patient) for side, patient in sides.items()]
    run(studies, tmp_path / "out", "--patients-out", "1")
    assert splits(tmp_path / "out") == {"train": "train", "test": "test"}


@pytest.mark.parametrize(("text", "said"), [(None, "expected"), ('{"p": "all"}', "p: all is none of train")])
def test_a_split_file_that_cannot_be_used_is_said(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    if text is not None:
        path.write_text(text)
    settings = preparation.Settings(out=tmp_path / "out", split=path)
    with pytest.raises(Unusable, match=said):
        preparation.run(iter([study("s", "p")]), settings, console=preparation.Console())


# ---------------------------------------------------------------------- resuming


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    made: list[str] = []

    def counted(name: str) -> ToPrepare:
        first = study(name, name)

        def make() -> Made:
            made.append(name)
            return first.make()

        return study(name, name, make)

    out = tmp_path / "out"
    run([counted("a"), counted("b")], out)
    (out / "made" / "b.json").unlink()  # as if the run had been cut off in b
    _, summary, _ = run([counted("a"), counted("b"), counted("c")], out)
    assert made == ["a", "b", "b", "c"]
    assert (summary["present"], summary["written"]) == (["a"], ["b", "c"])
    (out / "made" / "a.npz").unlink()
    run([counted("a")], out)
    run([counted("a")], out, "--again")
    assert made == ["a", "b", "b", "c", "a", "a"]


def test_a_study_that_is_there_follows_another_split(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([study("a", "a")], out, "--patients-out", "0")
    before = (out / "made" / "a.npz").stat().st_mtime_ns
    assert splits(out) == {"a": "train"}
    _, summary, _ = run([study("a", "a")], out, "--patients-out", "1")
    assert summary["present"] == ["a"]
    assert splits(out) == {"a": "validation"}
    assert (out / "made" / "a.npz").stat().st_mtime_ns == before


def test_a_run_that_is_cut_off_while_writing_leaves_no_card_of_the_study_before(tmp_path: Path) -> None:
    settings = preparation.Settings(out=tmp_path / "out", again=True)
    preparation.run(iter([study("a", "a")]), settings, console=preparation.Console())
    unwritable = Made(card("a"), {"hounsfield": np.array([object()])})
    with pytest.raises(ValueError, match="pickle"):
        preparation.run(iter([study("a", "a", lambda: unwritable)]), settings, console=preparation.Console(stderr=True))
    assert list((tmp_path / "out").rglob("*.json")) == []


# ---------------------------------------------------------------------- bad studies


def test_bad_studies_are_said_and_the_others_go_on(tmp_path: Path) -> None:
    def raising(error: Exception) -> Callable[[], Made]:
        def make() -> Made:
            raise error

        return make

    shaped = {"hounsfield": np.zeros((2, 4, 4), np.int16)}
    bad = {
        "unusable": raising(Unusable("expected [b] below [/c]")),
        "refused": raising(Refused(NotAnalysed(reason=Reason.TOO_FEW_SLICES, words="3 slices"))),
        "file": raising(PermissionError(13, "Permission denied", "x.nii")),
        "shape": lambda: Made(card("p"), {**shaped, "lungs": np.ones((2, 4, 5), np.uint8)}),
        "empty": lambda: Made(card("p"), {**shaped, "lungs": np.zeros((2, 4, 4), np.uint8)}),
    }
    studies = [study(name, name, make) for name, make in bad.items()]
    code, summary, said = run([*studies, study("good", "good")], tmp_path / "out")
    assert code == 0
    assert summary["written"] == ["good"]
    assert summary["skipped"] == {
        "unusable": "expected [b] below [/c]",
        "refused": "TOO_FEW_SLICES: 3 slices",
        "file": "[Errno 13] Permission denied: 'x.nii'",
        "shape": "lungs are (2, 4, 5), the scan is (2, 4, 4)",
        "empty": "the lung mask is empty",
    }
    assert "skipped unusable: expected [b] below [/c]\n" in said
    assert splits(tmp_path / "out").keys() == {"good"}


def test_a_fault_of_ours_is_no_bad_study(tmp_path: Path) -> None:
    def make() -> Made:
        raise TypeError("a fault")

    with pytest.raises(TypeError, match="a fault"):
        preparation.run(
            iter([study("a", "a", make)]),
            preparation.Settings(out=tmp_path / "out"),
            console=preparation.Console(),
        )


def test_a_run_without_a_usable_study_exits_with_1(tmp_path: Path) -> None:
    def make() -> Made:
        raise Unusable("no")

    assert run([study("a", "a", make)], tmp_path / "out")[0] == 1


def test_remarks_are_said_and_kept(tmp_path: Path) -> None:
    first = study("a", "a")
    _, summary, said = run([study("a", "a", lambda: first.make()._replace(remark="left out heart"))], tmp_path / "out")
    assert summary["remarks"] == {"a": "left out heart"}
    assert "a: left out heart\n" in said


# ---------------------------------------------------------------------- command lines


@pytest.mark.parametrize("name", PUBLIC)
def test_every_script_says_where_its_data_come_from_and_who_may_use_them(name: str) -> None:
    module = importlib.import_module(f"prepare_{name}")
    result = CliRunner().invoke(preparation.program(module.studies), ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    text = " ".join(result.stdout.replace("│", " ").split())
    for word in ("doi:10.", "Licence: CC", "DATA is the folder", "--patients-out", "--seed", "--again"):
        assert word in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mosmed", "the folder studies"),
        ("covid_ct_seg", "the folder COVID-19-CT-Seg_20cases"),
        ("medseg", "the folder rp_im or tr_im.nii.gz"),
        ("nsclc", "NSCLC-Radiomics/LUNG1-*"),
        ("luna16", "subset0 .. subset9 with .mhd files"),
        ("covid_19_20", "the folder Train"),
        ("lctsc", "LCTSC/LCTSC-*"),
    ],
)
def test_a_folder_of_something_else_is_said(name: str, expected: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"prepare_{name}")
    (tmp_path / "data").mkdir()
    result = CliRunner().invoke(preparation.program(module.studies), [str(tmp_path / "data"), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.stderr.strip().endswith(f"expected {expected} below {tmp_path / 'data'}")
    assert not (tmp_path / "out").exists()


def test_a_script_runs_as_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published_sets.nifti(tmp_path / "data" / "studies" / "CT-0" / "study_0001.nii.gz", published_sets.scan())
    arguments = [str(tmp_path / "data"), str(tmp_path / "out"), "--no-find-lungs"]
    monkeypatch.setattr(sys, "argv", ["prepare_mosmed.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(TOOLS / "prepare_mosmed.py"), run_name="__main__")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == "1 studies written, 0 were there already\n"
    (found,) = layout.studies(tmp_path / "out")
    assert found.card.source == "mosmed"


def test_the_folder_itself_may_be_given_for_the_one_above() -> None:
    with pytest.raises(Unusable, match="expected the folder a or b below"):
        published.folder(Path("nowhere"), "a", "b")
    assert published.folder(Path("nowhere/b"), "a", "b") == Path("nowhere/b")


def test_unpacked_files_are_found_as_well_as_packed_ones(tmp_path: Path) -> None:
    (tmp_path / "a.nii").mkdir()
    (tmp_path / "a.nii" / "whatever.nii").touch()
    (tmp_path / "b.nii").touch()
    (tmp_path / "c.nii.gz").touch()
    assert published.nifti(tmp_path, "a").name == "whatever.nii"
    assert published.nifti(tmp_path, "b").name == "b.nii"
    assert published.nifti(tmp_path, "x", "c").name == "c.nii.gz"
    assert [published.stem_of(path) for path in published.niftis(tmp_path, "[bc]")] == ["b", "c"]
    with pytest.raises(Unusable, match=r"expected x.nii.gz or y.nii.gz in"):
        published.nifti(tmp_path, "x", "y")
    with pytest.raises(Unusable, match=r"expected study_\*.nii.gz in"):
        published.niftis(tmp_path, "study_*")


def test_a_mosmed_folder_without_categories_is_said(tmp_path: Path) -> None:
    (tmp_path / "studies" / "others").mkdir(parents=True)
    result = CliRunner().invoke(preparation.program(prepare_mosmed.studies), [str(tmp_path), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "expected the folders CT-0 .. CT-4" in result.stderr


def test_the_readme_names_every_script_and_every_field_of_a_card() -> None:
    text = (TOOLS.parent / "README.md").read_text(encoding="utf-8")
    named = {path.stem for path in TOOLS.glob("prepare_*.py")}
    assert named == {*(f"prepare_{name}" for name in PUBLIC), "prepare_dicom", "prepare_shared"}
    assert [name for name in named if f"`tools/{name}.py " not in text] == []
    assert [name for name in StudyCard.model_fields if f"`{name}`" not in text] == []
