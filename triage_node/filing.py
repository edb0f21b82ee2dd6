"""What intake must know of an instance to file it: who it is and where it lies in space.

Reads only the elements before the pixel data, bounded in size: what a stranger sends is never decoded here. The walk
over the elements (PS3.5 section 7) is our own: it takes no memory on a claimed length, does not recurse into
sequences, and fails in one way only.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import keyword_for_tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from triage_node.conformance import CT_SOP_CLASSES
from triage_node.errors import CannotUnderstand
from triage_node.study import OrderPriority

if TYPE_CHECKING:
    from pathlib import Path

# PS3.5 section 9.1: digits and points, 64 characters. Components with leading zeros are wrong but met in life.
UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*")
MAXIMUM_UID_LENGTH = 64
# More than any header needs; a bomb in a deflated data set inflates no further.
MAXIMUM_HEADER_BYTES = 16 * 1024 * 1024
MAXIMUM_TEXT_LENGTH = 256  # four times what a value of VR LO may have; the journal keeps no more

_CHARACTER_SET = 0x00080005
_IMAGE_TYPE = 0x00080008
_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_DATE = 0x00080020
_ACCESSION_NUMBER = 0x00080050
_MODALITY = 0x00080060
_STUDY_DESCRIPTION = 0x00081030
_SERIES_DESCRIPTION = 0x0008103E
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_IMAGE_POSITION = 0x00200032
_IMAGE_ORIENTATION = 0x00200037
_NUMBER_OF_FRAMES = 0x00280008  # the last one that must be understood
_ORDER_PRIORITY = 0x00401003  # Requested Procedure Priority, where the walk gets as far
_TAGS = frozenset(
    (
        _CHARACTER_SET,
        _IMAGE_TYPE,
        _SOP_CLASS_UID,
        _SOP_INSTANCE_UID,
        _STUDY_DATE,
        _ACCESSION_NUMBER,
        _MODALITY,
        _STUDY_DESCRIPTION,
        _SERIES_DESCRIPTION,
        _STUDY_INSTANCE_UID,
        _SERIES_INSTANCE_UID,
        _IMAGE_POSITION,
        _IMAGE_ORIENTATION,
        _NUMBER_OF_FRAMES,
        _ORDER_PRIORITY,
    )
)
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_MAXIMUM_DEPTH = 64
# PS3.5 table 7.1-1: these VRs have two reserved bytes and a length of four
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Where a slice lies: Image Position and Image Orientation (Patient)."""

    position_mm: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The elements by which an instance is filed."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    accession_number: str
    study_date: str
    study_description: str
    series_description: str
    volumetric: bool  # one slice or several frames of a CT stack, not a localizer or a report
    frames: int
    geometry: Geometry | None
    order_priority: OrderPriority | None = None  # None: the instance does not say, or in words of its own


def read_header(data: bytes | memoryview, transfer_syntax_uid: str) -> Header:
    """Read the header of a data set as it travels in a C-STORE request.

    Raises CannotUnderstand when it cannot be filed under a study and a series.
    """
    syntax = UID(transfer_syntax_uid)
    raw = bytes(data[:MAXIMUM_HEADER_BYTES])
    if syntax == DeflatedExplicitVRLittleEndian:
        try:
            raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, MAXIMUM_HEADER_BYTES)
        except zlib.error as error:
            raise CannotUnderstand(f"the deflated data set cannot be inflated: {error}") from error
    implicit = syntax == ImplicitVRLittleEndian
    _check_encoding(raw, implicit=implicit)
    return _header(_elements(raw, implicit=implicit, order=">" if syntax == ExplicitVRBigEndian else "<"))


def read_file(path: Path) -> tuple[Header, str, int]:
    """Header, Transfer Syntax UID and offset of the data set of a Part 10 file (PS3.10 section 7).

    Raises CannotUnderstand, also when the file is not Part 10; OSError when it cannot be read at all.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            raise CannotUnderstand(f"{path.name} is not a DICOM Part 10 file")
        syntax = _transfer_syntax(file, path.name)
        offset = file.tell()
        return read_header(file.read(MAXIMUM_HEADER_BYTES), syntax), syntax, offset


def _transfer_syntax(file: BinaryIO, name: str) -> str:
    """Walk over the file meta information, always Explicit VR Little Endian; leaves `file` at the data set."""
    syntax = ""
    while True:
        start = file.read(8)
        if len(start) < 8:
            raise CannotUnderstand(f"{name} ends in its file meta information")
        group, element, vr, length = struct.unpack("<HH2sH", start)
        if group != 0x0002:
            file.seek(-8, 1)
            break
        if vr in _LONG_VRS:
            more = file.read(4)
            length = struct.unpack("<L", more)[0] if len(more) == 4 else 0xFFFFFFFF
        value = file.read(min(length, MAXIMUM_HEADER_BYTES))
        if len(value) < length:
            raise CannotUnderstand(f"{name} ends in its file meta information")
        if element == 0x0010:
            syntax = value.decode("ascii", "replace").strip("\0 ")
    if not UID_FORM.fullmatch(syntax):
        raise CannotUnderstand(f"{name} does not say its transfer syntax")
    return syntax


def _check_encoding(raw: bytes, *, implicit: bool) -> None:
    """An element's fifth and sixth byte are its VR, or without VR the low half of its length: never two capitals."""
    vr = raw[4:6]
    if len(vr) < 2:
        raise CannotUnderstand("the data set is empty")
    if implicit == (vr.isalpha() and vr.isupper()):
        found, agreed = ("explicit", "implicit") if implicit else ("no explicit", "explicit")
        raise CannotUnderstand(f"the data set has {found} VR where the transfer syntax says {agreed}")


