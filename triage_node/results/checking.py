"""Every object is read back from its bytes and checked before it leaves.

Which attributes an information object needs is read from the tables that highdicom has made from PS3.3.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

# highdicom's tables of PS3.3; it offers no public door to them
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from triage_node import explicit
from triage_node.conformance import (
    COMPREHENSIVE_3D_SR_STORAGE,
    LABEL_MAP_SEGMENTATION_STORAGE,
    SECONDARY_CAPTURE_IMAGE_STORAGE,
    SEGMENTATION_STORAGE,
)
from triage_node.errors import InvalidResult
from triage_node.filing import UID_FORM
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from triage_node.explicit import Element, Item

OURS = (
    SEGMENTATION_STORAGE,
    LABEL_MAP_SEGMENTATION_STORAGE,
    COMPREHENSIVE_3D_SR_STORAGE,
    SECONDARY_CAPTURE_IMAGE_STORAGE,
)
_GROUPS = (["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"])
_OF_A_FRAME = ("FrameContentSequence", "PlanePositionSequence", "SegmentIdentificationSequence")
_CONTENT = "sr-document-content"  # its attributes depend on the value type, `_content` knows them
_MEASUREMENT_GROUP = "125007"  # DCM
_MEASUREMENT_REPORT = "126000"  # DCM
# What a content item needs by its Value Type (PS3.3 C.17.3)
_NEEDED = {
    "CONTAINER": "ContinuityOfContent",
    "NUM": "MeasuredValueSequence",
    "CODE": "ConceptCodeSequence",
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "IMAGE": "ReferencedSOPSequence",
    "SCOORD": "GraphicData",
}
_REPORTED = 8  # problems in one message: the rest is usually the same again


def check(data: bytes, *, references: AbstractSet[str] | None = None, sop_instance_uid: str | None = None) -> None:
    """Raise InvalidResult if the Part 10 file `data` is no conforming result.

    `references` are the SOP Instance UIDs that the object may refer to, `sop_instance_uid` is the one it must have;
    None leaves either unchecked.
    """
    try:
        meta, dataset = explicit.read(data)
    except ValueError as error:
        raise InvalidResult(f"what was written cannot be read back: {error}") from error
    problems = [
        *_identity(meta, dataset, sop_instance_uid),
        *_modules(dataset),
        *_elements(dataset, references),
        *_pixels(dataset),
    ]
    problems += [*_frames(dataset), *_content(dataset), *_caution(dataset)]
    if problems:
        more = f" and {len(problems) - _REPORTED} more" if len(problems) > _REPORTED else ""
        name = _text(dataset, "SOPInstanceUID") or "without a UID"
        raise InvalidResult(f"the result {name} must not leave: {'; '.join(problems[:_REPORTED])}{more}")


@cache
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


def _text(item: Item, keyword: str) -> str:
    """The value of an attribute as text; empty where it is absent."""
    element = item.get(_tag(keyword))
    return "" if element is None else element.text


def _number(item: Item, keyword: str) -> int:
    """An unsigned or a number in digits; 0 where it is absent or neither."""
    element = item.get(_tag(keyword))
    if element is None:
        return 0
    if element.vr == "US":
        return int.from_bytes(element.value[:2], "little")
    return int(element.text) if element.text.isdecimal() else 0


def _items(item: Item, keyword: str) -> tuple[Item, ...]:
    element = item.get(_tag(keyword))
    return () if element is None else element.items


def _identity(meta: Item, dataset: Item, sop_instance_uid: str | None) -> Iterator[str]:
    if sop_instance_uid is not None and _text(dataset, "SOPInstanceUID") != sop_instance_uid:
        yield f"its SOP Instance UID must be {sop_instance_uid}"
    for in_meta, keyword in (
        ("MediaStorageSOPClassUID", "SOPClassUID"),
        ("MediaStorageSOPInstanceUID", "SOPInstanceUID"),
    ):
        if _text(meta, in_meta) != _text(dataset, keyword):
            yield f"{in_meta} and {keyword} differ"
    wanted = (
        JPEGLSLossless if _text(dataset, "SOPClassUID") == LABEL_MAP_SEGMENTATION_STORAGE else ExplicitVRLittleEndian
    )
    if _text(meta, "TransferSyntaxUID") != wanted:
        yield f"its transfer syntax is {_text(meta, 'TransferSyntaxUID') or 'not stated'}"


def _modules(dataset: Item) -> Iterator[str]:
    """Attributes of type 1 without a value and of type 2 that are absent, in the mandatory modules."""
    sop_class = _text(dataset, "SOPClassUID")
    if sop_class not in OURS:
        yield f"SOP Class {sop_class} is none of ours"
        return
    for path, attributes in _needed_of(sop_class).items():
        places = list(_at(dataset, path))
        for kind, keyword in attributes:
            tag = _tag(keyword)
            for place in places:
                found = place.get(tag)
                if found is None or (kind == "1" and found.empty):
                    yield f"{'.'.join([*path, keyword])} (type {kind}) is {'absent' if found is None else 'empty'}"
                    break


@cache
def _needed_of(sop_class: str) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """By the path of their sequence: type and keyword of what the mandatory modules of a SOP class need."""
    needed: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    attributes = get_module_attribute_map()
    for module in get_iod_module_map()[get_sop_class_iod_map()[sop_class]]:
        if module["usage"] != "M" or module["key"] == _CONTENT:
            continue
        for attribute in attributes[module["key"]]:
            # A functional group may be shared or of each frame (PS3.3 C.7.6.16): `_frames` asks for them
            if attribute["type"] in ("1", "2") and attribute["path"] not in _GROUPS:
                needed.setdefault(tuple(attribute["path"]), []).append((attribute["type"], attribute["keyword"]))
    return needed


def _at(dataset: Item, path: tuple[str, ...]) -> Iterator[Item]:
    """The items at `path`, where its sequences are present."""
    if not path:
        yield dataset
        return
    for item in _items(dataset, path[0]):
        yield from _at(item, path[1:])


def _elements(dataset: Item, references: AbstractSet[str] | None) -> Iterator[str]:
    allowed = None if references is None else {*references, _text(dataset, "SOPInstanceUID")}
    reference = _tag("ReferencedSOPInstanceUID")
    for tag, element in _walk(dataset, "UI"):
        if element.empty:
            continue
        for uid in element.text.split("\\"):
            if len(uid) > 64 or not UID_FORM.fullmatch(uid):
                yield f"{keyword_for_tag(tag) or f'{tag:08X}'} is not a UID: {uid!r}"
            elif allowed is not None and tag == reference and uid not in allowed:
                yield f"{uid} is referenced but is neither of the source nor of these results"


def _walk(dataset: Item, vr: str) -> Iterator[tuple[int, Element]]:
    """Every element of a value representation at any depth, with its tag."""
    for tag, element in dataset.items():
        for item in element.items:
            yield from _walk(item, vr)
        if element.vr == vr:
            yield tag, element


def _pixels(dataset: Item) -> Iterator[str]:
    if _tag("Rows") not in dataset:
        return
    pixels = dataset.get(_tag("PixelData"))
    if _text(dataset, "SOPClassUID") == LABEL_MAP_SEGMENTATION_STORAGE:
        images = explicit.fragments(pixels.value) if pixels is not None else []
        if len(images) != _number(dataset, "NumberOfFrames") or not all(len(image) for image in images):
            yield f"Pixel Data has {len(images)} images for {_text(dataset, 'NumberOfFrames') or 'no'} frames"
        return
    cells = _number(dataset, "NumberOfFrames") or 1
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"):
        cells *= _number(dataset, keyword)
    wanted = (cells + 7) // 8
    found = 0 if pixels is None else len(pixels.value)
    if found != wanted + wanted % 2:
        yield f"Pixel Data has {found} bytes instead of {wanted + wanted % 2}"


def _content(dataset: Item) -> Iterator[str]:
    """Content items without their value, and numbers and groups without what viewers rely on."""
    if _text(dataset, "SOPClassUID") != COMPREHENSIVE_3D_SR_STORAGE:
        return
    titles = _items(dataset, "ConceptNameCodeSequence")
    measured = any(_text(title, "CodeValue") == _MEASUREMENT_REPORT for title in titles)
    for item in _content_items(dataset):
        kind, children = _text(item, "ValueType"), _items(item, "ContentSequence")
        code = next(iter(_items(item, "ConceptNameCodeSequence")), {})
        name = _text(code, "CodeMeaning") or "an item"
        value = item.get(_tag(_NEEDED[kind])) if kind in _NEEDED else None
        if value is None or value.empty:
            yield f"{name} ({kind}) has no value"
        elif kind == "NUM" and _text(item, "RelationshipType") == "CONTAINS" and not children:
            yield f"{name} does not name its algorithm"
        elif _text(code, "CodeValue") == _MEASUREMENT_GROUP:
            if not any(_text(child, "UID") for child in children):
                yield "a measurement group has no tracking UID"
            if measured and not any(_text(child, "ValueType") == "SCOORD" for child in children):
                yield "a measurement group points at no image"  # OHIF gives up on the whole report


def _content_items(dataset: Item) -> Iterator[Item]:
    yield dataset
    for item in _items(dataset, "ContentSequence"):
        yield from _content_items(item)


def _frames(dataset: Item) -> Iterator[str]:
    label_map = _text(dataset, "SOPClassUID") == LABEL_MAP_SEGMENTATION_STORAGE
    if not label_map and _text(dataset, "SOPClassUID") != SEGMENTATION_STORAGE:
        return
    frames = _items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(frames) != _number(dataset, "NumberOfFrames"):
        yield f"{len(frames)} functional groups for {_text(dataset, 'NumberOfFrames') or 'no'} frames"
    shared = next(iter(_items(dataset, "SharedFunctionalGroupsSequence")), {})
    absent = [name for name in ("PixelMeasuresSequence", "PlaneOrientationSequence") if _tag(name) not in shared]
    # a frame of a label map shows every segment (PS3.3 table A.86.1.1-2)
    of_a_frame = [name for name in _OF_A_FRAME if not label_map or name != "SegmentIdentificationSequence"]
    absent += [name for name in of_a_frame if any(_tag(name) not in frame for frame in frames)]
    if not _items(dataset, "ReferencedSeriesSequence"):
        absent.append("ReferencedSeriesSequence")
    yield from (f"{name} is absent" for name in absent)


def _caution(dataset: Item) -> Iterator[str]:
    if NOT_FOR_DIAGNOSTIC_USE not in _text(dataset, "SeriesDescription"):
        yield f"Series Description does not say {NOT_FOR_DIAGNOSTIC_USE}"
    if _text(dataset, "SOPClassUID") == COMPREHENSIVE_3D_SR_STORAGE:
        words = (element.text for tag, element in _walk(dataset, "UT") if tag == _tag("TextValue"))
        if not any(NOT_FOR_DIAGNOSTIC_USE in text for text in words):
            yield f"no comment says {NOT_FOR_DIAGNOSTIC_USE}"
