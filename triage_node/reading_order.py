"""Who is read when: urgency within the limits that each study's right to be read in time sets; no I/O, no clock.

Every study of a queue has a last place, the one that it must not be put behind. Where studies have different urgency,
the order is made from its end: each place, from the last one upwards, goes to the least urgent study that may still
stand there (Lawler 1973, the rule for one machine). So nobody is put behind his last place as long as there is an
order in which nobody is; where there is none, those who are late stand in order of arrival around those whose place
is firm. A study that becomes more
urgent never moves back by it, and one that comes later never takes a last place from those that are there.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_LIMIT = math.inf
# The pace is measured over so many intervals at most, and not on fewer than the second number.
PACE_OVER, PACE_FROM = 20, 5
PAUSE_S = 3600.0  # nobody reads: no interval between two studies is as long


def arranged(
    urgency_ranks: Sequence[int], last_places: Sequence[float], firm: Sequence[bool] | None = None
) -> list[int]:
    """The order of studies 0 to n - 1, which came in this order, as a permutation of their numbers.

    `urgency_ranks` are different numbers, the smaller the more urgent; `last_places` count from 1, and those under 1
    or over n are allowed. Where not everybody can stand in time, those whose place is `firm` do, and the others give
    way.
    """
    count = len(urgency_ranks)
    by_rank = dict(zip(urgency_ranks, range(count), strict=True))
    free: list[int] = []  # ranks of those that may stand last, of which there are many: a stack, least urgent on top
    bound: dict[int, list[int]] = {}  # by last place, the negative ranks of those that may stand there
    for number, last in enumerate(last_places):
        if last >= count:
            free.append(urgency_ranks[number])
        elif last >= 1:
            bound.setdefault(int(last), []).append(-urgency_ranks[number])
    free.sort()
    order = [0] * count
    placed = [False] * count
    eligible: list[int] = []  # a heap of negative ranks, least urgent on top
    latest = count - 1
    yielding = [number for number in range(count) if not (firm and firm[number])]
    for place in range(count, 0, -1):
        for rank in bound.get(place, ()):
            if not placed[by_rank[-rank]]:
                heapq.heappush(eligible, rank)
        if free and (not eligible or free[-1] > -eligible[0]):
            chosen = by_rank[free.pop()]
        elif eligible:
            chosen = by_rank[-heapq.heappop(eligible)]
        else:  # all that are left ought to stand further forward: whoever came last of those that may gives way
            while yielding and placed[yielding[-1]]:
                yielding.pop()
            while not yielding and placed[latest]:
                latest -= 1
            chosen = yielding[-1] if yielding else latest
        placed[chosen] = True
        order[place - 1] = chosen
    return order


def place_by_arrival(number: int, arrived: tuple[float, str], taken: Sequence[tuple[float, str]]) -> int:
    """Where study `number` (from 0) of a queue would stand had it always been read in order of arrival.

    `taken` is when those arrived that have left the queue for a reader, sorted. Whoever came later and was taken
    before would still be there, and somebody earlier gone: so each of them counts for one place.
    """
    overtaken_by = len(taken) - bisect_right(taken, arrived)
    return max(1, number + 1 - overtaken_by)


def places_in_time(time_left_s: Sequence[float], pace_s: float, first: int = 1) -> list[float]:
    """The last place of each study of a queue by the time that it may still wait; the queue is in order of arrival.

    `pace_s` is how often a reader takes the next study, `first` the place on the list where the queue begins. While
    arrival order would keep everybody's time, everybody has a last place that keeps it. When the queue is too long
    for that, or the pace not known (0), time is no reason to hold the urgent back: then it counts once it is over,
    and whoever's time is over (0) goes before all others.
    """
    if pace_s > 0:
        places: list[float] = [2 - first + left // pace_s for left in time_left_s]
        if all(number <= place for number, place in enumerate(places, start=1)):
            return places
    return [NO_LIMIT if left > 0 else 0 for left in time_left_s]


def pace(taken_at: Sequence[float]) -> float:
    """Seconds from one taking of a study to the next, all readers together; 0 where it cannot be told.

    `taken_at` rises. The mean over the latest ones, so that it follows the number of readers, without long pauses.
    """
    latest = taken_at[-PACE_OVER - 1 :]
    working = [later - earlier for earlier, later in pairwise(latest) if later - earlier <= PAUSE_S]
    return sum(working) / len(working) if len(working) >= PACE_FROM else 0.0
