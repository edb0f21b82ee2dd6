"""Calibrates the multitask network on the validation patients and says on the test patients how good it is.

    python tools/calibrate.py training-data runs/identification/multitask.safetensors --out nets/weights

Two things are chosen on the validation patients: the lesion threshold (by Dice and volume of the scans' lesions) and
the line that turns the logit of the identification head into a probability (Platt 1999, with smoothed targets). Since
few studies have a label, every annotated scan is also shown without its lesions (healthy twin) and its lesions in the
lungs of patients of before 2020. What is measured on the test patients goes into the card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
import typer
from evaluation import agreement
from rich.progress import track
from scipy.optimize import minimize
from training import augmentation, batches, layout, validation
from training.run import errors_said
from training.validation import Dices

from nets import weights
from nets.weights import Calibration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.batches import Stack
    from training.layout import TrainingStudy

    from nets.multitask import MultitaskNetwork

THRESHOLDS = np.round(np.arange(0.1, 0.71, 0.05), 2)
AS_GOOD = 0.005  # of Dice: less than experts differ by, and than so few scans can tell
DEPTH = 24  # of stacks put together from single slices
DRAWS = 6  # such stacks a split

Split = Literal["validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A stack, whether it shows COVID-19, and what the network says."""

    name: str
    how: str  # whole, sham, twin, lesion-free slices, transplant, single slices
    covid: bool
    logit: float


