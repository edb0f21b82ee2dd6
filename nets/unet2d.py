"""The 2D residual U-Net (Goncharov et al. 2021, sections 2.1.1 and 2.2.1; levels as in their public implementation)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from nets.blocks import PreActivation, residual_chain

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Channels along the residual blocks of one level, before the pooling below it and after the merge with it."""

    down: tuple[int, ...]
    up: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """All levels of a U-Net from full size downwards, and the blocks at the bottom."""

    levels: tuple[Level, ...]
    bottom: tuple[int, ...]

    def __post_init__(self) -> None:
        for number, (upper, lower) in enumerate(pairwise(self.levels), start=1):
            if upper.down[-1] != lower.down[0] or lower.up[-1] != upper.up[0]:
                raise ValueError(f"the channels of levels {number} and {number + 1} do not fit: {upper}, {lower}")
        last = self.levels[-1]
        if last.down[-1] != self.bottom[0] or self.bottom[-1] != last.up[0]:
            raise ValueError(f"the channels of the last level and the bottom do not fit: {last}, {self.bottom}")
        if any(level.down[-1] != level.up[0] for level in self.levels):
            raise ValueError("both branches of a level must have the same channels where they are added")

    @property
    def out_channels(self) -> int:
        """Channels of the feature map."""
        return self.levels[0].up[-1]

    @classmethod
    def of(cls, table: Sequence[Sequence[Sequence[int]]], bottom: Sequence[int]) -> Levels:
        """From a table as a model card has it: one pair (down, up) a level."""
        levels = tuple(Level(down=tuple(down), up=tuple(up)) for down, up in table)
        return cls(levels=levels, bottom=tuple(bottom))

    def table(self) -> dict[str, list[object]]:
        """As a model card has it; `of(**table)` gives the levels back."""
        return {"table": [[list(x.down), list(x.up)] for x in self.levels], "bottom": list(self.bottom)}


# The lung network of the public implementation: 10.6 M parameters.
PUBLIC_LUNGS = Levels(
    levels=(
        Level(down=(8, 8, 8), up=(8, 8, 8)),
        Level(down=(8, 16, 16), up=(16, 16, 8)),
        Level(down=(16, 32, 32), up=(32, 32, 16)),
        Level(down=(32, 64, 64), up=(64, 64, 32)),
        Level(down=(64, 128, 128), up=(128, 128, 64)),
        Level(down=(128, 256, 256), up=(256, 256, 128)),
    ),
    bottom=(256, 512, 256),
)

# The lung network that ships: fewer blocks, since lungs are easy and full-size slices are dear.
LUNGS = Levels(
    levels=(
        Level(down=(16, 16), up=(16, 16)),
        Level(down=(16, 16, 32), up=(32, 16)),
        Level(down=(32, 64), up=(64, 32)),
        Level(down=(64, 128), up=(128, 64)),
        Level(down=(128, 128), up=(128, 128)),
    ),
    bottom=(128, 256, 128),
)


class ResidualUNet2d(nn.Module):
    """[N, 1, H, W] -> feature map [N, out_channels, H, W], for slices of any size."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, levels.levels[0].down[0], kernel_size=3, padding=1)
        self.down = nn.ModuleList(residual_chain(level.down) for level in levels.levels)
        self.bottom = residual_chain(levels.bottom)
        self.up = nn.ModuleList(residual_chain(level.up) for level in levels.levels)

    @property
    def step(self) -> int:
        """Pixels: what rows and columns should be multiples of; see `nets.slices.aligned`."""
        step: int = 2 ** len(self.down)
        return step

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """[N, 1, H, W] -> [N, out_channels, H, W]."""
        x = self.stem(slices)
        kept = []
        for chain in self.down:
            x = chain(x)  # [N, C, h, w]
            kept.append(x)
            x = functional.max_pool2d(x, 2, ceil_mode=True)  # [N, C, ceil(h / 2), ceil(w / 2)]
        x = self.bottom(x)
        for chain, left in zip(reversed(self.up), reversed(kept), strict=True):
            x = functional.interpolate(x, size=left.shape[2:], mode="bilinear", align_corners=False)
            x = chain(left + x)
        features: torch.Tensor = x
        return features


class LungNetwork(nn.Module):
    """The U-Net with one logit a pixel: [N, 1, H, W] -> [N, 1, H, W], above 0 is lung at a threshold of 0.5."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.backbone = ResidualUNet2d(levels)
        self.head = PreActivation(levels.out_channels, 1, kernel_size=1)

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """[N, 1, H, W] in 0..1 -> logits [N, 1, H, W]."""
        logits: torch.Tensor = self.head(self.backbone(slices))
        return logits
