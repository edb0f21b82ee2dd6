"""CT series made in code: Part 10 files in a folder, with the geometry, pixels and quirks that a test asks for.

`ct_series(folder)` writes a plain axial chest CT, one file a slice; `enhanced_ct(folder)` one Enhanced CT file. Both
take what differs as keywords and give back `Built`: the `Series` as the node would have it, the paths, and the
Hounsfield values and positions that a correct reader must find. `change(path, ...)` breaks or adds attributes of one
file afterwards; `Raw` puts bytes into an attribute that no library would write.

    built = ct_series(tmp_path, slices=12, spacing_mm=5.0, transfer_syntax=JPEG2000Lossless)
    volume = volume.read(built.series, AnalysisSection())
    assert (volume.hounsfield == built.hounsfield).all()

Everything is derived from the arguments: a second call with the same ones writes the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import gdcm  # type: ignore[import-untyped]  # has no type information
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from triage_node.study import Instance, Series, SeriesKey
from triage_node.volume import instance_of

LEGACY_CONVERTED_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)

# What pydicom has no encoder for and GDCM has.
JPEG_LOSSLESS = {
    "1.2.840.10008.1.2.4.57": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "1.2.840.10008.1.2.4.70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
}

Pixels = Callable[[int, int, int], npt.NDArray[np.int16]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """A written series and the truth about it."""

    series: Series
    paths: tuple[Path, ...]  # in order of instance number
    hounsfield: npt.NDArray[np.int16]  # [z, y, x] in the order of writing, which is along the normal
    positions_mm: npt.NDArray[np.float64]  # [z, 3]


@dataclass(frozen=True)
class Raw:
    """An attribute's value as bytes, however wrong."""

    value: bytes


def uid(*parts: object) -> str:
    """A UID that depends on `parts` alone."""
    return "2.25." + str(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:15], "big"))


