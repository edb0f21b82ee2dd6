"""Searches of UPS-RS (PS3.18 section 11.9): query parameters -> keys that are matched like those of a C-FIND."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from triage_node.api.operation import BadRequest
from triage_node.ups import matching, procedure_step, values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triage_node.ups.procedure_step import Entry
    from triage_node.ups.values import Values

_HEXADECIMAL: Final = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_NOT_KEYS: Final = frozenset({"includefield", "fuzzymatching", "limit", "offset"})
# The images of a study can be hundreds; who wants their UIDs says so, or retrieves the workitem.
_ON_DEMAND: Final = frozenset({values.tag("InputInformationSequence"), values.tag("TransactionUID")})
USUAL: Final = tuple(tag for tag in procedure_step.ATTRIBUTES if tag not in _ON_DEMAND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for and what of it is wanted."""

    keys: tuple[matching.Key, ...]
    returned: tuple[int, ...]
    offset: int
    limit: int
    is_fuzzy: bool  # asked for, never done

    def matches(self, entry: Entry) -> bool:
        """Whether a workitem is among the answers."""
        return matching.matches(self.keys, entry.get)

    def answer(self, entry: Entry) -> Values:
        """What is told of it."""
        return {tag: found for tag in self.returned if (found := entry.get(tag)) is not None}


def read(parameters: Iterable[tuple[str, str]], largest: int) -> Search:
    """The search that these parameters ask for, of `largest` answers at most. Raises BadRequest."""
    query, wanted = Dataset(), list(USUAL)
    offset, limit, is_fuzzy = 0, largest, False
    for name, value in parameters:
        if name not in _NOT_KEYS:
            _enter(query, name, value)
            wanted.append(_path(name)[0])
        elif name == "includefield":
            wanted += _included(value)
        elif name == "fuzzymatching":
            if value not in ("true", "false"):
                raise BadRequest("fuzzymatching is true or false")
            is_fuzzy = value == "true"
        elif not (value.isascii() and value.isdigit()):
            raise BadRequest(f"{name} is a number, not {value[:20]!r}")
        elif name == "offset":
            offset = int(value[:9])
        else:
            limit = min(int(value[:9]), largest)
    try:
        keys = matching.keys_of(query)
    except matching.BadKey as error:
        raise BadRequest(str(error)) from None
    return Search(keys=keys, returned=tuple(dict.fromkeys(wanted)), offset=offset, limit=limit, is_fuzzy=is_fuzzy)


def filter_of(text: str) -> Dataset:
    """The keys of a filtered subscription: pairs of attribute and value, parted by commas (PS3.18 section 11.10.1.2).

    Raises BadRequest.
    """
    query = Dataset()
    for pair in text.split(","):
        name, sign, value = pair.partition("=")
        if not sign:
            raise BadRequest("filter is attribute=value, and more of these after commas")
        _enter(query, name.strip(), value.strip())
    return query


def _included(value: str) -> list[int]:
    """PS3.18 section 8.3.4.3: attributes parted by commas, or all of them."""
    if value == "all":
        return list(procedure_step.ATTRIBUTES)
    return [_path(name)[0] for name in value.split(",") if name]


def _enter(query: Dataset, name: str, value: str) -> None:
    """Put a key into the query; those of one sequence into its one item."""
    path = _path(name)
    for tag in path[:-1]:
        if tag not in query:
            query.add_new(BaseTag(tag), "SQ", [Dataset()])
        items = query[tag].value
        if not items:
            raise _named_twice(name)
        query = items[0]
    vr = values.vr_of(path[-1])
    if vr == "SQ":
        if value:
            raise BadRequest(f"{name} is a sequence: name an attribute in it, {name}.CodeValue for instance")
        if query.setdefault(path[-1], DataElement(path[-1], "SQ", [])).value:
            raise _named_twice(name)
        return
    # PS3.18 section 8.3.4.1: a list of UIDs is parted by commas, or by the backslash of DICOM
    several = re.split(r"[,\\]", value) if vr == "UI" else [value]
    texts = [text for text in several if text]
    found = texts[0] if len(texts) == 1 else texts or None
    try:
        query[path[-1]] = DataElement(path[-1], vr, found, validation_mode=IGNORE)
    except (ValueError, TypeError, ArithmeticError, NotImplementedError):
        raise BadRequest(f"{name} cannot be {value[:64]!r}: that is no value of its kind ({vr})") from None


def _named_twice(name: str) -> BadRequest:
    return BadRequest(f"{name}: a sequence is named as a whole or by attributes in it, not both")


def _path(name: str) -> tuple[int, ...]:
    """Tags of an attribute and of the sequences that it is in, outermost first: keywords or eight digits, with dots."""
    tags = [_tag(part) for part in name.split(".")]
    for tag in tags[:-1]:
        if values.vr_of(tag) != "SQ":
            raise BadRequest(f"in {name} only the last attribute is none that contains others")
    return tuple(tags)


def _tag(text: str) -> int:
    found = int(text, 16) if _HEXADECIMAL.fullmatch(text) else tag_for_keyword(text)
    try:
        if found is None:
            raise KeyError(text)
        dictionary_VR(found)
    except KeyError:
        raise BadRequest(f"{text[:64]!r} is no attribute of DICOM, by keyword or by tag") from None
    return int(found)
