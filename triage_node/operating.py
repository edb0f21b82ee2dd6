"""The operating point in use: the model card's numbers, but for what the configuration says instead. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from triage_node.errors import ConfigurationError

if TYPE_CHECKING:
    from triage_node.config import AnalysisSection, WorklistSection
    from triage_node.study import Model, OperatingPoint

THRESHOLDS = ("probability_high", "probability_medium", "fraction_high", "fraction_medium")


def overrides(*, analysis: AnalysisSection | None = None, worklist: WorklistSection | None = None) -> dict[str, Any]:
    """The numbers of an operating point that the configuration gives, by their names there."""
    given = {} if worklist is None else {name: getattr(worklist, name) for name in THRESHOLDS}
    if analysis is not None:
        given["grades_up_to"] = analysis.grades_up_to
    return {name: value for name, value in given.items() if value is not None}


def resolved(
    card: OperatingPoint, *, analysis: AnalysisSection | None = None, worklist: WorklistSection | None = None
) -> OperatingPoint:
    """`card` with the configuration's numbers in place of its own.

    A card's threshold that contradicts a configured one yields to it: so an answer of an earlier model stays on the
    list whatever its card says. `check` refuses such a contradiction with the model in use.
    """
    given = overrides(analysis=analysis, worklist=worklist)
    if not given:
        return card
    configured = ", ".join(given)
    for name in ("probability", "fraction"):
        high, medium = f"{name}_high", f"{name}_medium"
        if high in given and medium not in given:
            given[medium] = min(getattr(card, medium), given[high])
        elif medium in given and high not in given:
            given[high] = max(getattr(card, high), given[medium])
    return replace(card, source=f"{card.source}; from the configuration: {configured}", **given)


def check(model: Model, *, worklist: WorklistSection) -> None:
    """Raise ConfigurationError where a configured threshold contradicts one that is left to the card of `model`."""
    card, given = model.operating_point, overrides(worklist=worklist)
    whose = f"of the card of {model.name} {model.version}"
    problems = []
    for name in ("probability", "fraction"):
        high, medium = f"{name}_high", f"{name}_medium"
        if high in given and medium not in given and given[high] < getattr(card, medium):
            problems.append((high, given[high], f"{getattr(card, medium)} or more, the {medium} {whose}", medium))
        if medium in given and high not in given and given[medium] > getattr(card, high):
            problems.append((medium, given[medium], f"{getattr(card, high)} or less, the {high} {whose}", high))
    if problems:
        raise ConfigurationError(
            "\n".join(
                f"worklist.{key}: found {found}; allowed: {allowed}, unless worklist.{other} is given, too"
                for key, found, allowed, other in problems
            )
        )
