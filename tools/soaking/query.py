"""Answers to C-FIND from what an archive really holds (PS3.4 section C.4.1, hierarchical Study Root searches)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

if TYPE_CHECKING:
    from soaking.register import Account, Register

UNIQUE_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
LEVELS = {"STUDY": 1, "SERIES": 2, "IMAGE": 3}  # how many of the unique keys tell the entities of a level apart


def matches(register: Register, identifier: Dataset) -> list[Dataset]:
    """One data set for each study, series or object that the identifier asks for, with the values of its keys.

    Unique keys match a single value, a list of UIDs or everything; other keys are returned, not matched. An unknown
    level matches nothing.
    """
    depth = LEVELS.get(str(identifier.get("QueryRetrieveLevel", "")))
    if depth is None:
        return []
    wanted = [_values(identifier, key) for key in UNIQUE_KEYS]
    found: dict[tuple[str, ...], tuple[str, Account]] = {}
    for uid, account in register.all_held().items():
        key = (account.study_instance_uid, account.series_instance_uid, uid)
        if all(not one or value in one for one, value in zip(wanted, key, strict=True)):
            found.setdefault(key[:depth], (uid, account))
    return [_answer(register, identifier, *one) for one in found.values()]


def _values(identifier: Dataset, keyword: str) -> set[str]:
    value = identifier.get(keyword)
    if not value:
        return set()
    return {str(one) for one in value} if isinstance(value, MultiValue) else {str(value)}


def _answer(register: Register, identifier: Dataset, uid: str, account: Account) -> Dataset:
    header = dcmread(register.path(uid, account.holds or ""), stop_before_pixels=True)
    answer = Dataset()
    answer.QueryRetrieveLevel = identifier.QueryRetrieveLevel
    for element in identifier:
        if element.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
            continue
        answer[element.tag] = header.get(element.tag, element)
    if "SpecificCharacterSet" in header:
        answer.SpecificCharacterSet = header.SpecificCharacterSet
    return answer
