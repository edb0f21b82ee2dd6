"""Takes over weights that were trained with the public implementation of Goncharov et al. 2021.

    python tools/import_weights.py checkpoints/best/model.pth --out weights

The input is the state dict that training there leaves behind, of the lung network or of the multitask network; which
of the two it is, its names tell. The output is `lungs` or `multitask`, .safetensors and .json, as `nets.weights` reads
them: the same logits for the same slices.

Stacks are [N, C, H, W, D] there and [N, C, D, H, W] here, and what the public scripts prepare runs from the head to
the feet, while stacks here run from the feet to the head. Both are undone in the columns of the first fully connected
layer, which are the boxes of the pyramid. Rows and columns of a slice are the same as here.
"""

from __future__ import annotations

import pickle
import re
from enum import StrEnum
from pathlib import Path  # noqa: TC003  # typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from nets import weights
from nets.multitask import PUBLIC_MULTITASK
from nets.unet2d import PUBLIC_LUNGS
from nets.weights import Card, LevelTable, LungArchitecture, MultitaskArchitecture, Thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping

PYRAMID_LEVELS = 4
LUNGS_THRESHOLD, LESION_THRESHOLD = 0.5, 0.2  # of the public implementation
FIRST_CONNECTED = "identification.1.weight"

# The multitask network there keeps each part under its own name and once more inside `model`.
COPIES = (
    (re.compile(r"^model\.0\.network\."), "backbone."),
    (re.compile(r"^model\.1\.paths\.0\.network\."), "sgm_head."),
    (re.compile(r"^model\.1\.paths\.1\."), "cls_head."),
)
BACKBONE = (
    (r"0\.", "stem."),
    (r"1\.down_path\.", "down."),
    (r"1\.bridge\.", "bottom."),
    (r"1\.up_path\.", "up."),
)
PARTS = {
    "lungs": (*((f"^{theirs}", f"backbone.{ours}") for theirs, ours in BACKBONE), (r"^2\.", "head.")),
    "multitask": (
        *((rf"^backbone\.{theirs}", f"backbone.{ours}") for theirs, ours in BACKBONE),
        (r"^sgm_head\.", "segmentation."),
        (r"^cls_head\.2\.", "identification.1."),
        (r"^cls_head\.5\.", "identification.4."),
    ),
}
LAYERS = (
    (re.compile(r"\.conv_path\.0\."), ".first."),
    (re.compile(r"\.conv_path\.1\."), ".second."),
    (re.compile(r"\.adjust_to_stride\."), ".shortcut."),
    (re.compile(r"\.bn\."), ".norm."),
    (re.compile(r"\.layer\."), ".conv."),
)


class SliceOrder(StrEnum):
    """Which end of the patient the first slice of a stack showed in training."""

    HEAD_FIRST = "head-first"
    FEET_FIRST = "feet-first"


class NotImported(Exception):
    """A file whose weights cannot be taken over; the message says why."""


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file; nothing in it is executed.

    Raises:
        NotImported: the file holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError) as error:
        raise NotImported(
            f"{path} holds no state dict ({str(error).splitlines()[0]}): write it with "
            "torch.save(network.state_dict(), path)"
        ) from None
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(x) for x in content.values()):
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise NotImported(f"{path} holds no state dict but {held or 'nothing'}: save network.state_dict() alone")
    return content


def convert(theirs: Mapping[str, torch.Tensor], order: SliceOrder) -> tuple[str, torch.nn.Module, Card]:
    """Name, network and card of a state dict of the public implementation.

    Raises:
        NotImported: names or shapes are not those of either network.
    """
    merged = _merged(theirs)
    name = "multitask" if any(key.startswith(("backbone.", "cls_head.")) for key in merged) else "lungs"
    state, unknown = {}, []
    for key, value in merged.items():
        ours = _our_name(key, name)
        if ours is None:
            unknown.append(key)
        else:
            state[ours] = value
    architecture = _architecture(name)
    network = architecture.build()
    wanted = network.state_dict()
    wrong = unknown + [key for key in merged if (ours := _our_name(key, name)) and ours not in wanted]
    missing = [key for key in wanted if key not in state]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if wrong or missing or shapes:
        raise NotImported(
            f"this is not the {name} network of the public implementation"
            + "".join(
                f"; {title}: {_some(keys)}"
                for title, keys in (("unknown", wrong), ("missing here as", missing), ("other shapes", shapes))
                if keys
            )
        )
    if name == "multitask":
        state[FIRST_CONNECTED] = reordered(state[FIRST_CONNECTED], PUBLIC_MULTITASK.out_channels, order)
    network.load_state_dict(state)
    return name, network, _card(architecture, order)


