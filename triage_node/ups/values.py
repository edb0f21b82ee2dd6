"""Attributes as plain values: what ten thousand workitems can be matched on without ten thousand data sets.

The values of an attribute are texts as DICOM writes them, those of a sequence are items; an attribute without a value
has none. A data set is made only of what is sent.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydicom.sr.coding import Code

Values = dict[int, tuple[Any, ...]]  # tag -> texts, or items of the same type where the VR is SQ

UTF_8 = "ISO_IR 192"
_NUMBERS: Mapping[str, Callable[[str], float]] = {
    "FL": float,
    "FD": float,
    "SS": int,
    "US": int,
    "SL": int,
    "UL": int,
    "SV": int,
    "UV": int,
}
_BYTES = {"OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"}  # none of these is an attribute of a worklist


@cache
def tag(keyword: str) -> int:
    """The tag of an attribute by its keyword. Raises ValueError where there is none."""
    found = tag_for_keyword(keyword)
    if found is None:
        raise ValueError(f"{keyword} is no attribute of PS3.6")
    return int(found)


def of(**attributes: str | Iterable[Any] | None) -> Values:
    """Values by keyword; a text is one value, None is none."""
    return {
        tag(keyword): () if value is None else (value,) if isinstance(value, str) else tuple(value)
        for keyword, value in attributes.items()
    }


def code(concept: Code) -> Values:
    """The item of a code sequence (PS3.3 section 8.8)."""
    long = len(concept.value) > 16
    meaning = concept.meaning[:64]
    if long:
        return of(LongCodeValue=concept.value, CodingSchemeDesignator=concept.scheme_designator, CodeMeaning=meaning)
    return of(CodeValue=concept.value, CodingSchemeDesignator=concept.scheme_designator, CodeMeaning=meaning)


@cache
def vr_of(tag_: int) -> str:
    """VR of a standard attribute; "UN" for others."""
    try:
        return dictionary_VR(tag_)
    except KeyError:
        return "UN"


def is_known(tag_: int) -> bool:
    """Whether the attribute can be kept: standard, of one VR, and not made of bytes."""
    vr = vr_of(tag_)
    return vr not in _BYTES and " or " not in vr


def is_of_its_kind(tag_: int, vr: str) -> bool:
    """Whether this is the VR that PS3.6 has for the attribute; of what is not in it nothing is known."""
    expected = vr_of(tag_)
    return expected == "UN" or vr in expected.split(" or ")


def check_kinds(dataset: Dataset) -> None:
    """Raise ValueError where an element, or one in an item, has not the VR of its attribute; it names the element."""
    for element in dataset:
        if not is_of_its_kind(int(element.tag), element.VR):
            expected = vr_of(int(element.tag))
            raise ValueError(f"{element.keyword} {element.tag} has VR {element.VR}, PS3.6 has {expected}")
        for item in element.value or () if element.VR == "SQ" else ():
            check_kinds(item)


def from_json(text: str | None) -> Values:
    """The values of a data set in the DICOM JSON Model (PS3.18 annex F), without what has a VR that is not its own."""
    return _from_model(json.loads(text)) if text else {}


def _from_model(model: Mapping[str, Any]) -> Values:
    found: Values = {}
    for name, element in model.items():
        number = int(name, 16)
        if not is_known(number):
            continue
        vr, values = element.get("vr", vr_of(number)), element.get("Value", [])
        if not is_of_its_kind(number, vr):
            continue  # what some images say; who sends such a thing to the worklist is refused
        if vr == "SQ":
            found[number] = tuple(_from_model(item) for item in values)
        elif vr == "PN":
            found[number] = tuple(_name(value) for value in values if value)
        else:
            found[number] = tuple(str(value) for value in values if value is not None and value != "")
    return found


def _name(parts: Mapping[str, str]) -> str:
    groups = [parts.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return "=".join(groups).rstrip("=")


def to_json(dataset: Dataset) -> str:
    """A data set in the DICOM JSON Model, without private attributes and bytes.

    Raises ValueError where a value cannot be said in it.
    """
    kept = Dataset()
    for element in dataset:
        if is_known(element.tag) and not element.tag.is_private and element.tag.group > 2:
            kept.add(element)
    try:
        return kept.to_json()
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"a value is not of its kind: {error}") from error


def to_dataset(values: Values) -> Dataset:
    """A data set with these values, its texts in UTF-8."""
    dataset = _dataset(values)
    dataset.SpecificCharacterSet = UTF_8
    return dataset


def _dataset(values: Values) -> Dataset:
    dataset = Dataset()
    for number in sorted(values):
        vr, found = vr_of(number), values[number]
        if vr == "SQ":
            dataset.add_new(BaseTag(number), "SQ", [_dataset(item) for item in found])
            continue
        if vr in _NUMBERS:
            found = tuple(_NUMBERS[vr](value) for value in found)
        dataset.add_new(BaseTag(number), vr, found[0] if len(found) == 1 else list(found) if found else None)
    return dataset