def main(
    data: Annotated[Path, typer.Argument(help="Studies in the training layout.", exists=True)],
    start: Annotated[Path, typer.Argument(help="Weights of tools/train_multitask.py.", exists=True)],
    *,
    out: Annotated[Path, typer.Option(help="Where weights and card are written.")],
    seed: Annotated[int, typer.Option(help="Of twins, shams and transplants.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = max(1, torch.get_num_threads()),
) -> None:
    """Choose threshold and calibration on the validation patients, measure on the test patients."""
    torch.set_num_threads(threads)
    network, card = weights.load_multitask(start)
    dices, excess = lesion_dices(network, data, "validation")
    lesion = chosen_threshold(dices, excess)
    validated = judged(network, data, "validation", seed)
    calibration = fitted(validated)
    tested = judged(network, data, "test", seed + 1)
    at = int(np.flatnonzero(lesion == THRESHOLDS)[0])
    metrics = {
        "lesion_dice_validation": {name: round(of[at], 4) for name, of in dices.items()},
        "lesion_excess_validation": {name: round(of[at], 4) for name, of in excess.items()},
        "lesion_dice_test_on_the_grid": {
            name: round(of[at], 4) for name, of in lesion_dices(network, data, "test")[0].items()
        },
        "identification_validation": summary(validated, calibration),
        "identification_test": summary(tested, calibration),
    }
    card = card.model_copy(
        update={
            "calibration": calibration,
            "thresholds": card.thresholds.model_copy(update={"lesion": lesion}),
            "metrics": {**card.metrics, **metrics},
        }
    )
    path = weights.save(out, "multitask", network, card)
    print(json.dumps({"weights": str(path), "lesion_threshold": lesion, **metrics}, indent=1))


def chosen_threshold(dices: dict[str, list[float]], excess: dict[str, list[float]]) -> float:
    """Of the thresholds whose mean Dice is as good as the best the one that gives the lesions' volumes best.

    Dice hardly changes over a wide range of thresholds; the affected fraction, by which studies are graded, does.
    """
    means = np.mean(list(dices.values()), axis=0)
    wrong = np.abs(list(excess.values())).mean(axis=0)
    return float(THRESHOLDS[int(np.argmin(np.where(means >= means.max() - AS_GOOD, wrong, np.inf)))])


def lesion_dices(
    network: MultitaskNetwork, data: Path, split: Split
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Dice and excess of volume of each scan at each of THRESHOLDS; single slices of a source count as one scan."""

    def lesions_by(images: torch.Tensor) -> torch.Tensor:
        return network.slices(images)[0][:, :1].sigmoid()

    dices = Dices()
    for study in track(list(layout.studies(data, (split,))), description=f"lesions, {split}"):
        if study.lesions is None or not study.card.covid:
            continue
        hounsfield, lesions, inside = validation.cropped(study)
        found = validation.said_of_pixels(lesions_by, hounsfield, network.backbone.step)[:, 0].numpy()
        masks = np.stack([(found >= threshold) & inside for threshold in THRESHOLDS])
        dices.add(validation.scan_of(study), masks, (lesions > 0) & inside)
    kept = [name for name in dices.values() if dices.judged(name)]
    of_all, excess = dices.values(), dices.excess()
    return {name: of_all[name].tolist() for name in kept}, {name: excess[name].tolist() for name in kept}


def judged(network: MultitaskNetwork, data: Path, split: Split, seed: int) -> list[Judged]:
    """Every stack that can be made of the patients of a split, judged."""
    rng = np.random.default_rng(seed)
    made = list(stacks(list(layout.studies(data, (split,))), rng))
    return [
        Judged(name=name, how=how, covid=bool(stack.covid), logit=logit(network, stack))
        for name, how, stack in track(made, description=f"identification, {split}")
        if stack.covid is not None
    ]


def stacks(studies: list[TrainingStudy], rng: np.random.Generator) -> Iterator[tuple[str, str, Stack]]:
    """Name, how it was made, and the stack: as the study is, and its counterfactuals."""
    scans = [study for study in studies if len(study.hounsfield) > 1]
    donors = []
    for study in scans:
        whole = batches.whole(study)
        yield study.name, "whole", whole
        if study.lungs is None or study.lesions is None or not study.card.covid:
            continue
        donors.append(whole)
        yield study.name, "sham", batches.sham(whole, rng)
        twin = batches.healthy_twin(whole, rng)
        if twin is not None:
            yield study.name, "twin", twin
        free: npt.NDArray[np.bool_] = np.any(study.lungs, axis=(1, 2)) & ~np.any(study.lesions, axis=(1, 2))
        if free.sum() >= 8:
            yield study.name, "lesion-free slices", batches.part(whole, free)
    single = [study for study in studies if len(study.hounsfield) == 1 and study.lungs is not None]
    singles = {"single": [study for study in single if study.card.covid is False]}
    healthy = [batches.whole(study) for study in scans if study.card.healthy and study.lungs is not None]
    for draw in range(DRAWS if singles["single"] else 0):
        stack = batches.stack_of(singles, "single", DEPTH, rng)
        yield f"single slices {draw}", "single slices", stack
        healthy.append(stack)
    for number, into in enumerate(healthy):
        if donors:
            donor = donors[int(rng.integers(len(donors)))]
            chosen = rng.integers(0, len(donor.hounsfield), len(into.hounsfield))
            yield f"transplant {number}", "transplant", batches.transplanted(into, batches.part(donor, np.sort(chosen)))


@torch.inference_mode()
def logit(network: MultitaskNetwork, stack: Stack) -> float:
    """What the identification head says of a whole stack, cropped as at inference."""

    def pooled_by(images: torch.Tensor) -> torch.Tensor:
        return network.slices(images)[1]

    hounsfield = np.where(stack.valid, stack.hounsfield, np.float32(augmentation.AIR_HU))
    if stack.lungs is not None and stack.lungs.any():
        hounsfield = hounsfield[validation.lung_box(stack.lungs)]
    pooled = validation.said_of_slices(pooled_by, hounsfield, network.backbone.step)
    return float(network.identify(network.pooling.over_slices(pooled[None]))[0])


def fitted(of: list[Judged]) -> Calibration:
    """The line through the logits that makes the labels likeliest, both classes weighing the same.

    Platt's smoothed targets keep a perfectly separated set from being called certain.
    """
    logits = np.array([each.logit for each in of])
    truth = np.array([each.covid for each in of])
    ill, well = int(truth.sum()), int((~truth).sum())
    if not ill or not well:
        raise SystemExit(f"calibrate: the validation patients give {ill} stacks with COVID-19 and {well} without")
    targets = np.where(truth, (ill + 1) / (ill + 2), 1 / (well + 2))
    weight = np.where(truth, 0.5 / ill, 0.5 / well)

    def loss(line: npt.NDArray[np.float64]) -> float:
        turned = np.exp(line[0]) * logits + line[1]
        return float((weight * (np.logaddexp(0, turned) - targets * turned)).sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead")
    return Calibration(scale=float(np.exp(best.x[0])), offset=float(best.x[1]))


def summary(of: list[Judged], calibration: Calibration) -> dict[str, object]:
    """Numbers of a split: area under the curve, Brier score, and every stack by name."""
    probabilities = np.array([calibration.probability(each.logit) for each in of])
    truth = np.array([each.covid for each in of])
    auc = agreement.auc(probabilities, truth)
    return {
        "stacks_with_covid": int(truth.sum()),
        "stacks_without": int((~truth).sum()),
        "auc": auc if auc is None else round(auc, 4),
        "brier": round(float(((probabilities - truth) ** 2).mean()), 4),
        "wrong_at_0.5": int(((probabilities >= 0.5) != truth).sum()),
        "by_stack": {
            f"{each.name}, {each.how} ({'COVID-19' if each.covid else 'none'})": round(float(p), 3)
            for each, p in zip(of, probabilities, strict=True)
        },
    }


if __name__ == "__main__":
    with errors_said("calibrate"):
        typer.run(main)
