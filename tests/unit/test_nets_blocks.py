from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from nets.blocks import PreActivation, PyramidPooling, ResidualBlock, SliceWise, residual_chain
from tests.public_networks import randomise


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------- residual blocks


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 31)])
def test_blocks_keep_the_size_of_the_slice(size: tuple[int, int]) -> None:
    assert PreActivation(3, 5, kernel_size=1)(noise(2, 3, *size)).shape == (2, 5, *size)
    assert ResidualBlock(3, 5)(noise(2, 3, *size)).shape == (2, 5, *size)
    assert residual_chain((3, 4, 4, 6))(noise(2, 3, *size)).shape == (2, 6, *size)


def test_a_block_whose_convolutions_are_zero_passes_its_input_through() -> None:
    block = ResidualBlock(4, 4)
    nn.init.zeros_(block.second.conv.weight)
    x = noise(2, 4, 6, 5)
    assert torch.equal(block(x), x)


def test_a_block_that_changes_the_channels_has_a_shortcut_of_one_pixel() -> None:
    block = ResidualBlock(2, 3)
    nn.init.zeros_(block.second.conv.weight)
    x = noise(1, 2, 4, 4)
    expected = torch.einsum("oi,nihw->nohw", block.shortcut.weight[:, :, 0, 0], x)
    torch.testing.assert_close(block(x), expected)


def test_activation_comes_before_the_convolution() -> None:
    layer = PreActivation(1, 1, kernel_size=1).eval()
    nn.init.constant_(layer.conv.weight, -2.0)
    x = torch.tensor([-3.0, 0.0, 4.0]).reshape(1, 1, 1, 3)
    assert layer(x).flatten().tolist() == pytest.approx([0.0, 0.0, -8.0], abs=1e-3)


def test_a_chain_of_one_number_is_refused() -> None:
    with pytest.raises(ValueError, match="before and after at least one block"):
        residual_chain((8,))


# ---------------------------------------------------------------------- slice by slice


def test_slice_wise_is_a_loop_over_the_slices() -> None:
    network = randomise(residual_chain((2, 3, 4)), seed=1)
    stack = noise(2, 2, 5, 9, 7)
    result = SliceWise(network)(stack)
    assert result.shape == (2, 4, 5, 9, 7)
    for study in range(2):
        for number in range(5):
            alone = network(stack[study : study + 1, :, number])
            torch.testing.assert_close(result[study : study + 1, :, number], alone, rtol=0, atol=1e-5)


def test_slice_wise_may_change_the_size_of_the_slices() -> None:
    assert SliceWise(nn.MaxPool2d(2))(noise(1, 2, 3, 8, 6)).shape == (1, 2, 3, 4, 3)


# ---------------------------------------------------------------------- the pyramid


def direct(stack: npt.NDArray[np.float32], levels: int) -> list[float]:
    """[C, D, H, W] -> the maxima, box for box: level, channel, then depth, row and column of the box."""
    result = []
    for level in range(levels):
        count = 2**level
        strides = [size // count for size in stack.shape[1:]]
        lengths = [size - (count - 1) * stride for size, stride in zip(stack.shape[1:], strides, strict=True)]
        for channel in stack:
            for z in range(count):
                for y in range(count):
                    for x in range(count):
                        starts = [box * stride for box, stride in zip((z, y, x), strides, strict=True)]
                        box = tuple(slice(at, at + length) for at, length in zip(starts, lengths, strict=True))
                        result.append(float(channel[box].max()))
    return result


@pytest.mark.parametrize("shape", [(8, 8, 8), (13, 17, 11), (8, 30, 23), (31, 9, 15)])
def test_the_pyramid_holds_the_maxima_of_its_boxes(shape: tuple[int, int, int]) -> None:
    stacks = noise(2, 3, *shape)
    pooled = PyramidPooling(4)(stacks)
    assert pooled.shape == (2, PyramidPooling.features(3, 4)) == (2, 3 * 585)
    for study in range(2):
        assert pooled[study].tolist() == direct(stacks[study].numpy(), 4)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_pyramid_has_as_many_levels_as_asked_for(levels: int) -> None:
    stack = noise(1, 2, 9, 10, 11)
    assert PyramidPooling(levels)(stack)[0].tolist() == direct(stack[0].numpy(), levels)


def test_slices_can_be_pooled_in_any_portions_before_the_stack() -> None:
    pooling = PyramidPooling(4)
    stack = noise(1, 3, 19, 21, 14)
    flat = stack[0].transpose(0, 1)  # [D, C, H, W]
    portions = [pooling.within_slices(part) for part in flat.split((1, 7, 11))]
    assert portions[0].shape == (1, 3, 1 + 4 + 16 + 64)
    assert torch.equal(pooling.over_slices(torch.cat(portions)[None]), pooling(stack))


@pytest.mark.parametrize("shape", [(1, 20, 20), (3, 20, 20), (7, 9, 10), (8, 5, 3), (2, 1, 1)])
def test_an_axis_with_fewer_places_than_boxes_repeats_its_places(shape: tuple[int, int, int]) -> None:
    stack = noise(1, 2, *shape)
    longer = stack[0].numpy()
    for axis, size in enumerate(shape, start=1):
        if size < 8:
            longer = longer.repeat(-(-8 // size), axis=axis)
    assert PyramidPooling(4)(stack)[0].tolist() == direct(longer, 4)


def test_gradients_reach_exactly_the_places_that_are_maxima() -> None:
    stack = noise(1, 1, 8, 8, 8).requires_grad_()
    PyramidPooling(4)(stack).sum().backward()
    assert stack.grad is not None
    assert stack.grad.sum() == 585  # every maximum passes one on
    assert (stack.grad >= 1).all()  # at the finest level each voxel is its own box
    assert stack.grad.flatten()[stack.argmax()] == 4  # the largest of all is one at each level
