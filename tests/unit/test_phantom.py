"""The phantom: the truth is what was asked for, and it looks like a chest to the node."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from triage_node import inference
from triage_node.config import AnalysisSection
from triage_node.phantom import Body, Phantom, PhantomSpec, Reconstruction, Truth, make
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, Findings, Instance, SeriesKey, Volume

QUICK = PhantomSpec(slices=45, rows=160, columns=160, spacing_zyx_mm=(6.5, 2.4, 2.4), thickness_mm=2.0)
ILL = replace(QUICK, right_fraction=0.3, left_fraction=0.12)


@cache
def phantom_of(spec: PhantomSpec) -> Phantom:
    """One phantom for all tests that look at it."""
    return make(spec)


def volume_of(phantom: Phantom) -> Volume:
    """The phantom as the node reads it."""
    affine = phantom.affine_lps_mm
    instances = tuple(
        Instance(
            sop_instance_uid=f"2.25.{number}",
            sop_class_uid="",
            transfer_syntax_uid="",
            series=SeriesKey(study_instance_uid="2.25.1", series_instance_uid="2.25.2"),
            path=Path("none"),
            digest="",
        )
        for number in range(phantom.spec.slices)
    )
    positions = affine[:3, 3] + np.arange(phantom.spec.slices)[:, None] * affine[:3, 2]
    return Volume(
        hounsfield=phantom.hounsfield, affine_lps_mm=affine, slice_positions_mm=positions, instances=instances
    )


def judged(phantom: Phantom) -> Findings:
    """What the threshold method finds."""
    return inference.load(AnalysisSection(method="threshold"))(volume_of(phantom))


def fractions(lungs: np.ndarray, lesions: np.ndarray) -> tuple[float, float]:
    """Affected fraction of the right and of the left lung."""
    right, left = (float(np.mean(lesions[lungs == label])) for label in (RIGHT_LUNG, LEFT_LUNG))
    return right, left


@pytest.mark.parametrize(
    "changes",
    [
        {"right_fraction": 0.02, "left_fraction": 0.0},
        {"right_fraction": 0.12, "left_fraction": 0.4},
        {"right_fraction": 0.8, "left_fraction": 0.6, "consolidation_share": 0.5},
        {"right_fraction": 0.2, "left_fraction": 0.1, "prone": True},
        {"right_fraction": 0.2, "left_fraction": 0.1, "gantry_tilt_deg": 14.0},
        {"right_fraction": 0.3, "left_fraction": 0.2, "slices": 20, "thickness_mm": 6.5, "seed": 9},
    ],
)
def test_the_true_fractions_are_within_a_percentage_point_of_what_was_asked(changes: dict[str, Any]) -> None:
    """Fractions are met on the grid that was scanned, whatever its shape."""
    phantom = phantom_of(replace(QUICK, **changes))
    assert phantom.truth.affected_fraction(RIGHT_LUNG) == pytest.approx(phantom.spec.right_fraction, abs=0.01)
    assert phantom.truth.affected_fraction(LEFT_LUNG) == pytest.approx(phantom.spec.left_fraction, abs=0.01)
    share = np.count_nonzero(phantom.truth.consolidation) / np.count_nonzero(phantom.truth.lesions)
    assert share == pytest.approx(phantom.spec.consolidation_share, abs=0.04)


def test_the_right_lung_lies_on_the_patients_right_and_is_the_larger() -> None:
    """x grows to the patient's left, also for a prone patient."""
    for spec in (ILL, replace(QUICK, prone=True, seed=4)):
        phantom = phantom_of(spec)
        columns = {label: np.argwhere(phantom.truth.lungs == label)[:, 2].mean() for label in (RIGHT_LUNG, LEFT_LUNG)}
        x_mm = {label: phantom.affine_lps_mm[0] @ (column, 0, 0, 1) for label, column in columns.items()}
        assert x_mm[RIGHT_LUNG] < -40
        assert x_mm[LEFT_LUNG] > 40
        assert 2200 < phantom.lung_volume_ml(RIGHT_LUNG) < 3000
        assert 1800 < phantom.lung_volume_ml(LEFT_LUNG) < 2600
        assert phantom.lung_volume_ml(LEFT_LUNG) < phantom.lung_volume_ml(RIGHT_LUNG)


def test_the_same_specification_gives_the_same_phantom_and_another_seed_another_person() -> None:
    """Everything comes from the seed."""
    again = make(ILL)
    assert np.array_equal(again.hounsfield, phantom_of(ILL).hounsfield)
    assert np.array_equal(again.truth.lesions, phantom_of(ILL).truth.lesions)
    other = phantom_of(replace(QUICK, prone=True, seed=4))
    assert np.mean(other.hounsfield == again.hounsfield) < 0.5


def test_lesions_lie_in_the_lungs_and_consolidation_in_the_lesions() -> None:
    """The masks are nested, and two lungs are two pieces."""
    truth: Truth = phantom_of(ILL).truth
    assert set(np.unique(truth.lungs)) == {0, RIGHT_LUNG, LEFT_LUNG}
    assert not np.any(truth.lesions & (truth.lungs == 0))
    assert not np.any(truth.consolidation & ~truth.lesions)
    for label in (RIGHT_LUNG, LEFT_LUNG):
        pieces, count = ndimage.label(truth.lungs == label)
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() > 0.99 * sizes.sum(), f"{count} pieces"


