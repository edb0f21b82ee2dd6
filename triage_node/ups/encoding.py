"""Answers in bytes: the values of a data set encoded for a transfer syntax, for lists of many answers.

pydicom makes an object of every attribute and checks it, which for fifty answers with their facts takes longer than
the query itself. Here the values, which are texts already, are written as PS3.5 chapter 7 has them; pydicom gets each
attribute as it would have come over the wire, and passes it on.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from triage_node.ups import values

if TYPE_CHECKING:
    from triage_node.ups.values import Values

_ITEM: Final = struct.pack("<HH", 0xFFFE, 0xE000)
_LONG: Final = frozenset({"SQ", "UC", "UR", "UT", "SV", "UV"})  # PS3.5 section 7.1.2: a length of four bytes
_BINARY: Final = {"FL": "f", "FD": "d", "SS": "h", "US": "H", "SL": "i", "UL": "I", "SV": "q", "UV": "Q"}
_SPECIFIC_CHARACTER_SET: Final = values.tag("SpecificCharacterSet")


def dataset(attributes: Values, *, implicit: bool) -> Dataset:
    """The same data set as `values.to_dataset`, ready to be sent Little Endian with Implicit or Explicit VR."""
    whole = {**attributes, _SPECIFIC_CHARACTER_SET: (values.UTF_8,)}
    found: dict[BaseTag, DataElement | RawDataElement] = {}
    for number in sorted(whole):
        vr = values.vr_of(number)
        value = _value(vr, whole[number], implicit=implicit)
        tag = BaseTag(number)
        found[tag] = RawDataElement(tag, vr, len(value), value, 0, implicit, True)
    made = Dataset(found)
    # as if it had been read: only then it is written as it is (its texts are in UTF-8 and are not decoded any more)
    made.set_original_encoding(implicit, True, convert_encodings(values.UTF_8))
    return made


def _value(vr: str, found: tuple[Any, ...], *, implicit: bool) -> bytes:
    if vr == "SQ":
        items = (_attributes(item, implicit=implicit) for item in found)
        return b"".join(_ITEM + struct.pack("<I", len(item)) + item for item in items)
    if vr in _BINARY:
        number = float if vr in ("FL", "FD") else int
        return b"".join(struct.pack(f"<{_BINARY[vr]}", number(value)) for value in found)
    text = "\\".join(found).encode()
    if len(text) % 2:
        text += b"\0" if vr == "UI" else b" "
    return text


def _attributes(attributes: Values, *, implicit: bool) -> bytes:
    pieces = []
    for number in sorted(attributes):
        vr = values.vr_of(number)
        value = _value(vr, attributes[number], implicit=implicit)
        group, element = number >> 16, number & 0xFFFF
        if implicit:
            pieces.append(struct.pack("<HHI", group, element, len(value)))
        elif vr in _LONG:
            pieces.append(struct.pack("<HH2sHI", group, element, vr.encode(), 0, len(value)))
        else:
            pieces.append(struct.pack("<HH2sH", group, element, vr.encode(), len(value)))
        pieces.append(value)
    return b"".join(pieces)
