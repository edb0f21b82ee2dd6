"""The way to a destination, for all that is to go there: after a failure everything pauses but one probe.

Not reached is a destination with which no association can be opened, or that has answered nothing to the objects of
several studies in a row. The way is kept in the journal, so that a restart forgets nothing and probes soon.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from triage_node import backoff, logbook
from triage_node.journal import circuits

if TYPE_CHECKING:
    from triage_node.backoff import Awaited
    from triage_node.journal import Journal


def begin(journal: Journal, destination: Awaited, now: float) -> None:
    """After a restart the first probe comes soon: whoever restarts a node may just have mended the network."""
    circuits.hasten(journal, now + min(destination.retry_first_s, 5.0), destination.name)


def probe_at(journal: Journal, destination: Awaited) -> float | None:
    """When a destination that is not reached is to be probed; None while it answers."""
    known = circuits.look(journal, destination.name)
    return None if known is None else known.probe_at


def failed(journal: Journal, destination: Awaited, words: str, now: float) -> None:
    """The destination was not reached."""
    known = circuits.look(journal, destination.name)
    failures = 1 + (known.failures if known is not None else 0)
    pause_s = backoff.probe_pause_s(destination, failures, jitter=random.uniform(-1, 1))
    circuits.not_reached(journal, destination.name, words, now, now + pause_s)
    logbook.get().warning(
        "destination not reached",
        destination=destination.name,
        why=words,
        failures=failures,
        next_probe_in_s=round(pause_s, 1),
    )


def answered(journal: Journal, destination: Awaited, now: float) -> bool:
    """The destination answers; True if it did not before: then all that waits for it is due at once."""
    again = circuits.reached(journal, destination.name, now)
    if again:
        logbook.get().info("destination answers again", destination=destination.name)
    return again
