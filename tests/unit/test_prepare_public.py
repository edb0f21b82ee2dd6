"""Each public data set, in its published layout, comes out as what it shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import prepare_covid_19_20
import prepare_covid_ct_seg
import prepare_luna16
import prepare_medseg
import prepare_mosmed
import pytest
from training import layout, preparation
from typer.testing import CliRunner

from tests import published_sets
from tests.published_sets import SLICE_MM, SPACING_ZYX_MM

if TYPE_CHECKING:
    from pathlib import Path

    from training.layout import TrainingStudy

SCAN, LUNGS, LESION = published_sets.scan, published_sets.lungs, published_sets.lesion
RADIOPAEDIA_4, RADIOPAEDIA_7 = "radiopaedia_4_85506_1", "radiopaedia_7_85703_0"


def prepare(module: Any, data: Path, out: Path, *options: str) -> dict[str, Any]:
    """Run a script's command line; the summary."""
    result = CliRunner().invoke(preparation.program(module.studies), [str(data), str(out), "--json", *options])
    assert result.exit_code == 0, result.output
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def prepared(module: Any, data: Path, out: Path, *options: str) -> dict[str, TrainingStudy]:
    """Run a script; the studies by name, none of which may be skipped."""
    assert prepare(module, data, out, *options)["skipped"] == {}
    return {study.name: study for study in layout.studies(out)}


def same(one: object, other: object) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


# ---------------------------------------------------------------------- MosMed-1110


def mosmed(data: Path) -> Path:
    for category, name in ((0, "study_0001"), (1, "study_0255"), (2, "study_0939")):
        published_sets.nifti(data / "studies" / f"CT-{category}" / f"{name}.nii.gz", SCAN().astype(np.float64))
    published_sets.nifti(data / "masks" / "study_0255_mask.nii.gz", (LESION() > 0).astype(np.float64))
    (data / "dataset_registry.xlsx").write_bytes(b"not read")
    return data


def test_mosmed_studies_are_labelled_by_their_folder(tmp_path: Path) -> None:
    found = prepared(prepare_mosmed, mosmed(tmp_path / "COVID19_1110"), tmp_path / "out")
    labels = {name: (study.card.covid, study.card.healthy) for name, study in found.items()}
    assert labels == {"study_0001": (False, True), "study_0255": (True, False), "study_0939": (True, False)}
    assert {study.card.patient for study in found.values()} == {f"mosmed/{name}" for name in found}
    assert all(same(study.hounsfield, SCAN()) for study in found.values())
    assert all(study.card.spacing_zyx_mm == SPACING_ZYX_MM for study in found.values())


def test_mosmed_lesions_are_drawn_none_or_unknown(tmp_path: Path) -> None:
    found = prepared(prepare_mosmed, mosmed(tmp_path / "data"), tmp_path / "out")
    healthy, masked, unmasked = (found[name] for name in ("study_0001", "study_0255", "study_0939"))
    assert masked.lesions is not None
    assert same(masked.lesions, LESION() > 0)
    assert masked.card.classes is False
    assert healthy.lesions is not None
    assert not healthy.lesions.any()
    assert unmasked.lesions is None
    assert (masked.card.lesions_by, healthy.card.lesions_by) == ("radiologist", "category CT-0")


def test_lungs_that_nobody_drew_are_found_and_hold_the_lesions(tmp_path: Path) -> None:
    data = mosmed(tmp_path / "data")
    found = prepared(prepare_mosmed, data, tmp_path / "out")["study_0255"]
    assert found.lungs is not None
    assert found.card.lungs_by == "classical"
    both = 2 * np.count_nonzero(found.lungs & (LUNGS() > 0))
    assert both / (np.count_nonzero(found.lungs) + np.count_nonzero(LUNGS())) > 0.95
    assert found.lesions is not None
    assert not (found.lesions.astype(bool) & ~found.lungs).any()
    without = prepared(prepare_mosmed, data, tmp_path / "without", "--no-find-lungs")["study_0255"]
    assert without.lungs is None
    assert without.card.lungs_by is None


# ---------------------------------------------------------------------- COVID-19-CT-Seg


