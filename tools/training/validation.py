"""What a network says of whole scans, cropped and aligned as at inference, and the Dice of what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from nets import slices
from training import augmentation
from triage_node import grid
from triage_node.inference.multitask import MARGIN_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from training.layout import TrainingStudy
    from triage_node.grid import Box
    from triage_node.study import Mask

    Judge = Callable[[torch.Tensor], torch.Tensor]  # [n, 1, H, W] in 0..1 -> [n, ...]

SLICES = 16  # judged at a time
CPU = torch.device("cpu")


def scan_of(study: TrainingStudy) -> str:
    """What a Dice is given of: a scan, or the single slices of a source together."""
    return study.card.source if len(study.hounsfield) == 1 else study.name


def imaged(study: TrainingStudy) -> tuple[npt.NDArray[np.int16], Mask]:
    """Hounsfield [z, y, x] with air where nothing was imaged, and where something was."""
    valid = np.ones(study.hounsfield.shape, dtype=np.bool_) if study.valid is None else study.valid
    return np.where(valid, study.hounsfield, np.int16(augmentation.AIR_HU)), valid


def lung_box(lungs: Mask) -> Box:
    """The slices with lungs; rows and columns of their bounding box with inference's margin."""
    _, rows, columns = grid.bounds(lungs, MARGIN_PIXELS)
    return grid.bounds(lungs, 0)[0], rows, columns


def cropped(study: TrainingStudy) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], Mask]:
    """Hounsfield and lesions [z, y, x] of all slices around the lungs, and where they are judged."""
    assert study.lesions is not None
    hounsfield, valid = imaged(study)
    if study.lungs is None:
        return hounsfield, study.lesions, valid
    _, rows, columns = lung_box(study.lungs)
    box = np.s_[:, rows, columns]
    return hounsfield[box], study.lesions[box], (valid & study.lungs)[box]


def said_of_slices(
    judge: Judge, hounsfield: npt.NDArray[np.number], step: int, device: torch.device = CPU, *, half: bool = False
) -> torch.Tensor:
    """[z, y, x] Hounsfield -> [z, ...] float32 on the CPU: what is said of the slices, aligned to `step` pixels."""
    return _said(judge, _aligned(hounsfield, step)[0], device, half=half)


def said_of_pixels(
    judge: Judge, hounsfield: npt.NDArray[np.number], step: int, device: torch.device = CPU, *, half: bool = False
) -> torch.Tensor:
    """[z, y, x] Hounsfield -> [z, C, y, x] float32 on the CPU: what is said of each of its pixels."""
    images, (_, rows, columns) = _aligned(hounsfield, step)
    return _said(judge, images, device, half=half)[..., rows, columns]


def _aligned(hounsfield: npt.NDArray[np.number], step: int) -> tuple[torch.Tensor, tuple[slice, slice, slice]]:
    images = torch.from_numpy(np.ascontiguousarray(hounsfield)).float()
    return slices.aligned(slices.windowed(images)[:, None], step)


@torch.inference_mode()
def _said(judge: Judge, images: torch.Tensor, device: torch.device, *, half: bool) -> torch.Tensor:
    found = []
    for part in images.split(SLICES):  # type: ignore[no-untyped-call]  # torch ships this untyped
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            found.append(judge(part.to(device)).float().cpu())
    return torch.cat(found)


class Dices:
    """Dice by name; what is added under one name counts as one scan."""

    def __init__(self) -> None:
        self._counts: dict[str, npt.NDArray[np.int64]] = {}  # [3, ...] voxels of the overlap, found, drawn

    def add(self, name: str, found: npt.NDArray[np.bool_], drawn: Mask) -> None:
        """Masks found [..., z, y, x], such as one for each threshold, and the one drawn [z, y, x]."""
        overlap, size = (np.count_nonzero(mask, axis=(-3, -2, -1)) for mask in (found & drawn, found))
        sums = np.array([overlap, size, np.full_like(size, np.count_nonzero(drawn))])
        self._counts[name] = self._counts.get(name, np.zeros_like(sums)) + sums

    def values(self) -> dict[str, npt.NDArray[np.float64]]:
        """Dice [...] of every name; 0 where nothing was drawn or found."""
        return {
            name: 2 * overlap / np.maximum(1, found + drawn) for name, (overlap, found, drawn) in self._counts.items()
        }

    def excess(self) -> dict[str, npt.NDArray[np.float64]]:
        """Voxels found beyond those drawn, as a share of these [...], of every name; below 0 where too few."""
        return {name: (found - drawn) / np.maximum(1, drawn) for name, (_, found, drawn) in self._counts.items()}

    def judged(self, name: str) -> bool:
        """Whether anything was drawn or found under a name."""
        return bool(self._counts[name][1:].any())
