"""What an unreliable archive does, how often, and the dice that decide.

A decision follows from the seed, from what it is about (an object, an association, a request) and from how often that
has come before, never from the order in which things happen: the same objects meet the same misbehaviour again.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Occasion(StrEnum):
    """When an archive can misbehave; one thing happens on each occasion at most."""

    ASSOCIATION = "association"
    STORE = "C-STORE"
    COMMITMENT = "storage commitment"
    FIND = "C-FIND"


class Misbehaviour(StrEnum):
    """One thing that an archive does instead of its duty."""

    REJECT_TRANSIENT = "reject-transient"
    REJECT_PERMANENT = "reject-permanent"
    ACCEPT_SLOWLY = "accept-slowly"
    ACCEPT_NEVER = "accept-never"
    CUT_SHORT = "cut-short"
    REFUSE_A700 = "refuse-a700"
    REFUSE_0110 = "refuse-0110"
    REFUSE_C000 = "refuse-c000"
    STORE_SLOWLY = "store-slowly"
    STALL = "stall"
    KEEP_AND_STALL = "keep-and-stall"
    ABORT = "abort"
    KEEP_AND_ABORT = "keep-and-abort"
    KEEP_AND_WARN = "keep-and-warn"
    FORGET = "forget"
    COMMIT_REFUSED = "commit-refused"
    COMMIT_ABORT = "commit-abort"
    COMMIT_FORGET = "commit-forget"
    REPORT_ANEW = "report-anew"
    REPORT_EARLY = "report-early"
    REPORT_LATE = "report-late"
    REPORT_TWICE = "report-twice"
    REPORT_NEVER = "report-never"
    FIND_REFUSED = "find-refused"
    FIND_ABORT = "find-abort"
    FIND_STALL = "find-stall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """When a misbehaviour happens, in which share of the cases by default, and what it means."""

    occasion: Occasion
    share: float
    words: str


_A, _S, _C, _F = Occasion.ASSOCIATION, Occasion.STORE, Occasion.COMMITMENT, Occasion.FIND
_M = Misbehaviour
KINDS: Mapping[Misbehaviour, Kind] = {
    misbehaviour: Kind(occasion=occasion, share=share, words=words)
    for misbehaviour, occasion, share, words in (
        (_M.REJECT_TRANSIENT, _A, 0.06, "association rejected, transient (2/3/2)"),
        (_M.REJECT_PERMANENT, _A, 0.04, "association rejected, permanent (1/1/1)"),
        (_M.ACCEPT_SLOWLY, _A, 0.10, "association accepted late, within the time-out"),
        (_M.ACCEPT_NEVER, _A, 0.02, "association neither accepted nor rejected"),
        (_M.CUT_SHORT, _A, 0.06, "association aborted in the middle of a data set"),
        (_M.REFUSE_A700, _S, 0.06, "C-STORE refused: out of resources (0xA700)"),
        (_M.REFUSE_0110, _S, 0.04, "C-STORE refused: processing failure (0x0110)"),
        (_M.REFUSE_C000, _S, 0.03, "C-STORE refused for good: cannot understand (0xC000)"),
        (_M.STORE_SLOWLY, _S, 0.10, "C-STORE answered late, within the time-out"),
        (_M.STALL, _S, 0.02, "C-STORE not kept and answered after the time-out"),
        (_M.KEEP_AND_STALL, _S, 0.02, "C-STORE kept and answered after the time-out"),
        (_M.ABORT, _S, 0.04, "C-STORE not kept, aborted instead of an answer"),
        (_M.KEEP_AND_ABORT, _S, 0.06, "C-STORE kept, aborted instead of an answer"),
        (_M.KEEP_AND_WARN, _S, 0.05, "C-STORE kept, answered with a warning (0xB007)"),
        (_M.FORGET, _S, 0.10, "C-STORE answered 0x0000, then the object is forgotten"),
        (_M.COMMIT_REFUSED, _C, 0.05, "commitment request refused: resource limitation (0x0213)"),
        (_M.COMMIT_ABORT, _C, 0.05, "association aborted instead of an answer to the commitment request"),
        (_M.COMMIT_FORGET, _C, 0.05, "one of the objects is forgotten before it is reported on"),
        (_M.REPORT_ANEW, _C, 0.25, "report on a new association"),
        (_M.REPORT_EARLY, _C, 0.05, "report on a new association before the request is answered"),
        (_M.REPORT_LATE, _C, 0.15, "report on a new association, late"),
        (_M.REPORT_TWICE, _C, 0.10, "report on the same association and again on a new one"),
        (_M.REPORT_NEVER, _C, 0.05, "no report at all"),
        (_M.FIND_REFUSED, _F, 0.05, "query refused: out of resources (0xA700)"),
        (_M.FIND_ABORT, _F, 0.05, "association aborted instead of an answer to the query"),
        (_M.FIND_STALL, _F, 0.02, "query answered after the time-out"),
    )
}


def shares(changes: Mapping[Misbehaviour, float] | None = None, *, scale: float = 1.0) -> dict[Misbehaviour, float]:
    """Share of each misbehaviour, 0..1: the default times `scale`, or what `changes` says.

    Raises ValueError where a share is not 0..1 or those of one occasion are more than 1 together.
    """
    found = {each: kind.share * scale for each, kind in KINDS.items()} | dict(changes or {})
    for each, share in found.items():
        if not 0 <= share <= 1:
            raise ValueError(f"the share of {each} must be 0 to 1, not {share:g}")
    for occasion in Occasion:
        together = sum(share for each, share in found.items() if KINDS[each].occasion is occasion)
        if together > 1 + 1e-9:
            raise ValueError(f"the shares on the occasion {occasion} are {together:g} together; they must not exceed 1")
    return found


def share(words: str) -> tuple[Misbehaviour, float]:
    """What NAME=SHARE says. Raises ValueError."""
    name, equals, number = words.partition("=")
    if not equals or name not in set(Misbehaviour):
        raise ValueError(f"--share {words}: expected NAME=SHARE, with a name of tools/unreliable_archive.py --list")
    return Misbehaviour(name), float(number)


class Dice:
    """Decides what happens; may be asked by several threads."""

    def __init__(self, seed: int, share_of: Mapping[Misbehaviour, float]) -> None:
        self._seed = seed
        self._shares = {
            occasion: [(each, share) for each, share in share_of.items() if KINDS[each].occasion is occasion]
            for occasion in Occasion
        }
        self._times: dict[tuple[Occasion, str], int] = {}
        self._lock = threading.Lock()

    def throw(self, occasion: Occasion, about: str = "") -> Misbehaviour | None:
        """What happens the next time with `about` on this occasion; None: the archive does its duty."""
        with self._lock:
            nth = self._times[occasion, about] = self._times.get((occasion, about), 0) + 1
        thrown = random.Random(f"{self._seed} {occasion} {about} {nth}").random()
        for each, share in self._shares[occasion]:
            thrown -= share
            if thrown < 0:
                return each
        return None
