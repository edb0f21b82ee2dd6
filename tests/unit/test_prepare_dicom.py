"""DICOM data sets and a hospital's own studies come out in patient order with what was drawn in them."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import prepare_dicom
import prepare_lctsc
import prepare_nsclc
import pytest
from training import layout, preparation
from typer.testing import CliRunner

from tests import readers
from triage_node import volume
from triage_node.config import AnalysisSection
from triage_node.phantom import Phantom, PhantomSpec, make
from triage_node.phantom_dicom import GE, PHILIPS, SIEMENS, Person, VendorHabit, round_field, write_series

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import typer
    from training.layout import TrainingStudy

    from triage_node.study import Volume

SPEC = PhantomSpec(
    slices=12, rows=180, columns=200, spacing_zyx_mm=(12.0, 2.0, 2.0), right_fraction=0.3, left_fraction=0.1
)
HABITS = {"siemens": SIEMENS, "feet first": GE, "from the head": PHILIPS}


@cache
def phantom() -> Phantom:
    """In patient order, pixels of 2 mm as in the training layout."""
    return make(SPEC)


def written(folder: Path, habit: VendorHabit = SIEMENS, number: int = 1) -> Volume:
    """The phantom as one person's series, as the node reads it."""
    write_series(folder, phantom(), habit, person=Person(number=number))
    ((series,),) = (study.series for study in volume.study_in(folder))
    return volume.read(series, AnalysisSection())


def on_volume(mask: npt.NDArray[Any], on: Volume) -> npt.NDArray[Any]:
    """A mask in patient order on the voxels of the volume; the phantom's own grid, perhaps turned."""
    steps = np.diag(on.affine_lps_mm[:3, 2::-1][::-1])  # along z, y, x
    turned: npt.NDArray[Any] = mask[tuple(slice(None, None, 1 if step > 0 else -1) for step in steps)]
    return turned


def run(app: typer.Typer, *arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def found(out: Path) -> dict[str, TrainingStudy]:
    return {study.name: study for study in layout.studies(out)}


def sides(mask: npt.NDArray[Any], on: Volume, right: str, left: str) -> dict[str, list[tuple[int, readers.Points]]]:
    turned = on_volume(mask, on)
    return {right: readers.outlines(turned == 1), left: readers.outlines(turned == 2)}


def same(one: object, other: object) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def scan_is_the_phantom(study: TrainingStudy) -> bool:
    """Inside the round field; outside it scanners write filler."""
    field = round_field(SPEC)
    wanted = np.clip(phantom().hounsfield, -1200, 2000)
    return bool(np.abs(study.hounsfield - wanted)[:, field].max() <= 1)


# ---------------------------------------------------------------------- LCTSC


@pytest.mark.parametrize("habit", HABITS)
def test_lctsc_lungs_are_the_contours_of_both_sides(habit: str, tmp_path: Path) -> None:
    patient = tmp_path / "data" / "manifest-1" / "LCTSC" / "LCTSC-Train-S1-001" / "study"
    on = written(patient / "ct", HABITS[habit])
    regions = {"Heart": [], "SpinalCord": readers.outlines(on_volume(phantom().truth.lesions, on))}
    drawn = readers.structure_set(on, {**regions, **sides(phantom().truth.lungs, on, "Lung_R", "Lung_L")})
    readers.save(drawn, patient / "rtstruct" / "1-1.dcm")
    summary = run(preparation.program(prepare_lctsc.studies), tmp_path / "data", tmp_path / "out")
    assert summary["skipped"] == {}
    (study,) = found(tmp_path / "out").values()
    assert study.name == study.card.patient == "lctsc-train-s1-001"
    assert scan_is_the_phantom(study)
    assert same(study.lungs, phantom().truth.lungs > 0)
    assert study.lesions is None
    assert (study.card.covid, study.card.spacing_zyx_mm) == (False, (12.0, 2.0, 2.0))


def test_lctsc_patients_without_both_lungs_are_skipped_with_what_is_there(tmp_path: Path) -> None:
    data = tmp_path / "LCTSC"
    one = data / "LCTSC-Train-S1-001"
    on = written(one / "ct", number=1)
    outline = readers.outlines(on_volume(phantom().truth.lesions, on))
    readers.save(readers.structure_set(on, {"Heart": outline}), one / "rt.dcm")
    two = data / "LCTSC-Test-S1-101"
    on = written(two / "ct", number=2)
    readers.save(readers.structure_set(on, {"Lung L": outline}), two / "rt.dcm")
    result = CliRunner().invoke(
        preparation.program(prepare_lctsc.studies), [str(data), str(tmp_path / "out"), "--json"]
    )
    assert result.exit_code == 1
    assert json.loads(result.stdout)["skipped"] == {
        "lctsc-train-s1-001": f"expected Lung_L and Lung_R in {one}, found Heart",
        "lctsc-test-s1-101": "only the left lung was drawn",
    }


# ---------------------------------------------------------------------- NSCLC-Radiomics


def nsclc(data: Path) -> dict[str, Volume]:
    """One patient with PleThora's cavity, one with contours, one with a segmentation, one with neither."""
    volumes = {}
    for number, habit in ((1, GE), (2, SIEMENS), (3, PHILIPS), (4, SIEMENS)):
        name = f"LUNG1-00{number}"
        volumes[name] = written(data / "NSCLC-Radiomics" / name / "study" / "ct", habit, number)
    beside = data / "NSCLC-Radiomics" / "LUNG1-002" / "study"
    on = volumes["LUNG1-002"]
    contours = sides(phantom().truth.lungs, on, "Lung-Right", "Lung-Left")
    drawn = {**contours, "GTV-1": readers.outlines(on_volume(phantom().truth.consolidation, on))}
    readers.save(readers.structure_set(on, drawn), beside / "rt" / "1.dcm")
    on = volumes["LUNG1-003"]
    lungs = on_volume(phantom().truth.lungs, on)
    masks = {"GTV-1": lungs == 3, "Lung-Left": lungs == 2, "Lung-Right": lungs == 1}
    segmented = readers.segmentation(on, masks, automatic=True)
    readers.save(segmented, data / "NSCLC-Radiomics" / "LUNG1-003" / "study" / "seg" / "1.dcm")
    cavity = np.where(phantom().truth.lungs > 0, 3 - phantom().truth.lungs, 0).astype(np.uint8)
    path = data / "Thoracic_Cavities" / "LUNG1-001" / "LUNG1-001_thor_cav_primary_reviewer.nii.gz"
    path.parent.mkdir(parents=True)
    # as published: columns to the right, rows to the front, slices to the head
    stored = cavity[:, ::-1, ::-1].transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), np.diag([2.0, 2.0, 12.0, 1.0])), path)
    return volumes


