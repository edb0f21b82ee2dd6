"""The one layout in which training data lie, whatever they came as.

    ROOT/<source>/<study>.npz   hounsfield int16 [z, y, x]; where known lungs uint8 0/1, lesions uint8 0/1/2
                                (1 ground glass or not told apart, 2 consolidation), valid_box int16 [z, 4]
    ROOT/<source>/<study>.json  the card below

In-plane pixels are 2 x 2 mm. Rows run from anterior to posterior, columns from the patient's right to the left,
slices from the feet to the head. `valid_box` (row0, row1, col0, col1) is the imaged part of a slice: what lies outside
is filler and must not be learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from annotations import volumes
from pydantic import BaseModel, ConfigDict, ValidationError

from nets import slices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Split = Literal["train", "validation", "test"]


class StudyCard(BaseModel):
    """What is known of a study beside its pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patient: str
    source: str
    licence: str
    covid: bool | None  # None: nobody says
    healthy: bool | None = None  # no finding in the lungs; None: nobody says
    classes: bool = False  # whether lesion labels tell ground glass (1) from consolidation (2)
    spacing_zyx_mm: tuple[float, float, float]  # in-plane 2 mm; the slices keep their own spacing
    contiguous: bool = True  # slices of one volume in order, without gaps
    exact_hounsfield: bool = True
    lungs_by: str | None = None
    lesions_by: str | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingStudy:
    """One study in memory."""

    name: str
    card: StudyCard
    hounsfield: npt.NDArray[np.int16]  # [z, y, x]
    lungs: npt.NDArray[np.bool_] | None
    lesions: npt.NDArray[np.uint8] | None
    valid: npt.NDArray[np.bool_] | None  # None: everywhere


class LayoutError(Exception):
    """A file of the layout cannot be used; the message says which and why."""


def write(root: Path, name: str, card: StudyCard, **arrays: npt.NDArray[np.generic] | None) -> Path:
    """Write a study; the card comes last, so that a study without one is one that was cut off."""
    folder = root / card.source
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez_compressed(path, allow_pickle=False, **{key: value for key, value in arrays.items() if value is not None})
    path.with_suffix(".json").write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return path


def studies(root: Path, splits: tuple[Split | None, ...] | None = None) -> Iterator[TrainingStudy]:
    """The studies below `root`, sorted by name, of the given splits (None: of all). Raises LayoutError."""
    cards = sorted(root.rglob("*.json"))
    if not cards:
        raise LayoutError(f"{root} holds no study (<source>/<study>.json); make one with tools/prepare_*.py")
    for path in cards:
        try:
            card = StudyCard.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise LayoutError(f"{path}: {error}") from error
        if splits is None or card.split in splits:
            yield _read(path.with_suffix(".npz"), card)


def _read(path: Path, card: StudyCard) -> TrainingStudy:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path} cannot be read: {error}") from error
    hounsfield = arrays["hounsfield"]
    for key in ("lungs", "lesions"):
        if key in arrays and arrays[key].shape != hounsfield.shape:
            raise LayoutError(f"{path}: {key} is {arrays[key].shape}, hounsfield is {hounsfield.shape}")
    boxes = arrays.get("valid_box")
    return TrainingStudy(
        name=path.stem,
        card=card,
        hounsfield=hounsfield,
        lungs=arrays["lungs"].astype(np.bool_) if "lungs" in arrays else None,
        lesions=arrays.get("lesions"),
        valid=None if boxes is None else volumes.imaged(boxes, hounsfield.shape),
    )


def images_on_grid(hounsfield: npt.NDArray[np.int16], pixel_spacing_mm: tuple[float, float]) -> npt.NDArray[np.int16]:
    """[z, y, x] of any pixel spacing (row, column) -> 2 mm, by the resampling that inference uses."""
    shape = slices.grid_shape(hounsfield.shape[1:], pixel_spacing_mm)
    parts = [slices.to_grid(part, shape).round().short().numpy() for part in _slabs(hounsfield)]
    return np.concatenate(parts)


def labels_on_grid(labels: npt.NDArray[np.uint8], pixel_spacing_mm: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """[z, y, x] labels 0..n -> 2 mm: a pixel is labelled where labels cover at least half of it, by the largest."""
    shape = slices.grid_shape(labels.shape[1:], pixel_spacing_mm)
    result = np.zeros((len(labels), *shape), dtype=np.uint8)
    values = [int(value) for value in np.unique(labels) if value]
    for first in range(0, len(labels), SLAB):
        part = torch.from_numpy(labels[first : first + SLAB])
        shares = torch.stack([slices.resized((part == value).float(), shape) for value in values or [1]])
        largest = np.array(values or [1], dtype=np.uint8)[shares.argmax(dim=0).numpy()]
        result[first : first + SLAB] = np.where(shares.sum(dim=0).numpy() >= 0.5, largest, 0)
    return result


def boxes_on_grid(
    boxes: npt.NDArray[np.int16], shape: tuple[int, int], on_grid: tuple[int, int]
) -> npt.NDArray[np.int16]:
    """[z, 4] row0, row1, col0, col1 in an image of `shape` -> on the grid, never larger than the imaged part."""
    factors = np.array([on_grid[0] / shape[0]] * 2 + [on_grid[1] / shape[1]] * 2)
    scaled = boxes * factors
    whole = np.stack([np.ceil(scaled[:, 0]), np.floor(scaled[:, 1]), np.ceil(scaled[:, 2]), np.floor(scaled[:, 3])], 1)
    return whole.astype(np.int16)


SLAB = 64  # slices resampled at a time, so that a long series does not fill the memory


def _slabs(hounsfield: npt.NDArray[np.int16]) -> Iterator[npt.NDArray[np.int16]]:
    for first in range(0, len(hounsfield), SLAB):
        yield hounsfield[first : first + SLAB]
