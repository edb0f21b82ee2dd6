"""The phantom as CT images with the habits of several vendors' scanners: headers, numbering, pixel encoding.

Names are plainly fictitious, UIDs are derived from what was asked for (or fresh with a `salt`). The manufacturer says
that it is a phantom: only the habits are a vendor's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from triage_node.phantom import Body, Phantom, PhantomSpec, Reconstruction, make
from triage_node.phantom_pixels import compress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless,
)  # fmt: skip
"""What `write_series` can write."""

NUMBERS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
WINDOWS = {Reconstruction.SOFT: ("40", "400"), Reconstruction.LUNG: ("-600", "1500")}


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorHabit:
    """How a vendor's scanners write the same image."""

    name: str
    image_type: tuple[str, ...]
    kernels: tuple[str, str]  # soft, lung
    signed: bool
    bits_stored: int
    slope: float
    intercept: int
    padding: int | None = None  # stored value outside the round field of view; None: the field is square
    implicit_vr: bool = False
    feet_first: bool = False
    from_feet: bool = False  # instance 1 is the slice nearest to the feet
    scan_options: str = "HELICAL MODE"
    names_body_part: bool = True  # Body Part Examined is filled in
    spacing_between_slices: bool = False
    private_tags: bool = False


SIEMENS = VendorHabit(
    name="Siemens habit",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"),
    kernels=("B31f", "B70f"),
    signed=False,
    bits_stored=12,
    slope=1,
    intercept=-1024,
    scan_options="",
    private_tags=True,
)
GE = VendorHabit(
    name="GE habit",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    kernels=("STANDARD", "LUNG"),
    signed=True,
    bits_stored=16,
    slope=1,
    intercept=-1024,
    padding=-2000,
    implicit_vr=True,
    feet_first=True,
)
PHILIPS = VendorHabit(
    name="Philips habit",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL", "HELIX"),
    kernels=("B", "YC"),
    signed=False,
    bits_stored=13,
    slope=0.5,  # exact in halves: a reader that takes the slope for 1 is far off
    intercept=-1024,
    from_feet=True,
    spacing_between_slices=True,
)
CANON = VendorHabit(
    name="Canon habit",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    kernels=("FC08", "FC51"),
    signed=True,
    bits_stored=16,
    slope=1,
    intercept=0,
    scan_options="HELICAL_CT",
    names_body_part=False,
    private_tags=True,
)
HABITS = (SIEMENS, GE, PHILIPS, CANON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who was scanned, and when: nobody."""

    number: int = 1
    acquired_at: datetime = datetime(2020, 4, 1, 9, 30)  # noqa: DTZ001  # DICOM times are the scanner's local ones
    salt: str = ""  # another salt gives other UIDs for everything

    @property
    def name(self) -> str:
        """PHANTOM^ONE, PHANTOM^ONE TWO for 12."""
        return "PHANTOM^" + " ".join(NUMBERS[int(digit)] for digit in str(self.number))

    @property
    def patient_id(self) -> str:
        """Patient ID."""
        return f"PHANTOM-{self.number:04d}"

    def study_uid(self) -> str:
        """Study Instance UID: one for every person, time and salt."""
        return uid("study", self.number, self.acquired_at.isoformat(), self.salt)


def uid(*parts: object) -> str:
    """A UID (2.25) that depends on `parts` alone."""
    return "2.25." + str(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:15], "big"))


def headers(person: Person, habit: VendorHabit, *, body: Body, series_number: int, key: object) -> Dataset:
    """Patient, study, series, equipment and frame of reference: what all images of a series share."""
    when = person.acquired_at
    acquired = when + timedelta(seconds=30 * series_number)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.StudyDate, ds.StudyTime = dicom_date(when), dicom_time(when)
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = dicom_date(acquired)
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = dicom_time(acquired)
    ds.AccessionNumber = f"PH{person.number:04d}"
    ds.Modality = "CT"
    ds.Manufacturer = "TRIAGE-NODE PHANTOM"
    ds.ManufacturerModelName = habit.name
    ds.DeviceSerialNumber = "0000"
    ds.SoftwareVersions = "1"
    ds.InstitutionName = "PHANTOM HOSPITAL"
    ds.StationName = "PHANTOM"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = f"CT {body} (PHANTOM)"
    ds.PatientName, ds.PatientID = person.name, person.patient_id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19600101", "O", "060Y"
    if habit.names_body_part:
        ds.BodyPartExamined = str(body)
    else:
        ds.Laterality = ""  # required while nothing says that the body part is not paired (PS3.3 C.7.3.1)
    ds.StudyInstanceUID = person.study_uid()
    ds.SeriesInstanceUID = uid("series", ds.StudyInstanceUID, series_number, habit, key)
    ds.FrameOfReferenceUID = uid("frame", ds.StudyInstanceUID)
    ds.PositionReferenceIndicator = ""
    ds.StudyID = str(person.number)
    ds.SeriesNumber = series_number
    ds.AcquisitionNumber = 1
    if habit.private_tags:
        block = ds.private_block(0x0029, "TRIAGE-NODE PHANTOM", create=True)
        block.add_new(0x10, "OB", b"\x00\x01" * 64)
        block.add_new(0x11, "LO", "private, as scanners like it")
    return ds


def datasets(
    phantom: Phantom,
    habit: VendorHabit = SIEMENS,
    *,
    person: Person | None = None,
    series_number: int = 2,
    description: str | None = None,
    feet_first: bool | None = None,
    from_feet: bool | None = None,
) -> Iterator[FileDataset]:
    """CT images of a phantom in order of instance number, uncompressed; None means as the habit has it."""
    spec, person = phantom.spec, person or Person()
    feet_first = habit.feet_first if feet_first is None else feet_first
    from_feet = habit.from_feet if from_feet is None else from_feet
    shared = headers(person, habit, body=spec.body, series_number=series_number, key=(spec, feet_first, from_feet))
    kernel = habit.kernels[list(Reconstruction).index(spec.reconstruction)]
    shared.SeriesDescription = description or f"{spec.body} {spec.slice_thickness_mm:.1f} {kernel}"
    shared.PatientPosition = ("FF" if feet_first else "HF") + ("P" if spec.prone else "S")
    shared.ImageType = list(habit.image_type)
    technique(shared, spec, habit, kernel)
    orientation, positions = geometry(phantom)
    shared.ImageOrientationPatient = [decimal(v) for v in orientation]
    pixel_description(shared, spec, habit)
    order = range(spec.slices) if from_feet else range(spec.slices - 1, -1, -1)
    for number, index in enumerate(order, 1):
        ds = FileDataset("", {}, preamble=b"\0" * 128)
        ds.update(shared)
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID = uid("image", shared.SeriesInstanceUID, number)
        ds.InstanceNumber = number
        ds.ImagePositionPatient = [decimal(v) for v in positions[index]]
        ds.SliceLocation = decimal(positions[index][2] * (-1 if feet_first else 1))
        ds.PixelData = stored_pixels(phantom.hounsfield[index], spec, habit).tobytes()
        ds.file_meta = file_meta(ds, ImplicitVRLittleEndian if habit.implicit_vr else ExplicitVRLittleEndian)
        yield ds


def geometry(phantom: Phantom) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Image Orientation (Patient) and, for every slice of the phantom, Image Position (Patient).

    A prone patient's images are turned by half a turn, so that the table is at their lower edge.
    """
    spec, affine = phantom.spec, phantom.affine_lps_mm
    across = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    down = affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    corner = affine[:3, 3]
    if spec.prone:
        corner = corner + affine[:3, 0] * (spec.columns - 1) + affine[:3, 1] * (spec.rows - 1)
        across, down = -across, -down
    positions = corner + np.arange(spec.slices)[:, None] * affine[:3, 2]
    return np.concatenate([across, down]), positions


def stored_pixels(hounsfield: npt.NDArray[np.int16], spec: PhantomSpec, habit: VendorHabit) -> npt.NDArray[Any]:
    """One slice as stored values [row, column]."""
    image = hounsfield[::-1, ::-1] if spec.prone else hounsfield
    stored = np.rint((image.astype(np.float32) - habit.intercept) / habit.slope)
    low = -(2 ** (habit.bits_stored - 1)) if habit.signed else 0
    high = low + 2**habit.bits_stored - 1
    pixels: npt.NDArray[Any] = np.clip(stored, low, high).astype(np.int16 if habit.signed else np.uint16)
    if habit.padding is not None:
        pixels[~round_field(spec)] = habit.padding
    return pixels


def round_field(spec: PhantomSpec) -> npt.NDArray[np.bool_]:
    """The part [row, column] of an image that the scanner reconstructs."""
    _, dy, dx = spec.spacing_zyx_mm
    y = (np.arange(spec.rows) - (spec.rows - 1) / 2) * dy
    x = (np.arange(spec.columns) - (spec.columns - 1) / 2) * dx
    radius = min(spec.rows * dy, spec.columns * dx) / 2
    return np.asarray(y[:, None] ** 2 + x[None, :] ** 2 <= radius**2)


def write_series(
    folder: Path,
    phantom: Phantom,
    habit: VendorHabit = SIEMENS,
    *,
    transfer_syntax: str | None = None,
    **keywords: Any,
) -> list[Path]:
    """Write `datasets(phantom, habit, **keywords)` into `folder`, a file an image; None: the habit's own syntax."""
    if transfer_syntax is not None and transfer_syntax not in TRANSFER_SYNTAXES:
        names = ", ".join(syntax.name for syntax in TRANSFER_SYNTAXES)
        raise ValueError(f"cannot write transfer syntax {transfer_syntax}; possible are: {names}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ds in datasets(phantom, habit, **keywords):
        path = folder / f"{ds.SeriesNumber:02d}-{ds.InstanceNumber:04d}.dcm"
        save(ds, path, transfer_syntax)
        paths.append(path)
    return paths


def write_study(folder: Path, spec: PhantomSpec, habit: VendorHabit = SIEMENS, **keywords: Any) -> list[Path]:
    """Make the phantom and write its one series; keywords as for `write_series`."""
    return write_series(folder, make(spec), habit, **keywords)


def save(ds: FileDataset, path: Path, transfer_syntax: str | None = None) -> None:
    """Write a Part 10 file, compressed if `transfer_syntax` says so."""
    if transfer_syntax is not None and transfer_syntax != ds.file_meta.TransferSyntaxUID:
        compress(ds, transfer_syntax)
    ds.save_as(path, enforce_file_format=True)


def file_meta(ds: Dataset, transfer_syntax: str) -> FileMetaDataset:
    """File meta information of a data set."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    return meta


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2, DS)."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def technique(ds: Dataset, spec: PhantomSpec, habit: VendorHabit, kernel: str) -> None:
    """CT Image module (PS3.3 C.8.2.1): how it was scanned."""
    dz, dy, dx = spec.spacing_zyx_mm
    if habit.scan_options:
        ds.ScanOptions = habit.scan_options
    ds.KVP = "120"
    ds.DataCollectionDiameter = "500"
    ds.ReconstructionDiameter = decimal(min(spec.rows * dy, spec.columns * dx))
    ds.DistanceSourceToDetector, ds.DistanceSourceToPatient = "1040", "570"
    ds.GantryDetectorTilt = decimal(spec.gantry_tilt_deg)
    ds.TableHeight = "150"
    ds.RotationDirection = "CW"
    ds.ExposureTime, ds.XRayTubeCurrent, ds.Exposure = 500, 200, 100
    ds.FilterType = "BODY FILTER"
    ds.ConvolutionKernel = kernel
    ds.SliceThickness = decimal(spec.slice_thickness_mm)
    if habit.spacing_between_slices:
        ds.SpacingBetweenSlices = decimal(dz)
    ds.PixelSpacing = [decimal(dy), decimal(dx)]
    ds.WindowCenter, ds.WindowWidth = WINDOWS[spec.reconstruction]


def pixel_description(ds: Dataset, spec: PhantomSpec, habit: VendorHabit) -> None:
    """Image Pixel module and the way from stored values to Hounsfield units."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = spec.rows, spec.columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, habit.bits_stored, habit.bits_stored - 1
    ds.PixelRepresentation = int(habit.signed)
    if habit.padding is not None:
        ds.add_new(0x00280120, "SS" if habit.signed else "US", habit.padding)  # Pixel Padding Value
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(habit.intercept), decimal(habit.slope), "HU"


def dicom_date(moment: datetime) -> str:
    """DA."""
    return moment.strftime("%Y%m%d")


def dicom_time(moment: datetime) -> str:
    """TM."""
    return moment.strftime("%H%M%S")
