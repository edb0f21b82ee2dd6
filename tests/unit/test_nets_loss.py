from __future__ import annotations

import math

import pytest
import torch

from nets.multitask import (
    CLASSIFICATION_WEIGHT,
    CONSOLIDATION_WEIGHT,
    Logits,
    MultitaskNetwork,
    multitask_loss,
    soft_dice_loss,
)
from nets.unet2d import Level, Levels

SMALL = Levels(levels=(Level(down=(8, 8), up=(8, 8)), Level(down=(8, 16), up=(16, 8))), bottom=(16, 16))
NAN = float("nan")
LN3 = math.log(3)  # the logit of 3/4


def pixels(*channels: list[float]) -> torch.Tensor:
    """One stack of one slice of one row: [1, classes, 1, 1, W]."""
    return torch.tensor(channels, dtype=torch.float64)[None, :, None, None, :]


def test_the_loss_is_what_a_hand_computes() -> None:
    logits = Logits(pixels([LN3, -LN3, 0.0, 0.0], [LN3, 0.0, LN3, 0.0]), torch.tensor([LN3, -LN3], dtype=torch.float64))
    lesions = pixels([1, 0, 1, NAN], [1, NAN, 0, NAN])
    loss = multitask_loss(logits, lesions, torch.tensor([1.0, 1.0], dtype=torch.float64))
    assert loss.lesions.item() == pytest.approx((2 * math.log(4 / 3) + math.log(2)) / 3)
    assert loss.consolidation.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert loss.covid.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert loss.dice.item() == 0
    parts = loss.lesions + CONSOLIDATION_WEIGHT * loss.consolidation + CLASSIFICATION_WEIGHT * loss.covid
    assert loss.total.item() == pytest.approx(parts.item())


def test_the_identification_counts_a_tenth_as_in_the_paper() -> None:
    assert CLASSIFICATION_WEIGHT == 0.1
    logits = Logits(pixels([0.0], [0.0]), torch.zeros(1, dtype=torch.float64))
    unknown = pixels([NAN], [NAN])
    loss = multitask_loss(logits, unknown, torch.ones(1, dtype=torch.float64))
    assert loss.total.item() == pytest.approx(0.1 * math.log(2))
    doubled = multitask_loss(logits, unknown, torch.ones(1, dtype=torch.float64), classification_weight=0.2)
    assert doubled.total.item() == pytest.approx(0.2 * math.log(2))


def test_soft_dice_is_what_a_hand_computes_and_none_where_nothing_is_to_be_found() -> None:
    loss = soft_dice_loss(pixels([LN3, LN3, LN3]), pixels([1, 0, NAN]))
    assert loss.item() == pytest.approx(1 - (2 * 0.75 + 1) / (1.5 + 1 + 1))
    assert soft_dice_loss(pixels([-60.0, -60.0]), pixels([0, 0])).item() == pytest.approx(0)
    assert soft_dice_loss(pixels([60.0, 60.0]), pixels([1, 1])).item() == pytest.approx(0)


def test_the_weight_of_the_dice_loss_enters_the_sum() -> None:
    logits = Logits(pixels([LN3, 0.0]), torch.zeros(1, dtype=torch.float64))
    lesions, covid = pixels([1, 0]), torch.zeros(1, dtype=torch.float64)
    without = multitask_loss(logits, lesions, covid)
    weighted = multitask_loss(logits, lesions, covid, dice_weight=0.5)
    assert weighted.dice > 0
    assert weighted.total.item() == pytest.approx((without.total + 0.5 * weighted.dice).item())


@pytest.mark.parametrize("dice_weight", [0.0, 0.7])
def test_what_nobody_knows_changes_neither_loss_nor_gradient(dice_weight: float) -> None:
    lesions = pixels([1, NAN, 0], [NAN, NAN, 1])
    covid = torch.tensor([NAN], dtype=torch.float64)
    results = []
    for unknown in (0.0, 30.0):
        mask = pixels([0.3, unknown, -0.2], [unknown, unknown, 0.1]).requires_grad_()
        study = torch.tensor([unknown], dtype=torch.float64, requires_grad=True)
        loss = multitask_loss(Logits(mask, study), lesions, covid, dice_weight=dice_weight)
        loss.total.backward()
        assert mask.grad is not None
        assert study.grad is not None
        assert mask.grad.isfinite().all()
        assert (mask.grad[torch.isnan(lesions)] == 0).all()
        assert (mask.grad[~torch.isnan(lesions)] != 0).all()
        assert study.grad.tolist() == [0]
        results.append((loss.total.item(), mask.grad[~torch.isnan(lesions)].tolist()))
    assert results[0] == results[1]


def test_nothing_known_at_all_is_a_loss_of_zero_that_can_be_stepped_on() -> None:
    mask = pixels([0.5, 2.0], [0.5, 2.0]).requires_grad_()
    study = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss = multitask_loss(Logits(mask, study), torch.full_like(mask, NAN), torch.full((1,), NAN, dtype=torch.float64))
    loss.total.backward()
    assert loss.total.item() == 0
    assert mask.grad is not None
    assert (mask.grad == 0).all()


def test_a_head_of_one_class_has_no_consolidation_loss() -> None:
    logits = Logits(pixels([0.0]), torch.zeros(1, dtype=torch.float64))
    assert multitask_loss(logits, pixels([1], [1]), torch.zeros(1, dtype=torch.float64)).consolidation == 0


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.randn((2, 2, 2, 3, 2), generator=generator, dtype=torch.float64, requires_grad=True)
    study = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)
    lesions = torch.randint(0, 2, mask.shape, generator=generator).double()
    lesions[torch.rand(mask.shape, generator=generator) < 0.3] = NAN
    covid = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def total(mask: torch.Tensor, study: torch.Tensor) -> torch.Tensor:
        return multitask_loss(Logits(mask, study), lesions, covid, dice_weight=0.5).total

    assert torch.autograd.gradcheck(total, (mask, study))


def test_a_batch_can_be_learned_by_heart() -> None:
    torch.manual_seed(0)
    network = MultitaskNetwork(SMALL, hidden=16, dropout=0.0)
    stacks = 0.1 * torch.rand(2, 1, 8, 24, 24)
    lesions = torch.zeros(2, 2, 8, 24, 24)
    lesions[0, 0, 2:6, 6:16, 8:20] = 1
    lesions[0, 1] = NAN
    lesions[0, 1, 2:6, 6:16, 8:20] = 0
    lesions[0, 1, 2:6, 10:16, 8:20] = 1
    lesions[1, 1] = NAN
    stacks[:, 0] += 0.4 * lesions[:, 0] + 0.4 * torch.nan_to_num(lesions[:, 1])
    covid = torch.tensor([1.0, 0.0])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        loss = multitask_loss(network(stacks), lesions, covid)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss)
    first, last = losses[0], losses[-1]
    assert last.lesions < first.lesions / 10
    assert last.consolidation < first.consolidation / 5
    assert last.covid < first.covid / 10
