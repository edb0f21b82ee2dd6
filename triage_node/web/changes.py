"""Two lists -> what an open page has to be told to turn the one into the other.

Most of what happens to a list of thousands is that one study moves and all that it passes make room. So places are not
part of what is told of a study: a page is told which studies moved by themselves and where to, and counts the places.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

from triage_node.worklist import WorklistItem, iso

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triage_node.journal.workitems import Claim

Row = tuple[object, ...]  # the values of FIELDS, ready for JSON

# Places follow from the order, waiting times from the time of arrival: the page counts both by itself. What a sentence
# says of other studies changes with every one that is read: the page asks for these sentences where it shows them.
_LEFT_OUT = frozenset({"rank", "arrival_rank", "waiting_s", "reasons", "explanation"})
_PLAIN = tuple(field.name for field in fields(WorklistItem) if field.name not in _LEFT_OUT)
FIELDS = (*_PLAIN, "reasons", "performer", "claimed_at")
_plain = attrgetter(*_PLAIN)
_OF_OTHERS = re.compile(
    r"moved from \d+ to \d+|\d+ that came later read before it|keeps its place by arrival|state: \w+"
)
_AT_THE_END = ": keeps its place by arrival"


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The list at one moment."""

    rows: dict[str, Row]  # Study Instance UID -> what is told of the study
    order: list[str]  # UIDs in reading order
    arrival: list[str]  # and without triage


@dataclass(frozen=True, kw_only=True)
class Change:
    """What leads from one list to the next."""

    changed: list[Row]  # new studies, and those of which something is different
    gone: list[str]
    moved: list[tuple[str, int]]  # which to take out of the reading order, and where to put them, from the front
    moved_by_arrival: list[tuple[str, int]]

    @property
    def is_small(self) -> bool:
        """Whether it is less to say than the whole list."""
        return self.size < _WORTH_A_LIST

    @property
    def size(self) -> int:
        """How many entries it has."""
        return len(self.changed) + len(self.gone) + len(self.moved) + len(self.moved_by_arrival)


_WORTH_A_LIST = 4000


def listing(items: Sequence[WorklistItem], claims: Mapping[str, Claim]) -> Listing:
    """What is told of `items`, which are in reading order, and of who reads them."""
    rows = {item.study_instance_uid: _row(item, claims.get(item.study_instance_uid)) for item in items}
    by_arrival = sorted(items, key=lambda item: item.arrival_rank)
    return Listing(rows=rows, order=list(rows), arrival=[item.study_instance_uid for item in by_arrival])


def _row(item: WorklistItem, claim: Claim | None) -> Row:
    reasons = tuple(reason.removesuffix(_AT_THE_END) for reason in item.reasons if not _OF_OTHERS.fullmatch(reason))
    by = (None, None) if claim is None else (claim.performer, iso(claim.since))
    return (*_plain(item), reasons, *by)


def between(old: Listing, new: Listing) -> Change:
    """What leads from `old` to `new`."""
    return Change(
        changed=[row for uid, row in new.rows.items() if old.rows.get(uid) != row],
        gone=[uid for uid in old.order if uid not in new.rows],
        moved=moves(old.order, new.order),
        moved_by_arrival=moves(old.arrival, new.arrival),
    )


def moves(old: Sequence[str], new: Sequence[str]) -> list[tuple[str, int]]:
    """The fewest entries of `new`, with their index in it, without which what is left stands as in `old`."""
    if old == new:
        return []
    places = {uid: place for place, uid in enumerate(old)}
    # the longest run of entries that follow each other in both (patience sorting); all others have moved or are new
    tops: list[int] = []  # least last place in `old` of a run of each length
    ends: list[int] = []  # and the index in `new` of its last entry
    before: list[int] = [-1] * len(new)
    for index, uid in enumerate(new):
        place = places.get(uid)
        if place is None:
            continue
        length = bisect_left(tops, place)
        if length:
            before[index] = ends[length - 1]
        if length == len(tops):
            tops.append(place)
            ends.append(index)
        else:
            tops[length], ends[length] = place, index
    staying = set()
    at = ends[-1] if ends else -1
    while at >= 0:
        staying.add(at)
        at = before[at]
    return [(uid, index) for index, uid in enumerate(new) if index not in staying]
