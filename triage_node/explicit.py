"""Explicit VR Little Endian (PS3.5 section 7.1.2): elements to bytes, and bytes to items.

For what a library is too slow for. A series has hundreds of headers of which little is wanted; results hold hundreds of
items that are all alike, one for each slice; and every result is read again before it leaves, element by element, by
other code than what wrote it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

UNDEFINED = 0xFFFFFFFF
PREAMBLE_BYTES = 132  # PS3.10 section 7.1: 128 bytes and "DICM"
META_GROUP = 0x0002
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_short = struct.Struct("<HH2sH")
_long = struct.Struct("<HH2sHI")
_delimiter = struct.Struct("<HHI")


# ---------------------------------------------------------------------------------------------------- writing


def element(tag: int, vr: str, value: bytes | str) -> bytes:
    """An element; a value of odd length is padded as its representation asks (PS3.5 section 6.2)."""
    data = value.encode("ascii") if isinstance(value, str) else value
    if len(data) % 2:
        data += b"\0" if vr in ("UI", "OB", "UN") else b" "
    kind = vr.encode("ascii")
    if kind in _LONG:
        return _long.pack(tag >> 16, tag & 0xFFFF, kind, 0, len(data)) + data
    return _short.pack(tag >> 16, tag & 0xFFFF, kind, len(data)) + data


def item(*elements: bytes) -> bytes:
    """An item of a sequence; its elements in the order of their tags."""
    data = b"".join(elements)
    return _delimiter.pack(_ITEM >> 16, _ITEM & 0xFFFF, len(data)) + data


def sequence(tag: int, *items: bytes) -> bytes:
    """A sequence element."""
    return element(tag, "SQ", b"".join(items))


def raw_sequence(keyword: str, items: Iterable[bytes]) -> RawDataElement:
    """A sequence for a pydicom data set, which writes it as it is and reads it only when it is looked at."""
    value = b"".join(items)
    return RawDataElement(Tag(keyword), "SQ", len(value), value, 0, is_implicit_VR=False, is_little_endian=True)


# ---------------------------------------------------------------------------------------------------- reading


class Element(NamedTuple):
    """What an element holds: the bytes of its value, or the items of a sequence."""

    vr: str
    value: memoryview
    items: tuple[Item, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it has neither value nor item."""
        return not self.items and not len(self.value)

    @property
    def text(self) -> str:
        """The value without its padding, as far as it is ASCII or UTF-8."""
        return bytes(self.value).decode("utf-8", "replace").rstrip(" \0")


Item = dict[int, Element]  # by tag, (group << 16) + element


def selected(part10: bytes, wanted: Container[int], until: int) -> tuple[dict[BaseTag, RawDataElement], int]:
    """The wanted elements of a Part 10 file before the tag `until`, as pydicom keeps them, and where `until` begins.

    `part10` may end anywhere behind that. Raises ValueError where anything is not as the standard has it (tags that do
    not rise, unknown representations, no `until`): then a reader that is made for such files may try.
    """
    if part10[128:PREAMBLE_BYTES] != b"DICM":
        raise ValueError("no Part 10 file: DICM is not where it should be")
    found: dict[BaseTag, RawDataElement] = {}
    at, end, last = PREAMBLE_BYTES, len(part10), 0
    try:
        while True:
            group, number, kind, length = _short.unpack_from(part10, at)
            tag = group << 16 | number
            if tag == until:
                return found, at
            if tag <= last or tag > until:
                raise ValueError(f"({group:04X},{number:04X}) comes after {last:08X}")
            last = tag
            at += 8
            if kind in _LONG:
                (length,) = struct.unpack_from("<I", part10, at)
                at += 4
            elif kind not in _SHORT:
                raise ValueError(f"({group:04X},{number:04X}) has no value representation")
            if length == UNDEFINED:
                if kind != b"SQ" or tag in wanted:
                    raise ValueError(f"({group:04X},{number:04X}) is of undefined length")
                _, at = _items(memoryview(part10), at, end, end)
                continue
            if tag in wanted:
                of = BaseTag(tag)
                found[of] = RawDataElement(
                    of, kind.decode("ascii"), length, part10[at : at + length], at, is_implicit_VR=False,
                    is_little_endian=True,
                )  # fmt: skip
            at += length
    except (struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"cut off or not in Explicit VR Little Endian: {error}") from error


def read(part10: bytes) -> tuple[Item, Item]:
    """File meta information and data set of a Part 10 file. Raises ValueError where it is none or is cut off."""
    data = memoryview(part10)
    if len(data) < PREAMBLE_BYTES or bytes(data[128:PREAMBLE_BYTES]) != b"DICM":
        raise ValueError("no Part 10 file: DICM is not where it should be")
    try:
        meta, at = _elements(data, PREAMBLE_BYTES, len(data), only_group=META_GROUP)
        dataset, _ = _elements(data, at, len(data))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"cut off or not in Explicit VR Little Endian: {error}") from error
    return meta, dataset


def _elements(data: memoryview, at: int, end: int, *, only_group: int | None = None) -> tuple[Item, int]:
    """The elements from `at` to `end`, to an item's delimiter, or to the first of another group; and where that is."""
    found: Item = {}
    while at < end:
        group, number, kind, length = _short.unpack_from(data, at)
        if only_group is not None and group != only_group:
            break
        tag = group << 16 | number
        if tag == _ITEM_END:
            return found, at + 8
        at += 8
        if kind in _LONG:
            (length,) = struct.unpack_from("<I", data, at)
            at += 4
        vr = str(kind, "ascii")
        if vr == "SQ":
            items, at = _items(data, at, end if length == UNDEFINED else at + length, end)
            found[tag] = Element(vr, data[at:at], items)
            continue
        if length == UNDEFINED:  # encapsulated pixel data (PS3.5 annex A.4): fragments up to a delimiter
            start, at = at, _after_fragments(data, at, end)
            found[tag] = Element(vr, data[start:at])
            continue
        if at + length > end:
            raise ValueError(f"the element ({group:04X},{number:04X}) is cut off")
        found[tag] = Element(vr, data[at : at + length])
        at += length
    return found, at


def fragments(encapsulated: memoryview) -> list[memoryview]:
    """The fragments of encapsulated pixel data without the offset table, which comes first."""
    found, at = [], 0
    while at < len(encapsulated):
        group, number, length = _delimiter.unpack_from(encapsulated, at)
        if group << 16 | number != _ITEM:
            break
        found.append(encapsulated[at + 8 : at + 8 + length])
        at += 8 + length
    return found[1:]


def _after_fragments(data: memoryview, at: int, end: int) -> int:
    while at + 8 <= end:
        group, number, length = _delimiter.unpack_from(data, at)
        at += 8
        if group << 16 | number == _SEQUENCE_END:
            return at
        if group << 16 | number != _ITEM:
            break
        at += length
    raise ValueError("encapsulated pixel data do not end")


def _items(data: memoryview, at: int, end: int, limit: int) -> tuple[tuple[Item, ...], int]:
    if end > limit:
        raise ValueError("a sequence is cut off")
    items = []
    while at < end:
        group, number, length = _delimiter.unpack_from(data, at)
        at += 8
        tag = group << 16 | number
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM:
            raise ValueError(f"an item was expected, not ({group:04X},{number:04X})")
        if length != UNDEFINED and at + length > end:
            raise ValueError("an item is cut off")
        found, at = _elements(data, at, end if length == UNDEFINED else at + length)
        items.append(found)
    return tuple(items), at
