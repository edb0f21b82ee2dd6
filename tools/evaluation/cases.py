"""What can be judged: a volume, what experts drew in it, and what is known of the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from annotations import volumes
from annotations.unusable import Unusable

from triage_node.study import LEFT_LUNG, RIGHT_LUNG, LungMap, Mask, Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Kind = Literal["series", "stack", "slice"]  # contiguous slices; slices of a scan with gaps; one slice
Group = Literal["healthy", "other", "covid"]

# Few slices and crops are made fit for methods that work in three dimensions.
REPEATED_SLICES, REPEATED_MM = 20, 6.0
ASSUMED_CHEST_MM = 190.0  # what the slices of a stack span, where its spacing along z is unknown
TISSUE_HU, AIR_HU = 40, -1000
BORDER_MM = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A volume and what experts drew in it; arrays [z, y, x] on the volume's grid. None: not drawn."""

    volume: Volume
    lungs: LungMap | None = None  # 0 none; `sided`: 1 right, 2 left; else any other value is lung
    sided: bool = False
    lesions: Mask | None = None
    consolidation: Mask | None = None  # inside the lesions; None where classes were not told apart
    counted: Mask | None = None  # the voxels that are compared; None for all
    in_ml: bool = True  # False where the spacing is not known: fractions alone mean something then
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("lungs", "lesions", "consolidation", "counted"):
            mask = getattr(self, name)
            if mask is not None and mask.shape != self.volume.hounsfield.shape:
                raise Unusable(f"the {name} are {mask.shape}, the volume is {self.volume.hounsfield.shape}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One scan before it is read."""

    name: str
    source: str  # which set or layout it comes from
    kind: Kind
    read: Callable[[], Drawn]  # raises Unusable, Refused or what the reader of the file raises
    patient: str
    names: tuple[str, ...] = ()  # under which a split table or a label file may know it, besides name and patient
    group: Group | None = None
    masks: tuple[Path, ...] = ()  # where masks of it may lie, for the list of what was left out
    split: str | None = None  # "train", "validation", "test"; None: not known

    @property
    def covid(self) -> bool | None:
        """Whether the patient has COVID-19; None where nobody says so."""
        return None if self.group is None else self.group == "covid"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What lies in the folder and is no case, and why."""

    path: str
    why: str


def sides_of(lungs: npt.NDArray[np.uint8], affine_lps_mm: npt.NDArray[np.float64]) -> tuple[LungMap, bool]:
    """Lungs with 1 for the patient's right and 2 for the left, whichever of two labels was drawn for which.

    Gives the mask as it is and False where it does not hold exactly two labels on two sides.
    """
    labels = [int(label) for label in np.unique(lungs) if label]
    if len(labels) != 2:
        return lungs, False
    middles = []
    for label in labels:
        places = np.argwhere(lungs == label)[:, ::-1].mean(axis=0)  # x, y, z
        middles.append(float(affine_lps_mm[0, :3] @ places))
    right, left = labels if middles[0] < middles[1] else labels[::-1]  # x grows to the patient's left
    named = np.zeros_like(lungs)
    named[lungs == right], named[lungs == left] = RIGHT_LUNG, LEFT_LUNG
    return named, True


def classes_of(labels: npt.NDArray[np.uint8], *, told: bool | None = None) -> tuple[Mask, Mask | None]:
    """Lesions, and consolidation where the drawing tells it apart: 1 is ground glass or unspecified, 2 consolidation.

    `told` says whether classes were told apart; None: where both were drawn, since some experts drew every lesion
    under one label. Other labels, such as MedSeg's 3 for pleural effusion, are no lesions.
    """
    consolidation: Mask = labels == 2
    glass: Mask = labels == 1
    if told is None:
        told = bool(glass.any() and consolidation.any())
    return glass | consolidation, consolidation if told else None


def framed(drawn: Drawn) -> Drawn:
    """Put tissue where nothing was imaged, and 10 mm of tissue and 10 mm of air around a crop.

    Slices that are cropped to the lungs have no body wall, by which classical methods find the lungs.
    """
    shape = drawn.volume.hounsfield.shape
    inside = np.ones(shape, dtype=np.bool_) if drawn.counted is None else drawn.counted
    spacing = drawn.volume.spacing_zyx_mm
    border = [(0, 0), *((round(BORDER_MM / mm),) * 2 for mm in spacing[1:])]
    twice = [(2 * before, 2 * after) for before, after in border]
    hounsfield = np.where(inside, drawn.volume.hounsfield, np.int16(TISSUE_HU)).astype(np.int16)
    hounsfield = np.pad(np.pad(hounsfield, border, constant_values=TISSUE_HU), border, constant_values=AIR_HU)
    return Drawn(
        volume=volumes.in_patient_order(hounsfield, spacing),
        lungs=None if drawn.lungs is None else np.pad(drawn.lungs, twice),
        sided=drawn.sided,
        lesions=None if drawn.lesions is None else np.pad(drawn.lesions, twice),
        consolidation=None if drawn.consolidation is None else np.pad(drawn.consolidation, twice),
        counted=np.pad(inside, twice),
        in_ml=drawn.in_ml,
        remarks=drawn.remarks,
    )


def repeated(drawn: Drawn) -> Drawn:
    """Few slices, each several times over, so that they make up a chest; the middle one of each counts."""
    times = -(-REPEATED_SLICES // len(drawn.volume.hounsfield))
    if times == 1:
        return drawn

    def stacked(mask: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        return None if mask is None else np.repeat(mask, times, axis=0)

    hounsfield = np.repeat(drawn.volume.hounsfield, times, axis=0)
    counted = np.zeros(hounsfield.shape, dtype=np.bool_)
    counted[times // 2 :: times] = True if drawn.counted is None else drawn.counted
    return Drawn(
        volume=volumes.in_patient_order(hounsfield, (REPEATED_MM, *drawn.volume.spacing_zyx_mm[1:])),
        lungs=stacked(drawn.lungs),
        sided=drawn.sided,
        lesions=stacked(drawn.lesions),
        consolidation=stacked(drawn.consolidation),
        counted=counted,
        in_ml=False,
        remarks=drawn.remarks,
    )
