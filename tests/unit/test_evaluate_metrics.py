"""The figures of tools/evaluate.py, each on an example that can be checked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from annotations import volumes
from annotations.unusable import Unusable
from evaluation import agreement, bootstrap, summary
from evaluation.cases import Case, Drawn, framed, repeated, sides_of
from evaluation.figures import figures
from evaluation.overlap import overlap
from evaluation.summary import Scan

from triage_node import threshold
from triage_node.config import AnalysisSection
from triage_node.study import Findings

SETTINGS = AnalysisSection(method="threshold")


def mask(text: str) -> np.ndarray:
    return np.array([sign == "x" for sign in text])


def test_overlap_of_one_hit_one_miss_and_one_false_alarm() -> None:
    found = overlap(mask("xx.."), mask(".xx."))
    assert (found.true_positive, found.false_positive, found.false_negative, found.true_negative) == (1, 1, 1, 1)
    assert found.dice == 0.5
    assert found.iou == 1 / 3
    assert found.sensitivity == 0.5
    assert found.specificity == 0.5


def test_what_is_not_counted_changes_no_overlap() -> None:
    found = overlap(mask("xx..xxxx"), mask(".xx....."), counted=mask("xxxx...."))
    assert found == overlap(mask("xx.."), mask(".xx."))


def test_nothing_drawn_has_no_dice_but_a_specificity() -> None:
    found = overlap(mask("x..."), mask("...."))
    assert found.dice is found.iou is found.sensitivity is None
    assert found.specificity == 0.75
    assert overlap(mask("xx"), mask("xx")).specificity is None


def test_auc_counts_the_pairs_in_the_right_order() -> None:
    # of the four pairs only (0.35, 0.4) is the wrong way round
    assert agreement.auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert agreement.auc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5
    assert agreement.auc(np.array([0.5, 0.5]), np.array([True, True])) is None


def test_pearson_and_spearman() -> None:
    one, other = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])
    assert agreement.pearson(one, other) == pytest.approx(3 / math.sqrt(2 * 14 / 3))
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert agreement.spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 40])) == pytest.approx(0.8)
    # ranks 1.5 1.5 3 against 1 2 3
    assert agreement.spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(1.5 / math.sqrt(3))
    assert agreement.pearson(one, np.ones(3)) is None
    assert agreement.spearman(one[:2], other[:2]) is None


def test_limits_of_agreement_are_bias_and_1_96_standard_deviations() -> None:
    limits = agreement.bland_altman(np.array([1.0, 2, 4]), np.array([0.0, 2, 3]))
    assert limits is not None
    assert limits.bias == pytest.approx(2 / 3)
    assert limits.low == pytest.approx(2 / 3 - 1.96 * math.sqrt(1 / 3))
    assert limits.high == pytest.approx(2 / 3 + 1.96 * math.sqrt(1 / 3))
    assert agreement.bland_altman(np.array([1.0, 2]), np.array([1.0, 2])) is None


def test_confusion_has_a_row_for_each_class_of_the_expert() -> None:
    table = agreement.confusion(np.array([1.0, 1, 2]), np.array([1.0, 2, 2]), (1, 2, 3))
    assert table == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_intervals_draw_patients_and_not_scans() -> None:
    counts = []

    def counted(drawn: np.ndarray) -> float:
        counts.append(np.bincount(drawn, minlength=4))
        return 1.0

    assert bootstrap.interval(["a", "a", "b", "c"], counted, resamples=50) == (1.0, 1.0)
    assert all(count[0] == count[1] for count in counts)
    assert len({tuple(count) for count in counts}) > 5


def test_an_interval_covers_what_three_patients_can_give() -> None:
    values = np.array([0.0, 0.0, 3.0])  # three times the third patient: one of 27 draws, more than 2.5 %
    found = bootstrap.interval(["a", "b", "c"], lambda drawn: float(values[drawn].mean()))
    assert found == (0.0, 3.0)
    assert found == bootstrap.interval(["a", "b", "c"], lambda drawn: float(values[drawn].mean()))
    assert bootstrap.interval(["a", "b"], lambda drawn: float(values[drawn].mean())) is None
    assert bootstrap.interval(["a", "b", "c"], lambda _: None) is None


def drawn_and_found(**more: object) -> tuple[Drawn, Findings]:
    """Sixteen voxels of 1 ml: right lung x 0 and 1, left lung x 2 and 3, an expert's lesion of 4 in the right one."""
    shape = (2, 2, 4)
    lungs = np.ones(shape, dtype=np.uint8)
    lungs[..., 2:] = 2
    lesions = np.zeros(shape, dtype=np.bool_)
    lesions[..., 0] = True
    consolidation = np.zeros_like(lesions)
    consolidation[0, 0, 0] = True
    hounsfield = np.full(shape, -700, dtype=np.int16)
    hounsfield[:, :, 1] = 50
    drawn = Drawn(
        volume=volumes.in_patient_order(hounsfield, (10.0, 10.0, 10.0)),
        **{"lungs": lungs, "sided": True, "lesions": lesions, "consolidation": consolidation} | more,
    )
    found = np.zeros_like(lesions)
    found[0, :, :2] = True  # 2 hits, 2 false alarms, 2 misses
    findings = Findings(lungs=lungs, lesions=found, covid_probability=0.25, model=threshold.model())
    return drawn, findings


