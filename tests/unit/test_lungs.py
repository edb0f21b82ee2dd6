from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.chests import AIR, TISSUE, Chest, affine, chest, volume_of
from triage_node import lungs, volume
from triage_node.config import AnalysisSection
from triage_node.errors import Refused
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, Reason

DATA = Path(__file__).parents[3] / "shared" / "data" / "dicom"
REAL_SERIES = (
    "ct-md-covid-p001",
    "ct-md-cap-001",
    "ct-md-normal-001",
    "ricord-1a-000082",
    "lidc-1011",
    "lung1-001",
)


@pytest.fixture(scope="module")
def plain() -> Chest:
    return chest()


def dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return 2.0 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def both_sides(found: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> float:
    return min(dice(found == side, truth == side) for side in (RIGHT_LUNG, LEFT_LUNG))


def reason_of(hounsfield: npt.NDArray[np.int16]) -> tuple[Reason, str]:
    with pytest.raises(Refused) as refusal:
        lungs.find(volume_of(hounsfield, affine((5.0, 2.0, 2.0), (0.0, 0.0, 0.0))))
    return refusal.value.not_analysed.reason, refusal.value.not_analysed.words


@pytest.mark.parametrize(("slice_mm", "pixel_mm"), [(1.0, 2.0), (8.0, 1.0), (5.0, 2.0)])
def test_both_lungs_are_found_at_every_spacing(slice_mm: float, pixel_mm: float) -> None:
    made = chest(slice_mm=slice_mm, pixel_mm=pixel_mm)
    found = lungs.find(made.volume)
    assert both_sides(found.map, made.lungs) > 0.96
    assert found.warnings == ()


def test_airway_stomach_and_the_room_are_not_lung(plain: Chest) -> None:
    found = lungs.find(plain.volume).map > 0
    assert not (found & plain.stomach).any()
    assert np.count_nonzero(found & plain.trachea) < 0.02 * np.count_nonzero(plain.trachea)
    assert not found[:, -38:].any(), "table and room behind the patient"


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_sides_are_the_patients_however_the_voxels_are_stored(plain: Chest, axes: tuple[int, ...]) -> None:
    turned = plain.affine_lps_mm.copy()
    for axis in axes:
        column = 2 - axis
        turned[:3, 3] += turned[:3, column] * (plain.hounsfield.shape[axis] - 1)
        turned[:3, column] *= -1
    found = lungs.find(volume_of(np.flip(plain.hounsfield, axes), turned)).map
    assert both_sides(found, np.flip(plain.lungs, axes)) > 0.96


def test_a_mirrored_affine_swaps_the_names_of_the_sides(plain: Chest) -> None:
    mirrored = plain.affine_lps_mm.copy()
    mirrored[0] *= -1
    found = lungs.find(volume_of(plain.hounsfield, mirrored)).map
    swapped = np.where(plain.lungs == RIGHT_LUNG, LEFT_LUNG, np.where(plain.lungs == LEFT_LUNG, RIGHT_LUNG, 0))
    assert both_sides(found, swapped.astype(np.uint8)) > 0.96


def test_columns_that_run_along_the_patients_back_are_turned(plain: Chest) -> None:
    turned = plain.affine_lps_mm[:, [1, 0, 2, 3]]
    found = lungs.find(volume_of(plain.hounsfield.transpose(0, 2, 1), turned)).map
    assert both_sides(found, plain.lungs.transpose(0, 2, 1)) > 0.96


@pytest.mark.parametrize("filler", [-3024, -2000, -1024, -1000])
def test_filler_around_the_field_of_view_is_not_lung(plain: Chest, filler: int) -> None:
    hounsfield = plain.hounsfield.copy()
    y, x = np.ogrid[-100:100, -100:100]
    hounsfield[:, y**2 + x**2 > 90**2] = filler
    assert both_sides(lungs.find(volume_of(hounsfield, plain.affine_lps_mm)).map, plain.lungs) > 0.96


def test_lungs_that_the_field_of_view_cuts_are_found_and_reported(plain: Chest) -> None:
    window = slice(45, 155)
    found = lungs.find(volume_of(plain.hounsfield[:, :, window], plain.affine_lps_mm))
    assert both_sides(found.map, plain.lungs[:, :, window]) > 0.95
    assert any("field of view cuts the lungs" in warning for warning in found.warnings)


def test_lungs_that_reach_the_last_slice_are_reported(plain: Chest) -> None:
    found = lungs.find(volume_of(plain.hounsfield[:40], plain.affine_lps_mm))
    assert any("cut off at the uppermost slice" in warning for warning in found.warnings)


def test_most_of_a_consolidation_at_the_pleura_is_lung(plain: Chest) -> None:
    hounsfield = plain.hounsfield.copy()
    z, y, x = np.ogrid[: hounsfield.shape[0], :200, :200]
    # a ball of 20 mm radius on the back wall of the right lung
    ball = ((z * 5.0 - 140) ** 2 + (y * 2.0 - 268) ** 2 + (x * 2.0 - 125) ** 2 < 20.0**2) & (plain.lungs > 0)
    hounsfield[ball] = TISSUE
    found = lungs.find(volume_of(hounsfield, plain.affine_lps_mm)).map
    # what stands out behind the chord of a 30 mm disk is not told from the wall
    assert np.count_nonzero(found[ball] == RIGHT_LUNG) > 0.6 * np.count_nonzero(ball)


def test_a_consolidation_that_the_lung_encloses_is_lung_and_the_diaphragms_dome_is_not(plain: Chest) -> None:
    hounsfield = plain.hounsfield.copy()
    hounsfield[30:34, 95:110, 55:70] = TISSUE
    found = lungs.find(volume_of(hounsfield, plain.affine_lps_mm)).map
    assert (found[30:34, 95:110, 55:70] == RIGHT_LUNG).all()
    assert not (found[:20, 90:100, 60:65] > 0).any(), "the dome of the diaphragm reaches 105 mm, slice 21"


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [(LEFT_LUNG, "only the right lung was found"), (RIGHT_LUNG, "only the left lung was found")],
)
def test_a_missing_lung_is_reported_and_the_other_one_keeps_its_side(plain: Chest, missing: int, sentence: str) -> None:
    hounsfield = plain.hounsfield.copy()
    hounsfield[plain.lungs == missing] = TISSUE
    found = lungs.find(volume_of(hounsfield, plain.affine_lps_mm))
    assert sentence in found.warnings
    assert not (found.map == missing).any()
    other = RIGHT_LUNG + LEFT_LUNG - missing
    assert dice(found.map == other, plain.lungs == other) > 0.96


