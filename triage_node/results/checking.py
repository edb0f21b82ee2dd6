"""Every object is read back from its bytes and checked before it leaves.

Which attributes an information object needs is read from the tables that highdicom has made from PS3.3.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom

# highdicom's tables of PS3.3; it offers no public door to them
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from triage_node.conformance import (
    COMPREHENSIVE_3D_SR_STORAGE,
    SECONDARY_CAPTURE_IMAGE_STORAGE,
    SEGMENTATION_STORAGE,
)
from triage_node.errors import InvalidResult
from triage_node.filing import UID_FORM
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from pydicom.dataelem import DataElement

_GROUPS = (["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"])
_OF_A_FRAME = ("FrameContentSequence", "PlanePositionSequence", "SegmentIdentificationSequence")
_CONTENT = "sr-document-content"  # its attributes depend on the value type, `_content` knows them
# What a content item needs by its Value Type (PS3.3 C.17.3)
_NEEDED = {
    "CONTAINER": "ContinuityOfContent",
    "NUM": "MeasuredValueSequence",
    "CODE": "ConceptCodeSequence",
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "IMAGE": "ReferencedSOPSequence",
}
_REPORTED = 8  # problems in one message: the rest is usually the same again


def check(data: bytes, *, references: AbstractSet[str] | None = None, sop_instance_uid: str | None = None) -> None:
    """Raise InvalidResult if the Part 10 file `data` is no conforming result.

    `references` are the SOP Instance UIDs that the object may refer to, `sop_instance_uid` is the one it must have;
    None leaves either unchecked.
    """
    try:
        dataset = pydicom.dcmread(BytesIO(data))
    except (InvalidDicomError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InvalidResult(f"what was written cannot be read back: {error}") from error
    problems = [
        *_identity(dataset, sop_instance_uid),
        *_modules(dataset),
        *_elements(dataset, references),
        *_pixels(dataset),
    ]
    problems += [*_frames(dataset), *_content(dataset), *_caution(dataset)]
    if problems:
        more = f" and {len(problems) - _REPORTED} more" if len(problems) > _REPORTED else ""
        name = dataset.get("SOPInstanceUID", "without a UID")
        raise InvalidResult(f"the result {name} must not leave: {'; '.join(problems[:_REPORTED])}{more}")


def _identity(dataset: pydicom.FileDataset, sop_instance_uid: str | None) -> Iterator[str]:
    if sop_instance_uid is not None and dataset.get("SOPInstanceUID") != sop_instance_uid:
        yield f"its SOP Instance UID must be {sop_instance_uid}"
    meta = dataset.file_meta
    for in_meta, keyword in (
        ("MediaStorageSOPClassUID", "SOPClassUID"),
        ("MediaStorageSOPInstanceUID", "SOPInstanceUID"),
    ):
        if meta.get(in_meta) != dataset.get(keyword):
            yield f"{in_meta} and {keyword} differ"


def _modules(dataset: Dataset) -> Iterator[str]:
    """Attributes of type 1 without a value and of type 2 that are absent, in the mandatory modules."""
    sop_class = str(dataset.get("SOPClassUID"))
    if sop_class not in (SEGMENTATION_STORAGE, COMPREHENSIVE_3D_SR_STORAGE, SECONDARY_CAPTURE_IMAGE_STORAGE):
        yield f"SOP Class {sop_class} is none of ours"
        return
    for path, attributes in _needed_of(sop_class).items():
        places = list(_at(dataset, path))
        for kind, keyword in attributes:
            for place in places:
                if keyword not in place or (kind == "1" and place[keyword].is_empty):
                    yield f"{'.'.join([*path, keyword])} (type {kind}) is {'empty' if keyword in place else 'absent'}"
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


def _at(dataset: Dataset, path: tuple[str, ...]) -> Iterator[Dataset]:
    """The items at `path`, where its sequences are present."""
    if not path:
        yield dataset
        return
    for item in dataset.get(path[0]) or ():
        yield from _at(item, path[1:])


def _elements(dataset: Dataset, references: AbstractSet[str] | None) -> Iterator[str]:
    allowed = None if references is None else {*references, str(dataset.get("SOPInstanceUID"))}
    for element in _walk(dataset, "UI"):
        if element.is_empty:
            continue
        for uid in [element.value] if element.VM == 1 else element.value:
            if len(uid) > 64 or not UID_FORM.fullmatch(uid):
                yield f"{element.keyword} is not a UID: {uid!r}"
            elif allowed is not None and element.keyword == "ReferencedSOPInstanceUID" and uid not in allowed:
                yield f"{uid} is referenced but is neither of the source nor of these results"


def _walk(dataset: Dataset, vr: str) -> Iterator[DataElement]:
    """Every element of a value representation at any depth; the others are not even converted."""
    for tag in dataset.keys():  # noqa: SIM118  # iterating a data set converts each of its elements
        found = dataset.get_item(tag).VR or dataset[tag].VR
        if found == "SQ":
            for item in dataset[tag].value:
                yield from _walk(item, vr)
        elif found == vr:
            yield dataset[tag]


def _pixels(dataset: Dataset) -> Iterator[str]:
    if "Rows" not in dataset:
        return
    cells = int(dataset.get("NumberOfFrames") or 1)
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"):
        cells *= int(dataset.get(keyword) or 0)
    wanted = (cells + 7) // 8
    found = len(dataset.get("PixelData") or b"")
    if found != wanted + wanted % 2:
        yield f"Pixel Data has {found} bytes instead of {wanted + wanted % 2}"


def _content(dataset: Dataset) -> Iterator[str]:
    """Content items without their value, and numbers and groups without what viewers rely on."""
    if dataset.get("SOPClassUID") != COMPREHENSIVE_3D_SR_STORAGE:
        return
    for item in _content_items(dataset):
        kind, children = item.get("ValueType"), item.get("ContentSequence", ())
        name = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else "an item"
        if kind not in _NEEDED or not item.get(_NEEDED[kind]):
            yield f"{name} ({kind}) has no value"
        elif kind == "NUM" and item.get("RelationshipType") == "CONTAINS" and not children:
            yield f"{name} does not name its algorithm"
        elif name == "Measurement Group" and not any(child.get("UID") for child in children):
            yield "a measurement group has no tracking UID"


def _content_items(dataset: Dataset) -> Iterator[Dataset]:
    yield dataset
    for item in dataset.get("ContentSequence", ()):
        yield from _content_items(item)


def _frames(dataset: Dataset) -> Iterator[str]:
    if dataset.get("SOPClassUID") != SEGMENTATION_STORAGE:
        return
    frames = dataset.get("PerFrameFunctionalGroupsSequence", ())
    if len(frames) != int(dataset.get("NumberOfFrames", 0)):
        yield f"{len(frames)} functional groups for {dataset.get('NumberOfFrames')} frames"
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    absent = [name for name in ("PixelMeasuresSequence", "PlaneOrientationSequence") if name not in shared[0]]
    absent += [name for name in _OF_A_FRAME if any(name not in frame for frame in frames)]
    if not dataset.get("ReferencedSeriesSequence"):
        absent.append("ReferencedSeriesSequence")
    yield from (f"{name} is absent" for name in absent)


def _caution(dataset: Dataset) -> Iterator[str]:
    if NOT_FOR_DIAGNOSTIC_USE not in str(dataset.get("SeriesDescription", "")):
        yield f"Series Description does not say {NOT_FOR_DIAGNOSTIC_USE}"
    if dataset.get("SOPClassUID") == COMPREHENSIVE_3D_SR_STORAGE:
        texts = [str(element.value) for element in _walk(dataset, "UT") if element.keyword == "TextValue"]
        if not any(NOT_FOR_DIAGNOSTIC_USE in text for text in texts):
            yield f"no comment says {NOT_FOR_DIAGNOSTIC_USE}"
