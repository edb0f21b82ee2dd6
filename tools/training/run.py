"""What a training run keeps on disk and shows on the terminal: checkpoints, a log of losses, progress, weights."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.optim.swa_utils import AveragedModel

from nets import weights
from training import batches
from training.layout import LayoutError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from training.layout import TrainingStudy

EMA_DECAY = 0.998  # less in the first steps, so that the random weights of the beginning are soon forgotten


class RunError(Exception):
    """A run cannot begin or go on; the message says why and what to do."""


@dataclass(kw_only=True)
class Run:
    """Network, its running average, optimiser and random state of one training, resumable after a kill.

    The average of the weights over the last thousand steps or so is what is validated and shipped: it is steadier
    than the weights of any one step.
    """

    folder: Path
    network: nn.Module
    settings: Mapping[str, Any]  # a run is only resumed with the same
    device: torch.device
    seed: int
    learning_rate: float
    steps: int
    warm_up: int = 200
    step: int = 0

    def __post_init__(self) -> None:
        self.network.to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types memory_format away
        self.average = AveragedModel(self.network, avg_fn=_averaged, use_buffers=True)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        self.rng = np.random.default_rng(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        """Where the run goes on from."""
        return self.folder / "checkpoint.pt"

    def rate(self) -> float:
        """Learning rate of this step: a short rise, then a cosine down to zero, so that the curves end flat."""
        if self.step < self.warm_up:
            return self.learning_rate * (self.step + 1) / self.warm_up
        done = (self.step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def descend(self, loss: torch.Tensor) -> None:
        """One step of the optimiser along the gradient of a scalar loss. Raises RunError where it is not finite."""
        if not torch.isfinite(loss):
            raise RunError(
                f"the loss is {loss.item()} at step {self.step}: lower --learning-rate and start again from "
                f"{self.checkpoint}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this untyped
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1

    def resume(self) -> bool:
        """Go on from the checkpoint where there is one. Raises RunError where it belongs to other settings.

        `steps` may differ: a run can be made longer or shorter, and its learning rate follows the new length.
        """
        if not self.checkpoint.exists():
            return False
        kept = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        found = {**json.loads(kept["settings"]), "steps": self.steps}
        wanted = {**json.loads(json.dumps(dict(self.settings), default=str)), "steps": self.steps}
        if found != wanted:
            different = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            raise RunError(
                f"{self.checkpoint} comes from a run with other settings ({', '.join(different)}): give another --out, "
                "or the settings of that run"
            )
        self.network.load_state_dict(kept["network"])
        self.average.load_state_dict(kept["average"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.rng.bit_generator.state = json.loads(kept["rng"])
        torch.set_rng_state(kept["torch_rng"].cpu())
        self.step = int(kept["step"])
        return True

    def save(self) -> None:
        """Write the checkpoint; a kill at any moment leaves the former one or this one."""
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": json.dumps(self.rng.bit_generator.state),
                "torch_rng": torch.get_rng_state(),
                "step": self.step,
                "settings": json.dumps(dict(self.settings), default=str),
            },
            part,
        )
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self.checkpoint)

    def log(self, **numbers: float) -> None:
        """Add a line to log.jsonl."""
        line = {"step": self.step, "time": round(time.time(), 1), **{k: round(v, 5) for k, v in numbers.items()}}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _averaged(average: torch.Tensor, now: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    decay = min(EMA_DECAY, (1 + float(count)) / (10 + float(count)))
    return average + (now - average) * (1 - decay)


def finish(
    run: Run,
    name: str,
    *,
    architecture: weights.LungArchitecture | weights.MultitaskArchitecture,
    sources: Mapping[str, Sequence[TrainingStudy]],
    dices: Mapping[str, float],
    trust: str,
) -> None:
    """Write the averaged weights with their card, and say where they lie and what they are worth."""
    options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in run.settings.items() if key != "data")
    card = weights.Card(
        version="1",
        architecture=architecture,
        data=batches.described(sources),
        licence=batches.licences(sources),
        split="by patient; the split of each study stands in its card in the training layout",
        training=f"tools/train_{name}.py {options}, on {run.device}",
        metrics={"validation_dice": dict(dices)},
        not_for=("diagnosis",),
        trust=trust,
    )
    path = weights.save(run.folder, name, run.average.module, card)
    print(json.dumps({"weights": str(path), "validation_dice": dict(dices)}, indent=1))


@contextmanager
def errors_said(program: str) -> Iterator[None]:
    """End the program with a sentence where a run, its data or its weights cannot be used."""
    try:
        yield
    except (RunError, LayoutError, weights.WeightsError) as error:
        raise SystemExit(f"{program}: {error}") from error


def device_of(name: str) -> torch.device:
    """The device of --device. Raises RunError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RunError("--device cuda: this machine has no CUDA device, or torch was installed without CUDA; use cpu")
    return torch.device(name)


def progress() -> Progress:
    """Steps done, time left, and the losses as a running text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )


class Lines:
    """A line now and then instead of a bar, where the output is a file or a pipe."""

    def __init__(self, bar: Progress, every_s: float = 60.0) -> None:
        self.every_s = math.inf if bar.console.is_terminal else every_s
        self.began = self.told = time.monotonic()
        self.began_at: int | None = None

    def tell(self, step: int, steps: int, text: str) -> None:
        """Say how far the run is, if a line is due."""
        now = time.monotonic()
        if self.began_at is None:
            self.began_at = step - 1
        if now - self.told < self.every_s and step < steps:
            return
        self.told = now
        left = (now - self.began) / max(1, step - self.began_at) * (steps - step)
        print(f"step {step} of {steps}, {left / 60:.0f} min left: {text}", flush=True)


class Smoothed:
    """Losses averaged over about the last fifty steps."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def update(self, **losses: float) -> None:
        """Take the losses of a step in."""
        for name, value in losses.items():
            self.values[name] = value if name not in self.values else 0.98 * self.values[name] + 0.02 * value

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in self.values.items())
