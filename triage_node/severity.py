"""Masks -> volumes, affected fraction of each lung, grades. Pure: no I/O, no clock.

Severity of a study is the larger of the two lungs' lesion volume over lung volume (Goncharov 2021, section 2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triage_node import operating
from triage_node.errors import Refused
from triage_node.study import (
    LEFT_LUNG,
    NO_CARD,
    RIGHT_LUNG,
    Assessment,
    CtGrade,
    CtSeverityScore,
    Laterality,
    LungMeasurement,
    NotAnalysed,
    Reason,
)

if TYPE_CHECKING:
    from triage_node.config import AnalysisSection, WorklistSection
    from triage_node.study import Findings, Volume

# Lizzi 2021 (LungQuant): 1 under 5 %, 2 from 5 %, 3 from 25 %, 4 from 50 %, 5 from 75 %.
CT_SEVERITY_SCORE_FROM: tuple[tuple[float, CtSeverityScore], ...] = (
    (0.75, CtSeverityScore.FROM_75),
    (0.50, CtSeverityScore.FROM_50_TO_75),
    (0.25, CtSeverityScore.FROM_25_TO_50),
    (0.05, CtSeverityScore.FROM_5_TO_25),
    (0.00, CtSeverityScore.UNDER_5),
)


def ct_grade(affected_fraction: float, grades_up_to: tuple[float, float, float] = NO_CARD.grades_up_to) -> CtGrade:
    """CT-0..CT-4 of the worse lung's affected fraction, 0..1.

    `grades_up_to` are the largest fractions of CT-1, CT-2 and CT-3: 25, 50 and 75 % in Goncharov 2021, section 3.1.

    CT-0 means that not one lesion voxel was left: what is too small to count is for the method to drop
    (the threshold method drops components under 0.1 % of the lungs), not for the scale to hide.
    """
    _check_fraction(affected_fraction)
    limits = zip(CtGrade, (0.0, *grades_up_to, 1.0), strict=True)
    return next(grade for grade, up_to in limits if affected_fraction <= up_to)


def ct_severity_score(affected_fraction_both: float) -> CtSeverityScore:
    """LungQuant's CT-SS 1..5 of the affected fraction of both lungs together, 0..1."""
    _check_fraction(affected_fraction_both)
    return next(score for least, score in CT_SEVERITY_SCORE_FROM if affected_fraction_both >= least)


def assess(
    volume: Volume,
    findings: Findings,
    *,
    generation: int,
    settings: AnalysisSection,
    rules: WorklistSection | None = None,
) -> Assessment:
    """Turn masks into volumes, fractions and grades; every slice counts with its own thickness.

    Where the method tells consolidation from ground glass it decides, elsewhere `settings.consolidation_hu`. The
    thresholds are those of the model's card, but for what `settings` and `rules` say instead.
    Lesion voxels outside the lungs do not count. Raises Refused (NO_LUNGS) where the lung map is empty and
    ValueError where the masks do not lie on the volume's grid.
    """
    shape = volume.hounsfield.shape
    masks = [findings.lungs, findings.lesions]
    masks += [] if findings.consolidation is None else [findings.consolidation]
    if any(mask.shape != shape for mask in masks):
        found = " and ".join(str(mask.shape) for mask in masks)
        raise ValueError(f"the findings' masks are {found}, the volume is {shape}")
    right = _measure(volume, findings, Laterality.RIGHT, RIGHT_LUNG, settings.consolidation_hu)
    left = _measure(volume, findings, Laterality.LEFT, LEFT_LUNG, settings.consolidation_hu)
    lungs = [lung for lung in (right, left) if lung is not None]
    if not lungs:
        words = "the lung map is empty: neither a right nor a left lung was found"
        raise Refused(NotAnalysed(reason=Reason.NO_LUNGS, words=words))
    lesion_ml = sum(lung.lesion_ml for lung in lungs)
    worse = max(lung.affected_fraction for lung in lungs)
    both = min(1.0, lesion_ml / sum(lung.volume_ml for lung in lungs))
    point = operating.resolved(findings.model.operating_point, analysis=settings, worklist=rules)
    return Assessment(
        right=right,
        left=left,
        affected_fraction=worse,
        affected_fraction_both=both,
        consolidation_share=sum(lung.consolidation_ml for lung in lungs) / lesion_ml if lesion_ml > 0 else None,
        ct_grade=ct_grade(worse, point.grades_up_to),
        ct_ss=ct_severity_score(both),
        covid_probability=findings.covid_probability,
        model=findings.model,
        generation=generation,
        warnings=tuple(dict.fromkeys((*volume.warnings, *findings.warnings))),
        operating_point=point,
        consolidation_from_hu=settings.consolidation_hu if findings.consolidation is None else None,
    )


def _measure(
    volume: Volume, findings: Findings, laterality: Laterality, label: int, consolidation_hu: int
) -> LungMeasurement | None:
    counts: npt.NDArray[np.int64] = np.zeros((3, len(volume.hounsfield)), dtype=np.int64)
    for z, (hounsfield, lungs, lesions) in enumerate(
        zip(volume.hounsfield, findings.lungs, findings.lesions, strict=True)
    ):
        lung = lungs == label
        lesion = lung & lesions
        by_method = findings.consolidation
        dense = hounsfield >= consolidation_hu if by_method is None else by_method[z]
        counts[:, z] = np.count_nonzero(lung), np.count_nonzero(lesion), np.count_nonzero(lesion & dense)
    if not counts[0].any():
        return None
    volume_ml, lesion_ml, consolidation_ml = (float(row @ volume.voxel_volumes_ml) for row in counts)
    return LungMeasurement(
        laterality=laterality,
        volume_ml=volume_ml,
        lesion_ml=min(lesion_ml, volume_ml),
        consolidation_ml=min(consolidation_ml, lesion_ml),
    )


def _check_fraction(fraction: float) -> None:
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"an affected fraction lies between 0 and 1, not {fraction}")