def test_nsclc_lungs_come_from_plethora_contours_or_segmentations(tmp_path: Path) -> None:
    nsclc(tmp_path / "data")
    summary = run(preparation.program(prepare_nsclc.studies), tmp_path / "data", tmp_path / "out")
    folder = tmp_path / "data" / "NSCLC-Radiomics" / "LUNG1-004"
    assert summary["skipped"] == {"lung1-004": f"expected Lung-Left and Lung-Right in {folder}, found nothing"}
    studies = found(tmp_path / "out")
    assert {name: study.card.lungs_by for name, study in studies.items()} == {
        "lung1-001": "PleThora",
        "lung1-002": "radiation oncologist",
        "lung1-003": "radiation oncologist",
    }
    for study in studies.values():
        assert scan_is_the_phantom(study)
        assert same(study.lungs, phantom().truth.lungs > 0)
        assert (study.lesions, study.card.covid) == (None, False)


def test_a_cavity_of_another_scan_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "data" / "NSCLC-Radiomics" / "LUNG1-001" / "ct")
    path = tmp_path / "data" / "Thoracic_Cavities" / "LUNG1-001" / "mask.nii.gz"
    path.parent.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(np.ones((200, 180, 90), np.uint8), np.eye(4)), path)
    result = CliRunner().invoke(
        preparation.program(prepare_nsclc.studies), [str(tmp_path / "data"), str(tmp_path / "out"), "--json"]
    )
    assert "its scan is (12, 180, 200)" in json.loads(result.stdout)["skipped"]["lung1-001"]


# ---------------------------------------------------------------------- a hospital's own studies


def hospital(data: Path) -> Path:
    truth = phantom().truth
    for number, name in enumerate(("ill", "healthy", "unlabelled", "unsegmented"), start=1):
        on = written(data / name / "ct", HABITS["feet first"], number)
        if name in {"ill", "unlabelled"}:
            lungs, lesions = on_volume(truth.lungs, on), on_volume(truth.lesions, on)
            dense = on_volume(truth.consolidation, on)
            masks = {"Right lung": lungs == 1, "Left lung": lungs == 2, "Heart": lungs == 3}
            readers.save(readers.segmentation(on, masks, key="a"), data / name / "lungs.dcm")
            masks = {"Ground glass opacity": lesions & ~dense, "Verdichtung": dense}
            readers.save(readers.segmentation(on, masks, key="b"), data / name / "deep" / "lesions.dcm")
    (data / "labels.csv").write_text(
        "\ufeffstudy;patient;covid;healthy\nill;A;yes;no\nhealthy;B;No;yes\nunsegmented;A;;\nmissing;C;yes;\n",
        encoding="utf-8",
    )
    return data