def _elements(raw: bytes, *, implicit: bool, order: str) -> dict[int, bytes]:
    """The values of `_TAGS` as they came, from a walk to the last of them; sequences are stepped over.

    Where the walk ends in disorder behind those that must be understood, what was found before counts.
    """
    tag_and_length = struct.Struct(order + "HHL")
    tag_vr_and_length = struct.Struct(order + "HH2sH")
    long_length = struct.Struct(order + "L")
    found: dict[int, bytes] = {}
    inside: list[bool] = []  # a level for each open sequence and item of undefined length: is it Implicit VR?
    at = 0
    enough = False
    try:
        while at < len(raw):
            group, number, length = tag_and_length.unpack_from(raw, at)
            tag = group << 16 | number
            if not inside and tag > _NUMBER_OF_FRAMES:
                enough = True
                if tag > _ORDER_PRIORITY:
                    return found
            at += 8
            vr = b""
            if group != 0xFFFE and not (inside[-1] if inside else implicit):
                _, _, vr, length = tag_vr_and_length.unpack_from(raw, at - 8)
                if vr in _LONG_VRS:
                    (length,) = long_length.unpack_from(raw, at)
                    at += 4
            if tag in (_ITEM_END, _SEQUENCE_END):
                inside.pop()
            elif length == _UNDEFINED:
                # The content of UN is always Implicit VR Little Endian (PS3.5 section 6.2.2)
                inside.append(vr == b"UN" or (inside[-1] if inside else implicit))
                if len(inside) > _MAXIMUM_DEPTH:
                    raise CannotUnderstand(f"sequences are nested more than {_MAXIMUM_DEPTH} levels deep")
            else:
                if not inside and tag in _TAGS:
                    found[tag] = raw[at : at + length]
                at += length
    except (struct.error, IndexError):
        at = len(raw) + 1
    except CannotUnderstand:
        if not enough:
            raise
    if not enough and (at != len(raw) or inside):
        raise CannotUnderstand("the data set ends in the middle of an element, or its bytes are none")
    return found


def _header(elements: dict[int, bytes]) -> Header:
    sop_class_uid = _uid(elements, _SOP_CLASS_UID)
    image_type = _text(elements, _IMAGE_TYPE).upper().split("\\")
    return Header(
        sop_instance_uid=_uid(elements, _SOP_INSTANCE_UID),
        sop_class_uid=sop_class_uid,
        study_instance_uid=_uid(elements, _STUDY_INSTANCE_UID),
        series_instance_uid=_uid(elements, _SERIES_INSTANCE_UID),
        modality=_text(elements, _MODALITY),
        accession_number=_text(elements, _ACCESSION_NUMBER),
        study_date=_text(elements, _STUDY_DATE),
        study_description=_text(elements, _STUDY_DESCRIPTION),
        series_description=_text(elements, _SERIES_DESCRIPTION),
        volumetric=sop_class_uid in CT_SOP_CLASSES and "LOCALIZER" not in [value.strip() for value in image_type],
        frames=_frames(elements),
        geometry=_geometry(elements),
        order_priority=_order_priority(elements),
    )


def _uid(elements: dict[int, bytes], tag: int) -> str:
    value = elements.get(tag, b"").decode("ascii", "replace").strip("\0 ")
    name = keyword_for_tag(tag)
    if not value:
        raise CannotUnderstand(f"{name} is missing: the instance cannot be filed")
    if len(value) > MAXIMUM_UID_LENGTH or not UID_FORM.fullmatch(value):
        raise CannotUnderstand(f"{name} is not a UID (digits and points, at most 64 characters)")
    return value


def _text(elements: dict[int, bytes], tag: int) -> str:
    """The value as one line; unreadable characters are not worth refusing an instance for."""
    value = elements.get(tag, b"")[: 8 * MAXIMUM_TEXT_LENGTH]
    names = elements.get(_CHARACTER_SET, b"")[:MAXIMUM_TEXT_LENGTH].decode("ascii", "replace").split("\\")
    encodings = [python_encoding.get(name.strip("\0 "), "iso8859") for name in names]
    if len(encodings) > 1 and b"\x1b" in value:  # ISO 2022 code extensions, PS3.5 section 6.1.2.5
        try:
            text = decode_bytes(value, encodings, {ord("\\")})
        except (LookupError, ValueError, UserWarning):
            text = value.decode("ascii", "replace")
    else:
        text = value.decode(encodings[0], "replace")
    return " ".join(text.replace("\0", " ").split())[:MAXIMUM_TEXT_LENGTH]


def _order_priority(elements: dict[int, bytes]) -> OrderPriority | None:
    """One of the defined terms of PS3.3 table C.4-11; other words may mean anything."""
    try:
        return OrderPriority(_text(elements, _ORDER_PRIORITY).upper())
    except ValueError:
        return None


def _frames(elements: dict[int, bytes]) -> int:
    try:
        return max(1, int(elements.get(_NUMBER_OF_FRAMES, b"").strip(b"\0 ")[:12]))
    except ValueError:
        return 1


def _geometry(elements: dict[int, bytes]) -> Geometry | None:
    position = _decimals(elements, _IMAGE_POSITION)
    orientation = _decimals(elements, _IMAGE_ORIENTATION)
    if len(position) != 3 or len(orientation) != 6:
        return None
    return Geometry(position_mm=(position[0], position[1], position[2]), orientation=orientation)


def _decimals(elements: dict[int, bytes], tag: int) -> tuple[float, ...]:
    """Values of VR DS; empty when one of them is not a finite number."""
    try:
        values = tuple(float(text) for text in elements.get(tag, b"").strip(b"\0 ").split(b"\\"))
    except ValueError:
        return ()
    return values if all(map(math.isfinite, values)) else ()
