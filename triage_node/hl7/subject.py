"""Whose study it is and by which order it was made: read from the images at the moment a message is put together.

A RIS files a result by Patient ID and accession number. Neither is kept for it in the journal, on disk or in the log:
what is read here goes into the message and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, BinaryIO, cast

import pydicom
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from triage_node.attributes import UNREADABLE, opened, quiet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom.dataset import Dataset

    from triage_node.study import Instance

# PS3.3 sections C.7.1.1 (patient), C.7.2.1 (study), C.12.1 (time zone); and 10.6, which says of what order images are
_WANTED = [
    "SpecificCharacterSet", "TimezoneOffsetFromUTC",
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthDate",
    "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence",
    "RequestAttributesSequence",
]  # fmt: skip
_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(r"(([01]\d|2[0-3])([0-5]\d([0-5]\d)?)?)(\.\d{1,6})?", re.ASCII)
_ZONE = re.compile(r"[+-](0\d|1[0-4])[0-5]\d", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Who has given a number: HL7's hierarchic designator, whose parts DICOM has, too (PS3.3 table 10-17)."""

    namespace: str = ""
    universal_id: str = ""
    universal_id_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """One way to write a person's name: DICOM's five components (PS3.5 section 6.2.1)."""

    family: str
    given: str = ""
    middle: str = ""
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Patient and order of a study; what the images do not say is empty."""

    patient_id: str
    patient_authority: Authority
    names: tuple[Name | None, ...]  # alphabetic, ideographic, phonetic
    birth_date: str  # YYYYMMDD
    sex: str  # M, F, O
    study_time: str  # as a time stamp of HL7
    accession_number: str
    accession_authority: Authority
    requested_procedure_id: str
    scheduled_step_id: str


def of_instances(instances: Iterable[Instance]) -> Subject | None:
    """The subject that the first readable instance names; None if none can be read."""
    for instance in instances:
        try:
            with opened(instance) as file, quiet():
                header = pydicom.dcmread(cast("BinaryIO", file), stop_before_pixels=True, specific_tags=list(_WANTED))
                return of_header(header)
        except UNREADABLE:
            continue
    return None


def of_header(header: Dataset) -> Subject:
    """The subject that a header names."""
    orders = _items(header, "RequestAttributesSequence")
    order = orders[0] if len(orders) == 1 else None  # of several orders nobody can say which one is answered
    birth_date, sex = _text(header, "PatientBirthDate"), _text(header, "PatientSex")
    return Subject(
        patient_id=_text(header, "PatientID"),
        patient_authority=_patient_authority(header),
        names=_names(header),
        birth_date=birth_date if _is_date(birth_date) else "",
        sex=sex if sex in ("M", "F", "O") else "",
        study_time=_study_time(header),
        accession_number=_text(header, "AccessionNumber"),
        accession_authority=_authority(_items(header, "IssuerOfAccessionNumberSequence"), "LocalNamespaceEntityID"),
        requested_procedure_id=_text(order, "RequestedProcedureID"),
        scheduled_step_id=_text(order, "ScheduledProcedureStepID"),
    )


def _patient_authority(header: Dataset) -> Authority:
    found = _authority(_items(header, "IssuerOfPatientIDQualifiersSequence"), "")
    return Authority(
        namespace=_text(header, "IssuerOfPatientID"),
        universal_id=found.universal_id,
        universal_id_type=found.universal_id_type,
    )


def _authority(items: list[Dataset], namespace: str) -> Authority:
    item = items[0] if items else None
    return Authority(
        namespace=_text(item, namespace) if namespace else "",
        universal_id=_text(item, "UniversalEntityID"),
        universal_id_type=_text(item, "UniversalEntityIDType"),
    )


def _names(header: Dataset) -> tuple[Name | None, ...]:
    try:
        with quiet():
            value = header.get("PatientName")
    except UNREADABLE:
        return ()
    groups = str(value).split("=")[:3] if isinstance(value, PersonName) else []
    return tuple(_name(group) for group in groups)


def _name(group: str) -> Name | None:
    family, given, middle, prefix, suffix = [*(part.strip() for part in group.split("^")), "", "", "", "", ""][:5]
    if not any((family, given, middle, prefix, suffix)):
        return None
    return Name(family=family, given=given, middle=middle, prefix=prefix, suffix=suffix)


def _study_time(header: Dataset) -> str:
    day, time, zone = (_text(header, each) for each in ("StudyDate", "StudyTime", "TimezoneOffsetFromUTC"))
    if not _is_date(day):
        return ""
    match = _TIME.fullmatch(time)
    # HL7 2.5.1 section 2.A.77: from the hour on minutes must be there, too
    clock = f"{match[1]}00" if match and len(match[1]) == 2 else match[1] if match else ""
    return f"{day}{clock}{zone if clock and _ZONE.fullmatch(zone) else ''}"


def _is_date(text: str) -> bool:
    """Whether there is such a day: the standard's grammar refuses a message with any other."""
    if not _DATE.fullmatch(text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _items(header: Dataset, keyword: str) -> list[Dataset]:
    try:
        with quiet():
            return list(header.get(keyword) or [])
    except UNREADABLE:
        return []


def _text(header: Dataset | None, keyword: str) -> str:
    """The first value as Unicode; empty where it is absent or cannot be read."""
    try:
        with quiet():
            value = None if header is None else header.get(keyword)
    except UNREADABLE:
        return ""
    first = next(iter(value), None) if isinstance(value, MultiValue) else value
    return "" if first is None else str(first).strip(" \0")
