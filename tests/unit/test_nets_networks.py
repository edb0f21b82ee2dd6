from __future__ import annotations

import pytest
import torch
from torch import nn

from nets.multitask import MULTITASK, PUBLIC_MULTITASK, MultitaskNetwork
from nets.unet2d import LUNGS, PUBLIC_LUNGS, Level, Levels, LungNetwork, ResidualUNet2d
from tests.public_networks import randomise

SMALL = Levels(levels=(Level(down=(4, 4), up=(4, 4)), Level(down=(4, 8), up=(8, 4))), bottom=(8, 12, 8))
FIRST = Level(down=(4, 4), up=(4, 4))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# ---------------------------------------------------------------------- tables of levels


@pytest.mark.parametrize("levels", [PUBLIC_LUNGS, LUNGS, PUBLIC_MULTITASK, MULTITASK, SMALL])
def test_levels_come_back_from_their_table(levels: Levels) -> None:
    assert Levels.of(**levels.table()) == levels


@pytest.mark.parametrize(
    ("levels", "bottom", "words"),
    [
        ((FIRST, Level(down=(8, 8), up=(8, 4))), (8, 8), "levels 1 and 2 do not fit"),
        ((FIRST, Level(down=(4, 8), up=(8, 8))), (8, 8), "levels 1 and 2 do not fit"),
        ((FIRST,), (8, 4), "last level and the bottom do not fit"),
        ((FIRST,), (4, 8), "last level and the bottom do not fit"),
        ((FIRST, Level(down=(4, 8), up=(6, 4))), (8, 6), "same channels where they are added"),
    ],
)
def test_a_table_whose_channels_do_not_meet_is_refused(
    levels: tuple[Level, ...], bottom: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Levels(levels=levels, bottom=bottom)


def test_the_public_networks_have_as_many_parameters_as_their_comments_say() -> None:
    lungs = count(LungNetwork(PUBLIC_LUNGS))
    multitask = MultitaskNetwork(PUBLIC_MULTITASK, lesion_classes=1)
    assert round(lungs / 1e6, 1) == 10.6
    assert round(count(multitask) / 1e6, 1) == 15.4
    assert count(multitask.identification) == 585 * 8 * 1024 + 1024 + 1024
    assert round(count(multitask.identification) / 1e6, 1) == 4.8


def test_a_small_network_has_the_parameters_that_its_table_gives_by_hand() -> None:
    def block(before: int, after: int) -> int:
        shortcut = before * after if before != after else 0
        return 2 * before + 9 * before * after + 2 * after + 9 * after * after + shortcut

    by_hand = 9 * 4 + 4  # stem
    by_hand += block(4, 4) + block(4, 8)  # down
    by_hand += block(8, 12) + block(12, 8)  # bottom
    by_hand += block(8, 4) + block(4, 4)  # up
    assert count(ResidualUNet2d(SMALL)) == by_hand
    assert count(LungNetwork(SMALL)) == by_hand + 2 * 4 + 4


# ---------------------------------------------------------------------- the U-Net


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 3), (1, 1)])
def test_slices_of_any_size_keep_it(size: tuple[int, int]) -> None:
    network = LungNetwork(LUNGS).eval()
    with torch.no_grad():
        assert network(noise(2, 1, *size)).shape == (2, 1, *size)


def test_a_pixel_sees_far_beyond_the_reach_of_its_level() -> None:
    network = randomise(LungNetwork(LUNGS), seed=1)
    slices = noise(1, 1, 128, 128).requires_grad_()
    network(slices)[0, 0, 64, 64].backward()
    assert slices.grad is not None
    rows = slices.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert rows[-1] - rows[0] > 100


# ---------------------------------------------------------------------- the multitask network


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("shape", [(8, 32, 32), (3, 21, 35), (11, 17, 9)])
def test_stacks_of_any_size_get_logits_of_their_size_and_one_for_the_study(
    shape: tuple[int, int, int], classes: int
) -> None:
    network = MultitaskNetwork(SMALL, lesion_classes=classes, hidden=8).eval()
    with torch.no_grad():
        logits = network(noise(2, 1, *shape))
    assert logits.lesions.shape == (2, classes, *shape)
    assert logits.covid.shape == (2,)


def test_portions_of_slices_give_what_the_whole_stack_gives() -> None:
    network = randomise(MultitaskNetwork(SMALL, hidden=16), seed=2)
    stack = noise(1, 1, 13, 30, 22)
    with torch.no_grad():
        whole = network(stack)
        portions = [network.slices(part) for part in stack[0].transpose(0, 1).split(4)]
        lesions = torch.cat([lesions for lesions, _ in portions])  # [D, classes, H, W]
        pooled = torch.cat([maxima for _, maxima in portions])  # [D, C, boxes]
        covid = network.identify(network.pooling.over_slices(pooled[None]))
    torch.testing.assert_close(lesions.transpose(0, 1)[None], whole.lesions, rtol=0, atol=1e-5)
    torch.testing.assert_close(covid, whole.covid, rtol=0, atol=1e-5)


def test_studies_of_a_batch_do_not_see_each_other() -> None:
    network = randomise(MultitaskNetwork(SMALL, hidden=16), seed=2)
    stacks = noise(3, 1, 9, 20, 18)
    with torch.no_grad():
        together = network(stacks)
        alone = network(stacks[1:2])
    torch.testing.assert_close(together.covid[1:2], alone.covid, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.lesions[1:2], alone.lesions, rtol=0, atol=1e-5)


def test_lesions_are_found_slice_by_slice_and_the_study_is_judged_as_a_stack() -> None:
    network = randomise(MultitaskNetwork(SMALL, hidden=16), seed=2)
    stack = noise(1, 1, 9, 20, 18)
    other = stack.clone()
    other[:, :, 4] = 1 - other[:, :, 4]
    with torch.no_grad():
        before, after = network(stack), network(other)
    changed = (before.lesions - after.lesions).abs().amax(dim=(0, 1, 3, 4)) > 1e-4
    assert changed.nonzero().flatten().tolist() == [4]
    assert before.covid != after.covid
