"""Networks whose weights are set by hand, so that what they find is known: bands of attenuation.

The lung network takes -930 to 0 HU for lung, the multitask network -650 to 0 HU for lesion and -250 to 0 HU for
consolidation; the probability follows the densest pixel of what is not tissue. Every layer takes part: the residual
blocks carry small random weights, so that a wrong pooling or precision shows in the logits. A border between air and
tissue lies in both bands where resampling blurs it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from nets import weights
from nets.multitask import MultitaskNetwork
from nets.unet2d import Level, Levels, LungNetwork

LEVELS = Levels(
    levels=(Level(down=(8, 8), up=(8, 8)), Level(down=(8, 16), up=(16, 8)), Level(down=(16, 16), up=(16, 16))),
    bottom=(16, 16, 16),
)
PYRAMID_LEVELS, HIDDEN = 3, 16
STEEP = 60.0  # logits a unit of the window, 1300 HU
CARD = {
    "version": "test",
    "data": ("none: set by hand",),
    "licence": "none",
    "split": "none",
    "training": "none",
    "metrics": {},
    "not_for": ("anything but tests",),
    "trust": "Not at all.",
}


def write(folder: Path, *, lungs: Levels = LEVELS, multitask: Levels = LEVELS) -> Path:
    """Weights and cards of both networks into a folder."""
    torch.manual_seed(0)
    card = weights.Card(architecture=weights.LungArchitecture(levels=weights.LevelTable.of(lungs)), **CARD)
    weights.save(folder, "lungs", lung_network(lungs), card, half=False)
    architecture = weights.MultitaskArchitecture(
        levels=weights.LevelTable.of(multitask), lesion_classes=2, pooling_levels=PYRAMID_LEVELS, hidden=HIDDEN
    )
    card = weights.Card(architecture=architecture, **CARD)
    weights.save(folder, "multitask", multitask_network(multitask), card, half=False)
    return folder


def lung_network(levels: Levels = LEVELS) -> LungNetwork:
    """Lung is -930 to 0 HU."""
    network = LungNetwork(levels)
    _see(network.backbone)
    _band(network.head.norm, network.head.conv, 0, -930, 0)
    return network.eval()


def multitask_network(levels: Levels = LEVELS) -> MultitaskNetwork:
    """Lesion is -650 to 0 HU, consolidation -250 to 0 HU."""
    network = MultitaskNetwork(levels, lesion_classes=2, pooling_levels=PYRAMID_LEVELS, hidden=HIDDEN)
    _see(network.backbone)
    block, head = network.segmentation[0], network.segmentation[1]
    _still(block)
    _band(head.norm, head.conv, 0, -650, 0)
    _band(head.norm, head.conv, 1, -250, 0)
    return network.eval()


def _see(backbone: nn.Module) -> None:
    """The feature map's first six channels are the image, and a little of everything else."""
    with torch.no_grad():
        backbone.stem.weight.zero_()
        backbone.stem.weight[:, 0, 1, 1] = 1.0
        backbone.stem.bias.zero_()
        for chain in (*backbone.down, backbone.bottom, *backbone.up):
            for block in chain:
                _still(block)
        # what comes up from below is cut down, so that the image of the full size rules
        backbone.up[1][-1].shortcut.weight.mul_(0.02)


def _still(block: nn.Module) -> None:
    """A block that adds a hundredth of what it would."""
    with torch.no_grad():
        block.second.conv.weight.mul_(0.01)


def _band(norm: nn.BatchNorm2d, conv: nn.Conv2d, number: int, low_hu: int, high_hu: int) -> None:
    """Logit `number` rises above 0 at `low_hu` and falls below it at `high_hu`, from channels of equal images."""
    low, high = ((hu + 1000) / 1300 for hu in (low_hu, high_hu))
    first = 3 * number
    with torch.no_grad():
        norm.weight[first : first + 3] = torch.tensor([1.0, 1.0, 0.0])
        norm.bias[first : first + 3] = torch.tensor([0.0, -(low + high) / 2, 1.0])
        norm.running_mean[first : first + 3] = 0.0
        norm.running_var[first : first + 3] = 1.0 - norm.eps
        conv.weight[number] = 0.0
        conv.weight[number, first : first + 3, 0, 0] = STEEP * torch.tensor([1.0, -2.0, -low])
