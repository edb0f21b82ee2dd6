"""What the page says of the node itself: name, version, rules and the numbers of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triage_node import __version__, worklist

if TYPE_CHECKING:
    from triage_node.config import Settings, WorklistSection
    from triage_node.journal import Journal

_STRATEGIES = {
    "identification": "most probable COVID-19 first",
    "severity": "most affected lung first, among studies where COVID-19 is probable",
    "combined": "probability of COVID-19 and affected lung weighed together",
}
_WITHOUT_PROBABILITY = "where a method gives no probability, the affected fraction of the worse lung decides"


def node_facts(journal: Journal, settings: Settings) -> dict[str, object]:
    """`worklist.status` with the node's name, version and rules, ready for JSON."""
    return {
        "version": __version__,
        "notice": worklist.NOT_FOR_DIAGNOSTIC_USE,
        "ae_title": settings.node.ae_title,
        "intake": {"host": settings.intake.host, "port": settings.intake.port},
        "strategy": settings.worklist.strategy,
        "strategy_words": strategy_words(settings.worklist),
        "max_wait_min": settings.worklist.max_wait_min,
        **worklist.status(journal),
    }


def strategy_words(rules: WorklistSection) -> list[str]:
    """How the list is ordered, in sentences for the reader."""
    if rules.strategy == "identification":
        levels = _level("probability of COVID-19", rules.probability_high, rules.probability_medium)
    else:
        levels = _level("affected fraction of the worse lung", rules.fraction_high, rules.fraction_medium)
    return [
        f"Strategy {rules.strategy}: {_STRATEGIES[rules.strategy]}; {_WITHOUT_PROBABILITY}.",
        levels,
        f"A judged study that has waited {rules.max_wait_min:g} min goes before all judged ones that have not.",
        "A study that is not judged, yet or at all, keeps the place of its arrival.",
    ]


def _level(what: str, high: float, medium: float) -> str:
    return f"HIGH from {high:.0%} {what} on, MEDIUM from {medium:.0%}, LOW below."