def grey(window: tuple[int, int]) -> np.ndarray:
    return np.rint((np.clip(SCAN(), *window) - window[0]) / (window[1] - window[0]) * 255).astype(np.int16)


def covid_ct_seg(data: Path, *, all_in_one: bool = False, old_names: bool = False) -> Path:
    """Headers of radiopaedia files name the rows the wrong way round, one of them the slices, too."""
    cases = {
        "coronacases_001": (SCAN(), (False, False, False)),
        RADIOPAEDIA_4: (grey((-1350, 150)), (False, True, False)),
        RADIOPAEDIA_7: (grey((-1350, 150)), (True, True, False)),
        "radiopaedia_40_86625_0": (grey((-1200, 400)), (False, True, False)),
    }
    side = np.select([LUNGS() == 2, LUNGS() == 1], [1, 2])  # as published: 1 left, 2 right
    for name, (image, wrong) in cases.items():
        called = name
        if old_names:
            called = name.replace("coronacases_", "coronacases_org_")
            called = called.replace("radiopaedia_", "radiopaedia_org_covid-19-pneumonia-")
            called += "-dcm" if "radiopaedia" in name else ""
        published_sets.nifti(data / "COVID-19-CT-Seg_20cases" / f"{called}.nii.gz", image, wrong=wrong)
        if all_in_one:
            whole = np.where(LESION() > 0, 3, side).astype(np.uint8)
            published_sets.nifti(data / "Lung_and_Infection_Mask" / f"{name}.nii.gz", whole, wrong=wrong)
        else:
            published_sets.nifti(data / "Lung_Mask" / f"{name}.nii.gz", side.astype(np.uint8), wrong=wrong)
            infection = (LESION() > 0).astype(np.uint8)
            published_sets.nifti(data / "Infection_Mask" / f"{name}.nii.gz", infection, wrong=wrong)
    return data


@pytest.mark.parametrize(("all_in_one", "old_names"), [(False, False), (True, False), (False, True)])
def test_covid_ct_seg_comes_upright_with_lungs_and_infection(all_in_one: bool, old_names: bool, tmp_path: Path) -> None:
    data = covid_ct_seg(tmp_path / "data", all_in_one=all_in_one, old_names=old_names)
    found = prepared(prepare_covid_ct_seg, data, tmp_path / "out")
    assert len(found) == 4
    for study in found.values():
        assert same(study.lungs, LUNGS() > 0)
        assert same(study.lesions, LESION() > 0)
        assert study.card.covid is True
        assert study.card.classes is False


def test_the_name_of_a_covid_ct_seg_file_decides_what_its_values_are(tmp_path: Path) -> None:
    found = prepared(prepare_covid_ct_seg, covid_ct_seg(tmp_path / "data"), tmp_path / "out")
    assert same(found["coronacases_001"].hounsfield, SCAN())
    windows = {RADIOPAEDIA_4: (-1350, 150), RADIOPAEDIA_7: (-1350, 150), "radiopaedia_40_86625_0": (-1200, 400)}
    for name, (low, high) in windows.items():
        wanted = np.clip(SCAN(), max(low, -1200), high)
        assert np.abs(found[name].hounsfield - wanted).max() <= (high - low) / 255 / 2 + 1
    exact = {name: study.card.exact_hounsfield for name, study in found.items()}
    assert exact == {name: name == "coronacases_001" for name in found}


def test_covid_ct_seg_values_that_belie_the_name_are_refused(tmp_path: Path) -> None:
    data = covid_ct_seg(tmp_path / "data")
    images = data / "COVID-19-CT-Seg_20cases"
    (images / "coronacases_001.nii.gz").rename(images / "kept")
    (images / f"{RADIOPAEDIA_4}.nii.gz").rename(images / "coronacases_001.nii.gz")
    (images / "kept").rename(images / f"{RADIOPAEDIA_4}.nii.gz")
    skipped = prepare(prepare_covid_ct_seg, data, tmp_path / "out")["skipped"]
    assert skipped.keys() == {"coronacases_001", RADIOPAEDIA_4}
    assert "no Hounsfield units" in skipped["coronacases_001"]
    assert "grey levels 0..255" in skipped[RADIOPAEDIA_4]


