"""C-FIND: which workitems match a query, and what of them is returned (PS3.4 C.2.2.2 and CC.2.8).

A key without a value matches everything. Else it is a single value, a list of UIDs, wildcards, a range of dates or
times, or a sequence of which one item matches every key in it.
"""

from __future__ import annotations

import fnmatch
import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from triage_node.ups import values

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

    from triage_node.ups.values import Values

    Get = Callable[[int], tuple[Any, ...] | None]  # tag -> values; None: there is no such attribute

_WILDCARDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})  # PS3.4 C.2.2.2.4
_NUMERIC = frozenset({"DS", "IS", "FL", "FD", "SS", "US", "SL", "UL", "SV", "UV"})
_STAMP = r"(\d{4,14}(?:\.\d{1,6})?)([+-](?:0\d|1[0-4])[0-5]\d)?"
_MOMENT = re.compile(_STAMP, re.ASCII)
_PERIOD = re.compile(rf"(?:{_STAMP})?-(?:{_STAMP})?", re.ASCII)
_DATE = re.compile(r"(\d{8})?(-)?(\d{8})?", re.ASCII)
_CLOCK = r"(\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)"
_TIME = re.compile(rf"{_CLOCK}?(-)?{_CLOCK}?", re.ASCII)
# What a shortened time leaves out, at its earliest and at its latest
_FIRST, _LAST = "00000101000000.000000", "99991231235959.999999"


class BadKey(ValueError):
    """A key that cannot be matched on; says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One attribute of a query: what it must match (None: everything does) and what of it is returned."""

    tag: int
    matches: Callable[[str], bool] | None = None
    items: tuple[Key, ...] = ()  # of a sequence
    is_sequence: bool = False

    @property
    def is_universal(self) -> bool:
        """Whether everything matches."""
        return self.matches is None and all(key.is_universal for key in self.items)


def keys_of(query: Dataset) -> tuple[Key, ...]:
    """The keys of a query. Raises BadKey where one cannot be understood."""
    found = []
    for element in query:
        if element.tag.group <= 2 or element.tag.is_private or element.keyword == "SpecificCharacterSet":
            continue
        if not values.is_of_its_kind(int(element.tag), element.VR):
            expected = values.vr_of(int(element.tag))
            raise BadKey(f"{element.keyword} {element.tag} has VR {element.VR}, PS3.6 has {expected}")
        found.append(_key(element))
    return tuple(found)


def _key(element: DataElement) -> Key:
    number = int(element.tag)
    if element.VR == "SQ":
        items = list(element.value or ())
        if len(items) > 1:
            raise BadKey(f"{element.keyword} has {len(items)} items; a key has one (PS3.4 C.2.2.2.6)")
        return Key(tag=number, items=keys_of(items[0]) if items else (), is_sequence=True)
    texts = _texts(element)
    if not texts:
        return Key(tag=number)
    if element.VR != "UI" and len(texts) > 1:
        raise BadKey(f"{element.keyword} has {len(texts)} values; only UIDs are matched as a list")
    try:
        return Key(tag=number, matches=_matcher(element.VR, texts))
    except (ValueError, OverflowError) as error:
        raise BadKey(f"{element.keyword} {texts[0]!r} cannot be matched on: {error}") from error


def _texts(element: DataElement) -> list[str]:
    value = element.value
    if value is None:
        return []
    several = value if element.VM > 1 else [value]
    return [text for text in (str(one).strip(" \0") for one in several) if text]


def _matcher(vr: str, texts: list[str]) -> Callable[[str], bool] | None:
    text = texts[0]
    if vr == "UI":
        wanted = frozenset(texts)
        return wanted.__contains__
    if vr == "DT":
        return _moments(text)
    if vr == "DA":
        return _days(text)
    if vr == "TM":
        return _clock(text)
    if vr in _NUMERIC:
        number = float(text)
        return lambda value: float(value) == number
    if vr == "PN":
        return _names(text)
    if vr in _WILDCARDS and ("*" in text or "?" in text):
        if not text.strip("*"):
            return None  # matches everything, also what has no value (PS3.4 C.2.2.2.4)
        pattern = _pattern(text)
        return lambda value: pattern.fullmatch(value) is not None
    return lambda value: value == text


