"""Content items of a structured report (PS3.3 C.17.3): a tree of what is said, and its bytes.

The tree knows codes and no language: which words stand beside a code is decided when it becomes bytes. Encoded here
and not by a library because a report names every image of its source twice.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from pydicom.sr.coding import Code

from triage_node.explicit import element, item, sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Meaning = Callable[[Code], str]  # the words for a code, at most 64 characters (VR LO)

SEPARATE = "SEPARATE"  # Continuity of Content of every container: each item on a line of its own, after its name


class Relationship(StrEnum):
    """Relationship Type (0040,A010), PS3.3 table C.17-6."""

    CONTAINS = "CONTAINS"
    HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
    HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
    HAS_OBS_CONTEXT = "HAS OBS CONTEXT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Value of a NUM item."""

    value: float
    unit: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Value of an IMAGE item."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None = None
    segment_number: int | None = None


@dataclass(frozen=True, slots=True)
class Uid:
    """Value of a UIDREF item."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Value of a SCOORD item of Graphic Type POINT (PS3.3 C.18.6): a voxel of an image. It takes no children."""

    row: int  # from 0, as the column
    column: int
    image: Reference


Value = Code | str | Quantity | Reference | Uid | Point


@dataclass(frozen=True, slots=True)
class Item:
    """One content item; the type of its value makes its Value Type, a str that of TEXT, None that of CONTAINER."""

    relationship: Relationship
    name: Code
    value: Value | None = None
    children: tuple[Item, ...] = ()


def encoded(items: Iterable[Item], meaning: Meaning) -> list[bytes]:
    """The items of a Content Sequence (0040,A730), in UTF-8; `meaning` gives the words for each code."""
    return [_encoded(entry, meaning) for entry in items]


def words(items: Iterable[Item], meaning: Meaning) -> str:
    """Every word of `items`, one after the other: which character set do they need?"""
    parts = []
    for entry in items:
        value = entry.value
        parts += [meaning(entry.name), words(entry.children, meaning)]
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, Code):
            parts.append(meaning(value))
    return "".join(parts)


def code_item(code: Code, meaning: Meaning) -> bytes:
    """A code sequence's one item (PS3.3 section 8)."""
    return _code_item(code.value, code.scheme_designator, meaning(code))


@lru_cache(maxsize=1024)
def _code_item(value: str, designator: str, meaning: str) -> bytes:
    return item(
        element(0x00080100, "SH", value),
        element(0x00080102, "SH", designator),
        element(0x00080104, "LO", meaning.encode()),
    )


def _encoded(entry: Item, meaning: Meaning) -> bytes:
    kind, before, after, last = _value(entry.value, meaning)
    children = encoded(entry.children, meaning)
    return item(
        before,
        element(0x0040A010, "CS", entry.relationship),
        element(0x0040A040, "CS", kind),
        sequence(0x0040A043, code_item(entry.name, meaning)),
        after,
        sequence(0x0040A730, *children) if children else b"",
        last,
    )


def _value(value: Value | None, meaning: Meaning) -> tuple[str, bytes, bytes, bytes]:
    """Value Type, and the elements before the name's, after it, and after the children's: in the order of tags."""
    match value:
        case None:
            return "CONTAINER", b"", element(0x0040A050, "CS", SEPARATE), b""
        case str():
            return "TEXT", b"", element(0x0040A160, "UT", value.encode()), b""
        case Uid():
            return "UIDREF", b"", element(0x0040A124, "UI", value.value), b""
        case Quantity():
            return "NUM", b"", sequence(0x0040A300, _measured(value, meaning)), b""
        case Reference():
            return "IMAGE", sequence(0x00081199, _referenced(value)), b"", b""
        case Point():
            return "SCOORD", b"", _selected_from(value.image), _point(value)
        case code:
            return "CODE", b"", sequence(0x0040A168, code_item(code, meaning)), b""


def _selected_from(image: Reference) -> bytes:
    kind = element(0x0040A010, "CS", "SELECTED FROM"), element(0x0040A040, "CS", "IMAGE")
    return sequence(0x0040A730, item(sequence(0x00081199, _referenced(image)), *kind))


def _point(point: Point) -> bytes:
    """Column and row in pixels; the first pixel's own centre is at 0.5."""
    place = struct.pack("<2f", point.column + 0.5, point.row + 0.5)
    return element(0x00700022, "FL", place) + element(0x00700023, "CS", "POINT")


def _measured(quantity: Quantity, meaning: Meaning) -> bytes:
    return item(
        sequence(0x004008EA, code_item(quantity.unit, meaning)),
        element(0x0040A30A, "DS", decimal(quantity.value)),
    )


def decimal(value: float) -> str:
    """Three places at most, and no more characters than a decimal string may have (PS3.5 table 6.2-1).

    Raises ValueError where the value is no number or needs more than 16 characters.
    """
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    if len(text) > 16 or not any(sign.isdigit() for sign in text):
        raise ValueError(f"{value} cannot be a decimal string of 16 characters")
    return "0" if text == "-0" else text


def _referenced(reference: Reference) -> bytes:
    elements = [
        element(0x00081150, "UI", reference.sop_class_uid),
        element(0x00081155, "UI", reference.sop_instance_uid),
    ]
    if reference.frame_number is not None:
        elements.append(element(0x00081160, "IS", str(reference.frame_number)))
    if reference.segment_number is not None:
        elements.append(element(0x0062000B, "US", struct.pack("<H", reference.segment_number)))
    return item(*elements)
