"""Which requests show a study or the list, and when that is told again."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

# An open page asks again and again; a look is told once in so many seconds for each user, place, session and study.
AGAIN_AFTER_S: Final = 900.0
_KEPT: Final = 16_384
# Up to this width, in pixels, an overview is a thumbnail of the list.
THUMBNAIL: Final = 256
_STUDY: Final = re.compile(
    r"/(?:studies|api/(?:study|place)|api/(?:v1/)?studies)/(?P<uid>[0-9.]{1,64})(?P<part>/.*)?", re.ASCII
)
_LIST: Final = re.compile(
    r"/|/events|/api/worklist|/api/studies/?|/api/v1/(?:worklist|claims)|/ups-rs/(?:workitems|subscribers/[^/]+)"
)
_WIDTH: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a request shows: one study, or the list where `study` is None."""

    study: str | None


def width_of(text: str) -> int | None:
    """Pixels as an address names them: one to six digits; None for anything else."""
    return int(text) if _WIDTH.fullmatch(text) else None


def look(path: str, query: str) -> Look | None:
    """What a reading request of this address shows of patients; None for what shows nothing of them."""
    if _LIST.fullmatch(path):
        return Look(study=None)
    match = _STUDY.fullmatch(path)
    if match is None:
        return None
    if match["part"] == "/overview.png":
        # a width that is named twice is as large as the largest: which of them is taken is not decided here
        widths = [width_of(text) for text in parse_qs(query, keep_blank_values=True).get("width", [])]
        if widths and all(width is not None and width <= THUMBNAIL for width in widths):
            return Look(study=None)
    return Look(study=match["uid"])


class Told:
    """What has been told lately; forgets the oldest."""

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._lock = threading.Lock()

    def again(self, key: tuple[str, ...], now: float) -> bool:
        """Whether this is to be told (again); `now` in seconds."""
        with self._lock:
            before = self._at.get(key)
            if before is not None and 0 <= now - before < AGAIN_AFTER_S:
                return False
            self._at[key] = now
            self._at.move_to_end(key)
            while len(self._at) > _KEPT:
                self._at.popitem(last=False)
            return True
