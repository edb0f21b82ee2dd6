"""Studies that are judged again on unchanged images, because model or configuration are others now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from triage_node import inference, node
from triage_node.analyst import judge_digest
from triage_node.errors import TriageError
from triage_node.journal import succession
from triage_node.journal.succession import Again

if TYPE_CHECKING:
    from triage_node.config import Settings
    from triage_node.journal import Journal

_WORDS = {
    Again.QUEUED: "queued; the new answer will supersede the old one",
    Again.UNCHANGED: "unchanged: judged by this very model and configuration (--force judges all the same)",
    Again.PENDING: "left alone: images are arriving, or an analysis is queued already",
    Again.UNKNOWN: "unknown",
}


def queue(journal: Journal, settings: Settings, study: str | None, *, force: bool) -> dict[str, list[str]]:
    """Queue one study, or (None) every one that has an answer; the Study Instance UIDs by outcome.

    Raises TriageError where the running node has started with another model or configuration: it would judge by that.
    """
    judge = judge_digest(inference.load(settings.analysis).model, settings)
    if node.is_running(settings.state_dir) and succession.running_judge(journal) not in {None, judge}:
        raise TriageError(
            "the node runs with another model or configuration than this file has now, and would judge by that:"
            " restart the node, then ask again"
        )
    studies = succession.judged_studies(journal) if study is None else [study]
    outcomes: dict[str, list[str]] = {outcome.value: [] for outcome in Again}
    for one in studies:
        outcomes[succession.judge_again(journal, one, judge, force=force, now=time.time())].append(one)
    return outcomes


def sentence(outcomes: dict[str, list[str]]) -> str:
    """How many studies came to which outcome, a line each."""
    lines = [f"{len(found)} {_WORDS[outcome]}" for outcome in Again if (found := outcomes[outcome])]
    return "\n".join(lines) or "no study has an answer yet"
