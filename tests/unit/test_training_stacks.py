"""Stacks: what they are made of, what is known of them, and that a twin differs from its study in lesions alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training import augmentation, batches, counterfactual
from training.batches import Stack

from tests import training_cases
from tests.training_cases import LESION_HU, LUNG_HU, study


def test_a_twin_has_healthy_lung_where_the_lesion_was_and_is_the_same_elsewhere() -> None:
    ill = study(0, covid=True, lesion=True)
    assert ill.lesions is not None
    assert ill.lungs is not None
    twin = batches.healthy_twin(batches.whole(ill), np.random.default_rng(0))
    assert twin is not None
    assert twin.covid is False
    assert twin.lesions is not None
    assert not twin.lesions.any()
    before = ill.hounsfield[ill.lesions > 0]
    after = twin.hounsfield[ill.lesions > 0]
    assert abs(before.mean() - LESION_HU) < 20
    assert abs(after.mean() - LUNG_HU) < 20
    assert 15 < after.std() < 45  # texture, not a filled hole
    far = ~np.asarray(counterfactual._grown(ill.lesions > 0, 8))
    assert np.array_equal(twin.hounsfield[far], ill.hounsfield[far].astype(np.float32))


def test_there_is_no_twin_without_a_lesion_or_without_healthy_lung() -> None:
    well = study(1, covid=False, lesion=False)
    assert batches.healthy_twin(batches.whole(well), np.random.default_rng(0)) is None
    ill = batches.whole(study(0, covid=True, lesion=True))
    assert ill.lungs is not None
    drowned = replace(ill, lesions=ill.lungs.astype(np.uint8))
    assert batches.healthy_twin(drowned, np.random.default_rng(0)) is None


def test_a_sham_leaves_class_and_lesions_but_not_its_healthy_places() -> None:
    ill = batches.whole(study(0, covid=True, lesion=True))
    changed = batches.sham(ill, np.random.default_rng(2))
    assert ill.lesions is not None
    assert changed.covid is True
    inner = ill.lesions > 0
    assert np.abs(changed.hounsfield[inner] - ill.hounsfield[inner]).max() < 1e-3
    assert (changed.hounsfield != ill.hounsfield).any()
    assert changed.lesions is ill.lesions


def test_a_transplant_puts_lesions_into_lungs_alone() -> None:
    into, donor = batches.whole(study(5, covid=False, lesion=False)), batches.whole(study(0, covid=True, lesion=True))
    result = batches.transplanted(into, donor)
    assert result.lesions is not None
    assert into.lungs is not None
    assert result.covid is True
    put = result.lesions > 0
    assert put.any()
    assert not (put & ~into.lungs).any()
    assert result.hounsfield[put].mean() > LUNG_HU + 250
    assert np.array_equal(result.hounsfield[~into.lungs], into.hounsfield[~into.lungs])


@pytest.mark.parametrize(
    ("covid", "lesions", "shown"),
    [(True, 200, True), (True, 0, False), (True, 1, None), (False, 0, False), (None, 200, None)],
)
def test_slices_show_covid_only_where_there_is_enough_lesion(
    covid: bool | None, lesions: int, shown: bool | None
) -> None:
    lungs = np.ones((2, 40, 40), dtype=np.bool_)
    labels = np.zeros((2, 40, 40), dtype=np.uint8)
    labels.flat[:lesions] = 1
    assert batches._shown(covid, lungs, labels) is shown


def test_truth_is_unknown_outside_the_imaged_part_and_outside_lesions_for_consolidation() -> None:
    ill = study(0, covid=True, lesion=True)
    assert ill.lesions is not None
    two = ill.lesions.copy()
    two[:, :45] *= 2
    stack = batches.whole(ill)
    valid = stack.valid.copy()
    valid[:, :, :20] = False
    known = Stack(hounsfield=stack.hounsfield, lungs=stack.lungs, lesions=two, valid=valid, covid=True, classes=True)
    batch = batches.collate([known], ["masked"], (100, 128), augmentation.NONE, np.random.default_rng(0))
    lesion, consolidation = batch.lesions[0]
    assert torch.isnan(lesion).any()
    assert set(lesion[~torch.isnan(lesion)].unique().tolist()) == {0.0, 1.0}
    told_apart = ~torch.isnan(consolidation)  # not at a lesion's rim, where pixels are mixed
    assert not (told_apart & (lesion != 1)).any()
    assert told_apart.sum() > 0.5 * (lesion == 1).sum()
    assert set(consolidation[told_apart].tolist()) == {0.0, 1.0}
    assert batch.stacks.shape == (1, 1, 12, 100, 128)
    assert float(batch.stacks.min()) >= 0
    assert float(batch.stacks.max()) <= 1


def test_what_nobody_drew_is_nan() -> None:
    ill = batches.whole(study(0, covid=True, lesion=True))
    blank = Stack(hounsfield=ill.hounsfield, lungs=None, lesions=None, valid=ill.valid, covid=None, classes=False)
    batch = batches.collate([blank], ["unmasked"], (64, 64), augmentation.Augmentation(), np.random.default_rng(0))
    assert torch.isnan(batch.lesions).all()
    assert torch.isnan(batch.covid).all()


def test_single_slices_of_a_source_make_a_stack_in_the_middle_of_the_largest() -> None:
    studies = []
    for number, side in enumerate((30, 50, 40)):
        studies.append(
            training_cases.TrainingStudy(
                name=f"slice_{number}",
                card=training_cases.card("slices", f"patient {number}", covid=True),
                hounsfield=np.full((1, side, side), -500 + number, dtype=np.int16),
                lungs=None,
                lesions=np.ones((1, side, side), dtype=np.uint8),
                valid=None,
            )
        )
    stack = batches.stack_of({"slices": studies}, "slices", 3, np.random.default_rng(0))
    assert stack.hounsfield.shape == (3, 50, 50)
    assert sorted(stack.valid.sum(axis=(1, 2)).tolist()) == [900, 1600, 2500]
    assert (stack.hounsfield[~stack.valid] == augmentation.AIR_HU).all()
    assert stack.covid is True


def test_what_lies_outside_an_image_is_not_lung() -> None:
    """Also where a crop ends inside a lung: the air beside a patient in a wide field of view is never one."""
    cut = study(0, covid=True, lesion=True)
    assert cut.lungs is not None
    valid = np.zeros(cut.lungs.shape, dtype=np.bool_)
    valid[:, :, :80] = True
    small = training_cases.TrainingStudy(
        name="cut", card=cut.card, hounsfield=cut.hounsfield, lungs=cut.lungs, lesions=None, valid=valid
    )
    images, truth = batches.lung_batch(
        {"one": [small]}, {"one": 1.0}, 6, (140, 200), augmentation.NONE, np.random.default_rng(0)
    )
    assert images.shape == truth.shape == (6, 1, 140, 200)
    assert set(truth.unique().tolist()) == {0.0, 1.0}
    assert (truth[images == 0] == 0).float().mean() > 0.99  # filler at the window's lower end
    assert truth.mean() > 0.05
