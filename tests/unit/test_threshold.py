from __future__ import annotations

import numpy as np
import pytest

from tests.chests import Chest, chest, volume_of
from triage_node import lungs, threshold
from triage_node.study import RIGHT_LUNG, Findings, Mask


@pytest.fixture(scope="module")
def plain() -> Chest:
    return chest()


def judged(made: Chest, hounsfield: np.ndarray) -> Findings:
    return threshold.judge(volume_of(hounsfield, made.affine_lps_mm), threshold.model())


def ball(made: Chest, *, z_mm: float, y_mm: float, x_mm: float, radius_mm: float) -> Mask:
    """A ball within the lungs; millimetres from the first voxel."""
    spacing = made.volume.spacing_zyx_mm
    z, y, x = (
        np.arange(n).reshape([-1 if i == axis else 1 for i in range(3)]) * spacing[axis]
        for axis, n in enumerate(made.hounsfield.shape)
    )
    near = (z - z_mm) ** 2 + (y - y_mm) ** 2 + (x - x_mm) ** 2 < radius_mm**2
    return near & (made.lungs > 0)


def test_the_papers_numbers_are_used() -> None:
    assert (threshold.HU_MIN, threshold.HU_MAX) == (-700, 300)
    assert (threshold.SIGMA_VOXELS, threshold.SIGMA_MM) == (4.0, 8.0)
    assert (threshold.BLUR_ABOVE, threshold.V_MIN_SHARE) == (0.5, 0.001)


def test_healthy_lungs_have_no_lesion(plain: Chest) -> None:
    assert not judged(plain, plain.hounsfield).lesions.any()


@pytest.mark.parametrize("made", [chest(slice_mm=2.0), chest(slice_mm=8.0, pixel_mm=1.0)], ids=["2 mm", "8 mm"])
def test_ground_glass_is_found_on_its_side_at_every_spacing(made: Chest) -> None:
    lesion = ball(made, z_mm=160, y_mm=200, x_mm=125, radius_mm=30)
    found = judged(made, np.where(lesion, -500, made.hounsfield))
    both = 2 * np.count_nonzero(found.lesions & lesion)
    assert both / (np.count_nonzero(found.lesions) + np.count_nonzero(lesion)) > 0.85
    assert (found.lungs[found.lesions] == RIGHT_LUNG).all()


@pytest.mark.parametrize(("hounsfield", "expected"), [(-720, False), (-680, True), (280, True), (320, False)])
def test_only_what_lies_between_the_two_limits_counts(plain: Chest, hounsfield: int, expected: bool) -> None:
    lesion = ball(plain, z_mm=160, y_mm=200, x_mm=125, radius_mm=30)
    found = judged(plain, np.where(lesion, hounsfield, plain.hounsfield))
    assert bool(np.count_nonzero(found.lesions & lesion) > 0.5 * np.count_nonzero(lesion)) is expected


def test_vessels_thinner_than_the_blur_are_not_lesions(plain: Chest) -> None:
    vessels = (np.arange(200) % 12 < 2)[np.newaxis, np.newaxis, :] & (plain.lungs > 0)
    assert not judged(plain, np.where(vessels, 30, plain.hounsfield)).lesions.any()


def test_components_under_a_thousandth_of_the_lungs_are_dropped(plain: Chest) -> None:
    found = lungs.find(plain.volume)
    spacing = found.reduced.spacing_zyx_mm
    least = threshold.V_MIN_SHARE * np.count_nonzero(found.reduced_map)
    for radius_mm, kept in ((9.0, False), (20.0, True)):
        lesion = ball(plain, z_mm=160, y_mm=200, x_mm=125, radius_mm=radius_mm)
        lesions = judged(plain, np.where(lesion, -400, plain.hounsfield)).lesions
        assert lesions.any() == kept, f"{radius_mm} mm on {spacing}, least {least} voxels"
        assert not kept or np.count_nonzero(lesions) >= least


def test_lesions_lie_inside_the_lungs(plain: Chest) -> None:
    lesion = ball(plain, z_mm=160, y_mm=270, x_mm=125, radius_mm=40)
    found = judged(plain, np.where(lesion, -500, plain.hounsfield))
    assert found.lesions.any()
    assert (found.lungs[found.lesions] > 0).all()


def test_the_digest_follows_from_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threshold.model()
    assert threshold.model() == before
    monkeypatch.setattr(threshold, "HU_MIN", -650)
    assert threshold.model().digest != before.digest
