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

from triage_node import worklist
from triage_node.journal.views import StudyRow
from triage_node.worklist import WorklistItem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triage_node.config import WorklistSection
    from triage_node.journal.workitems import Claim
    from triage_node.priority import Turn

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


Entry = tuple[StudyRow, "Claim | None", bool, bool, Row]  # on what a row depends, and the row


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The list at one moment."""

    rows: dict[str, Row]  # Study Instance UID -> what is told of the study
    order: list[str]  # UIDs in reading order
    arrival: list[str]  # and without triage
    turns: dict[str, tuple[StudyRow, Turn]]
    entries: dict[str, Entry]


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


def listing(
    turns: Sequence[tuple[StudyRow, Turn]],
    claims: Mapping[str, Claim],
    rules: WorklistSection,
    now: float,
    before: Listing | None = None,
) -> Listing:
    """What is told of studies in reading order, and of who reads them; what has not changed is taken from `before`."""
    known = {} if before is None else before.entries
    late_from = now - rules.max_wait_min * 60
    entries: dict[str, Entry] = {}
    for row, turn in turns:
        uid = row.study_instance_uid
        claim, is_late = claims.get(uid), row.arrived_at <= late_from
        entry = known.get(uid)
        if (
            entry is None
            or entry[0] is not row
            or entry[1] != claim
            or entry[2] != turn.at_last_place
            or entry[3] != is_late
        ):
            told = _row(worklist.item(row, turn, rules, now), claim)
            entry = (row, claim, turn.at_last_place, is_late, told)
        entries[uid] = entry
    by_arrival = sorted(turns, key=lambda one: one[1].arrival_rank)
    return Listing(
        rows={uid: entry[4] for uid, entry in entries.items()},
        order=list(entries),
        arrival=[row.study_instance_uid for row, _ in by_arrival],
        turns={row.study_instance_uid: (row, turn) for row, turn in turns},
        entries=entries,
    )


def _row(item: WorklistItem, claim: Claim | None) -> Row:
    reasons = tuple(reason.removesuffix(_AT_THE_END) for reason in item.reasons if not _OF_OTHERS.fullmatch(reason))
    by = (None, None) if claim is None else (claim.performer, worklist.iso(claim.since))
    return (*_plain(item), reasons, *by)


def between(old: Listing, new: Listing) -> Change:
    """What leads from `old` to `new`."""
    return Change(
        changed=[row for uid, row in new.rows.items() if (told := old.rows.get(uid)) is not row and told != row],
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
