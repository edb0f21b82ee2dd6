r"""Trains the multitask network (Goncharov et al. 2021, section 2.2) on studies in the training layout.

    python tools/train_multitask.py training-data --out runs/multitask
    python tools/train_multitask.py training-data --out runs/identification \\
        --start-from runs/multitask/multitask.safetensors --identification-only --depth 24

The first command learns everything at once from short stacks, the second goes on with the identification head alone,
on long stacks and a fixed backbone. Started again with the same options, each goes on from its last checkpoint. The
paper: 60,000 batches of 5 studies, Adam 1e-4, binary cross-entropies, the identification loss weighted 0.1.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import typer
from training import augmentation, batches, layout, validation
from training.layout import LayoutError, TrainingStudy
from training.run import Lines, Run, Smoothed, device_of, errors_said, finish, progress
from training.validation import Dices

from nets import multitask, weights
from nets.multitask import MultitaskNetwork

if TYPE_CHECKING:
    from training.batches import Batch, Stack

    from nets.multitask import Losses

SHAPE = (112, 152)  # rows, columns of 2 mm that a step sees of a stack, around the lungs
ARCHITECTURES = {
    "shipped": weights.MultitaskArchitecture(
        levels=weights.LevelTable.of(multitask.MULTITASK), lesion_classes=2, pooling_levels=3, hidden=64
    ),
    "public": weights.MultitaskArchitecture(levels=weights.LevelTable.of(multitask.PUBLIC_MULTITASK), lesion_classes=1),
}

# Of what kind the stacks of a batch are. As in the paper, half are positive with a mask; the other half, negative or
# positive without one, is partly made from the same patients, so that no source supplies one class alone.
KINDS = {"masked": 0.50, "negative": 0.14, "unmasked": 0.08, "twin": 0.13, "transplant": 0.15}
SHAM_SHARE = 0.5  # of the stacks as they came get traces like those of a twin


def main(
    data: Annotated[Path, typer.Argument(help="Studies in the training layout (tools/prepare_*.py).", exists=True)],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, log, and the weights at its end.")],
    *,
    steps: Annotated[int, typer.Option(min=1, help="Batches to learn from.")] = 60000,
    stacks: Annotated[int, typer.Option(min=1, help="Stacks a batch.")] = 4,
    depth: Annotated[int, typer.Option(min=1, help="Slices a stack.")] = 6,
    learning_rate: Annotated[float, typer.Option(min=0, help="Largest step of AdamW.")] = 1e-3,
    classification_weight: Annotated[float, typer.Option(min=0, help="Of the identification loss.")] = 0.1,
    dice_weight: Annotated[float, typer.Option(min=0, help="Of a Dice loss of the lesions; 0 in the paper.")] = 0.5,
    architecture: Annotated[str, typer.Option(help="'shipped' or 'public' (the paper's).")] = "shipped",
    start_from: Annotated[Path | None, typer.Option(help="Weights to begin with.")] = None,
    identification_only: Annotated[bool, typer.Option(help="Backbone and segmentation stay as they are.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same first steps.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    half: Annotated[bool, typer.Option(help="bfloat16 where it costs nothing.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = max(1, torch.get_num_threads()),
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
) -> None:
    """Train the multitask network; the weights and their card lie in --out in the end."""
    if architecture not in ARCHITECTURES:
        raise typer.BadParameter(f"--architecture is one of {', '.join(ARCHITECTURES)}, not {architecture!r}")
    on = device_of(device)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    described = ARCHITECTURES[architecture]
    kinds, held_out = read(data)
    settings = {
        "data": {kind: sorted(study.name for each in of.values() for study in each) for kind, of in kinds.items()},
        "steps": steps,
        "stacks": stacks,
        "depth": depth,
        "learning_rate": learning_rate,
        "classification_weight": classification_weight,
        "dice_weight": dice_weight,
        "architecture": architecture,
        "start_from": str(start_from) if start_from else None,
        "identification_only": identification_only,
        "seed": seed,
    }
    network = described.build()
    if start_from is not None:
        network, card = weights.load_multitask(start_from)
        described = card.architecture  # type: ignore[assignment]  # the card of multitask weights has this architecture
    if identification_only:
        network.backbone.requires_grad_(requires_grad=False)
        network.segmentation.requires_grad_(requires_grad=False)
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
        task = bar.add_task("multitask", total=steps, completed=run.step, losses="")
        while run.step < steps:
            network.train()
            if identification_only:
                network.backbone.eval()
                network.segmentation.eval()
            batch = a_batch(kinds, stacks, depth, run.rng)
            with torch.autocast(on.type, torch.bfloat16, enabled=half):
                logits = network(batch.stacks.to(on))
            losses: Losses = multitask.multitask_loss(
                multitask.Logits(logits.lesions.float(), logits.covid.float()),
                batch.lesions.to(on),
                batch.covid.to(on),
                classification_weight=classification_weight,
                dice_weight=dice_weight,
            )
            run.descend(losses.covid if identification_only else losses.total)
            shown.update(
                lesions=losses.lesions.item(),
                dice=losses.dice.item(),
                consolidation=losses.consolidation.item(),
                covid=losses.covid.item(),
            )
            if run.step % validate_every == 0 or run.step == steps:
                dices = validate(run.average.module, held_out, on, half=half and run.step < steps)
                run.log(**shown.values, rate=run.rate(), **{f"dice {name}": of for name, of in dices.items()})
            if run.step % save_every == 0 or run.step == steps:
                run.save()
            text = f"{shown}  Dice {mean(dices):.3f}"
            bar.update(task, completed=run.step, losses=text)
            lines.tell(run.step, steps, text)
    finish(
        run,
        "multitask",
        architecture=described,
        sources={f"{kind}: {name}": of for kind, each in kinds.items() for name, of in each.items()},
        dices=dices or validate(run.average.module, held_out, on, half=False),
        trust="measured on the validation patients above and nowhere else; the probability is not calibrated",
    )


Kinds = dict[str, dict[str, list[TrainingStudy]]]


def read(data: Path) -> tuple[Kinds, list[TrainingStudy]]:
    """Studies to learn from, by what is known of them and by source; and those with lesions to validate on."""
    kinds: Kinds = {"masked": {}, "negative": {}, "unmasked": {}}
    held_out = []
    for study in layout.studies(data, ("train", "validation")):
        kind = "negative" if study.card.covid is False else "masked" if study.lesions is not None else "unmasked"
        if study.card.covid is None and study.lesions is None:
            continue
        if study.card.split == "train":
            kinds[kind].setdefault(study.card.source, []).append(study)
        elif kind == "masked":
            held_out.append(study)
    if not kinds["masked"]:
        raise LayoutError(f"{data} holds no study with lesions in the split 'train'")
    return {kind: of for kind, of in kinds.items() if of}, held_out


def a_batch(
    kinds: Kinds, size: int, depth: int, rng: np.random.Generator, by: augmentation.Augmentation | None = None
) -> Batch:
    """Stacks of the kinds above, in a random mixture."""
    possible = [
        kind for kind in KINDS if kind in kinds or kind == "twin" or (kind == "transplant" and "negative" in kinds)
    ]
    shares = np.array([KINDS[kind] for kind in possible])
    chosen = [possible[int(i)] for i in rng.choice(len(possible), size, p=shares / shares.sum())]
    made = [a_stack(kind, kinds, depth, rng) for kind in chosen]
    return batches.collate(made, chosen, SHAPE, by or augmentation.Augmentation(), rng)


def a_stack(kind: str, kinds: Kinds, depth: int, rng: np.random.Generator) -> Stack:
    """A stack of a kind; a twin or transplant that cannot be made is replaced by what it would be made from."""

    def drawn(of: str, *, with_lungs: bool = False) -> Stack:
        sources = kinds[of]
        if with_lungs:
            sources = {name: [s for s in each if s.lungs is not None] for name, each in sources.items()}
        source = batches.any_source(sources, batches.shares_of(sources), rng)
        return batches.stack_of(sources, source, depth, rng)

    if kind == "twin":
        whole = drawn("masked", with_lungs=True)
        return batches.healthy_twin(whole, rng) or whole
    if kind == "transplant":
        return batches.transplanted(drawn("negative", with_lungs=True), drawn("masked", with_lungs=True))
    stack = drawn(kind)
    return batches.sham(stack, rng) if rng.random() < SHAM_SHARE else stack


def validate(
    network: torch.nn.Module, studies: list[TrainingStudy], device: torch.device, *, half: bool
) -> dict[str, float]:
    """Dice of the lesions of each scan at a probability of 0.5; single slices of a source count as one scan.

    Consolidation is compared inside the lesions that experts drew.
    """
    assert isinstance(network, MultitaskNetwork)
    network.eval()

    def lesions_by(images: torch.Tensor) -> torch.Tensor:
        return network.slices(images)[0]

    dices = Dices()
    for study in studies:
        hounsfield, lesions, inside = validation.cropped(study)
        step = network.backbone.step
        masks = (validation.said_of_pixels(lesions_by, hounsfield, step, device, half=half) > 0).numpy()
        drawn = (lesions > 0) & inside
        name = validation.scan_of(study)
        dices.add(name, masks[:, 0] & inside, drawn)
        if study.card.classes and masks.shape[1] > 1:
            dices.add(f"{name} consolidation", masks[:, 1] & drawn, (lesions == 2) & drawn)
    return {name: float(dice) for name, dice in dices.values().items()}


def mean(dices: dict[str, float]) -> float:
    """Over the scans' lesions of both classes; 0 before the first validation."""
    whole = [dice for name, dice in dices.items() if "consolidation" not in name]
    return float(np.mean(whole)) if whole else 0.0


if __name__ == "__main__":
    with errors_said("train_multitask"):
        typer.run(main)
