"""What judged, and by which numbers: Algorithm Identification (PS3.16 TID 4019) of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import AlgorithmIdentification

from triage_node import codes
from triage_node.results import envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triage_node.study import Assessment, Model


def identification(model: Model, parameters: Iterable[tuple[str, str]] = ()) -> AlgorithmIdentification:
    """Name, version, family, maker and digest; each parameter is an item (111002, DCM, "Algorithm Parameters")."""
    listed = (("sha256 of weights or parameters", model.digest), *parameters)
    return AlgorithmIdentification(
        name=model.name,
        version=model.version,
        parameters=[f"{name}: {value}" for name, value in listed],
        family=codes.algorithm_family(model.name),
        manufacturer=envelope.MANUFACTURER,
    )


def parameters(assessment: Assessment) -> list[tuple[str, str]]:
    """What decided beside the weights: the model's parameters, then the thresholds that were used, as fractions."""
    point, split = assessment.operating_point, assessment.consolidation_from_hu
    thresholds = [
        ("Affected fraction threshold HIGH", point.fraction_high),
        ("Affected fraction threshold MEDIUM", point.fraction_medium),
    ]
    if assessment.covid_probability is not None:
        thresholds = [
            ("Probability threshold HIGH", point.probability_high),
            ("Probability threshold MEDIUM", point.probability_medium),
            *thresholds,
        ]
    return [
        *assessment.model.parameters,
        *((name, f"{value:g}") for name, value in thresholds),
        ("Severity cut-offs of CT-1, CT-2, CT-3", ", ".join(f"{cut:g}" for cut in point.grades_up_to)),
        ("Source of thresholds and cut-offs", point.source),
        ("Consolidation", "told apart by the method" if split is None else f"lesion from {split} HU on"),
    ]
