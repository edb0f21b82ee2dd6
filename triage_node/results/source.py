"""What results take from their source: patient, study, and where each slice lies.

Decimal strings are kept as they were stored, so that a segmentation lies exactly where its source lies; what is
unusable is left empty where the standard allows it (type 2) instead of being invented.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

import pydicom
from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName, format_number_as_ds

from triage_node.attributes import UNREADABLE, opened, quiet
from triage_node.study import StoredPlace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from triage_node.study import Instance, Volume

# All that a result takes from its source beside UIDs and geometry: nothing else is read from the header, so that it
# cannot get into a result. First what PS3.3 C.7.1.1 and C.7.2.1 ask for (type 2: present, if need be empty), which
# ties a result to its patient and study. An identifier is copied as it is: a shortened one would be another patient's.
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
# Then what the former would say something else without: whose number Patient ID is (C.7.1.1), and in which zone study
# date and time are told (C.12.1).
OPTIONAL = ("IssuerOfPatientID", "TimezoneOffsetFromUTC")

_DATE = re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_VALID = {
    "PatientBirthDate": _DATE,
    "PatientSex": re.compile("[MFO]"),
    "StudyDate": _DATE,
    "StudyTime": _TIME,
    "TimezoneOffsetFromUTC": re.compile(r"[+-](0\d|1[0-4])[0-5]\d"),
}
NOWHERE = StoredPlace(position="", orientation="", pixel_spacing="", thickness="")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Where one slice comes from and lies, as decimal strings of its header."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  # 1-based, of a multi-frame object
    position: tuple[str, ...]  # Image Position (Patient)
    orientation: tuple[str, ...]  # Image Orientation (Patient)
    pixel_spacing: tuple[str, ...]  # between rows, between columns
    thickness: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """The source of a result: whose it is and what may be referenced."""

    identity: Dataset  # TYPE_2 and OPTIONAL attributes, Unicode
    study_instance_uid: str
    instances: tuple[Instance, ...]  # distinct, in order of the slices
    slices: tuple[Slice, ...] = ()  # of a volume, in its order
    frame_of_reference_uid: str | None = None

    @property
    def series_instance_uid(self) -> str:
        """Of the first instance: a volume is of one series."""
        return self.instances[0].series.series_instance_uid


def of_volume(volume: Volume) -> Source:
    """Read the header of a volume's first instance; it has been readable before, so OSError alone is expected."""
    instances = _distinct(volume.instances)
    return Source(
        identity=_identity(_read(instances[0])),
        study_instance_uid=instances[0].series.study_instance_uid,
        instances=instances,
        slices=tuple(_slices(volume)),
        frame_of_reference_uid=volume.frame_of_reference_uid or None,
    )


def of_instances(instances: Iterable[Instance]) -> Source:
    """Read the patient and study from the first readable of `instances`; from none, the identity stays empty."""
    distinct = _distinct(instances)
    if not distinct:
        raise ValueError("a result needs at least one source instance")
    identity = _identity(Dataset())
    for instance in distinct:
        try:
            identity = _identity(_read(instance))
        except UNREADABLE:
            continue
        break
    return Source(identity=identity, study_instance_uid=distinct[0].series.study_instance_uid, instances=distinct)


def _distinct(instances: Iterable[Instance]) -> tuple[Instance, ...]:
    return tuple({instance.sop_instance_uid: instance for instance in instances}.values())


def _read(instance: Instance) -> Dataset:
    wanted: list[str] = ["SpecificCharacterSet", *TYPE_2, *OPTIONAL]
    with opened(instance) as file, quiet():
        return pydicom.dcmread(cast("BinaryIO", file), stop_before_pixels=True, specific_tags=wanted)


def _identity(header: Dataset) -> Dataset:
    identity = Dataset()
    for keyword in (*TYPE_2, *OPTIONAL):
        value = _value(header, keyword)
        if value or keyword in TYPE_2:
            _set(identity, keyword, value)
    return identity


def _set(dataset: Dataset, keyword: str, value: object) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=pydicom_config.IGNORE))


def _value(header: Dataset, keyword: str) -> str | PersonName:
    """The attribute as Unicode; empty where it is absent or no value of its representation."""
    try:
        with quiet():
            values = header.get(keyword)
    except UNREADABLE:
        return ""
    several = values if isinstance(values, MultiValue) else [values or ""]
    texts = [re.sub(r"[\x00-\x1f\x7f\\]", " ", str(value)).strip() for value in several]
    texts = [text for text in texts if text]
    if not texts or (keyword in _VALID and not _VALID[keyword].fullmatch(texts[0])):
        return ""
    return PersonName(texts[0]) if dictionary_VR(keyword) == "PN" else texts[0]


def _slices(volume: Volume) -> Iterator[Slice]:
    depth = len(volume.hounsfield)
    x_mm, y_mm = volume.affine_lps_mm[:3, 0], volume.affine_lps_mm[:3, 1]
    _, row_mm, column_mm = volume.spacing_zyx_mm
    directions = [*(x_mm / column_mm).tolist(), *(y_mm / row_mm).tolist()]
    for index, (instance, number, stored) in enumerate(
        zip(
            volume.instances,
            volume.frame_numbers or (None,) * depth,
            volume.stored_places or (NOWHERE,) * depth,
            strict=True,
        )
    ):
        yield Slice(
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            frame_number=number,
            position=_decimals(stored.position, volume.slice_positions_mm[index].tolist()),
            orientation=_decimals(stored.orientation, directions),
            pixel_spacing=_decimals(stored.pixel_spacing, [row_mm, column_mm]),
            thickness=_thickness(stored.thickness),
        )


def _decimals(stored: str, otherwise: list[float]) -> tuple[str, ...]:
    texts = [text.strip(" \0") for text in stored.split("\\")]
    if len(texts) == len(otherwise) and all(_DECIMAL.fullmatch(text) for text in texts):
        return tuple(_short(text) for text in texts)
    return tuple(format_number_as_ds(value) for value in otherwise)


def _thickness(stored: str) -> str | None:
    return _short(stored) if _DECIMAL.fullmatch(stored) and float(stored) > 0 else None


def _short(text: str) -> str:
    """PS3.5 table 6.2-1: a decimal string has at most 16 characters."""
    return text if len(text) <= 16 else format_number_as_ds(float(text))
