from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chests import INSTANCE, affine, volume_of
from triage_node.config import AnalysisSection, WorklistSection
from triage_node.errors import Refused
from triage_node.severity import assess, ct_grade, ct_severity_score
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, Findings, Model, OperatingPoint, Reason, Volume

MODEL = Model(name="threshold", version="1", digest="00")
SETTINGS = AnalysisSection(consolidation_hu=-200)
Voxels = npt.NDArray[np.generic]


def volume(hounsfield: Voxels) -> Volume:
    """10 x 10 x 10 mm voxels: 1 ml each."""
    return volume_of(hounsfield.astype(np.int16), affine((10.0, 10.0, 10.0), (0.0, 0.0, 0.0)))


def findings(lungs: Voxels, lesions: Voxels, *warnings: str) -> Findings:
    return Findings(
        lungs=lungs.astype(np.uint8),
        lesions=lesions.astype(np.bool_),
        covid_probability=None,
        model=MODEL,
        warnings=warnings,
    )


def test_volumes_and_fractions_are_those_counted_by_hand() -> None:
    lungs = np.zeros((2, 10, 10))
    lungs[:, :, :5], lungs[:, :, 6:] = RIGHT_LUNG, LEFT_LUNG  # 100 ml and 80 ml
    lesions = np.zeros_like(lungs)
    lesions[0, :, :3] = 1  # 30 ml right
    lesions[0, :6, 6:] = 1  # 24 ml left
    lesions[0, 0, 5] = 1  # outside the lungs: does not count
    hounsfield = np.full(lungs.shape, -850)
    hounsfield[0] = -500
    hounsfield[0, :, :1] = -200  # 10 ml of the right lesion: at the limit counts as consolidation
    hounsfield[0, :, 1] = -201
    hounsfield[1] = 50  # dense, but no lesion
    result = assess(volume(hounsfield), findings(lungs, lesions), generation=3, settings=SETTINGS)
    assert result.right is not None
    assert result.left is not None
    assert (result.right.volume_ml, result.left.volume_ml) == pytest.approx((100.0, 80.0))
    assert (result.right.lesion_ml, result.left.lesion_ml) == pytest.approx((30.0, 24.0))
    assert (result.right.consolidation_ml, result.left.consolidation_ml) == pytest.approx((10.0, 0.0))
    assert (result.right.affected_fraction, result.left.affected_fraction) == pytest.approx((0.30, 0.30))
    assert result.affected_fraction == pytest.approx(0.30)
    assert result.affected_fraction_both == pytest.approx(0.30)
    assert result.consolidation_share == pytest.approx(10 / 54)
    assert (result.ct_grade, result.ct_ss) == ("CT-2", 3)
    assert (result.generation, result.model, result.covid_probability) == (3, MODEL, None)


def test_the_methods_own_consolidation_goes_before_the_attenuation() -> None:
    lungs = np.zeros((2, 10, 10))
    lungs[:, :, :5], lungs[:, :, 6:] = RIGHT_LUNG, LEFT_LUNG  # 100 ml and 80 ml
    lesions = np.zeros(lungs.shape, np.bool_)
    lesions[0, :, :3] = True  # 30 ml right
    lesions[0, :6, 6:] = True  # 24 ml left
    consolidation = np.zeros(lungs.shape, np.bool_)
    consolidation[0, :4, :2] = True  # 8 ml right
    consolidation[:, 0, 6:] = True  # 4 ml left, and 4 ml outside the lesions: do not count
    dense = volume(np.full(lungs.shape, 50))  # by attenuation all would be consolidation
    found = replace(findings(lungs, lesions), consolidation=consolidation)
    result = assess(dense, found, generation=1, settings=SETTINGS)
    assert result.right is not None
    assert result.left is not None
    assert (result.right.consolidation_ml, result.right.ground_glass_ml) == pytest.approx((8.0, 22.0))
    assert (result.left.consolidation_ml, result.left.ground_glass_ml) == pytest.approx((4.0, 20.0))
    assert (result.right.consolidation_fraction, result.right.ground_glass_fraction) == pytest.approx((0.08, 0.22))
    assert (result.left.consolidation_fraction, result.left.ground_glass_fraction) == pytest.approx((0.05, 0.25))
    assert (result.volume_ml, result.lesion_ml) == pytest.approx((180.0, 54.0))
    assert (result.consolidation_ml, result.ground_glass_ml) == pytest.approx((12.0, 42.0))
    assert result.consolidation_fraction_both == pytest.approx(12 / 180)
    assert result.ground_glass_fraction_both == pytest.approx(42 / 180)
    assert result.consolidation_share == pytest.approx(12 / 54)
    assert result.consolidation_from_hu is None
    by_attenuation = assess(dense, findings(lungs, lesions), generation=1, settings=SETTINGS)
    assert (by_attenuation.consolidation_share, by_attenuation.consolidation_from_hu) == (1.0, -200)