def test_patients_bear_one_name_in_both_sets_that_show_them() -> None:
    of = prepare_covid_ct_seg.patient_of
    assert of("radiopaedia_10_85902_1") == of("radiopaedia_10_85902_3") == "radiopaedia_10_85902"
    assert of("radiopaedia_29_86490_1") == of("radiopaedia_29_86491_1") == "radiopaedia_29"
    names = ["4_85506_1", "7_85703_0", "10_85902_1", "27_86410_0", "29_86490_1", "36_86526_0", "40_86625_0"]
    assert {of(f"radiopaedia_{name}") for name in names} == set(prepare_medseg.PATIENTS.values())
    assert prepare_medseg.PATIENTS.keys() == {f"medseg_{number}" for number in range(1, 10)}
    assert of("coronacases_001") == "coronacases_001"


# ---------------------------------------------------------------------- MedSeg


def medseg_volumes(data: Path) -> Path:
    effusion = LESION().copy()
    effusion[5, 150:152, 50:70] = 3
    for name in ("2", "6"):
        published_sets.nifti(data / "rp_im" / f"{name}.nii.gz", SCAN())
        published_sets.nifti(data / "rp_lung_msk" / f"{name}.nii.gz", LUNGS())
        published_sets.nifti(data / "rp_msk" / f"{name}.nii.gz", effusion)
    return data


def medseg_slices(data: Path, *, with_lungs: bool = True) -> Path:
    """Pictures [n, y, x] in a file whose header turns them over."""
    data.mkdir(exist_ok=True)
    stacks = {"tr_im": SCAN().astype(np.float32), "tr_mask": LESION(), "tr_lungmasks_updated": LUNGS()}
    for name, stack in stacks.items():
        if with_lungs or name != "tr_lungmasks_updated":
            image = nibabel.Nifti1Image(np.ascontiguousarray(stack[10:14].transpose(2, 1, 0)), np.eye(4))
            nibabel.save(image, data / f"{name}.nii.gz")
    return data


def test_medseg_volumes_tell_ground_glass_from_consolidation_and_effusion_is_no_lesion(tmp_path: Path) -> None:
    found = prepared(prepare_medseg, medseg_volumes(tmp_path / "data"), tmp_path / "out")
    assert found.keys() == {"medseg_2", "medseg_6"}
    for study in found.values():
        assert same(study.hounsfield, SCAN())
        assert same(study.lungs, LUNGS() > 0)
        assert same(study.lesions, LESION())
        assert study.card.exact_hounsfield is False
    assert (found["medseg_2"].card.classes, found["medseg_6"].card.classes) == (True, False)


def test_medseg_slices_keep_the_order_of_their_pictures_and_are_one_patient(tmp_path: Path) -> None:
    found = prepared(prepare_medseg, medseg_slices(tmp_path / "data"), tmp_path / "out")
    assert list(found) == ["slice_000", "slice_001", "slice_002", "slice_003"]
    assert {study.card.patient for study in found.values()} == {"medseg_100"}
    first = found["slice_001"]
    assert (first.card.contiguous, first.card.classes, first.card.covid) == (False, True, True)
    # the lungs of the picture span what lungs span, and everything is where it was in the picture
    width = np.flatnonzero(LUNGS()[11].any(axis=0))
    mm = np.clip(270 / (width[-1] + 1 - width[0]), 0.5, 1.0)
    assert first.hounsfield.shape == (1, round(200 * mm / 2), round(200 * mm / 2))
    assert first.lesions is not None
    assert {1, 2} == set(np.unique(first.lesions)) - {0}
    middle = np.argwhere(first.lesions[0]).mean(axis=0) / first.lesions.shape[1:]
    wanted = np.argwhere(LESION()[11]).mean(axis=0) / 200
    assert np.abs(middle - wanted).max() < 0.01


def test_medseg_slices_without_lung_masks_have_an_assumed_pixel_size(tmp_path: Path) -> None:
    found = prepared(prepare_medseg, medseg_slices(tmp_path / "data", with_lungs=False), tmp_path / "out")
    assert {study.hounsfield.shape for study in found.values()} == {(1, 70, 70)}
    assert {study.lungs is None for study in found.values()} == {True}


