"""The types that cross the borders between rooms: frozen, keyword-only, free of I/O.

Axis order is [z, y, x] everywhere: z the slice, y the image row, x the image column. Positions are in
millimetres in DICOM patient coordinates (L, P, S): x grows to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Hounsfield = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]
LungMap = npt.NDArray[np.uint8]

NOT_FOR_DIAGNOSTIC_USE = "NOT FOR DIAGNOSTIC USE"  # on every object, page and list
RIGHT_LUNG, LEFT_LUNG = 1, 2  # labels of `Findings.lungs`


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKey:
    """Names a series; the study is part of it, since a series UID alone is only promised to be unique."""

    study_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One kept SOP instance: where its file lies and what identifies its bytes."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    series: SeriesKey
    path: Path  # Part 10 file
    digest: str  # sha256 of the data set's bytes as received, hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The instances of one series that are at hand, in order of arrival."""

    key: SeriesKey
    instances: tuple[Instance, ...]

    @property
    def digest(self) -> str:
        """Sha256 over the sorted SOP Instance UIDs and digests: the same for every order of arrival."""
        return digest_of((i.sop_instance_uid, i.digest) for i in self.instances)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The series of one study that are at hand."""

    study_instance_uid: str
    series: tuple[Series, ...]

    @property
    def digest(self) -> str:
        """Sha256 over all instances of the study, the same for every order of arrival."""
        return digest_of((i.sop_instance_uid, i.digest) for s in self.series for i in s.instances)


def digest_of(instances: Iterable[tuple[str, str]]) -> str:
    """Sha256 over pairs of SOP Instance UID and digest, sorted by UID."""
    lines = sorted(f"{uid} {digest}" for uid, digest in instances)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlace:
    """Where a slice lies in the very characters of its header, values parted by backslashes; empty where absent."""

    position: str  # Image Position (Patient)
    orientation: str  # Image Orientation (Patient)
    pixel_spacing: str
    thickness: str  # Slice Thickness


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A CT series as Hounsfield units on a grid, slices ordered along their normal.

    `affine_lps_mm` maps (x, y, z, 1) voxel indices, in this order, to patient millimetres: its columns are the
    step along a row's columns, the step along the rows, the step between slices, and the first voxel's centre.
    With a tilted gantry the third column is not along the normal of the slices.
    """

    hounsfield: Hounsfield  # [z, y, x]
    affine_lps_mm: npt.NDArray[np.float64]  # [4, 4]
    slice_positions_mm: npt.NDArray[np.float64]  # [z, 3] Image Position (Patient) of every slice as in its header
    instances: tuple[Instance, ...]  # of every slice; the same one again and again for a multi-frame object
    frame_numbers: tuple[int, ...] | None = None  # 1-based frame of every slice; None for single-frame objects
    warnings: tuple[str, ...] = ()  # sentences for the reader, for example of a gantry tilt that was corrected
    stored_places: tuple[StoredPlace, ...] = ()  # of every slice; none where the volume was not read from DICOM
    frame_of_reference_uid: str = ""

    def __post_init__(self) -> None:
        slices = self.hounsfield.shape[0]
        if self.hounsfield.ndim != 3 or self.hounsfield.dtype != np.int16:
            raise ValueError(f"hounsfield must be int16 [z, y, x], not {self.hounsfield.dtype} {self.hounsfield.shape}")
        if self.affine_lps_mm.shape != (4, 4) or self.slice_positions_mm.shape != (slices, 3):
            raise ValueError("affine_lps_mm must be [4, 4] and slice_positions_mm [z, 3]")
        entries = (self.instances, self.frame_numbers or self.instances, self.stored_places or self.instances)
        if any(len(each) != slices for each in entries):
            raise ValueError("instances, frame_numbers and stored_places need one entry for every slice")

    @cached_property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring slices (along their normal), rows and columns."""
        column, row, step = (self.affine_lps_mm[:3, i] for i in range(3))
        normal = np.cross(column, row)
        normal = normal / np.linalg.norm(normal)
        return float(abs(np.dot(step, normal))), float(np.linalg.norm(row)), float(np.linalg.norm(column))

    @cached_property
    def slice_thicknesses_mm(self) -> npt.NDArray[np.float64]:
        """[z] the height of the slab that each slice stands for: half the way to its neighbours along the normal."""
        column, row = self.affine_lps_mm[:3, 0], self.affine_lps_mm[:3, 1]
        normal = np.cross(column, row)
        normal = normal / np.linalg.norm(normal)
        along = self.slice_positions_mm @ normal
        if len(along) == 1:
            return np.array([self.spacing_zyx_mm[0]])
        steps = np.abs(np.diff(along))
        return np.concatenate([steps[:1], (steps[:-1] + steps[1:]) / 2, steps[-1:]])

    @cached_property
    def voxel_volumes_ml(self) -> npt.NDArray[np.float64]:
        """[z] volume of one voxel of each slice."""
        _, row_mm, column_mm = self.spacing_zyx_mm
        return self.slice_thicknesses_mm * row_mm * column_mm / 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """From which numbers on a study is urgent or severe, as a model's card says it; all are 0..1.

    Raises ValueError where the numbers are out of range or out of order.
    """

    probability_high: float = 0.5  # of COVID-19, from here on HIGH
    probability_medium: float = 0.2
    fraction_high: float = 0.5  # affected fraction of the worse lung, from here on HIGH
    fraction_medium: float = 0.25
    grades_up_to: tuple[float, float, float] = (0.25, 0.5, 0.75)  # of CT-1, CT-2 and CT-3, inclusive
    source: str = "fractions and grades: Goncharov 2021, section 3.1; probabilities: defaults of this program"

    def __post_init__(self) -> None:
        for name in ("probability", "fraction"):
            medium, high = getattr(self, f"{name}_medium"), getattr(self, f"{name}_high")
            if not 0.0 <= medium <= high <= 1.0:
                raise ValueError(f"0 <= {name}_medium <= {name}_high <= 1 is wanted, not {medium} and {high}")
        first, second, third = self.grades_up_to
        if not 0.0 < first < second < third <= 1.0:
            raise ValueError(f"grades_up_to must rise within 0 and 1, unlike {list(self.grades_up_to)}")


NO_CARD = OperatingPoint()  # of a method without a model card


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What judged a study: a method by name, its version, and the digest of its weights or parameters."""

    name: str  # as in the configuration, "threshold"
    version: str
    digest: str  # sha256, hex
    describes: str = ""  # one line for people, with the source
    operating_point: OperatingPoint = NO_CARD  # from the model's card
    parameters: tuple[tuple[str, str], ...] = ()  # name and value of what else decides, as the report lists it
    trust: str = ""  # how far the probability can be trusted, one sentence from the card; empty: nothing is known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """What a method sees in a volume, on the volume's own grid."""

    lungs: LungMap  # [z, y, x] 0 none, 1 right, 2 left (the patient's)
    lesions: Mask  # [z, y, x], inside the lungs
    covid_probability: float | None  # 0..1; None where the method has no identification head
    model: Model
    warnings: tuple[str, ...] = ()
    consolidation: Mask | None = None  # [z, y, x], inside the lesions; None: the method knows no classes of lesion


