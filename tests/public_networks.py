"""The networks of the paper's public implementation, put together from the layers that it is made of.

The layers come from the package deep-pipe. Of imops, which its import asks for and which is 94 MB of compiled code with
six more packages behind it, they call nothing: a stand-in without any function takes its place, and a call would fail.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional

FOLDER = Path(sys.prefix) / "deep-pipe"  # beside the environment's packages: tools/setup.sh installs it there
LUNGS_TOP = [[8, 8, 8], [8, 8, 8]]
MULTITASK_TOP = [[8, 8, 8], [8, 8]]
BELOW = [
    [[8, 16, 16], [16, 16, 8]],
    [[16, 32, 32], [32, 32, 16]],
    [[32, 64, 64], [64, 64, 32]],
    [[64, 128, 128], [128, 128, 64]],
    [[128, 256, 256], [256, 256, 128]],
    [256, 512, 256],
]


class StandIn(ModuleType):
    """A module whose names can be imported, but not used."""

    __path__ = ()

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: object, **__: object) -> None:
            raise AssertionError(f"{self.__name__}.{name} is called, but is not there")

        return missing


def layers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """dpipe.layers, for as long as the patch lasts; skips where it is not installed."""
    if not FOLDER.is_dir():
        pytest.skip(f"needs deep-pipe: pip install --no-deps --target {FOLDER} deep-pipe==0.5.0")
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("imops", "imops.crop", "imops.measure", "imops.numeric", "imops.pad", "imops.zoom"):
        monkeypatch.setitem(sys.modules, name, StandIn(name))
    import dpipe.layers

    return dpipe.layers


class AlongLastAxis(nn.Module):
    """Their slice-wise application: [N, C, H, W, D] -> [N, C', H', W', D]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, stack: torch.Tensor) -> torch.Tensor:
        flat = self.network(stack.movedim(-1, 1).flatten(0, 1))  # as one batch [N * D, C, H, W], as theirs
        return flat.unflatten(0, (len(stack), stack.shape[-1])).movedim(1, -1)


def backbone(dpipe: ModuleType, top: list[list[int]]) -> list[nn.Module]:
    def merge(left: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return torch.add(*dpipe.interpolate_to_left(left, down, "bilinear"))

    pyramid = dpipe.FPN(
        layer=dpipe.ResBlock2d,
        downsample=nn.MaxPool2d(2, ceil_mode=True),
        upsample=nn.Identity,
        merge=merge,
        structure=[top, *BELOW],
        kernel_size=3,
        padding=1,
    )
    return [nn.Conv2d(1, 8, kernel_size=3, padding=1), pyramid]


def lungs(dpipe: ModuleType) -> nn.Module:
    """[N, 1, H, W] -> logits [N, 1, H, W]."""
    return nn.Sequential(*backbone(dpipe, LUNGS_TOP), dpipe.PreActivation2d(8, 1, kernel_size=1, bias=False))


class Multitask(nn.Module):
    """[N, 1, H, W, D] -> lesion logits [N, 1, H, W, D], logits [N, 1]; every part under several names, as theirs."""

    def __init__(self, dpipe: ModuleType) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*backbone(dpipe, MULTITASK_TOP))
        self.sgm_head = nn.Sequential(
            dpipe.ResBlock2d(8, 8, kernel_size=3, padding=1),
            dpipe.PreActivation2d(8, 1, kernel_size=1, bias=False),
        )
        self.cls_head = nn.Sequential(
            dpipe.PyramidPooling(partial(functional.max_pool3d, ceil_mode=True), levels=4),
            nn.Dropout(),
            nn.Linear(dpipe.PyramidPooling.get_multiplier(levels=4, ndim=3) * 8, 1024),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(1024, 1, bias=False),
        )
        self.model = nn.Sequential(
            AlongLastAxis(self.backbone), dpipe.Split(AlongLastAxis(self.sgm_head), self.cls_head)
        )

    def forward(self, stack: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model(stack)


def randomise(network: nn.Module, seed: int, gain: float = 0.7) -> nn.Module:
    """Weights and batch statistics far from those that torch begins with, for logits of a trained network's size."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            module.weight.data *= gain
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.3, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.3, generator=generator)
            nn.init.normal_(module.running_mean, std=0.5, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 4.0, generator=generator)
            module.num_batches_tracked.fill_(17)
    return network.eval()