def test_a_consolidation_mask_of_another_grid_is_a_fault() -> None:
    found = replace(findings(np.ones((2, 2, 2)), np.zeros((2, 2, 2))), consolidation=np.zeros((2, 2, 3), np.bool_))
    with pytest.raises(ValueError, match=r"\(2, 2, 3\)"):
        assess(volume(np.zeros((2, 2, 2))), found, generation=1, settings=SETTINGS)


def test_grades_are_cut_where_the_card_says_unless_the_configuration_says_otherwise() -> None:
    lungs = np.full((1, 10, 10), RIGHT_LUNG)
    lesions = np.zeros(lungs.shape)
    lesions[0, :3] = 1  # 30 %
    card = OperatingPoint(grades_up_to=(0.1, 0.2, 0.3), probability_high=0.9)
    found = replace(findings(lungs, lesions), model=replace(MODEL, operating_point=card))
    ct = volume(np.full(lungs.shape, -500))

    def assessed(settings: AnalysisSection, rules: WorklistSection | None = None) -> tuple[str, OperatingPoint]:
        result = assess(ct, found, generation=1, settings=settings, rules=rules)
        return result.ct_grade, result.operating_point

    assert assessed(SETTINGS) == ("CT-3", card)
    grade, point = assessed(AnalysisSection(grades_up_to=(0.3, 0.4, 0.5)), WorklistSection(fraction_high=0.8))
    assert grade == "CT-1"
    assert (point.grades_up_to, point.fraction_high, point.probability_high) == ((0.3, 0.4, 0.5), 0.8, 0.9)


def test_every_slice_counts_with_its_own_thickness() -> None:
    plain = volume(np.full((3, 2, 2), -850))
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 10.0], [0.0, 0.0, 30.0]])
    uneven = Volume(
        hounsfield=plain.hounsfield,
        affine_lps_mm=plain.affine_lps_mm,
        slice_positions_mm=positions,
        instances=(INSTANCE,) * 3,
    )
    lesions = np.zeros((3, 2, 2))
    lesions[2] = 1
    result = assess(uneven, findings(np.full((3, 2, 2), RIGHT_LUNG), lesions), generation=1, settings=SETTINGS)
    assert result.right is not None
    # slabs of 10, 15 and 20 mm, 4 cm2 each
    assert result.right.volume_ml == pytest.approx(4 * 1.0 + 4 * 1.5 + 4 * 2.0)
    assert result.affected_fraction == pytest.approx(8 / 18)


@pytest.mark.parametrize(
    ("fraction", "grade"),
    [
        (0.0, "CT-0"),
        (1e-9, "CT-1"),
        (0.25, "CT-1"),
        (0.2500001, "CT-2"),
        (0.5, "CT-2"),
        (0.5000001, "CT-3"),
        (0.75, "CT-3"),
        (0.7500001, "CT-4"),
        (1.0, "CT-4"),
    ],
)
def test_ct_grades_have_the_papers_limits(fraction: float, grade: str) -> None:
    assert ct_grade(fraction) == grade


@pytest.mark.parametrize(
    ("fraction", "score"),
    [(0.0, 1), (0.0499, 1), (0.05, 2), (0.2499, 2), (0.25, 3), (0.4999, 3), (0.5, 4), (0.7499, 4), (0.75, 5), (1, 5)],
)
def test_ct_severity_scores_have_lungquants_limits(fraction: float, score: int) -> None:
    assert ct_severity_score(fraction) == score


