"""What the page says of the node itself: name, version, rules and the numbers of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triage_node import __version__, operating, worklist
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from triage_node.config import Settings, WorklistSection
    from triage_node.journal import Journal


def node_facts(journal: Journal, settings: Settings) -> dict[str, object]:
    """`worklist.status` with the node's name, version and rules, ready for JSON."""
    return {
        "version": __version__,
        "notice": NOT_FOR_DIAGNOSTIC_USE,
        "ae_title": settings.node.ae_title,
        "intake": {"host": settings.intake.host, "port": settings.intake.port},
        "strategy": settings.worklist.strategy,
        "strategy_words": strategy_words(settings.worklist),
        "max_wait_min": settings.worklist.max_wait_min,
        **worklist.status(journal, settings.destination_names),
    }


def strategy_words(rules: WorklistSection) -> list[str]:
    """How `priority` orders the list, in sentences for the reader."""
    probability = _steps("probability of COVID-19", rules.probability_high, rules.probability_medium)
    fraction = _steps("affected fraction of the worse lung", rules.fraction_high, rules.fraction_medium)
    weight = rules.probability_weight
    chosen = {
        "identification": [f"{probability}.", "Within a level the most probable COVID-19 comes first."],
        "severity": [
            f"{fraction}; LOW where COVID-19 is less probable than {_threshold(rules.probability_medium)}.",
            "Within a level the most affected lung comes first.",
        ],
        "combined": [
            f"{probability}. {fraction}. The higher of the two counts.",
            f"Within a level both are weighed together: {weight:.0%} probability, {1 - weight:.0%} affected fraction.",
        ],
    }
    return [
        f"Strategy: {rules.strategy}. Judged studies are sorted by level: HIGH, MEDIUM, LOW.",
        *chosen[rules.strategy],
        *([] if all(_chosen(rules)) else ["The reasons of each study name the thresholds that gave it its level."]),
        "Where a method gives no probability, the affected fraction of the worse lung decides alone.",
        "What was ordered STAT stands before all else; a level that the order gave is never lowered.",
        f"Nobody waits over {rules.max_wait_min:g} min for triage's sake; then a study goes before all that have not.",
        "A study that is not judged, yet or at all, is read no later than in order of arrival.",
    ]


def _chosen(rules: WorklistSection) -> list[bool]:
    return [getattr(rules, name) is not None for name in operating.THRESHOLDS]


def _steps(what: str, high: float | None, medium: float | None) -> str:
    return f"HIGH from {_threshold(high)}, MEDIUM from {_threshold(medium)} on, by {what}"


def _threshold(value: float | None) -> str:
    return "the threshold of the model card" if value is None else f"{100 * value:.3g}%"
