"""The multitask network of Goncharov et al. 2021: one backbone, a segmentation head, an identification head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from nets.blocks import PreActivation, PyramidPooling, ResidualBlock, SliceWise
from nets.unet2d import Level, Levels, ResidualUNet2d

CLASSIFICATION_WEIGHT = 0.1  # of the identification loss (section 2.2.1)
CONSOLIDATION_WEIGHT = 0.1  # few pixels carry the label, and the whole lesion matters more

# The multitask network of the public implementation: 15.4 M parameters, of which the identification head has 4.8 M.
PUBLIC_MULTITASK = Levels(
    levels=(
        Level(down=(8, 8, 8), up=(8, 8)),
        Level(down=(8, 16, 16), up=(16, 16, 8)),
        Level(down=(16, 32, 32), up=(32, 32, 16)),
        Level(down=(32, 64, 64), up=(64, 64, 32)),
        Level(down=(64, 128, 128), up=(128, 128, 64)),
        Level(down=(128, 256, 256), up=(256, 256, 128)),
    ),
    bottom=(256, 512, 256),
)

# The network that ships: wider where the slices are large, since ground glass is told by its texture.
MULTITASK = Levels(
    levels=(
        Level(down=(16, 16), up=(16, 16)),
        Level(down=(16, 32, 32), up=(32, 32, 16)),
        Level(down=(32, 64, 64), up=(64, 64, 32)),
        Level(down=(64, 128, 128), up=(128, 64)),
    ),
    bottom=(128, 256, 128),
)


class Logits(NamedTuple):
    """What the network says of N stacks of D slices."""

    lesions: torch.Tensor  # [N, 1 or 2, D, H, W]: lesion, and consolidation where there is one
    covid: torch.Tensor  # [N]


class MultitaskNetwork(nn.Module):
    """[N, 1, D, H, W] -> Logits; the backbone and the segmentation head see slices, the identification head stacks.

    Args:
        levels: of the backbone.
        lesion_classes: 1 for lesions alone, 2 where the head also tells consolidation from ground glass.
        pooling_levels: of the pyramid; 4 in the paper's implementation.
        hidden: units between the pyramid and the probability; 1024 in the paper's implementation.
        dropout: before each of the two fully connected layers.
    """

    def __init__(
        self,
        levels: Levels,
        *,
        lesion_classes: int = 2,
        pooling_levels: int = 4,
        hidden: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels = levels.out_channels
        self.backbone = ResidualUNet2d(levels)
        self.segmentation = nn.Sequential(
            ResidualBlock(channels, channels), PreActivation(channels, lesion_classes, kernel_size=1)
        )
        self.pooling = PyramidPooling(pooling_levels)
        self.identification = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(PyramidPooling.features(channels, pooling_levels), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1, bias=False),
        )

    def forward(self, stacks: torch.Tensor) -> Logits:
        """[N, 1, D, H, W] in 0..1 -> Logits."""
        features = SliceWise(self.backbone)(stacks)  # [N, C, D, H, W]
        lesions = SliceWise(self.segmentation)(features)  # [N, classes, D, H, W]
        return Logits(lesions, self.identify(self.pooling(features)))

    def slices(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, 1, H, W] -> lesion logits [n, classes, H, W], maxima [n, C, 1 + 4 + 16 + ...] for the pyramid."""
        features = self.backbone(slices)  # [n, C, H, W]
        return self.segmentation(features), self.pooling.within_slices(features)

    def identify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pyramid features [N, C * (1 + 8 + 64 + ...)] -> logits [N]."""
        logits: torch.Tensor = self.identification(pooled)
        return logits[:, 0]


class Losses(NamedTuple):
    """The parts of the loss and their weighted sum, each a scalar."""

    total: torch.Tensor
    lesions: torch.Tensor
    dice: torch.Tensor  # 0 where it has no weight
    consolidation: torch.Tensor
    covid: torch.Tensor


def multitask_loss(
    logits: Logits,
    lesions: torch.Tensor,
    covid: torch.Tensor,
    *,
    classification_weight: float = CLASSIFICATION_WEIGHT,
    dice_weight: float = 0.0,
) -> Losses:
    """Binary cross-entropies, each where its truth is known (Goncharov 2021, section 2.2.1).

    Args:
        logits: of N stacks.
        lesions: [N, 2, D, H, W]; channel 0 whether a pixel is lesion, channel 1 whether it is consolidation (known
            inside lesions alone); NaN where nobody knows.
        covid: [N], 1 or 0; NaN where nobody knows.
        classification_weight: of the identification loss.
        dice_weight: of a soft Dice loss over the lesions of the batch; 0 in the paper.
    """
    lesion = _known_cross_entropy(logits.lesions[:, 0], lesions[:, 0])
    consolidation = lesion.new_zeros(())
    if logits.lesions.shape[1] > 1:
        consolidation = _known_cross_entropy(logits.lesions[:, 1], lesions[:, 1])
    identification = _known_cross_entropy(logits.covid, covid)
    dice = lesion.new_zeros(())
    if dice_weight:
        dice = soft_dice_loss(logits.lesions[:, 0], lesions[:, 0])
    total = lesion + CONSOLIDATION_WEIGHT * consolidation + classification_weight * identification + dice_weight * dice
    return Losses(total, lesion, dice, consolidation, identification)


def soft_dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice over all pixels of the batch whose truth is not NaN; a pixel of each is added, so 0 / 0 is 1."""
    known = ~torch.isnan(truth)
    probabilities, truth = torch.sigmoid(logits) * known, torch.nan_to_num(truth)
    return 1 - (2 * (probabilities * truth).sum() + 1) / (probabilities.sum() + truth.sum() + 1)


def _known_cross_entropy(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy where the truth is not NaN; 0 where it is nowhere known."""
    known = ~torch.isnan(truth)
    each = functional.binary_cross_entropy_with_logits(logits, torch.nan_to_num(truth), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)
