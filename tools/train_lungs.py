"""Trains the lung network (Goncharov et al. 2021, section 2.1.1) on studies in the training layout.

    python tools/train_lungs.py training-data --out runs/lungs

Started again with the same options, it goes on from its last checkpoint. The paper: 16,000 batches of 30, Adam 1e-3
and 1e-4; here as many batches, AdamW with a cosine from 1e-3 to 0, augmentation, and the average of the weights.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn import functional
from training import augmentation, batches, layout, validation
from training.layout import LayoutError, TrainingStudy
from training.run import Lines, Run, Smoothed, device_of, errors_said, finish, progress
from training.validation import Dices

from nets import unet2d, weights
from nets.unet2d import LungNetwork

SHAPE = (200, 232)  # rows, columns of 2 mm that a step sees of a slice: a wide field of view with air in it
AUGMENTATION = augmentation.Augmentation(rotation_deg=20.0, scale=(0.65, 1.25), shift_px=25.0)
ARCHITECTURES = {"shipped": unet2d.LUNGS, "public": unet2d.PUBLIC_LUNGS}


def main(
    data: Annotated[Path, typer.Argument(help="Studies in the training layout (tools/prepare_*.py).", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, and the weights at its end.")],
    *,
    steps: Annotated[int, typer.Option(min=1, help="Batches to learn from.")] = 16000,
    batch_size: Annotated[int, typer.Option(min=1, help="Slices a batch.")] = 30,
    learning_rate: Annotated[float, typer.Option(min=0, help="Largest step of AdamW.")] = 1e-3,
    architecture: Annotated[
        str, typer.Option(help="'shipped' or 'public' (the paper's, 10.6 M parameters).")
    ] = "shipped",
    start_from: Annotated[Path | None, typer.Option(help="Weights to begin with.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same first steps.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    half: Annotated[bool, typer.Option(help="bfloat16 where it costs nothing.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = max(1, torch.get_num_threads()),
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
) -> None:
    """Train the lung network; the weights and their card lie in --out in the end."""
    if architecture not in ARCHITECTURES:
        raise typer.BadParameter(f"--architecture is one of {', '.join(ARCHITECTURES)}, not {architecture!r}")
    on = device_of(device)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    levels = ARCHITECTURES[architecture]
    network = LungNetwork(levels)
    if start_from is not None:
        network, card = weights.load_lungs(start_from)
        assert isinstance(card.architecture, weights.LungArchitecture)
        levels = card.architecture.levels.levels()
    sources, held_out = read(data)
    shares = batches.shares_of(sources)
    settings = {
        "data": sorted(f"{name}/{study.name}" for name, studies in sources.items() for study in studies),
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "architecture": architecture,
        "start_from": str(start_from) if start_from else None,
        "seed": seed,
    }
    run = Run(
        folder=out,
        network=network,
        settings=settings,
        device=on,
        seed=seed,
        learning_rate=learning_rate,
        steps=steps,
    )
    if run.resume():
        print(f"going on from step {run.step} of {steps}")
    shown, dices = Smoothed(), dict[str, float]()
    with progress() as bar:
        lines = Lines(bar)
        task = bar.add_task("lungs", total=steps, completed=run.step, losses="")
        while run.step < steps:
            run.network.train()
            images, truth = batches.lung_batch(sources, shares, batch_size, SHAPE, AUGMENTATION, run.rng)
            images = images.to(on, memory_format=torch.channels_last)
            with torch.autocast(on.type, torch.bfloat16, enabled=half):
                logits = run.network(images)
            loss = functional.binary_cross_entropy_with_logits(logits.float(), truth.to(on))
            run.descend(loss)
            shown.update(loss=loss.item())
            if run.step % validate_every == 0 or run.step == steps:
                dices = validate(run.average.module, held_out, on, half=half and run.step < steps)
                run.log(loss=shown.values["loss"], rate=run.rate(), validation_dice=mean(dices))
            if run.step % save_every == 0 or run.step == steps:
                run.save()
            text = f"{shown}  Dice {mean(dices):.4f}"
            bar.update(task, completed=run.step, losses=text)
            lines.tell(run.step, steps, text)
    finish(
        run,
        "lungs",
        architecture=weights.LungArchitecture(levels=weights.LevelTable.of(levels)),
        sources=sources,
        dices=dices or validate(run.average.module, held_out, on, half=False),
        trust="measured on the validation patients above and nowhere else",
    )


def read(data: Path) -> tuple[dict[str, list[TrainingStudy]], list[TrainingStudy]]:
    """Studies to learn from by source, and those to validate on; only such with lungs."""
    sources: dict[str, list[TrainingStudy]] = {}
    held_out = []
    for study in layout.studies(data, ("train", "validation")):
        if study.lungs is None:
            continue
        if study.card.split == "train":
            sources.setdefault(study.card.source, []).append(study)
        elif study.card.lungs_by != "classical":
            held_out.append(study)
    if not sources:
        raise LayoutError(f"{data} holds no study with lungs in the split 'train'")
    return sources, held_out


def validate(
    network: torch.nn.Module, studies: list[TrainingStudy], device: torch.device, *, half: bool
) -> dict[str, float]:
    """Dice of the lungs of each source, over whole scans; single slices count as one scan together."""
    assert isinstance(network, LungNetwork)
    network.eval()
    sources: dict[str, Dices] = {}
    for study in studies:
        assert study.lungs is not None
        hounsfield, valid = validation.imaged(study)
        said = validation.said_of_pixels(network, hounsfield, network.backbone.step, device, half=half)
        dices = sources.setdefault(study.card.source, Dices())
        dices.add(validation.scan_of(study), (said[:, 0] > 0).numpy() & valid, study.lungs & valid)
    return {source: float(np.mean(list(dices.values().values()))) for source, dices in sources.items()}


def mean(dices: dict[str, float]) -> float:
    """Over the sources; 0 before the first validation."""
    return float(np.mean(list(dices.values()))) if dices else 0.0


if __name__ == "__main__":
    with errors_said("train_lungs"):
        typer.run(main)