def texture(z: int, rows: int, columns: int) -> npt.NDArray[np.int16]:
    """[y, x] Hounsfield values from -1000 to 1000, different in every slice and without any symmetry."""
    y, x = np.mgrid[:rows, :columns]
    values: npt.NDArray[np.int16] = ((x * 31 + y * 17 + z * 101 + (x * y) // 7) % 2001 - 1000).astype(np.int16)
    return values


def ct_series(
    folder: Path,
    *,
    slices: int = 12,
    rows: int = 32,
    columns: int = 40,
    spacing_mm: float = 12.0,
    pixel_spacing_mm: tuple[float, float] = (0.8, 0.7),
    orientation: Sequence[float] = AXIAL,
    origin_mm: Sequence[float] = (-120.0, -90.0, -300.0),
    step_mm: Sequence[float] | None = None,
    positions_mm: Sequence[Sequence[float]] | None = None,
    pixels: Pixels = texture,
    slope: float = 1.0,
    intercept: float = -1024.0,
    signed: bool = False,
    bits_stored: int = 16,
    bits_allocated: int = 16,
    transfer_syntax: str = ExplicitVRLittleEndian,
    study: str = "study",
    series: str = "series",
    series_number: int | None = 2,
    first_instance_number: int = 1,
    numbered_downwards: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Built:
    """Write a single-frame CT series; slice i lies at `origin_mm` + i x `step_mm`, by default along the normal.

    `positions_mm` gives every Image Position instead. `attributes` are set in every file (None deletes). `study` and
    `series` name the UIDs. Files are named so that their order is not the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = _positions(slices, spacing_mm, orientation, origin_mm, step_mm, positions_mm)
    truth, paths = [], []
    for index, place in enumerate(places):
        number = first_instance_number + (len(places) - 1 - index if numbered_downwards else index)
        dataset = header(study=study, series=series, instance=(series, index), series_number=series_number)
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [_decimal(value) for value in place]
        dataset.ImageOrientationPatient = [_decimal(value) for value in orientation]
        dataset.PixelSpacing = [_decimal(value) for value in pixel_spacing_mm]
        dataset.SliceThickness = _decimal(spacing_mm)
        dataset.RescaleSlope, dataset.RescaleIntercept = _decimal(slope), _decimal(intercept)
        wanted = pixels(index, rows, columns)
        stored = np.rint((wanted - intercept) / slope).astype(np.int64)
        _describe_pixels(dataset, rows, columns, bits_allocated, bits_stored, signed=signed)
        dataset.PixelData = _bytes_of(stored, bits_allocated, transfer_syntax)
        dataset["PixelData"].VR = "OW"
        _apply(dataset, attributes or {})
        path = folder / f"{uid(series, index, 'name')[-8:]}-{index:04d}.dcm"
        write(path, dataset, transfer_syntax)
        truth.append(np.rint(stored * slope + intercept).astype(np.int16))
        paths.append(path)
    return _built(paths, np.stack(truth), places)


def enhanced_ct(
    folder: Path,
    *,
    slices: int = 12,
    rows: int = 32,
    columns: int = 40,
    spacing_mm: float = 12.0,
    pixel_spacing_mm: tuple[float, float] = (0.8, 0.7),
    orientation: Sequence[float] = AXIAL,
    origin_mm: Sequence[float] = (-120.0, -90.0, -300.0),
    step_mm: Sequence[float] | None = None,
    positions_mm: Sequence[Sequence[float]] | None = None,
    frame_order: Sequence[int] | None = None,
    pixels: Pixels = texture,
    slope: float = 1.0,
    intercept: float = -1024.0,
    frame_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"),
    frame_types: Mapping[int, Sequence[str]] | None = None,
    rescale_per_frame: bool = False,
    sop_class: str = EnhancedCTImageStorage,
    transfer_syntax: str = ExplicitVRLittleEndian,
    study: str = "study",
    series: str = "series",
    parts: int = 1,
    attributes: Mapping[str, Any] | None = None,
) -> Built:
    """Write an Enhanced (or Legacy Converted Enhanced) CT object, or a concatenation of `parts` of them.

    `frame_order` lists slice indices in the order of the frames; `frame_types` gives single slices another Frame Type.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places = _positions(slices, spacing_mm, orientation, origin_mm, step_mm, positions_mm)
    order = list(frame_order) if frame_order is not None else list(range(len(places)))
    truth = np.stack([pixels(index, rows, columns) for index in range(len(places))])
    stored = np.rint((truth - intercept) / slope).astype(np.int64)
    paths = []
    for part, indices in enumerate(np.array_split(np.array(order), parts)):
        dataset = header(study=study, series=series, instance=(series, part), series_number=2, sop_class=sop_class)
        dataset.InstanceNumber = part + 1
        dataset.NumberOfFrames = len(indices)
        if parts > 1:  # PS3.3 C.7.6.16.2.2.4
            dataset.ConcatenationUID = uid(series, "concatenation")
            dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = part + 1, parts
            dataset.ConcatenationFrameOffsetNumber = sum(len(a) for a in np.array_split(np.array(order), parts)[:part])
        shared = Dataset()
        shared.PixelMeasuresSequence = [
            _item(PixelSpacing=[_decimal(mm) for mm in pixel_spacing_mm], SliceThickness=_decimal(spacing_mm))
        ]
        shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[_decimal(v) for v in orientation])]
        rescale = _item(RescaleSlope=_decimal(slope), RescaleIntercept=_decimal(intercept), RescaleType="HU")
        if not rescale_per_frame:
            shared.PixelValueTransformationSequence = [rescale]
        dataset.SharedFunctionalGroupsSequence = [shared]
        per_frame = []
        for frame, index in enumerate(indices):
            item = Dataset()
            item.PlanePositionSequence = [_item(ImagePositionPatient=[_decimal(v) for v in places[index]])]
            kind = (frame_types or {}).get(int(index), frame_type)
            item.CTImageFrameTypeSequence = [_item(FrameType=list(kind))]
            item.FrameContentSequence = [_item(FrameAcquisitionNumber=1, DimensionIndexValues=[frame + 1])]
            if rescale_per_frame:
                item.PixelValueTransformationSequence = [rescale]
            per_frame.append(item)
        dataset.PerFrameFunctionalGroupsSequence = per_frame
        _describe_pixels(dataset, rows, columns, 16, 16, signed=False)
        dataset.PixelData = _bytes_of(stored[indices], 16, transfer_syntax)
        dataset["PixelData"].VR = "OW"
        _apply(dataset, attributes or {})
        path = folder / f"{uid(series, part, 'name')[-8:]}-{part:04d}.dcm"
        write(path, dataset, transfer_syntax)
        paths.append(path)
    return _built(paths, np.rint(stored * slope + intercept).astype(np.int16), places)


def header(
    *, study: str, series: str, instance: object, series_number: int | None, sop_class: str = CTImageStorage
) -> Dataset:
    """Everything but geometry and pixels of an axial chest CT image, complete enough for a PACS."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid(study, series, instance)
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20200401"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101500"
    dataset.AccessionNumber = "A0001"
    dataset.Modality = "CT"
    dataset.Manufacturer = "BUILDERS"
    dataset.StudyDescription = "CT chest"
    dataset.SeriesDescription = "Thorax"
    dataset.PatientName, dataset.PatientID = "Phantom^Test", "P0001"
    dataset.PatientBirthDate, dataset.PatientSex = "19600101", "O"
    dataset.BodyPartExamined = "CHEST"
    dataset.KVP = "120"
    dataset.PatientPosition = "HFS"
    dataset.ConvolutionKernel = "STANDARD"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(study), uid(study, series)
    dataset.StudyID = "1"
    dataset.SeriesNumber = series_number
    dataset.AcquisitionNumber = 1
    dataset.FrameOfReferenceUID = uid(study, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    return dataset


def write(path: Path, dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> None:
    """Write a Part 10 file; compresses, deflates or swaps as the transfer syntax asks."""
    if transfer_syntax in JPEG_LOSSLESS:
        write(path, dataset)
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(JPEG_LOSSLESS[transfer_syntax]))
        reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        return
    syntax = UID(transfer_syntax)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax.is_encapsulated else syntax
    file = FileDataset(
        "",
        dataset,
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
    )
    if syntax.is_encapsulated:
        options: dict[str, Any] = {"j2k_cr": [4]} if syntax == "1.2.840.10008.1.2.4.91" else {}
        file.compress(syntax, generate_instance_uid=False, **options)
    file.save_as(path, enforce_file_format=True)


def named(data: bytes, syntax: str) -> bytes:
    """The file with another transfer syntax in its meta information."""
    dataset = pydicom.dcmread(BytesIO(data))
    body = data[132 + 12 + dataset.file_meta.FileMetaInformationGroupLength :]
    dataset.file_meta.TransferSyntaxUID = syntax
    meta = BytesIO()
    pydicom.filewriter.write_file_meta_info(meta, dataset.file_meta)
    return data[:132] + meta.getvalue() + body


def change(path: Path, **attributes: Any) -> None:
    """Set attributes of a written file (None deletes, `Raw` writes bytes as they are)."""
    dataset = pydicom.dcmread(path)
    _apply(dataset, attributes)
    dataset.save_as(path)


def instances_in(paths: Sequence[Path]) -> tuple[Instance, ...]:
    """The instances of written files, in this order."""
    return tuple(instance_of(path) for path in paths)


def series_of(paths: Sequence[Path]) -> Series:
    """The series of written files after a change."""
    instances = instances_in(paths)
    return Series(key=instances[0].series, instances=instances)


def key_of(study: str = "study", series: str = "series") -> SeriesKey:
    """The key of a series by the names given to the builders."""
    return SeriesKey(study_instance_uid=uid(study), series_instance_uid=uid(study, series))


def _positions(
    slices: int,
    spacing_mm: float,
    orientation: Sequence[float],
    origin_mm: Sequence[float],
    step_mm: Sequence[float] | None,
    positions_mm: Sequence[Sequence[float]] | None,
) -> npt.NDArray[np.float64]:
    if positions_mm is not None:
        return np.array(positions_mm, dtype=float)
    normal = np.cross(np.array(orientation[:3]), np.array(orientation[3:]))
    step = np.array(step_mm) if step_mm is not None else normal * spacing_mm
    places: npt.NDArray[np.float64] = np.array(origin_mm) + np.arange(slices)[:, None] * step
    return places


def _describe_pixels(dataset: Dataset, rows: int, columns: int, allocated: int, stored: int, *, signed: bool) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, stored, stored - 1
    dataset.PixelRepresentation = int(signed)


def _bytes_of(stored: npt.NDArray[np.int64], bits_allocated: int, transfer_syntax: str) -> bytes:
    order = ">" if transfer_syntax == "1.2.840.10008.1.2.2" else "<"
    raw: bytes = (stored & (2**bits_allocated - 1)).astype(f"{order}u{bits_allocated // 8}").tobytes()
    return raw + b"\0" * (len(raw) % 2)


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _apply(dataset: Dataset, attributes: Mapping[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        elif isinstance(value, Raw):
            tag = Tag(keyword)
            padded = value.value + b" " * (len(value.value) % 2)
            vr = pydicom.datadict.dictionary_VR(tag).split(" ")[0]
            dataset._dict[tag] = RawDataElement(tag, vr, len(padded), padded, 0, False, True, True)
        else:
            setattr(dataset, keyword, value)


def _decimal(value: float) -> str:
    """A DS value: at most 16 characters (PS3.5 table 6.2-1)."""
    return f"{value:.10g}"


def _built(paths: Sequence[Path], hounsfield: npt.NDArray[np.int16], places: npt.NDArray[np.float64]) -> Built:
    return Built(series=series_of(paths), paths=tuple(paths), hounsfield=hounsfield, positions_mm=places)
