"""How long to wait before a destination is asked again: pauses that double, from seconds to hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from triage_node.config import DestinationSection

JITTER = 0.2  # share by which a pause is shortened or lengthened, so that many nodes do not call in step


class Awaited(Protocol):
    """What archives and RIS have in common: a name, and how long the node waits before it asks them again."""

    @property
    def name(self) -> str:
        """Name in the journal."""

    @property
    def retry_first_s(self) -> float:
        """Pause before the second attempt."""

    @property
    def retry_longest_s(self) -> float:
        """Longest pause between attempts."""

    @property
    def probe_longest_s(self) -> float:
        """Longest pause between probes of a destination that is not reached."""


def pause_s(destination: Awaited, attempts: int, *, jitter: float) -> float:
    """Pause after the `attempts`-th failed attempt in a row; `jitter` is -1..1."""
    return _doubled(destination.retry_first_s, destination.retry_longest_s, attempts, jitter)


def probe_pause_s(destination: Awaited, attempts: int, *, jitter: float) -> float:
    """Pause after the `attempts`-th attempt in a row that did not reach the destination; `jitter` is -1..1."""
    longest = min(destination.probe_longest_s, destination.retry_longest_s)
    return _doubled(destination.retry_first_s, longest, attempts, jitter)


def report_pause_s(destination: DestinationSection, requests: int, *, jitter: float) -> float:
    """How long a report of commitment is waited for after the `requests`-th request; `jitter` is -1..1."""
    first = destination.commitment_timeout_s
    return _doubled(first, max(first, destination.retry_longest_s), requests, jitter)


def _doubled(first_s: float, longest_s: float, attempts: int, jitter: float) -> float:
    return float(min(first_s * 2.0 ** min(attempts - 1, 40), longest_s) * (1.0 + JITTER * jitter))
