r"""Trains the multitask network (Goncharov et al. 2021, section 2.2) on studies in the training layout.

    python tools/train_multitask.py training-data --out runs/multitask
    python tools/train_multitask.py training-data --out runs/identification \\
        --start-from runs/multitask/multitask.safetensors --identification-only --depth 24

The first command learns everything at once from short stacks, the second goes on with the identification head alone,
on long stacks and a fixed backbone. Started again with the same options, each goes on from its last checkpoint. The
paper: 60,000 batches of 5 studies, Adam 1e-4, binary cross-entropies, the identification loss weighted 0.1.
"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from training import augmentation, batches, layout
from training.layout import LayoutError, TrainingStudy
from training.run import Lines, Run, RunError, Smoothed, device_of, progress

from nets import multitask, slices, weights
from nets.multitask import MultitaskNetwork
from nets.weights import WeightsError

if TYPE_CHECKING:
    from training.batches import Batch, Stack

    from nets.multitask import Losses

SHAPE = (112, 152)  # rows, columns of 2 mm that a step sees of a stack, around the lungs
MARGIN_PX = 4  # around the lungs at validation, as at inference
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
    try:
        train(
            data,
            out,
            steps=steps,
            stacks=stacks,
            depth=depth,
            learning_rate=learning_rate,
            classification_weight=classification_weight,
            dice_weight=dice_weight,
            architecture=architecture,
            start_from=start_from,
            identification_only=identification_only,
            seed=seed,
            device=device_of(device),
            half=half,
            threads=threads,
            save_every=save_every,
            validate_every=validate_every,
        )
    except (RunError, LayoutError, WeightsError) as error:
        raise SystemExit(f"train_multitask: {error}") from error


def train(
    data: Path,
    out: Path,
    *,
    steps: int,
    stacks: int,
    depth: int,
    learning_rate: float,
    classification_weight: float,
    dice_weight: float,
    architecture: str,
    start_from: Path | None,
    identification_only: bool,
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
        task = bar.add_task("multitask", total=steps, completed=run.step, losses="")
        while run.step < steps:
            network.train()
            if identification_only:
                network.backbone.eval()
                network.segmentation.eval()
            batch = a_batch(kinds, stacks, depth, run.rng)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = network(batch.stacks.to(device))
            losses: Losses = multitask.multitask_loss(
                multitask.Logits(logits.lesions.float(), logits.covid.float()),
                batch.lesions.to(device),
                batch.covid.to(device),
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
                dices = validate(run.average.module, held_out, device, half=half)
                dice = float(np.mean([of for name, of in dices.items() if "consolidation" not in name]))
                run.log(**shown.values, rate=run.rate(), **{f"dice {name}": of for name, of in dices.items()})
            if run.step % save_every == 0 or run.step == steps:
                run.save()
            text = f"{shown}  Dice {dice:.3f}"
            bar.update(task, completed=run.step, losses=text)
            lines.tell(run.step, steps, text)
    dices = validate(run.average.module, held_out, device, half=False)
    sources = {f"{kind}: {name}": of for kind, each in kinds.items() for name, of in each.items()}
    card = weights.Card(
        version="1",
        architecture=described,
        data=batches.described(sources),
        licence=batches.licences(sources),
        split="by patient; the split of each study stands in its card in the training layout",
        training=" ".join(f"--{key.replace('_', '-')} {value}" for key, value in settings.items() if key != "data"),
        metrics={"validation_dice": dict(dices)},
        not_for=("diagnosis",),
        trust="measured on the validation patients above and nowhere else; the probability is not calibrated",
    )
    path = weights.save(out, "multitask", run.average.module, card)
    print(json.dumps({"weights": str(path), "validation_dice": dices}, indent=1))


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
        shares = {name: share for name, share in batches.shares_of(sources).items() if share > 0}
        names = list(shares)
        source = names[int(rng.choice(len(names), p=np.array(list(shares.values())) / sum(shares.values())))]
        return batches.stack_of(sources, source, depth, rng)

    if kind == "twin":
        whole = drawn("masked", with_lungs=True)
        return batches.healthy_twin(whole, rng) or whole
    if kind == "transplant":
        return batches.transplanted(drawn("negative", with_lungs=True), drawn("masked", with_lungs=True))
    stack = drawn(kind)
    return batches.sham(stack, rng) if rng.random() < SHAM_SHARE else stack


@torch.inference_mode()
def validate(
    network: torch.nn.Module, studies: list[TrainingStudy], device: torch.device, *, half: bool
) -> dict[str, float]:
    """Dice of the lesions of each scan at a probability of 0.5; single slices of a source count as one scan.

    Consolidation is compared inside the lesions that experts drew.
    """
    assert isinstance(network, MultitaskNetwork)
    network.eval()
    counts: dict[str, list[int]] = {}
    for study in studies:
        assert study.lesions is not None
        hounsfield, lesions, inside = cropped(study)
        image, inner = slices.aligned(
            slices.windowed(torch.from_numpy(hounsfield).float())[:, None], network.backbone.step
        )
        found = []
        for part in image.split(16):  # type: ignore[no-untyped-call]  # torch ships this untyped
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                found.append(network.slices(part.to(device))[0].float().cpu() > 0)
        masks = torch.cat(found)[:, :, inner[1], inner[2]].numpy()
        name = study.card.source if len(lesions) == 1 else study.name
        _count(counts, name, masks[:, 0] & inside, (lesions > 0) & inside)
        if study.card.classes and masks.shape[1] > 1:
            drawn = (lesions > 0) & inside
            _count(counts, f"{name} consolidation", masks[:, 1] & drawn, (lesions == 2) & drawn)
    return {name: overlap / max(1, total) for name, (overlap, total) in counts.items()}


def cropped(
    study: TrainingStudy,
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """A study as inference crops it: Hounsfield and lesions [z, y, x] around the lungs, and where it is judged."""
    assert study.lesions is not None
    valid = np.ones(study.hounsfield.shape, dtype=np.bool_) if study.valid is None else study.valid
    hounsfield = np.where(valid, study.hounsfield, np.int16(augmentation.AIR_HU))
    if study.lungs is None:
        return hounsfield, study.lesions, valid
    outline: npt.NDArray[np.bool_] = np.any(study.lungs, axis=0)  # [y, x]
    rows, columns = (np.flatnonzero(outline.any(axis=axis)) for axis in (1, 0))
    box = np.s_[
        :,
        max(0, rows[0] - MARGIN_PX) : rows[-1] + 1 + MARGIN_PX,
        max(0, columns[0] - MARGIN_PX) : columns[-1] + 1 + MARGIN_PX,
    ]
    return hounsfield[box], study.lesions[box], (valid & study.lungs)[box]


def _count(counts: dict[str, list[int]], name: str, found: npt.NDArray[np.bool_], drawn: npt.NDArray[np.bool_]) -> None:
    both = counts.setdefault(name, [0, 0])
    both[0] += 2 * int((found & drawn).sum())
    both[1] += int(found.sum()) + int(drawn.sum())


if __name__ == "__main__":
    typer.run(main)
