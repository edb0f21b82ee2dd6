"""What intake must know of an instance to file it: who it is and where it lies in space.

Reads only the elements before the pixel data, bounded in size: what a stranger sends is never decoded here.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from triage_node.conformance import CT_SOP_CLASSES
from triage_node.errors import CannotUnderstand

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.tag import BaseTag

# PS3.5 section 9.1: digits and points, 64 characters. Components with leading zeros are wrong but met in life.
UID_FORM = re.compile(r"[0-9]+(\.[0-9]+)*")
MAXIMUM_UID_LENGTH = 64
# More than any header needs; a bomb in a deflated data set inflates no further.
MAXIMUM_HEADER_BYTES = 64 * 1024 * 1024

_TAGS = [
    0x00080005,  # Specific Character Set
    0x00080008,  # Image Type
    0x00080016,  # SOP Class UID
    0x00080018,  # SOP Instance UID
    0x00080020,  # Study Date
    0x00080050,  # Accession Number
    0x00080060,  # Modality
    0x00081030,  # Study Description
    0x0008103E,  # Series Description
    0x0020000D,  # Study Instance UID
    0x0020000E,  # Series Instance UID
    0x00200032,  # Image Position (Patient)
    0x00200037,  # Image Orientation (Patient)
    0x00280008,  # Number of Frames
]
_LAST_TAG = 0x00280008


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
    try:
        dataset = read_dataset(
            BytesIO(raw),
            is_implicit_VR=syntax == ImplicitVRLittleEndian,
            is_little_endian=syntax != ExplicitVRBigEndian,
            stop_when=_behind_the_header,
            specific_tags=_TAGS,
        )
        return _header(dataset)
    except CannotUnderstand:
        raise
    except (
        EOFError,
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        NotImplementedError,
        IndexError,
        OverflowError,
        RecursionError,
        LookupError,
        OSError,
        MemoryError,
        BytesLengthException,
    ) as error:
        raise CannotUnderstand(f"the bytes are not a data set: {type(error).__name__}") from error


def read_file(path: Path) -> tuple[Header, str, int]:
    """Header, Transfer Syntax UID and offset of the data set of a Part 10 file (PS3.10 section 7).

    Raises CannotUnderstand, also when the file is not Part 10.
    """
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            raise CannotUnderstand(f"{path.name} is not a DICOM Part 10 file")
        try:
            syntax = str(read_file_meta_info(path).TransferSyntaxUID)
            # (0002,0000) comes first; its value is the length of the meta information behind it
            (length,) = struct.unpack("<8xL", file.read(12))
        except (EOFError, struct.error, ValueError, AttributeError, KeyError, TypeError) as error:
            raise CannotUnderstand(f"{path.name} has no readable file meta information") from error
        offset = 132 + 12 + length
        file.seek(offset)
        return read_header(file.read(MAXIMUM_HEADER_BYTES), syntax), syntax, offset


def _behind_the_header(tag: BaseTag, _: str | None, __: int) -> bool:
    return int(tag) > _LAST_TAG


def _header(dataset: Dataset) -> Header:
    uids = {
        name: _uid(dataset, name) for name in ("SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID")
    }
    image_type = dataset.get("ImageType") or ()
    localizer = "LOCALIZER" in [str(value).upper() for value in image_type]
    return Header(
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=uids["SOPClassUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        modality=_text(dataset, "Modality"),
        accession_number=_text(dataset, "AccessionNumber"),
        study_date=_text(dataset, "StudyDate"),
        study_description=_text(dataset, "StudyDescription"),
        series_description=_text(dataset, "SeriesDescription"),
        volumetric=uids["SOPClassUID"] in CT_SOP_CLASSES and not localizer,
        frames=_frames(dataset),
        geometry=_geometry(dataset),
    )


def _uid(dataset: Dataset, name: str) -> str:
    value = str(dataset.get(name) or "").strip("\0 ")
    if not value:
        raise CannotUnderstand(f"{name} is missing: the instance cannot be filed")
    if len(value) > MAXIMUM_UID_LENGTH or not UID_FORM.fullmatch(value):
        raise CannotUnderstand(f"{name} is not a UID (digits and points, at most 64 characters)")
    return value


def _text(dataset: Dataset, name: str) -> str:
    """The value as one line; an unreadable one is not worth refusing an instance for."""
    try:
        return " ".join(str(dataset.get(name) or "").split())
    except (ValueError, TypeError, LookupError, BytesLengthException):
        return ""


def _frames(dataset: Dataset) -> int:
    try:
        return max(1, int(dataset.get("NumberOfFrames") or 1))
    except (ValueError, TypeError):
        return 1


def _geometry(dataset: Dataset) -> Geometry | None:
    try:
        position = tuple(float(value) for value in dataset.get("ImagePositionPatient") or ())
        orientation = tuple(float(value) for value in dataset.get("ImageOrientationPatient") or ())
    except (ValueError, TypeError, BytesLengthException):
        return None
    if len(position) != 3 or len(orientation) != 6:
        return None
    return Geometry(position_mm=position, orientation=orientation)