def test_a_hospital_trains_on_its_own_studies(tmp_path: Path) -> None:
    options = ("--source", "st-example", "--licence", "our own", "--consolidation", "verdichtung")
    summary = run(prepare_dicom.program(), hospital(tmp_path / "data"), tmp_path / "out", *options)
    assert summary["skipped"] == {
        "missing": "labels.csv names missing, but there is no such folder",
        "unlabelled": "labels.csv does not name unlabelled",
    }
    assert summary["remarks"] == {"ill": "left out Heart"}
    studies = found(tmp_path / "out")
    ill, healthy, unsegmented = (studies[name] for name in ("ill", "healthy", "unsegmented"))
    assert all(scan_is_the_phantom(study) for study in studies.values())
    truth = phantom().truth
    assert same(ill.lungs, truth.lungs > 0)
    assert same(ill.lesions, truth.lesions.astype(np.uint8) + truth.consolidation)
    known = (ill.card.classes, ill.card.covid, ill.card.lungs_by, ill.card.lesions_by, ill.card.licence)
    assert known == (True, True, "reader", "reader", "our own")
    assert healthy.lesions is not None
    assert not healthy.lesions.any()
    assert (healthy.card.covid, healthy.card.lungs_by) == (False, "classical")
    assert (unsegmented.lesions, unsegmented.card.covid) == (None, None)
    assert ill.card.patient == unsegmented.card.patient == "st-example/A"
    assert ill.card.split == unsegmented.card.split


def test_a_segmentation_without_a_lesion_says_that_there_is_none(tmp_path: Path) -> None:
    on = written(tmp_path / "data" / "one" / "ct")
    lungs = on_volume(phantom().truth.lungs, on)
    masks = {"Lungs": lungs > 0, "Lesion": lungs > 2}
    readers.save(readers.segmentation(on, masks), tmp_path / "data" / "one" / "seg.dcm")
    (tmp_path / "data" / "labels.csv").write_text("study,patient,covid\none,A,no\n")
    run(prepare_dicom.program(), tmp_path / "data", tmp_path / "out")
    study = found(tmp_path / "out")["one"]
    assert study.lesions is not None
    assert not study.lesions.any()
    assert study.card.lesions_by == "reader"


def test_a_healthy_study_with_lesions_is_refused(tmp_path: Path) -> None:
    on = written(tmp_path / "data" / "one" / "ct")
    lesions = {"Lesion": on_volume(phantom().truth.lesions, on)}
    readers.save(readers.segmentation(on, lesions), tmp_path / "data" / "one" / "seg.dcm")
    (tmp_path / "data" / "labels.csv").write_text("study,patient,covid,healthy\none,A,no,yes\n")
    result = CliRunner().invoke(prepare_dicom.program(), [str(tmp_path / "data"), str(tmp_path / "out"), "--json"])
    skipped = json.loads(result.stdout)["skipped"]
    assert skipped == {"one": "labels.csv calls it healthy, but lesions were drawn"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "expected"),
        ("", "the column study is missing"),
        ("study,covid\na,yes\n", "the column patient is missing"),
        ("study,patient,covid\na,,yes\n", "line 2: study and patient must be given"),
        ("study,patient,covid\na\n", "line 2: study and patient must be given"),
        ("study,patient,covid\na,A,yes\na,B,no\n", "line 3: a is named twice"),
        ("study,patient,covid\na,A,maybe\n", "line 2: covid is 'maybe'; yes, no or nothing is allowed"),
        (b"study,patient,covid\nM\xfcller,A,yes\n", "is not UTF-8"),
    ],
)
def test_labels_that_cannot_be_read_are_said_with_their_line(
    text: str | bytes | None, said: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    result = CliRunner().invoke(prepare_dicom.program(), [str(tmp_path), str(tmp_path / "out")])
    assert result.exit_code == 2
    assert f"{tmp_path / 'labels.csv'}" in result.stderr
    assert said in result.stderr


def test_a_source_that_is_no_folder_name_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(prepare_dicom.program(), [str(tmp_path), str(tmp_path / "out"), "--source", "a/b"])
    assert result.exit_code == 2
    assert "letters, digits" in result.stderr