def test_an_unknown_medseg_label_is_refused(tmp_path: Path) -> None:
    data = medseg_volumes(tmp_path / "data")
    published_sets.nifti(data / "rp_msk" / "2.nii.gz", np.where(LESION() == 2, 7, LESION()))
    skipped = prepare(prepare_medseg, data, tmp_path / "out")["skipped"]
    assert skipped == {"medseg_2": "the lesion mask has the label 7; 1, 2 and 3 are known"}


# ---------------------------------------------------------------------- LUNA16


def test_luna16_lungs_are_labels_3_and_4_whichever_way_a_series_is_turned(tmp_path: Path) -> None:
    labels = np.where(LUNGS() > 0, LUNGS() + 2, 0)
    labels[25:28, 100:105, 98:102] = 5  # trachea
    for number, turned in ((0, False), (9, True)):
        uid = f"1.3.6.1.{number}"
        published_sets.metaimage(tmp_path / "data" / f"subset{number}" / f"{uid}.mhd", SCAN(), turned=turned)
        mask = tmp_path / "data" / "seg-lungs-LUNA16" / f"{uid}.mhd"
        published_sets.metaimage(mask, labels.astype(np.uint8), turned=turned)
    found = prepared(prepare_luna16, tmp_path / "data", tmp_path / "out")
    assert found.keys() == {"1.3.6.1.0", "1.3.6.1.9"}
    for study in found.values():
        assert same(study.hounsfield, SCAN())
        assert same(study.lungs, LUNGS() > 0)
        assert study.lesions is not None
        assert not study.lesions.any()
        assert (study.card.covid, study.card.healthy) == (False, None)


def test_a_luna16_series_without_its_lungs_is_skipped(tmp_path: Path) -> None:
    published_sets.metaimage(tmp_path / "data" / "subset3" / "1.2.mhd", SCAN(), turned=False)
    (tmp_path / "data" / "seg-lungs-LUNA16").mkdir()
    result = CliRunner().invoke(
        preparation.program(prepare_luna16.studies), [str(tmp_path / "data"), str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert "skipped 1.2: expected 1.2.mhd in" in result.stderr
    assert result.stdout == "0 studies written, 0 were there already, 1 skipped\n"


# ---------------------------------------------------------------------- COVID-19-20


def test_covid_19_20_scans_of_one_person_are_one_patient(tmp_path: Path) -> None:
    for name in ("volume-covid19-A-0003", "volume-covid19-A-0046_1", "volume-covid19-A-0046_2"):
        published_sets.nifti(tmp_path / "data" / "Train" / f"{name}_ct.nii.gz", SCAN())
        published_sets.nifti(tmp_path / "data" / "Train" / f"{name}_seg.nii.gz", (LESION() > 0).astype(np.uint8))
    published_sets.nifti(tmp_path / "data" / "Validation" / "volume-covid19-A-0001_ct.nii.gz", SCAN())
    found = prepared(prepare_covid_19_20, tmp_path / "data", tmp_path / "out", "--no-find-lungs")
    assert [study.card.patient.removeprefix("volume-covid19-") for study in found.values()] == [
        "A-0001", "A-0003", "A-0046", "A-0046",
    ]  # fmt: skip
    assert found["volume-covid19-A-0001"].lesions is None
    assert same(found["volume-covid19-A-0046_2"].lesions, LESION() > 0)
    assert found["volume-covid19-A-0003"].card.spacing_zyx_mm == (SLICE_MM, 2.0, 2.0)


def test_a_training_scan_of_covid_19_20_without_its_mask_is_skipped(tmp_path: Path) -> None:
    train = tmp_path / "data" / "Train"
    published_sets.nifti(train / "volume-covid19-A-0003_ct.nii.gz", SCAN())
    published_sets.nifti(train / "volume-covid19-A-0004_ct.nii.gz", SCAN())
    published_sets.nifti(train / "volume-covid19-A-0004_seg.nii.gz", LESION())
    summary = prepare(prepare_covid_19_20, tmp_path / "data", tmp_path / "out", "--no-find-lungs")
    assert summary["written"] == ["volume-covid19-A-0004"]
    expected = f"expected volume-covid19-A-0003_seg.nii.gz in {train}"
    assert summary["skipped"] == {"volume-covid19-A-0003": expected}
