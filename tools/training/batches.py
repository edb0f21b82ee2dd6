"""Batches: which slices of which studies a step sees, and what is known of them.

Truth is NaN where nobody knows it, and the losses leave it out there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from nets import slices
from training import augmentation, counterfactual
from triage_node import grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.augmentation import Augmentation
    from training.layout import TrainingStudy

LEAST_LESION_SHARE = 0.002  # of the lungs in a stack, from which on a COVID-19 patient's stack shows it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """Slices of one study, or single slices of several of one source."""

    hounsfield: npt.NDArray[np.float32]  # [D, h, w]
    lungs: npt.NDArray[np.bool_] | None
    lesions: npt.NDArray[np.uint8] | None
    valid: npt.NDArray[np.bool_]
    covid: bool | None
    classes: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What one step of the multitask training sees."""

    stacks: torch.Tensor  # [N, 1, D, H, W] in 0..1
    lesions: torch.Tensor  # [N, 2, D, H, W] lesion, consolidation; NaN unknown
    covid: torch.Tensor  # [N]; NaN unknown
    kinds: tuple[str, ...]  # how each stack came about


def shares_of(sources: Mapping[str, Sequence[TrainingStudy]]) -> dict[str, float]:
    """How often each source is drawn: by the root of its slices, so that neither the largest nor the smallest rules."""
    return {name: sum(len(study.hounsfield) for study in studies) ** 0.5 for name, studies in sources.items()}