def _pattern(text: str, flags: int = 0) -> re.Pattern[str]:
    """A wildcard pattern: * any characters, ? one; no other character is special."""
    return re.compile(fnmatch.translate(text.replace("[", "[[]")), flags)


def _names(text: str) -> Callable[[str], bool] | None:
    """Names match without regard to case, in any of their three groups, and whatever is empty at their end."""
    if not text.strip("*"):
        return None
    pattern = _pattern(text.rstrip("^="), re.IGNORECASE)
    return lambda value: any(pattern.fullmatch(group.rstrip("^")) is not None for group in (value, *value.split("=")))


def _days(text: str) -> Callable[[str], bool]:
    found = _DATE.fullmatch(text)
    if found is None or not (found[1] or found[3]) or (found[1] and found[3] and not found[2]):
        raise ValueError("a date is YYYYMMDD, a range has a hyphen between or at one end")
    first = found[1] or ""
    last = found[3] or ("~" if found[2] else first)
    return lambda value: first <= value <= last


def _clock(text: str) -> Callable[[str], bool]:
    found = _TIME.fullmatch(text)
    if found is None or not (found[1] or found[3]) or (found[1] and found[3] and not found[2]):
        raise ValueError("a time is HHMMSS.FFFFFF or its beginning, a range has a hyphen between or at one end")
    earliest = _fill(found[1] or "", _FIRST[8:])
    latest = _fill(found[3] or ("" if found[2] else found[1]), _LAST[8:])
    return lambda value: earliest <= _fill(value, _FIRST[8:]) <= latest


def _fill(shortened: str, rest: str) -> str:
    return shortened + rest[len(shortened) :]


def _moments(text: str) -> Callable[[str], bool]:
    """A moment matches within its precision; what names no time zone is in this machine's (PS3.5 table 6.2-1, DT)."""
    single, period = _MOMENT.fullmatch(text), _PERIOD.fullmatch(text)
    if single is not None:
        earliest, latest = _at(single[1], single[2], _FIRST), _at(single[1], single[2], _LAST)
    elif period is not None and (period[1] or period[3]):
        earliest = _at(period[1], period[2], _FIRST) if period[1] else float("-inf")
        latest = _at(period[3], period[4], _LAST) if period[3] else float("inf")
    else:
        raise ValueError("a moment is YYYYMMDDHHMMSS.FFFFFF&ZZXX or its beginning, a range has a hyphen")

    def match(value: str) -> bool:
        found = _MOMENT.fullmatch(value)
        try:
            return found is not None and earliest <= _at(found[1], found[2], _FIRST) <= latest
        except ValueError:  # there is no such day
            return False

    return match


@lru_cache(maxsize=65_536)
def _at(digits: str, offset: str | None, rest: str) -> float:
    """Seconds since 1970 of a moment that may be shortened, at its earliest or at its latest (`rest`)."""
    if rest is _LAST and len(digits) == 6:
        days = monthrange(int(digits[:4]), int(digits[4:6]))[1]
        digits = f"{digits}{days:02}"
    full = _fill(digits, rest)
    year, month, day, hour, minute, second = (
        int(full[first:last]) for first, last in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))
    )
    moment = datetime(year, month, day, hour, minute, min(second, 59), int(full[15:]), tzinfo=_zone(offset))
    return moment.timestamp()


def _zone(offset: str | None) -> timezone | None:
    if offset is None:
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


# ------------------------------------------------------------------ matching and answering


def matches(keys: tuple[Key, ...], get: Get) -> bool:
    """Whether a workitem, or an item of a sequence, matches every key."""
    for key in keys:
        if key.is_universal:
            continue
        found = get(key.tag) or ()
        if key.is_sequence:
            if not any(matches(key.items, item.get) for item in found):
                return False
        elif key.matches is None or not any(key.matches(value) for value in found):
            return False
    return True


def answer(keys: tuple[Key, ...], get: Get) -> Values:
    """The attributes that are asked for, those without a value empty; of a sequence with keys those alone."""
    return {key.tag: _answer(key, get(key.tag) or ()) for key in keys}


def _answer(key: Key, found: tuple[Any, ...]) -> tuple[Any, ...]:
    if not key.is_sequence or not key.items:
        return found
    return tuple(answer(key.items, item.get) for item in found)