def reordered(columns: torch.Tensor, channels: int, order: SliceOrder) -> torch.Tensor:
    """[units, levels of (C, h, w, d)] -> [units, levels of (C, d, h, w)], d from the feet to the head.

    Turning a stack round maps the boxes of a level onto each other, so turning the columns is exact.
    """
    parts, first = [], 0
    for level in range(PYRAMID_LEVELS):
        boxes = 2**level
        size = channels * boxes**3
        part = columns[:, first : first + size].reshape(-1, channels, boxes, boxes, boxes)  # [units, C, h, w, d]
        part = part.permute(0, 1, 4, 2, 3)  # [units, C, d, h, w]
        parts.append((part.flip(2) if order is SliceOrder.HEAD_FIRST else part).flatten(1))
        first += size
    return torch.cat(parts, dim=1)


def _merged(theirs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each weight once; raises NotImported where its copies differ."""
    merged: dict[str, torch.Tensor] = {}
    for key, value in theirs.items():
        name = key
        for copy, part in COPIES:
            name = copy.sub(part, name)
        if name in merged and not torch.equal(merged[name], value):
            raise NotImported(f"{key} and {name} are one weight, but differ: was the file put together by hand?")
        merged[name] = value
    return merged


def _our_name(key: str, network: str) -> str | None:
    for part, ours in PARTS[network]:
        name, found = re.subn(part, ours, key)
        if found:
            for layer, our_layer in LAYERS:
                name = layer.sub(our_layer, name)
            return name
    return None


def _architecture(name: str) -> LungArchitecture | MultitaskArchitecture:
    if name == "lungs":
        return LungArchitecture(levels=LevelTable.of(PUBLIC_LUNGS))
    return MultitaskArchitecture(
        levels=LevelTable.of(PUBLIC_MULTITASK), lesion_classes=1, pooling_levels=PYRAMID_LEVELS, hidden=1024
    )


def _card(architecture: LungArchitecture | MultitaskArchitecture, order: SliceOrder) -> Card:
    training = "elsewhere, with the public implementation of Goncharov et al. 2021"
    if architecture.network == "multitask":
        training += f"; stacks {order.value} there, turned to feet-first"
    return Card(
        version="imported",
        architecture=architecture,
        thresholds=Thresholds(lungs=LUNGS_THRESHOLD, lesion=LESION_THRESHOLD),
        data=("Unknown: the weights came without a description of their data.",),
        licence="unknown: that of the data and of the weights must be asked of whoever trained them",
        split="unknown",
        training=training,
        metrics={},
        not_for=("Diagnosis.", "Any use before tools/evaluate.py has measured them on patients kept out of training."),
        trust=(
            "Nothing was measured here: the probability is not calibrated and no threshold was chosen on data. They "
            "expect what the public implementation gave them: slices of 2 x 2 mm in the window -1000..300 HU, stacks "
            "cropped to the lungs."
        ),
    )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def main(
    state: Annotated[
        Path, typer.Argument(help="State dict written with torch.save.", exists=True, dir_okay=False, readable=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the weights and their card; made where it is missing.")],
    name: Annotated[str | None, typer.Option(help="Name of both files; default: lungs or multitask.")] = None,
    slices: Annotated[
        SliceOrder,
        typer.Option(help="The first slice of a training stack; head-first is what the public scripts prepare."),
    ] = SliceOrder.HEAD_FIRST,
    half: Annotated[
        bool, typer.Option("--half", help="Store kernels as float16: half the size, logits move by some thousandths.")
    ] = False,
) -> None:
    """Turn weights of the paper's public implementation into weights of this node."""
    try:
        network_name, network, card = convert(read(state), slices)
        path = weights.save(out, name or network_name, network, card, half=half)
    except (NotImported, weights.WeightsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{path}: the {network_name} network, {path.stat().st_size / 1e6:.1f} MB")
    typer.echo(f"{path.with_suffix('.json')}: its card; fill in data, licence and metrics before anybody relies on it")


if __name__ == "__main__":
    typer.run(main)