class Laterality(StrEnum):
    """The patient's side."""

    RIGHT = "right"
    LEFT = "left"


class CtGrade(StrEnum):
    """Russian visual scale by affected fraction of the worse lung (Goncharov 2021, sections 1 and 3.1)."""

    CT_0 = "CT-0"
    CT_1 = "CT-1"
    CT_2 = "CT-2"
    CT_3 = "CT-3"
    CT_4 = "CT-4"


class CtSeverityScore(IntEnum):
    """LungQuant's CT-SS by affected fraction of both lungs together (Lizzi 2021, LungQuant)."""

    UNDER_5 = 1
    FROM_5_TO_25 = 2
    FROM_25_TO_50 = 3
    FROM_50_TO_75 = 4
    FROM_75 = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LungMeasurement:
    """One lung in numbers; fractions are 0..1 of the lung's own volume."""

    laterality: Laterality
    volume_ml: float
    lesion_ml: float
    consolidation_ml: float  # the part of lesion_ml that the method, or else the attenuation, calls consolidation

    @property
    def ground_glass_ml(self) -> float:
        """The part of the lesion that is no consolidation."""
        return self.lesion_ml - self.consolidation_ml

    @property
    def affected_fraction(self) -> float:
        """Lesion volume over lung volume."""
        return _share(self.lesion_ml, self.volume_ml)

    @property
    def ground_glass_fraction(self) -> float:
        """Extent of ground glass: its volume over lung volume (Bartoli 2022)."""
        return _share(self.ground_glass_ml, self.volume_ml)

    @property
    def consolidation_fraction(self) -> float:
        """Extent of consolidation: its volume over lung volume (Bartoli 2022)."""
        return _share(self.consolidation_ml, self.volume_ml)