def test_lungs_that_touch_in_front_are_parted_in_the_middle(plain: Chest) -> None:
    hounsfield = plain.hounsfield.copy()
    bridge = (slice(38, 42), slice(72, 78), slice(75, 130))
    hounsfield[bridge] = -850
    found = lungs.find(volume_of(hounsfield, plain.affine_lps_mm)).map
    outside = np.ones(found.shape, dtype=bool)
    outside[bridge] = False
    assert both_sides(found * outside, plain.lungs * outside) > 0.95


def test_a_volume_without_lungs_is_refused_in_numbers() -> None:
    shape = (40, 150, 150)
    assert reason_of(np.full(shape, AIR, dtype=np.int16))[0] is Reason.NO_LUNGS
    assert reason_of(np.full(shape, TISSUE, dtype=np.int16))[0] is Reason.NO_LUNGS
    block = np.full(shape, AIR, dtype=np.int16)
    block[:, 25:125, 25:125] = TISSUE
    block[10:30, 60:90, 60:80] = -700  # 240 ml, such as sinuses or a bowel loop
    reason, words = reason_of(block)
    assert reason is Reason.NO_LUNGS
    assert "240 ml" in words
    assert "400" in words


def test_the_same_volume_gives_the_same_map(plain: Chest) -> None:
    assert (lungs.find(plain.volume).map == lungs.find(plain.volume).map).all()


def test_the_volume_is_left_as_it_was(plain: Chest) -> None:
    kept = plain.hounsfield.copy()
    lungs.find(plain.volume)
    assert (plain.hounsfield == kept).all()


@pytest.mark.skipif(not DATA.is_dir(), reason="real series: ../shared/data/dicom is not there")
@pytest.mark.parametrize("name", REAL_SERIES)
def test_real_chests_have_two_lungs_on_their_sides(name: str) -> None:
    (study,) = volume.study_in(DATA / name)
    read = volume.read(max(study.series, key=lambda series: len(series.instances)), AnalysisSection())
    found = lungs.find(read)
    assert found.warnings == ()
    centres = []
    for side in (RIGHT_LUNG, LEFT_LUNG):
        voxels = found.map == side
        millilitres = float(np.count_nonzero(voxels, axis=(1, 2)) @ read.voxel_volumes_ml)
        assert 1000 < millilitres < 5000
        z, y, x = (index.mean() for index in np.nonzero(voxels))
        centres.append((read.affine_lps_mm @ np.array([x, y, z, 1.0]))[0])
    assert 80 < centres[1] - centres[0] < 220, "mm from the right lung to the left"
    if name == "lung1-001":
        expert = np.load(DATA / "lung1-001-lungs.npz")["lung"] > 0
        assert dice(found.map > 0, expert) > 0.96
