"""Which requests show a study or the list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

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
