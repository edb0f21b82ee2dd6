"""The overview shows the right patient's side, the right numbers, and never whose they are."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests import builders
from tests.unit.results_cases import build, judge
from triage_node import results
from triage_node.results.projection import frontal
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, CtGrade

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from tests.unit.results_cases import Case
    from triage_node.results.projection import Frontal

# The same patient, laid differently: keywords of the builder with rows x columns of 40 x 48 at 8 x 7 mm
POSES: dict[str, dict[str, Any]] = {
    "supine": {"orientation": (1, 0, 0, 0, 1, 0), "origin_mm": (-164.5, -156, -66)},
    "feet first": {"orientation": (-1, 0, 0, 0, 1, 0), "origin_mm": (164.5, -156, 66), "step_mm": (0, 0, -12)},
    "prone": {"orientation": (-1, 0, 0, 0, -1, 0), "origin_mm": (164.5, 156, -66)},
    "on the side": {
        "orientation": (0, 1, 0, -1, 0, 0), "origin_mm": (156, -164.5, -66), "rows": 40, "columns": 48,
    },
    "oblique": {
        "orientation": (np.cos(0.2), np.sin(0.2), 0, -np.sin(0.2), np.cos(0.2), 0), "origin_mm": (-130, -185, -66),
    },
    "tilted": {"orientation": (1, 0, 0, 0, np.cos(0.2), -np.sin(0.2)), "origin_mm": (-164.5, -153, -35)},
}  # fmt: skip


def _places(case: Case) -> npt.NDArray[np.float64]:
    """[z, y, x, LPS] of every voxel."""
    z, y, x = np.indices(case.volume.hounsfield.shape)
    return np.stack([x, y, z, np.ones_like(x)], axis=-1) @ case.volume.affine_lps_mm[:3].T


def _patient(folder: Path, pose: str) -> Case:
    """Lungs of different size, the right one taller; a lesion in the upper right, one in the lower left."""
    built = builders.ct_series(
        folder, **({"rows": 40, "columns": 48, "pixel_spacing_mm": (8.0, 7.0)} | POSES[pose]), spacing_mm=12.0
    )
    case = judge(built)
    left, back, head = np.moveaxis(_places(case), -1, 0)
    lungs = np.zeros(left.shape, np.uint8)
    lungs[(left > -110) & (left < -30) & (abs(back) < 80) & (head > -55) & (head < 55)] = RIGHT_LUNG
    lungs[(left > 40) & (left < 90) & (abs(back) < 80) & (head > -55) & (head < 30)] = LEFT_LUNG
    upper_right = (left < -30) & (head > 15)
    lower_left = (left > 30) & (head < -25) & (back < 0)  # the front half of the depth
    return judge(built, lungs=lungs, lesions=(lungs > 0) & (upper_right | lower_left))


def _view(folder: Path, pose: str) -> Frontal:
    case = _patient(folder, pose)
    return frontal(case.volume, case.findings, width=600, height=600)


@pytest.mark.parametrize("pose", POSES)
def test_the_patients_right_is_on_the_left_and_the_head_is_up(pose: str, tmp_path: Path) -> None:
    view = _view(tmp_path, pose)
    rows, columns = np.nonzero(view.severity > 0.3)
    right_side = columns < view.lung.shape[1] * 0.5
    assert right_side.any()
    assert (~right_side).any()
    middle = view.lung.shape[0] / 2
    assert rows[right_side].mean() < middle - 0.1 * middle, "the right lesion is the upper one"
    assert rows[~right_side].mean() > middle + 0.1 * middle, "the left lesion is the lower one"


@pytest.mark.parametrize("pose", POSES)
def test_severity_is_the_share_of_the_depth(pose: str, tmp_path: Path) -> None:
    view = _view(tmp_path, pose)
    half = view.lung.shape[1] // 2
    for side, share in ((view.severity[:, :half], 1.0), (view.severity[:, half:], 0.5)):
        assert np.median(side[side > 0.3]) == pytest.approx(share, abs=0.1)
    assert not view.severity[~view.lung].any()


@pytest.mark.parametrize("pose", POSES)
def test_millimetres_are_square(pose: str, tmp_path: Path) -> None:
    view = _view(tmp_path, pose)
    half = view.lung.shape[1] // 2
    rows, columns = np.nonzero(view.lung[:, :half])
    # Ten slabs of 12 mm high, eleven or twelve voxels of 7 mm wide
    assert (np.ptp(rows) + 1) * view.pixel_mm == pytest.approx(120, abs=10)
    assert (np.ptp(columns) + 1) * view.pixel_mm == pytest.approx(80, abs=10)


def test_the_picture_is_rgb_of_1024_pixels_and_its_png_is_the_same(tmp_path: Path) -> None:
    case = build(tmp_path)
    pixels = results.render(case.volume, case.findings, case.assessment)
    assert (pixels.shape, pixels.dtype) == ((1024, 1024, 3), np.uint8)
    dataset = case.objects()["overview"].dataset
    for png in (results.png(pixels), results.png(dataset)):
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png))), pixels)
    np.testing.assert_array_equal(dataset.pixel_array, pixels)


def test_two_patients_with_the_same_pixels_give_the_same_picture(tmp_path: Path) -> None:
    """No name, identifier or date is burned in."""
    other = {"PatientName": "Another^Person", "PatientID": "X", "PatientBirthDate": "20010101", "StudyDate": "20210101",
             "AccessionNumber": "B2"}  # fmt: skip
    pictures = []
    for name, attributes in (("a", {}), ("b", other)):
        case = judge(builders.ct_series(tmp_path / name, attributes=attributes))
        pictures.append(results.render(case.volume, case.findings, case.assessment))
    np.testing.assert_array_equal(*pictures)


def _shows(case: Case, **change: Any) -> npt.NDArray[np.uint8]:
    return results.render(case.volume, case.findings, replace(case.assessment, **change))


def test_a_missing_probability_looks_different_from_every_number(tmp_path: Path) -> None:
    case = build(tmp_path)
    without = _shows(case, covid_probability=None)
    assert (without != _shows(case, covid_probability=0.0)).any()


def test_how_far_a_probability_can_be_trusted_is_drawn_where_there_is_one(tmp_path: Path) -> None:
    case = build(tmp_path)
    model = replace(case.assessment.model, trust="Learnt from few patients: it ranks studies, it is no proof.")
    assert (_shows(case, covid_probability=0.5) != _shows(case, covid_probability=0.5, model=model)).any()
    np.testing.assert_array_equal(_shows(case), _shows(case, model=model))


@pytest.mark.parametrize(
    "change",
    [
        {"affected_fraction": 0.9},
        {"affected_fraction_both": 0.8},
        {"ct_grade": CtGrade.CT_4},
        {"consolidation_share": None},
        {"covid_probability": 0.5},
        {"generation": 7},
        {"right": None},
        {"warnings": ("the lungs touch the edge of the image " * 12,)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_fact_is_drawn(change: dict[str, Any], tmp_path: Path) -> None:
    case = build(tmp_path)
    assert (_shows(case) != _shows(case, **change)).any()


def test_the_caution_is_burned_in(tmp_path: Path) -> None:
    """Dark letters on the amber banner: taking the banner's own colour away leaves something to read."""
    pixels = build(tmp_path).objects()["overview"].dataset.pixel_array
    banner = pixels[4:52, 10:420]
    dark = (banner.astype(int).sum(axis=-1) < 200).mean()
    assert 0.05 < dark < 0.4


def test_the_object_says_that_no_identity_is_burned_in(tmp_path: Path) -> None:
    dataset = build(tmp_path).objects()["overview"].dataset
    assert dataset.BurnedInAnnotation == "NO"
    assert list(dataset.PatientOrientation) == ["L", "F"]
