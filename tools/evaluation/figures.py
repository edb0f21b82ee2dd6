"""Everything that is measured in one scan, by name; what cannot be measured is left out and says why.

Fractions are 0..1 of the lungs' volume. `fraction` is that of both lungs together, `fraction_worse` the larger of the
two lungs' (Goncharov 2021, section 2.1), each on the compared voxels alone. For a figure that experts have, too,
`predicted_X` and `expert_X` stand side by side, `X_bias` is predicted minus expert and `X_mae` its absolute value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evaluation.overlap import overlap
from triage_node.severity import ct_grade, ct_severity_score
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, CtGrade

if TYPE_CHECKING:
    from evaluation.cases import Drawn
    from triage_node.config import AnalysisSection
    from triage_node.study import Findings, LungMap, Mask, Volume

OVERLAPS = ("dice", "iou", "sensitivity", "specificity")
MASKS = ("lungs", "lesion", "ground_glass", "consolidation")
GRADES = tuple(CtGrade)

Figures = dict[str, float]


def figures(drawn: Drawn, findings: Findings, settings: AnalysisSection) -> tuple[Figures, dict[str, str]]:
    """The figures of one scan, and for each mask or label that could not be scored the reason."""
    counted = drawn.counted
    found_consolidation = _consolidation(drawn.volume, findings, settings)
    values: Figures = {}
    missing: dict[str, str] = {}
    found: dict[str, Mask | None] = {
        "lungs": findings.lungs > 0,
        "lesion": findings.lesions,
        "ground_glass": findings.lesions & ~found_consolidation,
        "consolidation": found_consolidation,
    }
    expert = _expert(drawn)
    for name, mask in expert.items():
        if mask is None:
            classes_alone = name not in {"lungs", "lesion"} and drawn.lesions is not None
            missing[name] = "drawn without classes" if classes_alone else "not drawn by an expert"
            continue
        predicted = found[name]
        assert predicted is not None
        compared = overlap(predicted, mask, counted)
        values |= {f"{name}_{what}": v for what in OVERLAPS if (v := getattr(compared, what)) is not None}
        if compared.dice is None:
            missing[f"{name}_dice"] = "the expert drew none of it"
    if drawn.sided and drawn.lungs is not None:
        for side, label in (("right_lung", RIGHT_LUNG), ("left_lung", LEFT_LUNG)):
            dice = overlap(findings.lungs == label, drawn.lungs == label, counted).dice
            values |= {} if dice is None else {f"{side}_dice": dice}
    values |= _measured("predicted", drawn, found, findings.lungs)
    values |= _measured("expert", drawn, expert, drawn.lungs if drawn.sided else None)
    for side in ("predicted", "expert"):
        values |= _graded(side, values)
    for name in [key.removeprefix("expert_") for key in values if key.startswith("expert_")]:
        if f"predicted_{name}" in values:
            difference = values[f"predicted_{name}"] - values[f"expert_{name}"]
            values[f"{name}_bias"], values[f"{name}_mae"] = difference, abs(difference)
    if findings.covid_probability is not None:
        values["covid_probability"] = float(findings.covid_probability)
    return values, missing


def _expert(drawn: Drawn) -> dict[str, Mask | None]:
    glass = None
    if drawn.lesions is not None and drawn.consolidation is not None:
        glass = drawn.lesions & ~drawn.consolidation
    return {
        "lungs": None if drawn.lungs is None else drawn.lungs > 0,
        "lesion": drawn.lesions,
        "ground_glass": glass,
        "consolidation": drawn.consolidation,
    }


def _consolidation(volume: Volume, findings: Findings, settings: AnalysisSection) -> Mask:
    """By the method's own classes, or by attenuation where it has none."""
    told: Mask | None = findings.consolidation
    if told is None:
        told = volume.hounsfield >= settings.consolidation_hu
    return findings.lesions & told


def _measured(who: str, drawn: Drawn, masks: dict[str, Mask | None], sides: LungMap | None) -> Figures:
    """Volumes (ml, where the spacing is known) and fractions of the lungs.

    What was drawn as a lesion belongs to the lungs, also where the mask of the lungs leaves it out, as many do.
    """
    ml = {name: _ml(mask, drawn) for name, mask in masks.items() if mask is not None}
    values: Figures = {}
    if drawn.in_ml:
        values |= {f"{who}_{name}_ml": volume for name, volume in ml.items()}
    lungs, lesions = masks["lungs"], masks["lesion"]
    if lungs is None or lesions is None:
        return values
    whole = _ml(lungs | lesions, drawn)
    if whole == 0:
        return values
    values[f"{who}_fraction"] = ml["lesion"] / whole
    for name in ("ground_glass", "consolidation"):
        if name in ml:
            values[f"{who}_{name}_fraction"] = ml[name] / whole
    if sides is not None:
        lung_ml = [(_ml(sides == label, drawn), _ml((sides == label) & lesions, drawn)) for label in (1, 2)]
        worse = [lesion / lung for lung, lesion in lung_ml if lung > 0]
        if worse:
            values[f"{who}_fraction_worse"] = max(worse)
    return values


def _ml(mask: Mask, drawn: Drawn) -> float:
    """Volume of the compared part of a mask, every slice with its own thickness."""
    inside = mask if drawn.counted is None else mask & drawn.counted
    return float(np.count_nonzero(inside, axis=(1, 2)) @ drawn.volume.voxel_volumes_ml)


def _graded(who: str, values: Figures) -> Figures:
    """CT-SS 1..5 by the fraction of both lungs, CT-0..CT-4 as 0..4 by that of the worse lung."""
    graded: Figures = {}
    if f"{who}_fraction" in values:
        graded[f"{who}_ct_ss"] = int(ct_severity_score(values[f"{who}_fraction"]))
    if f"{who}_fraction_worse" in values:
        graded[f"{who}_ct_grade"] = GRADES.index(ct_grade(values[f"{who}_fraction_worse"]))
    return graded