def test_figures_of_one_scan() -> None:
    values, missing = figures(*drawn_and_found(), SETTINGS)
    assert missing == {}
    assert values["lungs_dice"] == values["right_lung_dice"] == 1.0
    assert values["lesion_dice"] == 0.5
    assert values["lesion_iou"] == 1 / 3
    assert values["lesion_sensitivity"] == 0.5
    assert values["lesion_specificity"] == 10 / 12
    assert values["expert_fraction"] == values["predicted_fraction"] == 4 / 16
    assert values["expert_fraction_worse"] == 4 / 8
    assert values["expert_lungs_ml"] == pytest.approx(16.0)
    assert values["lesion_ml_mae"] == 0.0
    # by attenuation x = 1 is consolidation: 2 ml found where the expert drew 1 ml
    assert values["predicted_consolidation_ml"] == pytest.approx(2.0)
    assert values["consolidation_ml_bias"] == pytest.approx(1.0)
    assert values["ground_glass_fraction_bias"] == pytest.approx(2 / 16 - 3 / 16)
    assert values["consolidation_dice"] == 0.0
    assert values["ground_glass_dice"] == 2 * 1 / (2 + 3)
    assert (values["expert_ct_ss"], values["expert_ct_grade"]) == (3, 2)  # 25 %, and 50 % of the worse lung
    assert values["covid_probability"] == 0.25


def test_only_what_was_imaged_counts_in_fractions() -> None:
    boxes = np.array([[0, 2, 0, 4], [0, 0, 0, 0]])  # the second slice is filler
    values, _ = figures(*drawn_and_found(counted=volumes.imaged(boxes, (2, 2, 4))), SETTINGS)
    assert values["expert_fraction"] == 2 / 8
    assert values["predicted_fraction"] == 4 / 8
    assert values["fraction_mae"] == values["fraction_bias"] == 0.25


def test_what_experts_did_not_draw_is_named_and_not_scored() -> None:
    values, missing = figures(*drawn_and_found(lungs=None, sided=False, consolidation=None), SETTINGS)
    assert missing == {
        "lungs": "not drawn by an expert",
        "ground_glass": "drawn without classes",
        "consolidation": "drawn without classes",
    }
    assert values["lesion_dice"] == 0.5
    assert "expert_fraction" not in values
    assert "fraction_mae" not in values
    assert values["predicted_fraction"] == 4 / 16


def test_without_a_known_spacing_there_are_fractions_and_no_volumes() -> None:
    values, _ = figures(*drawn_and_found(in_ml=False), SETTINGS)
    assert values["expert_fraction"] == 4 / 16
    assert not [name for name in values if "_ml" in name]


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(Unusable, match=r"\(2, 2, 3\)"):
        drawn_and_found(lesions=np.zeros((2, 2, 3), dtype=np.bool_))


def test_sides_are_named_by_place_and_not_by_label() -> None:
    lungs = np.array([[[2, 2, 0, 1, 1]]], dtype=np.uint8)  # x grows to the patient's left
    named, told = sides_of(lungs, np.diag([1.0, 1, 1, 1]))
    assert told
    assert named.tolist() == [[[1, 1, 0, 2, 2]]]
    assert sides_of(lungs, np.diag([-1.0, 1, 1, 1]))[0].tolist() == lungs.tolist()
    assert not sides_of((lungs > 0).astype(np.uint8), np.eye(4))[1]


def test_a_crop_gets_a_body_and_few_slices_become_a_chest_without_counting_twice() -> None:
    drawn, _ = drawn_and_found()
    around = framed(drawn)
    assert around.volume.hounsfield.shape == (2, 6, 8)
    assert around.volume.hounsfield[0, 0, 0] == -1000
    assert around.volume.hounsfield[0, 1, 1] == 40
    assert around.volume.hounsfield[0, 2, 2] == drawn.volume.hounsfield[0, 0, 0]
    many = repeated(around)
    assert len(many.volume.hounsfield) == 20
    assert many.counted is not None
    assert many.counted.any(axis=(1, 2)).nonzero()[0].tolist() == [5, 15]
    assert np.count_nonzero(many.counted) == 16