def any_source(
    sources: Mapping[str, Sequence[TrainingStudy]], shares: Mapping[str, float], rng: np.random.Generator
) -> str:
    """One of the sources that have a study, each as often as its share says."""
    names = [name for name in shares if sources.get(name)]
    weights = np.array([shares[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def described(sources: Mapping[str, Sequence[TrainingStudy]]) -> tuple[str, ...]:
    """One sentence a source, for the model card."""
    return tuple(
        f"{name}: {len(studies)} studies of {len({study.card.patient for study in studies})} patients, "
        f"{sum(len(study.hounsfield) for study in studies)} slices"
        for name, studies in sorted(sources.items())
    )


def licences(sources: Mapping[str, Sequence[TrainingStudy]]) -> str:
    """The licences of the data, for the model card."""
    return "; ".join(sorted({study.card.licence for studies in sources.values() for study in studies}))


def lung_batch(
    sources: Mapping[str, Sequence[TrainingStudy]],
    shares: Mapping[str, float],
    size: int,
    shape: tuple[int, int],
    by: Augmentation,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices and lungs of `size` studies: [N, 1, H, W] in 0..1 and [N, 1, H, W] 0 or 1.

    What lies outside the imaged part is air to the network and not lung: the air beside a patient who lies far from
    the middle of a wide field of view must not be taken for one.
    """
    images, truths = [], []
    for _ in range(size):
        studies = sources[any_source(sources, shares, rng)]
        study = studies[int(rng.integers(len(studies)))]
        z = int(rng.integers(len(study.hounsfield)))
        assert study.lungs is not None
        valid = np.ones_like(study.lungs[z]) if study.valid is None else study.valid[z]
        hounsfield = np.where(valid, study.hounsfield[z].astype(np.float32), augmentation.AIR_HU)
        there = _middle(study.lungs[z]) if study.lungs[z].any() else tuple(side / 2 for side in valid.shape)
        grid = augmentation.sampling_grid(valid.shape, (there[0], there[1]), shape, by, rng)
        images.append(_image(hounsfield[None], grid, by, rng))
        truths.append((augmentation.warped(_floats(study.lungs[z][None] & valid[None]), grid, fill=0.0) >= 0.5).float())
    return torch.stack(images), torch.stack(truths)


def stack_of(
    sources: Mapping[str, Sequence[TrainingStudy]],
    source: str,
    depth: int,
    rng: np.random.Generator,
) -> Stack:
    """`depth` slices of one study at a regular stride and a random start; of single-slice sources, of several."""
    studies = sources[source]
    if max(len(study.hounsfield) for study in studies) == 1:
        return _of_single_slices(studies, depth, rng)
    study = studies[int(rng.integers(len(studies)))]
    count = len(study.hounsfield)
    stride = max(1, int(rng.integers(1, max(2, count // depth + 1))))
    first = int(rng.integers(0, max(1, count - stride * (depth - 1))))
    chosen = np.minimum(first + stride * np.arange(depth), count - 1)
    hounsfield = study.hounsfield[chosen].astype(np.float32)
    valid = np.ones(hounsfield.shape, dtype=np.bool_) if study.valid is None else study.valid[chosen]
    lungs = None if study.lungs is None else study.lungs[chosen]
    lesions = None if study.lesions is None else study.lesions[chosen]
    return Stack(
        hounsfield=hounsfield,
        lungs=lungs,
        lesions=lesions,
        valid=valid,
        covid=_shown(study.card.covid, lungs, lesions),
        classes=study.card.classes,
    )


def whole(study: TrainingStudy) -> Stack:
    """All slices of a study."""
    return Stack(
        hounsfield=study.hounsfield.astype(np.float32),
        lungs=study.lungs,
        lesions=study.lesions,
        valid=np.ones(study.hounsfield.shape, dtype=np.bool_) if study.valid is None else study.valid,
        covid=_shown(study.card.covid, study.lungs, study.lesions),
        classes=study.card.classes,
    )


def part(of: Stack, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Stack:
    """Some slices of a stack, by a mask over its slices or their numbers."""
    lungs = None if of.lungs is None else of.lungs[chosen]
    lesions = None if of.lesions is None else of.lesions[chosen]
    return replace(
        of,
        hounsfield=of.hounsfield[chosen],
        lungs=lungs,
        lesions=lesions,
        valid=of.valid[chosen],
        covid=_shown(of.covid, lungs, lesions),
    )


def healthy_twin(of: Stack, rng: np.random.Generator) -> Stack | None:
    """The stack without its lesions; None where it has none, or too little healthy lung."""
    if of.lungs is None or of.lesions is None or not of.lesions.any():
        return None
    images = counterfactual.healthy_twin(of.hounsfield, of.lungs & of.valid, of.lesions > 0, rng)
    if images is None:
        return None
    return replace(of, hounsfield=images, lesions=np.zeros_like(of.lesions), covid=False, classes=False)


def sham(of: Stack, rng: np.random.Generator) -> Stack:
    """The stack with healthy places exchanged: its class is unchanged, its traces are those of a twin."""
    if of.lungs is None or of.lesions is None:
        return of
    images = counterfactual.sham(of.hounsfield, of.lungs & of.valid, of.lesions > 0, rng)
    return replace(of, hounsfield=images)


def transplanted(into: Stack, donor: Stack) -> Stack:
    """The donor's lesions in the lungs of another stack without lesions."""
    assert into.lungs is not None
    assert donor.lungs is not None
    assert donor.lesions is not None
    images, lesions = counterfactual.transplant(
        into.hounsfield, into.lungs & into.valid, donor.hounsfield, donor.lungs, donor.lesions > 0
    )
    labels = lesions.astype(np.uint8)
    return replace(
        into,
        hounsfield=images,
        lesions=labels,
        covid=_shown(covid=True, lungs=into.lungs, lesions=labels),
        classes=False,
    )


def collate(
    stacks: Sequence[Stack],
    kinds: Sequence[str],
    shape: tuple[int, int],
    by: Augmentation,
    rng: np.random.Generator,
) -> Batch:
    """Cropped to the lungs with a random margin, augmented and put together."""
    images, truths, covid = [], [], []
    for stack in stacks:
        hounsfield, valid = _only_lungs(stack, rng)
        seen = valid if stack.lungs is None else stack.lungs & valid
        outline: npt.NDArray[np.bool_] = np.any(seen if seen.any() else valid, axis=0)  # [h, w]
        grid = augmentation.sampling_grid(hounsfield.shape[1:], _middle(outline), shape, by, rng)
        images.append(_image(hounsfield, grid, by, rng))
        lesion = torch.full((2, len(hounsfield), *shape), torch.nan)
        if stack.lesions is not None:
            lesion[0] = _truth(stack.lesions > 0, valid, grid)
            if stack.classes:
                consolidation = _truth(stack.lesions == 2, valid & (stack.lesions > 0), grid)
                lesion[1] = torch.where(lesion[0] == 1, consolidation, torch.nan)
        truths.append(lesion)
        covid.append(torch.nan if stack.covid is None else float(stack.covid))
    return Batch(
        stacks=torch.stack(images)[:, None], lesions=torch.stack(truths), covid=torch.tensor(covid), kinds=tuple(kinds)
    )


def _of_single_slices(studies: Sequence[TrainingStudy], depth: int, rng: np.random.Generator) -> Stack:
    chosen = [studies[int(i)] for i in rng.choice(len(studies), depth, replace=len(studies) < depth)]
    shape = tuple(max(study.hounsfield.shape[axis] for study in chosen) for axis in (1, 2))

    def put(arrays: list[npt.NDArray[np.generic]], fill: float, dtype: type[np.generic]) -> npt.NDArray[np.generic]:
        result = np.full((depth, *shape), fill, dtype=dtype)
        for z, array in enumerate(arrays):
            row, column = ((side - own) // 2 for side, own in zip(shape, array.shape[1:], strict=True))
            result[z, row : row + array.shape[1], column : column + array.shape[2]] = array[0]
        return result

    first = chosen[0]
    lungs = put([s.lungs for s in chosen if s.lungs is not None], 0, np.bool_) if first.lungs is not None else None
    lesions = (
        put([s.lesions for s in chosen if s.lesions is not None], 0, np.uint8) if first.lesions is not None else None
    )
    return Stack(
        hounsfield=put([s.hounsfield for s in chosen], augmentation.AIR_HU, np.float32),  # type: ignore[arg-type]  # put() keeps the dtype it is given
        lungs=lungs,  # type: ignore[arg-type]  # put() keeps the dtype it is given
        lesions=lesions,  # type: ignore[arg-type]  # put() keeps the dtype it is given
        valid=put([np.ones(s.hounsfield.shape, dtype=np.bool_) for s in chosen], 0, np.bool_),  # type: ignore[arg-type]  # put() keeps the dtype it is given
        covid=_shown(first.card.covid, lungs, lesions),  # type: ignore[arg-type]  # put() keeps the dtype it is given
        classes=first.card.classes,
    )


def _shown(
    covid: bool | None, lungs: npt.NDArray[np.bool_] | None, lesions: npt.NDArray[np.uint8] | None
) -> bool | None:
    """Whether these slices show COVID-19: a patient's slices without lesions do not, few lesions leave it open."""
    if not covid or lesions is None:
        return covid
    if not lesions.any():
        return False
    lung = lesions.size / 4 if lungs is None else lungs.sum()
    return True if (lesions > 0).sum() >= LEAST_LESION_SHARE * lung else None


def _only_lungs(stack: Stack, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Air outside the lungs' box with a margin of 0 to 10 pixels, for every source: no border tells one apart."""
    valid = stack.valid
    if stack.lungs is not None and stack.lungs.any():
        box = np.zeros(valid.shape[1:], dtype=np.bool_)
        sides = []
        for side in grid.bounds(stack.lungs, 0)[1:]:
            before, after = (int(margin) for margin in rng.integers(0, 11, 2))
            sides.append(slice(max(0, side.start - before), side.stop + after))
        box[sides[0], sides[1]] = True
        valid = valid & box
    hounsfield = np.where(valid, stack.hounsfield, np.float32(augmentation.AIR_HU))
    return hounsfield, valid


def _image(
    hounsfield: npt.NDArray[np.float32], grid: torch.Tensor, by: Augmentation, rng: np.random.Generator
) -> torch.Tensor:
    images = torch.from_numpy(np.ascontiguousarray(hounsfield)).clamp(slices.LEAST_HU, slices.MOST_HU)
    moved = augmentation.warped(images, grid, fill=augmentation.AIR_HU)
    outside = augmentation.warped(torch.ones(1, *images.shape[1:]), grid, fill=0.0) < 0.5
    changed = augmentation.changed_intensities(moved, by, rng)
    return slices.windowed(torch.where(outside, augmentation.AIR_HU, changed))


def _truth(mask: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_], grid: torch.Tensor) -> torch.Tensor:
    """[D, H, W] 0, 1, or NaN where the truth is unknown."""
    moved = augmentation.warped(_floats(mask), grid, fill=0.0)
    known = augmentation.warped(_floats(valid), grid, fill=0.0)
    return torch.where(known > 0.99, (moved >= 0.5).float(), torch.nan)


def _floats(mask: npt.NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(mask.astype(np.float32))


def _middle(mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