@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        ct_grade(fraction)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ct_severity_score(fraction)


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_affected_lung_is_never_a_lower_grade(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert ct_grade(less) <= ct_grade(more)
    assert ct_severity_score(less) <= ct_severity_score(more)


masks = st.tuples(
    st.lists(st.integers(0, 2), min_size=24, max_size=24).filter(any),
    st.lists(st.booleans(), min_size=24, max_size=24),
    st.lists(st.integers(-1000, 300), min_size=24, max_size=24),
)


@given(masks)
def test_the_sums_are_right_and_the_worse_lung_decides(drawn: tuple[list[int], list[bool], list[int]]) -> None:
    lungs, lesions, hounsfield = (np.array(values).reshape(2, 3, 4) for values in drawn)
    result = assess(volume(hounsfield), findings(lungs, lesions), generation=1, settings=SETTINGS)
    assert sum(lung.volume_ml for lung in result.lungs) == pytest.approx(np.count_nonzero(lungs))
    assert sum(lung.lesion_ml for lung in result.lungs) == pytest.approx(np.count_nonzero(lesions & (lungs > 0)))
    assert result.affected_fraction == max(lung.affected_fraction for lung in result.lungs)
    assert 0 <= result.affected_fraction_both <= result.affected_fraction + 1e-12
    assert all(0 <= lung.consolidation_ml <= lung.lesion_ml <= lung.volume_ml for lung in result.lungs)
    assert (result.right is None) == (not (lungs == RIGHT_LUNG).any())
    assert (result.left is None) == (not (lungs == LEFT_LUNG).any())
    assert (result.consolidation_share is None) == (not (lesions & (lungs > 0)).any())
    assert (result.ct_grade == "CT-0") == (not (lesions & (lungs > 0)).any())


@given(masks)
def test_swapped_sides_swap_the_lungs_and_leave_the_severity(drawn: tuple[list[int], list[bool], list[int]]) -> None:
    lungs, lesions, hounsfield = (np.array(values).reshape(2, 3, 4) for values in drawn)
    swapped = np.array([0, LEFT_LUNG, RIGHT_LUNG])[lungs]
    one = assess(volume(hounsfield), findings(lungs, lesions), generation=1, settings=SETTINGS)
    other = assess(volume(hounsfield), findings(swapped, lesions), generation=1, settings=SETTINGS)
    assert (one.affected_fraction, one.ct_grade, one.ct_ss) == (other.affected_fraction, other.ct_grade, other.ct_ss)
    for mine, theirs in ((one.right, other.left), (one.left, other.right)):
        assert (mine.volume_ml if mine else None) == (theirs.volume_ml if theirs else None)


def test_warnings_of_volume_and_findings_are_kept_once() -> None:
    plain = volume(np.full((2, 2, 2), -850))
    tilted = Volume(
        hounsfield=plain.hounsfield,
        affine_lps_mm=plain.affine_lps_mm,
        slice_positions_mm=plain.slice_positions_mm,
        instances=plain.instances,
        warnings=("tilted", "both"),
    )
    found = findings(np.full((2, 2, 2), RIGHT_LUNG), np.zeros((2, 2, 2)), "both", "one lung")
    assert assess(tilted, found, generation=1, settings=SETTINGS).warnings == ("tilted", "both", "one lung")


def test_no_lung_at_all_is_refused() -> None:
    empty = np.zeros((2, 2, 2))
    with pytest.raises(Refused) as refusal:
        assess(volume(empty), findings(empty, empty), generation=1, settings=SETTINGS)
    assert refusal.value.not_analysed.reason is Reason.NO_LUNGS


def test_masks_of_another_grid_are_a_fault() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 3\)"):
        assess(
            volume(np.zeros((2, 2, 2))),
            findings(np.ones((2, 2, 3)), np.zeros((2, 2, 3))),
            generation=1,
            settings=SETTINGS,
        )