def scan(patient: str, group: str | None, kind: str = "series", source: str = "here", **values: float) -> Scan:
    def never() -> Drawn:
        raise AssertionError

    case = Case(name=patient, source=source, kind=kind, read=never, patient=patient, group=group)
    return Scan(case=case, figures=dict(values), not_scored={})


def test_a_method_has_one_figure_a_scan_and_their_mean() -> None:
    scans = [
        scan("a", "covid", lungs_dice=0.9, predicted_fraction=0.3, expert_fraction=0.2, fraction_mae=0.1),
        scan("b", "covid", lungs_dice=0.8, predicted_fraction=0.2, expert_fraction=0.2, fraction_mae=0.0),
        scan("c", "healthy", lungs_dice=1.0, predicted_fraction=0.01),
        scan("d", "other", predicted_fraction=0.25),
        scan("e", None, "slice", lungs_dice=0.0),
    ]
    found = summary.as_json(scans, resamples=100)
    assert found["lungs_dice"] == pytest.approx(0.9)
    assert found["counts"]["lungs_dice"] == {"scans": 3, "patients": 3}
    low, high = found["intervals"]["lungs_dice"]
    assert 0.8 <= low < 0.9 < high <= 1.0
    assert found["fraction_mae"] == pytest.approx(0.05)
    assert found["fraction_spearman"] is None
    assert found["fraction_in_healthy"] == 0.01
    assert found["auc_vs_healthy"] == 1.0
    assert found["auc_vs_all_others"] == 0.75
    assert found["scans"][0]["lungs_dice"] == 0.9
    assert found["scans"][2]["fraction_mae"] is None


def test_an_auc_has_no_interval_where_one_class_has_too_few_patients() -> None:
    scans = [scan(f"c{i}", "covid", predicted_fraction=0.1 + i / 10) for i in range(4)]
    scans += [scan(f"o{i}", "other", predicted_fraction=0.15 + i / 10) for i in range(3)]
    scans.append(scan("h", "healthy", predicted_fraction=0.0))
    found = summary.as_json(scans, resamples=50)
    assert found["auc_vs_healthy"] == 1.0
    assert found["counts"]["auc_vs_healthy"] == {"scans": 5, "patients": 5}
    assert found["counts"]["fraction_in_healthy"] == {"scans": 1, "patients": 1}
    assert set(found["intervals"]) == {"auc_vs_all_others"}


def test_a_probability_goes_before_the_fraction_where_a_method_has_one() -> None:
    scans = [
        scan("a", "covid", covid_probability=0.9, predicted_fraction=0.0),
        scan("b", "healthy", covid_probability=0.2, predicted_fraction=0.5),
    ]
    found = summary.as_json(scans, resamples=0)
    assert found["auc_vs_healthy"] == 1.0
    assert any("the probability" in sentence for sentence in found["cautions"])


def test_it_is_said_when_an_auc_may_tell_sources_apart() -> None:
    scans = [scan("a", "covid", source="one", predicted_fraction=0.1), scan("b", "healthy", predicted_fraction=0.0)]
    assert any("sources one have patients with COVID-19 alone" in words for words in summary.cautions(scans))


def test_single_slices_alone_are_better_than_nothing() -> None:
    found = summary.as_json([scan("e", None, "slice", lungs_dice=0.5)], resamples=0)
    assert found["lungs_dice"] == 0.5


def test_ct_ss_is_compared_by_class() -> None:
    scans = [
        scan("a", None, expert_ct_ss=1, predicted_ct_ss=1),
        scan("b", None, expert_ct_ss=2, predicted_ct_ss=3),
        scan("c", None, expert_ct_ss=5, predicted_ct_ss=3),
    ]
    found = summary.as_json(scans, resamples=0)
    assert found["ct_ss_accuracy"] == pytest.approx(1 / 3)
    assert found["ct_ss_within_one"] == pytest.approx(2 / 3)
    assert found["ct_ss_confusion"] == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0] * 5, [0] * 5, [0, 0, 1, 0, 0]]


def test_the_metrics_have_names_of_their_own() -> None:
    names = [metric.name for metric in summary.METRICS]
    assert len(set(names)) == len(names)
    assert Path(summary.__file__).parent.name == "evaluation"
