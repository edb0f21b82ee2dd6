"""The data set must not give the class away: what lies outside lesions says nothing of COVID-19.

A linear classifier sees what a network could cheat with: attenuation and noise of soft tissue, sharpness, saturation,
filler and borders, texture of the lung outside lesions. It learns on stacks of one half of the patients of every
source and is asked about the other half. Nothing could be learnt from the statistics of a perfect set (area under the
curve 0.5); the test fails where they say more than a little, and shows first that it can tell sources apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import prepare_shared
import pytest
import torch
import train_multitask
from evaluation import agreement
from training import batches, layout
from training.augmentation import Augmentation

if TYPE_CHECKING:
    import numpy.typing as npt
    from training.layout import TrainingStudy

DATA = Path(__file__).parents[3] / "shared" / "data"
STACKS = 240  # to learn from, and as many to be asked about

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="real CT: ../shared/data is not there")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layout")
    prepare_shared.main(DATA, root)
    return root


@pytest.fixture(scope="module")
def kinds(prepared: Path) -> train_multitask.Kinds:
    return train_multitask.read(prepared)[0]


def statistics(stack: torch.Tensor, lesions: torch.Tensor) -> npt.NDArray[np.float64]:
    """What is left of a stack [D, H, W] without its lesions: tissue, lung, noise, sharpness, borders."""
    free = ~(lesions > 0.5)
    tissue, lung = stack[free & (stack > 0.75)], stack[free & (stack > 0.05) & (stack < 0.35)]
    rough = (
        stack[:, 1:-1, 1:-1] * 4 - stack[:, :-2, 1:-1] - stack[:, 2:, 1:-1] - stack[:, 1:-1, :-2] - stack[:, 1:-1, 2:]
    )
    rough = rough[free[:, 1:-1, 1:-1]].abs()
    numbers = [
        float(tissue.mean()) if len(tissue) else 0.0,
        float(tissue.std()) if len(tissue) > 1 else 0.0,
        float((stack >= 0.999).float().mean()),
        float((stack <= 0.0).float().mean()),
        float(lung.mean()) if len(lung) else 0.0,
        float(rough.mean()),
        float(rough.median()),
        float(stack.amax()),
    ]
    return np.array(numbers)


def sampled(
    kinds: train_multitask.Kinds, half: int, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], list[str]]:
    """Statistics and classes of stacks of one half of the studies of each source."""
    rng = np.random.default_rng(seed)
    part: train_multitask.Kinds = {}
    for kind, sources in kinds.items():
        halves: dict[str, list[TrainingStudy]] = {name: s[half::2] or s for name, s in sources.items()}
        part[kind] = halves
    rows, truth, names = [], [], []
    while len(rows) < STACKS:
        batch = train_multitask.a_batch(part, 8, 6, rng, Augmentation())
        for stack, lesions, covid, kind in zip(
            batch.stacks[:, 0], batch.lesions[:, 0], batch.covid, batch.kinds, strict=True
        ):
            if not torch.isnan(covid):
                rows.append(statistics(stack, lesions))
                truth.append(bool(covid))
                names.append(kind)
    return np.array(rows), np.array(truth), names


def auc_of_statistics(
    learnt: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]],
    asked: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]],
) -> float:
    """Area under the curve of a linear discriminant over the statistics and their squares."""
    rows, truth = learnt
    centre, spread = rows.mean(0), rows.std(0) + 1e-9

    def features(of: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        scaled = np.clip((of - centre) / spread, -4, 4)
        return np.hstack([scaled, scaled**2, np.ones((len(of), 1))])

    x = features(rows)
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ (2.0 * truth - 1.0))
    scores = features(asked[0]) @ weights
    auc = agreement.auc(scores, asked[1])
    assert auc is not None
    return auc


def test_statistics_outside_lesions_do_not_tell_covid(kinds: train_multitask.Kinds) -> None:
    learnt, asked = sampled(kinds, 0, 1), sampled(kinds, 1, 2)
    assert 0.25 < asked[1].mean() < 0.75
    assert auc_of_statistics(learnt[:2], asked[:2]) < 0.65


def test_every_source_with_masks_supplies_both_classes(kinds: train_multitask.Kinds) -> None:
    rng = np.random.default_rng(0)
    for source in kinds["masked"]:
        if not any(study.lungs is not None for study in kinds["masked"][source]):
            continue  # single slices without lungs: they teach lesions and serve as positives beside all others
        only = {"masked": {source: kinds["masked"][source]}}
        classes = {train_multitask.a_stack("masked", only, 6, rng).covid for _ in range(40)}
        classes |= {train_multitask.a_stack("twin", only, 6, rng).covid for _ in range(40)}
        assert {True, False} <= classes, source
    for source in kinds["negative"]:
        only = {"masked": kinds["masked"], "negative": {source: kinds["negative"][source]}}
        classes = {train_multitask.a_stack("negative", only, 6, rng).covid for _ in range(5)}
        classes |= {train_multitask.a_stack("transplant", only, 6, rng).covid for _ in range(40)}
        assert {True, False} <= classes, source


def test_the_same_statistics_would_show_a_class_that_has_its_own_source(kinds: train_multitask.Kinds) -> None:
    """The test above can fail: with COVID-19 from one source and healthy lungs from another, it would."""
    rng = np.random.default_rng(3)
    found: list[list[npt.NDArray[np.float64]]] = [[], []]
    for which, kind in enumerate(("masked", "negative")):
        sources = {"covid_ct_seg": kinds["masked"]["covid_ct_seg"]} if kind == "masked" else kinds["negative"]
        stacks = [train_multitask.a_stack(kind, {kind: sources}, 6, rng) for _ in range(STACKS // 2)]
        batch = batches.collate(stacks, [kind] * len(stacks), train_multitask.SHAPE, Augmentation(), rng)
        found[which] = [statistics(s, seen) for s, seen in zip(batch.stacks[:, 0], batch.lesions[:, 0], strict=True)]
    size = min(len(found[0]), len(found[1])) // 2
    halves = [
        (np.array(found[0][part] + found[1][part]), np.array([True] * size + [False] * size))
        for part in (slice(size), slice(size, 2 * size))
    ]
    assert auc_of_statistics(halves[0], halves[1]) > 0.75


def test_the_split_keeps_each_patient_on_one_side(prepared: Path) -> None:
    sides: dict[str, set[str | None]] = {}
    for study in layout.studies(prepared):
        sides.setdefault(study.card.patient, set()).add(study.card.split)
    assert all(len(found) == 1 and None not in found for found in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "validation", "test"}
