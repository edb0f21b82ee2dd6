"""What the header of a CT instance says of each of its frames, single-frame and Enhanced alike."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from triage_node import explicit
from triage_node.attributes import TRANSIENT_ERRNOS, UNREADABLE, Attributes, items, opened, refuse
from triage_node.conformance import CT_IMAGE_STORAGE, CT_SOP_CLASSES
from triage_node.study import Instance, NotAnalysed, Reason, StoredPlace

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

Triple = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]

DIRECTION_TOLERANCE = 0.02  # of lengths and right angles: headers carry direction cosines with two decimals and more
LARGEST_MATRIX = 4096  # rows or columns; scanners reconstruct up to 2048

# Words of Image Type (PS3.3 C.8.2.1.1.1, C.8.16.1) by which vendors mark what is no reconstruction of slices.
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT"})
_REFORMATS = frozenset(
    ("MIP", "MINIP", "MAXIMUM", "MINIMUM", "MPR", "CPR", "VRT", "SSD", "PROJECTION", "REFORMATTED", "SCREEN",
     "SUBTRACT", "SUBTRACTION")
)  # fmt: skip

_ATTRIBUTES = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "AcquisitionTime", "AcquisitionDateTime", "Modality",
    "Manufacturer", "SeriesDescription", "ContrastBolusAgent", "BodyPartExamined", "SliceThickness", "KVP",
    "ProtocolName", "ConvolutionKernel", "PatientPosition", "SeriesNumber", "AcquisitionNumber", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "TemporalPositionIdentifier",
    "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "LossyImageCompression", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip

_TAGS = frozenset(int(Tag(keyword)) for keyword in _ATTRIBUTES)
_PIXEL_DATA = 0x7FE00010
_PLAIN_HEADER_BYTES = 65_536  # what a header of a single slice nearly always is shorter than

# The functional groups (PS3.3 C.7.6.16.2, C.8.15.3) that say something about place, time or meaning of a frame.
_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence",
    "FrameContentSequence",
    "CTReconstructionSequence",
    "CTXRayDetailsSequence",
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)

# By what several stacks at the same positions are told apart, the most telling first: the name for people and the
# attributes that carry it, of a functional group or of a single-frame object.
SEPARATORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Acquisition Number", ("FrameAcquisitionNumber", "AcquisitionNumber")),
    ("Temporal Position", ("TemporalPositionIndex", "TemporalPositionIdentifier")),
    ("Stack ID", ("StackID",)),
    ("Acquisition Time", ("AcquisitionDateTime", "AcquisitionTime")),
    ("Convolution Kernel", ("ConvolutionKernel",)),
    ("KVP", ("KVP",)),
    ("Slice Thickness", ("SliceThickness",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What a stored pixel value is (PS3.3 C.7.6.3)."""

    bits_allocated: int  # 8 or 16
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None  # least and greatest stored value that is no measurement (PS3.3 C.7.5.1.1.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """The pixel values of an object: how many, how stored, and where."""

    rows: int
    columns: int
    encoding: Encoding
    frames: int
    transfer_syntax_uid: str
    offset: int | None  # of the first byte of uncompressed little-endian pixel data in the file
    length: int  # bytes of pixel data there

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.encoding.bits_allocated // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One axial CT image: where it lies and what its pixel values mean."""

    instance: Instance
    number: int | None  # 1-based frame number; None in a single-frame object
    name: str  # for people: "image 12"
    stored: StoredPlace
    position_mm: Triple
    orientation: Orientation  # directions of a row and of a column: unit vectors at right angles
    row_spacing_mm: float  # between the centres of neighbouring rows
    column_spacing_mm: float
    thickness_mm: float | None
    frame_of_reference_uid: str
    separators: tuple[str, ...]  # one for each of SEPARATORS
    slope: float
    intercept: float
    cells: Cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What one instance says of itself: the frames that can be judged, and why the others cannot."""

    frames: tuple[Frame, ...]
    unfit: tuple[NotAnalysed, ...]  # one for every localizer, projection and other frame that is no axial image
    remarks: tuple[str, ...]  # sentences for the reader of a result
    image_type: tuple[str, ...]  # of the first frame that can be judged
    lossy: bool
    modality: str
    description: str  # series description and protocol name
    body_part: str
    kernel: str
    manufacturer: str
    contrast: bool
    patient_position: str
    series_number: int | None
    acquisition_number: int | None

    @property
    def original(self) -> bool:
        """Image Type says so, or would say so but for a lossy compression (PS3.3 C.7.6.1.1.2)."""
        return self.image_type[:1] == ("ORIGINAL",) or (self.image_type[:1] == ("DERIVED",) and self.lossy)


def read(instance: Instance) -> Header:
    """Read the header of a CT instance.

    Raises Refused: UNDECODABLE when the file cannot be parsed, MISSING_ATTRIBUTE when an attribute that a judgement
    needs is absent or unusable, NOT_CT or NOT_HOUNSFIELD when the object says of itself that it is no CT image.
    """
    try:
        with opened(instance) as file:
            dataset = _dataset(instance, file)
            offset, length = _pixel_data(file, instance.transfer_syntax_uid)
        return _header(instance, dataset, offset, length)
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS:
            raise
        words = f"the file of the instance {instance.sop_instance_uid} cannot be parsed ({type(error).__name__})"
        refuse(Reason.UNDECODABLE, words)


def _dataset(instance: Instance, file: mmap.mmap) -> Dataset:
    """The attributes that are looked at; leaves `file` where the pixel data begin."""
    if instance.sop_class_uid == CT_IMAGE_STORAGE and instance.transfer_syntax_uid == ExplicitVRLittleEndian:
        try:
            found, at = explicit.selected(file[:_PLAIN_HEADER_BYTES], _TAGS, _PIXEL_DATA)
        except ValueError:
            pass  # pydicom knows what to make of such a file
        else:
            file.seek(at)
            return Dataset(found)  # type: ignore[arg-type]  # its keys may be of any kind that is a tag
    return pydicom.dcmread(cast("BinaryIO", file), stop_before_pixels=True, specific_tags=_ATTRIBUTES)


def _pixel_data(file: mmap.mmap, transfer_syntax_uid: str) -> tuple[int | None, int]:
    """Offset and length of uncompressed little-endian Pixel Data (7FE0,0010); the reader has stopped before it."""
    if transfer_syntax_uid not in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        return None, 0
    start, head = file.tell(), file.read(12)
    if len(head) < 8 or head[:4] != b"\xe0\x7f\x10\x00":
        return start, 0
    if head[4:6] in (b"OW", b"OB"):  # explicit VR, whatever the transfer syntax says
        return start + 12, int(struct.unpack("<L", head[8:].ljust(4, b"\0"))[0])
    return start + 8, int(struct.unpack("<L", head[4:8])[0])


def _header(instance: Instance, dataset: Dataset, offset: int | None, length: int) -> Header:
    number = Attributes("", dataset).integer("InstanceNumber")
    name = f"image {number}" if number is not None else f"the image {instance.sop_instance_uid}"
    top = Attributes(name, dataset)
    modality = top.code("Modality")
    if instance.sop_class_uid not in CT_SOP_CLASSES or modality not in ("CT", ""):
        kind = modality if modality not in ("CT", "") else UID(instance.sop_class_uid).name
        refuse(Reason.NOT_CT, f"the objects are {kind}, not CT images")
    frames: list[Frame] = []
    unfit: list[NotAnalysed] = []
    remarks: set[str] = set()
    lossy = top.text("LossyImageCompression") == "01"
    image_type: tuple[str, ...] = ()
    kernel = ""
    cells: Cells | None = None
    for frame_number, attributes in _frame_attributes(instance, top, dataset):
        type_of_frame = _image_type(attributes)
        if not frames:
            image_type, kernel = type_of_frame, attributes.text("ConvolutionKernel")
        if (why_not := _no_axial_image(type_of_frame)) is not None:
            unfit.append(why_not)
            continue
        cells = cells or _cells(top, instance, offset, length)
        frames.append(_frame(instance, frame_number, attributes, cells))
        remarks.update(_remarks(attributes, type_of_frame, lossy=lossy))
    return Header(
        frames=tuple(frames),
        unfit=tuple(unfit),
        remarks=tuple(sorted(remarks)),
        image_type=image_type,
        lossy=lossy,
        modality=modality,
        description=" ".join(filter(None, (top.text("SeriesDescription"), top.text("ProtocolName")))),
        body_part=top.text("BodyPartExamined").upper(),
        kernel=kernel,
        manufacturer=top.text("Manufacturer"),
        contrast=bool(top.text("ContrastBolusAgent")),
        patient_position=top.text("PatientPosition").upper(),
        series_number=top.integer("SeriesNumber"),
        acquisition_number=top.integer("AcquisitionNumber"),
    )


def _frame_attributes(instance: Instance, top: Attributes, dataset: Dataset) -> Iterator[tuple[int | None, Attributes]]:
    """The attributes of every frame: its own groups first, then the shared ones, then the object (PS3.3 C.7.6.16)."""
    if instance.sop_class_uid == CT_IMAGE_STORAGE:
        yield None, top
        return
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    count = top.integer("NumberOfFrames")
    if not per_frame or count != len(per_frame):
        words = f"{top.name} has {count or 0} frames but functional groups for {len(per_frame)}"
        refuse(Reason.MISSING_ATTRIBUTE, words)
    shared = [macro for item in items(dataset, "SharedFunctionalGroupsSequence")[:1] for macro in _macros(item)]
    for index, item in enumerate(per_frame, start=1):
        yield index, Attributes(f"frame {index} of {top.name}", *_macros(item), *shared, dataset)


def _macros(item: Dataset) -> list[Dataset]:
    return [macro for keyword in _MACROS for macro in items(item, keyword)[:1]]


def _image_type(attributes: Attributes) -> tuple[str, ...]:
    # Frame Type is to a frame what Image Type is to an object (PS3.3 C.8.16.1)
    text = attributes.text("FrameType") or attributes.text("ImageType")
    return tuple(part.strip().upper() for part in text.split("\\"))


def _no_axial_image(image_type: tuple[str, ...]) -> NotAnalysed | None:
    """Why an image of this type is no reconstruction of an axial slice; None when it may be one."""
    words = {word for value in image_type[2:] for word in re.split(r"[^A-Z]+", value)}
    if words & _LOCALIZERS:
        return NotAnalysed(reason=Reason.LOCALIZER, words="the images are localizers: projections to plan the scan")
    if image_type[1:2] == ("SECONDARY",):
        sentence = "the images are secondary: made from other images after the examination"
        return NotAnalysed(reason=Reason.NOT_PRIMARY, words=sentence)
    if marks := sorted(words & _REFORMATS):
        return NotAnalysed(reason=Reason.NOT_PRIMARY, words=f"the images are reformats or projections ({marks[0]})")
    return None


def _remarks(attributes: Attributes, image_type: tuple[str, ...], *, lossy: bool) -> Iterator[str]:
    if lossy:
        yield "the images were compressed with loss: attenuation values are approximate"
    if not image_type[0]:
        yield "the images have no Image Type: whether they are original is unknown"
    elif image_type[0] != "ORIGINAL" and not lossy:
        yield "the images are not marked ORIGINAL in their Image Type"
    if attributes.text("RescaleType").upper() == "US":
        yield "Rescale Type is US (unspecified): taken for Hounsfield units, as the CT Image module has it"
    position = attributes.text("PatientPosition").upper()
    if position in ("HFP", "FFP"):
        yield f"the patient lay prone ({position})"
    elif position in ("HFDL", "HFDR", "FFDL", "FFDR"):
        yield f"the patient lay on the side ({position})"


def _frame(instance: Instance, number: int | None, attributes: Attributes, cells: Cells) -> Frame:
    position = attributes.needed("ImagePositionPatient", 3)
    orientation = _orientation(attributes)
    # PS3.3 section 10.7.1.1: first the spacing between rows, then the one between columns
    row_spacing, column_spacing = attributes.needed("PixelSpacing", 2)
    if min(row_spacing, column_spacing) <= 0:
        attributes.unusable("PixelSpacing", "not above zero")
    slope, intercept = _rescale(attributes)
    frame_of_reference = attributes.text("FrameOfReferenceUID")
    if not frame_of_reference:
        attributes.missing("FrameOfReferenceUID")
    return Frame(
        instance=instance,
        number=number,
        name=attributes.name,
        stored=StoredPlace(
            position=attributes.text("ImagePositionPatient"),
            orientation=attributes.text("ImageOrientationPatient"),
            pixel_spacing=attributes.text("PixelSpacing"),
            thickness=attributes.text("SliceThickness"),
        ),
        position_mm=(position[0], position[1], position[2]),
        orientation=orientation,
        row_spacing_mm=row_spacing,
        column_spacing_mm=column_spacing,
        thickness_mm=attributes.optional("SliceThickness"),
        frame_of_reference_uid=frame_of_reference,
        separators=tuple(
            next(filter(None, (attributes.identity(keyword) for keyword in keywords)), "") for _, keywords in SEPARATORS
        ),
        slope=slope,
        intercept=intercept,
        cells=cells,
    )


def _orientation(attributes: Attributes) -> Orientation:
    numbers = np.array(attributes.needed("ImageOrientationPatient", 6))
    row, column = numbers[:3], numbers[3:]
    # PS3.3 C.7.6.2.1.1
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > DIRECTION_TOLERANCE or abs(row @ column) > DIRECTION_TOLERANCE:
        attributes.unusable("ImageOrientationPatient", "not two unit vectors at right angles")
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return cast("Orientation", (*row.tolist(), *column.tolist()))


def _rescale(attributes: Attributes) -> tuple[float, float]:
    """Slope and intercept to Hounsfield units."""
    (slope,) = attributes.needed("RescaleSlope")
    (intercept,) = attributes.needed("RescaleIntercept")
    if slope == 0:
        attributes.unusable("RescaleSlope", "zero")
    # PS3.3 C.8.2.1: absent means Hounsfield units. C.11.1.1.2: US is "unspecified", met in older images whose CT Image
    # module knew no other unit. Effective atomic number, electron density and the like are no attenuation.
    unit = attributes.code("RescaleType")
    if unit not in ("", "HU", "US"):
        refuse(Reason.NOT_HOUNSFIELD, f"the values are in {unit} (Rescale Type), not in Hounsfield units")
    return slope, intercept


def _cells(attributes: Attributes, instance: Instance, offset: int | None, length: int) -> Cells:
    rows, columns = attributes.needed_word("Rows"), attributes.needed_word("Columns")
    if not (0 < rows <= LARGEST_MATRIX and 0 < columns <= LARGEST_MATRIX):
        refuse(Reason.UNDECODABLE, f"{attributes.name} claims {rows} x {columns} pixels, which no CT scanner makes")
    samples = attributes.word("SamplesPerPixel")
    if samples not in (None, 1):
        refuse(Reason.NOT_CT, f"the images have {samples} samples per pixel: they are in colour, not CT values")
    allocated, stored = attributes.needed_word("BitsAllocated"), attributes.needed_word("BitsStored")
    high_bit = attributes.word("HighBit")
    high_bit = stored - 1 if high_bit is None else high_bit
    if allocated not in (8, 16) or not 0 < stored <= high_bit + 1 <= allocated:
        words = f"{attributes.name} stores {stored} bits up to bit {high_bit} of {allocated}: no CT image does"
        refuse(Reason.UNDECODABLE, words)
    signed = attributes.needed_word("PixelRepresentation") == 1
    padding = attributes.word("PixelPaddingValue", signed=signed)
    limit = attributes.word("PixelPaddingRangeLimit", signed=signed)
    if padding is not None:
        limit = padding if limit is None else limit
        padding, limit = min(padding, limit), max(padding, limit)
    return Cells(
        rows=rows,
        columns=columns,
        encoding=Encoding(
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=high_bit,
            signed=signed,
            padding=(padding, cast("int", limit)) if padding is not None else None,
        ),
        frames=(attributes.integer("NumberOfFrames") or 1) if instance.sop_class_uid != CT_IMAGE_STORAGE else 1,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        offset=offset,
        length=length,
    )
