"""What was made once and may be asked for again, kept within a bound; the one that was not used for longest goes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Kept = TypeVar("Kept")
_LOCKS = 16


class Shelf(Generic[Kept]):
    """For several threads; what two of them ask for at a time is made once."""

    def __init__(self, maximum: int, weight: Callable[[Kept], int]) -> None:
        """Keep at most `maximum` by the sum of `weight`, but always the latest."""
        self._maximum = maximum
        self._weight = weight
        self._total = 0
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._making = [threading.Lock() for _ in range(_LOCKS)]

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What is kept under `key`, made first where there is nothing; what `make` raises is passed on."""
        with self._making[hash(key) % _LOCKS]:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            made = make()
            with self._lock:
                self._kept[key] = made
                self._total += self._weight(made)
                while self._total > self._maximum and len(self._kept) > 1:
                    _, gone = self._kept.popitem(last=False)
                    self._total -= self._weight(gone)
            return made
