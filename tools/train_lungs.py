"""Trains the lung network (Goncharov et al. 2021, section 2.1.1) on studies in the training layout.

    python tools/train_lungs.py training-data --out runs/lungs

Started again with the same options, it goes on from its last checkpoint. The paper: 16,000 batches of 30, Adam 1e-3
and 1e-4; here as many batches, AdamW with a cosine from 1e-3 to 0, augmentation, and the average of the weights.
"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn import functional
from training import augmentation, batches, layout
from training.layout import LayoutError, TrainingStudy
from training.run import Lines, Run, RunError, Smoothed, device_of, progress

from nets import slices, unet2d, weights
from nets.unet2d import LungNetwork
from nets.weights import WeightsError

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
    try:
        train(
            data,
            out,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            architecture=architecture,
            start_from=start_from,
            seed=seed,
            device=device_of(device),
            half=half,
            threads=threads,
            save_every=save_every,
            validate_every=validate_every,
        )
    except (RunError, LayoutError, WeightsError) as error:
        raise SystemExit(f"train_lungs: {error}") from error


def train(
    data: Path,
    out: Path,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    architecture: str,
    start_from: Path | None,
    seed: int,
    device: torch.device,
    half: bool,
    threads: int,
    save_every: int,
    validate_every: int,
) -> None:
    """The loop."""
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
        device=device,
        seed=seed,
        learning_rate=learning_rate,
        steps=steps,
    )
    if run.resume():
        print(f"going on from step {run.step} of {steps}")
    shown, dice = Smoothed(), 0.0
    with progress() as bar:
        lines = Lines(bar)
        task = bar.add_task("lungs", total=steps, completed=run.step, losses="")
        while run.step < steps:
            run.network.train()
            images, truth = batches.lung_batch(sources, shares, batch_size, SHAPE, AUGMENTATION, run.rng)
            images = images.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = run.network(images)
            loss = functional.binary_cross_entropy_with_logits(logits.float(), truth.to(device))
            run.descend(loss)
            shown.update(loss=loss.item())
            if run.step % validate_every == 0 or run.step == steps:
                dice = float(np.mean(list(validate(run.average.module, held_out, device, half=half).values())))
                run.log(loss=shown.values["loss"], rate=run.rate(), validation_dice=dice)
            if run.step % save_every == 0 or run.step == steps:
                run.save()
            text = f"{shown}  Dice {dice:.4f}"
            bar.update(task, completed=run.step, losses=text)
            lines.tell(run.step, steps, text)
    trained = run.average.module
    dices = validate(trained, held_out, device, half=False)
    card = weights.Card(
        version="1",
        architecture=weights.LungArchitecture(levels=weights.LevelTable.of(levels)),
        data=batches.described(sources),
        licence=batches.licences(sources),
        split="by patient; the split of each study stands in its card in the training layout",
        training=f"tools/train_lungs.py --steps {steps} --batch-size {batch_size} --learning-rate {learning_rate} "
        f"--architecture {architecture} --start-from {start_from} --seed {seed}, on {device}",
        metrics={"validation_dice": dict(dices)},
        not_for=("diagnosis",),
        trust="measured on the validation patients above and nowhere else",
    )
    path = weights.save(out, "lungs", trained, card)
    print(json.dumps({"weights": str(path), "validation_dice": dices}, indent=1))


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


@torch.inference_mode()
def validate(
    network: torch.nn.Module, studies: list[TrainingStudy], device: torch.device, *, half: bool
) -> dict[str, float]:
    """Dice of the lungs of each source, over whole scans; single slices count as one scan together."""
    assert isinstance(network, LungNetwork)
    network.eval()
    counts: dict[str, dict[str, list[int]]] = {}
    for study in studies:
        assert study.lungs is not None
        valid = np.ones_like(study.lungs) if study.valid is None else study.valid
        hounsfield = torch.from_numpy(np.where(valid, study.hounsfield, np.int16(augmentation.AIR_HU))).float()
        found = []
        image, inner = slices.aligned(slices.windowed(hounsfield)[:, None], network.backbone.step)
        for part in image.split(16):  # type: ignore[no-untyped-call]  # torch ships this untyped
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                found.append(network(part.to(device))[:, 0].float().cpu() > 0)
        mask = torch.cat(found)[inner].numpy() & valid
        name = study.card.source if len(mask) == 1 else f"{study.card.source}/{study.name}"
        both = counts.setdefault(study.card.source, {}).setdefault(name, [0, 0])
        both[0] += 2 * int((mask & study.lungs & valid).sum())
        both[1] += int(mask.sum()) + int((study.lungs & valid).sum())
    return {
        source: float(np.mean([overlap / max(1, total) for overlap, total in scans.values()]))
        for source, scans in counts.items()
    }


if __name__ == "__main__":
    typer.run(main)
