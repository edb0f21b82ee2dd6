"""The blocks that the networks are put together from. Shapes: N studies, D slices, C channels, H rows, W columns.

The layers are those of the public implementation of Goncharov et al. 2021 (residual blocks with pre-activation, max
pooling over a pyramid of boxes), so that weights trained with it can be taken over; see `tools/import_weights.py`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence


class PreActivation(nn.Module):
    """Batch normalisation, ReLU, convolution: [N, in, H, W] -> [N, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in, H, W] -> [N, out, H, W]."""
        result: torch.Tensor = self.conv(functional.relu(self.norm(x)))
        return result


class ResidualBlock(nn.Module):
    """Two pre-activated 3 x 3 convolutions beside a shortcut: [N, in, H, W] -> [N, out, H, W].

    The shortcut is the input itself, or a 1 x 1 convolution where the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = PreActivation(in_channels, out_channels)
        self.second = PreActivation(out_channels, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in, H, W] -> [N, out, H, W]."""
        result: torch.Tensor = self.second(self.first(x)) + self.shortcut(x)
        return result


def residual_chain(channels: Sequence[int]) -> nn.Sequential:
    """Residual blocks from each number of channels to the next: (8, 16, 16) is a block 8 -> 16 and one 16 -> 16."""
    if len(channels) < 2:
        raise ValueError(f"a chain needs the channels before and after at least one block, not {tuple(channels)}")
    return nn.Sequential(*(ResidualBlock(before, after) for before, after in pairwise(channels)))


class SliceWise(nn.Module):
    """Applies a 2D network to every slice of a stack: [N, C, D, H, W] -> [N, C', D, H', W'] (section 2.2.1)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """[N, C, D, H, W] -> [N, C', D, H', W']."""
        studies, _, slices = stack.shape[:3]
        flat = stack.transpose(1, 2).flatten(0, 1)  # [N * D, C, H, W]
        result: torch.Tensor = self.network(flat)
        return result.reshape(studies, slices, *result.shape[1:]).transpose(1, 2)


class PyramidPooling(nn.Module):
    """Maxima over ever smaller boxes: [N, C, D, H, W] -> [N, C * (1 + 8 + 64 + ...)] (Goncharov 2021, figure 2).

    Level k cuts each axis into 2**k boxes that may overlap. Since a maximum over a box is a maximum over slices of
    maxima within the slice, `within_slices` and `over_slices` can be applied one after the other: a long series need
    not keep its feature map.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    @staticmethod
    def features(channels: int, levels: int) -> int:
        """How many numbers come out: 585 a channel with four levels."""
        boxes: int = sum(8**level for level in range(levels))
        return channels * boxes

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        """[N, C, D, H, W] -> [N, C * (1 + 8 + 64 + ...)]."""
        studies, _, slices = stack.shape[:3]
        flat = stack.transpose(1, 2).flatten(0, 1)  # [N * D, C, H, W]
        pooled = self.within_slices(flat)  # [N * D, C, boxes]
        return self.over_slices(pooled.reshape(studies, slices, *pooled.shape[1:]))

    def within_slices(self, features: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] -> [n, C, 1 + 4 + 16 + ...]: the maxima within each slice, level after level."""
        features = self._long_enough(self._long_enough(features, 2), 3)
        pooled = []
        for level in range(self.levels):
            (kernel_y, stride_y), (kernel_x, stride_x) = (box_and_stride(size, 2**level) for size in features.shape[2:])
            maxima = functional.max_pool2d(features, (kernel_y, kernel_x), (stride_y, stride_x))
            pooled.append(maxima.flatten(2))
        return torch.cat(pooled, dim=2)

    def over_slices(self, pooled: torch.Tensor) -> torch.Tensor:
        """[N, D, C, 1 + 4 + 16 + ...] -> [N, C * (1 + 8 + 64 + ...)]: the maxima along each stack."""
        pooled = self._long_enough(pooled, 1)
        result = []
        first = 0
        for level in range(self.levels):
            boxes = 4**level
            kernel, stride = box_and_stride(pooled.shape[1], 2**level)
            part = pooled[..., first : first + boxes].permute(0, 2, 3, 1).flatten(1, 2)  # [N, C * boxes, D]
            maxima = functional.max_pool1d(part, kernel, stride)
            maxima = maxima.reshape(len(pooled), -1, boxes, 2**level)  # [N, C, boxes, 2**level]
            result.append(maxima.transpose(2, 3).flatten(1))
            first += boxes
        return torch.cat(result, dim=1)

    def _long_enough(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Repeat each place of an axis that is shorter than the finest level has boxes."""
        least = 2 ** (self.levels - 1)
        if x.shape[axis] >= least:
            return x
        return x.repeat_interleave(-(-least // x.shape[axis]), dim=axis)


def box_and_stride(size: int, count: int) -> tuple[int, int]:
    """Length and stride of `count` boxes that cover an axis of `size` places."""
    stride = size // count
    return size - (count - 1) * stride, stride
