"""What judged, and by which numbers: Algorithm Identification (PS3.16 TID 4019) of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triage_node import codes
from triage_node.results import envelope
from triage_node.results.content import Item, Relationship

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.sr.coding import Code

    from triage_node.study import Assessment, Model


def short(model: Model) -> tuple[Item, ...]:
    """Name and version, which stand beneath every number: OHIF's reader of TID 1500 needs a number to have children."""
    return _items([(codes.ALGORITHM_NAME, model.name), (codes.ALGORITHM_VERSION, model.version)])


def identification(model: Model, parameters: Iterable[tuple[str, str]] = ()) -> tuple[Item, ...]:
    """Name, version, maker, digest and family; each parameter is an item (111002, DCM, "Algorithm Parameters").

    Names of parameters are those of the configuration and of the model's card, in every language.
    """
    listed = (("sha256 of weights or parameters", model.digest), *parameters)
    return (
        *short(model),
        *_items([(codes.ALGORITHM_MANUFACTURER, envelope.MANUFACTURER)]),
        *_items([(codes.ALGORITHM_PARAMETERS, f"{name}: {value}") for name, value in listed]),
        *_items([(codes.ALGORITHM_FAMILY, codes.algorithm_family(model.name))]),
    )


def _items(named: Iterable[tuple[Code, Code | str]]) -> tuple[Item, ...]:
    return tuple(Item(Relationship.HAS_CONCEPT_MOD, name, value) for name, value in named)


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