def test_tissues_have_the_attenuation_that_they_have_in_life() -> None:
    """Median HU of parenchyma, ground glass and consolidation; dependent lung is denser."""
    phantom = phantom_of(ILL)
    truth, image = phantom.truth, phantom.hounsfield
    deep = {
        "air": (ndimage.binary_erosion((truth.lungs > 0) & ~truth.lesions, iterations=3)),
        "glass": ndimage.binary_erosion(truth.lesions & ~truth.consolidation, iterations=2),
        "solid": ndimage.binary_erosion(truth.consolidation, iterations=1),
    }
    medians = {name: float(np.median(image[mask])) for name, mask in deep.items()}
    assert -890 < medians["air"] < -820
    assert -650 < medians["glass"] < -400
    assert -60 < medians["solid"] < 60
    healthy = phantom_of(QUICK)
    rows = np.nonzero(deep["air"])[1]
    front, back = np.quantile(rows, [0.2, 0.8])
    middle = ndimage.binary_erosion(healthy.truth.lungs > 0, iterations=3)
    assert np.median(healthy.hounsfield[:, int(back) :][middle[:, int(back) :]]) > 10 + np.median(
        healthy.hounsfield[:, : int(front)][middle[:, : int(front)]]
    )


def test_disease_prefers_the_back_and_the_bases() -> None:
    """As COVID-19 does, on average over a few courses."""
    back, down = [], []
    for seed in (5, 6):
        phantom = phantom_of(replace(QUICK, seed=seed, right_fraction=0.25, left_fraction=0.25))
        lung, ill = (np.argwhere(mask).mean(axis=0) for mask in (phantom.truth.lungs > 0, phantom.truth.lesions))
        back.append(ill[1] - lung[1])
        down.append(lung[0] - ill[0])
    assert np.mean(back) > 2
    assert np.mean(down) > 1


def test_noise_is_stronger_and_finer_in_a_lung_reconstruction() -> None:
    """Standard deviation and neighbour correlation in the liver."""
    spread, alike = {}, {}
    for kernel in Reconstruction:
        spec = replace(QUICK, slices=1, rows=300, columns=300, spacing_zyx_mm=(5.0, 1.0, 1.0), reconstruction=kernel)
        image = make(replace(spec, centre_z_mm=-120.0)).hounsfield[0].astype(float)
        patch = image[120:150, 80:110]
        patch = patch - ndimage.gaussian_filter(patch, 6)
        spread[kernel] = patch.std()
        alike[kernel] = np.corrcoef(patch[:, 1:].ravel(), patch[:, :-1].ravel())[0, 1]
    assert 8 < spread[Reconstruction.SOFT] < 25 < spread[Reconstruction.LUNG]
    assert alike[Reconstruction.LUNG] < alike[Reconstruction.SOFT]


@pytest.mark.parametrize("body", [Body.ABDOMEN, Body.HEAD])
def test_a_body_that_is_not_a_chest_has_no_lungs(body: Body) -> None:
    """It has soft tissue, bone and some gas inside."""
    phantom = phantom_of(replace(QUICK, body=body, slices=30, centre_z_mm=0.0))
    assert not phantom.truth.lungs.any()
    inner = ndimage.binary_fill_holes(phantom.hounsfield[8] > -300)
    assert np.count_nonzero(inner) > 500
    assert np.count_nonzero(phantom.hounsfield > 500) > 200
    with pytest.raises(ValueError, match="no lungs"):
        replace(QUICK, body=body, left_fraction=0.1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"right_fraction": 1.2}, "between 0 and 1"),
        ({"slices": 0}, "must be positive"),
        ({"thickness_mm": 0.0}, "must be positive"),
        ({"gantry_tilt_deg": 45.0}, "at most 30"),
    ],
)
def test_an_impossible_specification_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    """Nothing invalid is made."""
    with pytest.raises(ValueError, match=words):
        replace(QUICK, **changes)


def test_the_node_finds_the_lungs_of_a_healthy_phantom_and_next_to_no_lesion() -> None:
    """Dice of each lung over 0.93, under 3 % of false lesion."""
    phantom = phantom_of(QUICK)
    findings = judged(phantom)
    for label in (RIGHT_LUNG, LEFT_LUNG):
        found, true = findings.lungs == label, phantom.truth.lungs == label
        assert 2 * np.count_nonzero(found & true) / (np.count_nonzero(found) + np.count_nonzero(true)) > 0.93
    assert max(fractions(findings.lungs, findings.lesions)) < 0.03


def test_measured_fractions_come_in_the_order_of_the_true_ones() -> None:
    """From healthy to severe, on each side."""
    asked = [(0.0, 0.45), (0.15, 0.7), (0.35, 0.2), (0.65, 0.0)]
    right, left = [], []
    for number, (on_right, on_left) in enumerate(asked, 1):
        phantom = phantom_of(replace(QUICK, seed=number, right_fraction=on_right, left_fraction=on_left))
        findings = judged(phantom)
        measured = fractions(findings.lungs, findings.lesions)
        right.append(measured[0])
        left.append(measured[1])
    assert np.argsort(right).tolist() == np.argsort([pair[0] for pair in asked]).tolist(), right
    assert np.argsort(left).tolist() == np.argsort([pair[1] for pair in asked]).tolist(), left