def _share(part_ml: float, whole_ml: float) -> float:
    return part_ml / whole_ml if whole_ml > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A judged study in numbers."""

    right: LungMeasurement | None  # None where no such lung was found
    left: LungMeasurement | None
    affected_fraction: float  # the larger of the two lungs' (Goncharov 2021, section 2.1)
    affected_fraction_both: float  # of both lungs together
    consolidation_share: float | None  # of the lesion volume; None without a lesion
    ct_grade: CtGrade
    ct_ss: CtSeverityScore
    covid_probability: float | None
    model: Model
    generation: int
    warnings: tuple[str, ...] = ()
    operating_point: OperatingPoint = NO_CARD  # the model's, with what the configuration said instead
    consolidation_from_hu: int | None = None  # what split the lesions; None where the method tells classes apart

    @property
    def lungs(self) -> tuple[LungMeasurement, ...]:
        """The lungs that were found, right first."""
        return tuple(lung for lung in (self.right, self.left) if lung is not None)

    @property
    def volume_ml(self) -> float:
        """Of both lungs."""
        return sum(lung.volume_ml for lung in self.lungs)

    @property
    def lesion_ml(self) -> float:
        """Of both lungs."""
        return sum(lung.lesion_ml for lung in self.lungs)

    @property
    def ground_glass_ml(self) -> float:
        """Of both lungs."""
        return sum(lung.ground_glass_ml for lung in self.lungs)

    @property
    def consolidation_ml(self) -> float:
        """Of both lungs."""
        return sum(lung.consolidation_ml for lung in self.lungs)

    @property
    def ground_glass_fraction_both(self) -> float:
        """Extent of ground glass in both lungs together (Bartoli 2022)."""
        return _share(self.ground_glass_ml, self.volume_ml)

    @property
    def consolidation_fraction_both(self) -> float:
        """Extent of consolidation in both lungs together (Bartoli 2022)."""
        return _share(self.consolidation_ml, self.volume_ml)


class Reason(StrEnum):
    """Why a series or a study was not analysed. The values are stable: they are stored, reported and filtered on."""

    NOT_CT = "NOT_CT"
    LOCALIZER = "LOCALIZER"
    NOT_PRIMARY = "NOT_PRIMARY"  # derived or secondary images: reformats, projections, screen captures
    NOT_HOUNSFIELD = "NOT_HOUNSFIELD"  # the values are in another unit, such as effective atomic number
    NOT_AXIAL = "NOT_AXIAL"
    TOO_FEW_SLICES = "TOO_FEW_SLICES"
    TOO_MANY_SLICES = "TOO_MANY_SLICES"
    COVERAGE_TOO_SHORT = "COVERAGE_TOO_SHORT"
    SPACING_TOO_LARGE = "SPACING_TOO_LARGE"
    GAP = "GAP"
    DUPLICATE_POSITIONS = "DUPLICATE_POSITIONS"
    MIXED_ORIENTATION = "MIXED_ORIENTATION"
    MIXED_FRAME_OF_REFERENCE = "MIXED_FRAME_OF_REFERENCE"
    MIXED_MATRIX = "MIXED_MATRIX"
    MISSING_ATTRIBUTE = "MISSING_ATTRIBUTE"
    UNDECODABLE = "UNDECODABLE"
    NO_LUNGS = "NO_LUNGS"
    NOT_PREFERRED = "NOT_PREFERRED"  # suitable, but another series of the study was judged
    NO_SUITABLE_SERIES = "NO_SUITABLE_SERIES"  # of a study: each of its series says why
    ANALYSIS_FAILED = "ANALYSIS_FAILED"  # a fault of ours; the log has the traceback


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAnalysed:
    """A refusal: a result like any other, with a code for machines and a sentence for people."""

    reason: Reason
    words: str  # "no image lies at 112.5 mm: 3 slices seem to be missing between ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A series of a study that was not judged, and why."""

    series_instance_uid: str
    description: str
    not_analysed: NotAnalysed


class ReadingPriority(StrEnum):
    """Scheduled Procedure Step Priority (0074,1200), PS3.3 table C.30.2-1."""

    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


class OrderPriority(StrEnum):
    """What whoever ordered the study asked for: Requested Procedure Priority (0040,1003), PS3.3 table C.4-11."""

    STAT = "STAT"
    HIGH = "HIGH"
    ROUTINE = "ROUTINE"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


class StudyState(StrEnum):
    """Where a study stands on the reading worklist."""

    WAITING = "waiting"
    JUDGED = "judged"
    NOT_ANALYSED = "not_analysed"
    READING = "reading"
    READ = "read"
    CANCELLED = "cancelled"  # somebody who may has called the reading off; the study stays on the list
