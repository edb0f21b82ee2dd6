"""The method of Goncharov et al. 2021: lungs by a 2D U-Net, lesions and the probability by the multitask network.

The straight line: volume -> axial slices of 2 x 2 mm -> lung network -> lungs, right and left -> their bounding box
-> multitask network, slice by slice -> lesions, consolidation; maxima over the pyramid's boxes -> probability -> masks
on the volume's own voxels (sections 2.1.1, 2.3 and 4.1).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn

from nets import blocks, multitask, unet2d
from nets import slices as nets_slices
from nets import weights as nets_weights
from triage_node import distance, grid, laterality, lungs
from triage_node.errors import ConfigurationError
from triage_node.inference import axial, engine
from triage_node.inference.axial import THRESHOLD, AxialSlices, levels_of
from triage_node.inference.engine import SliceNetwork
from triage_node.study import Findings, Model, OperatingPoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nets.multitask import MultitaskNetwork
    from nets.unet2d import LungNetwork
    from triage_node.config import AnalysisSection
    from triage_node.grid import Box, PatientGrid
    from triage_node.inference.axial import Level
    from triage_node.inference.engine import Engine
    from triage_node.study import LungMap, Mask, Volume

    Progress = Callable[[str, float], None]

MARGIN_PIXELS = 4  # of 2 mm around the lungs' bounding box, in the plane
PIECE_SHARE = 0.02  # of the two largest regions together; a smaller one is airway, bowel gas or noise
ROUNDING = 8  # levels, a quarter of a logit: bfloat16 moves nearly all near the threshold by less
ROUNDING_PIXELS = 2  # how far beyond the sure box doubt is looked for
SPLIT_SPACING_MM = 4.0  # right and left are told apart on slices at least this far apart
# What is told of the work, and how much of it is done when each step begins.
STEPS = {
    "resampling": 0.0,
    "finding the lungs": 0.05,
    "finding lesions": 0.45,
    "telling right from left": 0.89,  # what is left of it: it is done beside the lesions
    "drawing the masks": 0.90,
    "done": 1.0,
}


class _Lungs(nn.Module):
    """[n, 1, H, W] -> (logits [n, 1, H, W],)."""

    def __init__(self, network: LungNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.network(slices),)


class _Lesions(nn.Module):
    """[n, 1, H, W] -> (lesion logits [n, classes, H, W], features [n, C, H, W])."""

    def __init__(self, network: MultitaskNetwork) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.segmentation = network.segmentation

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.backbone(slices)
        return self.segmentation(features), features


def lung_slices(network: LungNetwork) -> SliceNetwork:
    """The lung network as engines take it."""
    return SliceNetwork(_Lungs(network))


def lesion_slices(network: MultitaskNetwork) -> SliceNetwork:
    """Backbone, segmentation head and the pyramid's part within slices, as engines take them."""
    return SliceNetwork(_Lesions(network), network.pooling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Probabilities from which on a pixel counts."""

    lungs: float
    lesion: float
    consolidation: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Multitask:
    """The networks resident on their device; called with a volume, it judges it."""

    model: Model
    thresholds: Thresholds
    lungs: Engine
    lungs_exact: Engine  # the same network in float32, for the slices on which rounding could decide
    lesions: Engine
    network: MultitaskNetwork  # for its identification head, in float32 on the CPU
    calibration: nets_weights.Calibration
    device: torch.device
    lung_step: int  # pixels: rows and columns are a multiple of it, so that every pooling halves them exactly
    lesion_step: int

    @torch.inference_mode()
    def __call__(self, volume: Volume, progress: Progress | None = None) -> Findings:
        """Judge a volume. Raises Refused (NO_LUNGS, NOT_AXIAL)."""
        work = _Work(progress)
        stack = AxialSlices.of(volume, self.device, work.on("resampling"))
        level, regions = self._lungs(stack, work.on("finding the lungs"))
        lungs.refuse_without_lungs(stack.grid, regions)
        np.copyto(level, 0, where=(level >= THRESHOLD) & ~regions)  # or it would come back between pixels
        box = _box(regions)
        with ThreadPoolExecutor(1) as beside:  # while the network runs: its threads leave gaps
            sided = beside.submit(_sides, regions, stack.grid)
            lesions, probability = self._lesions(stack, box, work.on("finding lesions"))
            work.on("telling right from left")
            sides, warnings = sided.result()
        tell = work.on("drawing the masks")
        masks = stack.masks(_one_further(sides), (level, *lesions), box, tell, engine.threads())
        work.on("done")
        return Findings(
            lungs=masks.lungs,
            lesions=masks.lesions,
            consolidation=masks.consolidation,
            covid_probability=probability,
            model=self.model,
            warnings=tuple(warnings),
        )

    def _lungs(self, stack: AxialSlices, tell: Callable[[float], None]) -> tuple[Level, Mask]:
        """Levels of the lungs, and their regions."""
        images, inner = stack.images(self.lung_step)
        (logits,) = self.lungs(images, lambda done: tell(done / len(images)))
        level = levels_of(logits[:, 0][inner], self.thresholds.lungs)
        regions = lung_regions(level >= THRESHOLD)
        doubtful = doubtful_slices(level, regions)
        if len(doubtful):
            (logits,) = self.lungs_exact(images[doubtful])
            level[doubtful] = levels_of(logits[:, 0][:, *inner[1:]], self.thresholds.lungs)
            regions = lung_regions(level >= THRESHOLD)
        return level, regions

    def _lesions(self, stack: AxialSlices, box: Box, tell: Callable[[float], None]) -> tuple[tuple[Level, ...], float]:
        """Levels of lesions and, where the network tells it, consolidation, as large as the box; the probability."""
        images, inner = stack.images(self.lesion_step, box)
        logits, maxima = self.lesions(images, lambda done: tell(done / len(images)))
        limits = (self.thresholds.lesion, self.thresholds.consolidation)
        levels = tuple(
            levels_of(logits[:, number][inner], limit) for number, limit in enumerate(limits[: logits.shape[1]])
        )
        covid = self.network.identify(self.network.pooling.over_slices(maxima[None]))
        return levels, self.calibration.probability(float(covid[0]))


class _Work:
    """Tells how far the work is."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def on(self, step: str) -> Callable[[float], None]:
        """Go on to one of `STEPS`; what comes back is told how much of the step is done, 0..1."""
        start = STEPS[step]
        end = min((later for later in STEPS.values() if later > start), default=start)

        def tell(done: float) -> None:
            if self._progress is not None:
                self._progress(step, start + done * (end - start))

        tell(0.0)
        return tell


# ---------------------------------------------------------------------- the lungs' regions


def lung_regions(found: Mask) -> Mask:
    """Without islands: regions under `PIECE_SHARE` of the two largest together are dropped, such as bowel gas.

    The two largest are the lungs, or both lungs where they touch and whatever comes next. A piece of lung that
    consolidation or the field of view cuts off stays if it is large enough; slices are connected face to face.
    """
    kept = np.zeros_like(found)
    if not found.any():
        return kept
    box = grid.bounds(found, 0)
    regions, count = ndimage.label(found[box])
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept[box] = (sizes >= max(1.0, PIECE_SHARE * np.sort(sizes)[-2:].sum()))[regions]
    return kept


def doubtful_slices(level: Level, regions: Mask) -> npt.NDArray[np.intp]:
    """The slices on which what half precision rounds could decide how large the lungs' box is.

    A single pixel can do that, and a box that is one pixel larger moves all boxes of the pooling pyramid: 0.87 became
    0.90 on a real series.
    """
    sure = regions & (level >= THRESHOLD + ROUNDING)
    if not sure.any():
        return np.flatnonzero((level >= THRESHOLD - ROUNDING).any(axis=(1, 2)))
    inside, around = grid.bounds(sure, 0), grid.bounds(sure, ROUNDING_PIXELS)
    doubt = np.zeros_like(sure)
    doubt[around] = level[around] >= THRESHOLD - ROUNDING
    doubt[inside] = False
    return np.flatnonzero(doubt.any(axis=(1, 2)))


def _sides(regions: Mask, of: PatientGrid) -> tuple[LungMap, list[str]]:
    """Right and left, told apart on as many slices as it takes: thinner ones follow their neighbours; and warnings."""
    step = max(1, round(SPLIT_SPACING_MM / of.spacing_zyx_mm[0]))
    # every slice of a run votes, so that a lung that only some of them show is not lost
    thick = np.logical_or.reduceat(regions, np.arange(0, len(regions), step), axis=0) if step > 1 else regions
    coarse = grid.PatientGrid(
        hounsfield=of.hounsfield[::step],
        spacing_zyx_mm=(of.spacing_zyx_mm[0] * step, *of.spacing_zyx_mm[1:]),
        origin_zyx_mm=of.origin_zyx_mm,
    )
    sides, warnings = laterality.split(thick, coarse)
    fine = np.repeat(sides, step, axis=0)[: len(regions)]
    fine[~regions] = 0
    return fine, [*warnings, *lungs.cut_off(fine, of)]


def _one_further(sides: LungMap) -> LungMap:
    """Labels grown by one pixel in the plane: a contour between pixels lies up to one beyond the last that counts."""
    framed = np.pad(sides, ((0, 0), (1, 1), (1, 1)))
    rows = np.maximum(np.maximum(framed[:, :-2], framed[:, 1:-1]), framed[:, 2:])
    grown = np.maximum(np.maximum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
    return np.where(sides > 0, sides, grown)


def _box(regions: Mask) -> Box:
    """The slices with lungs; rows and columns of the lungs' bounding box and a margin, one box for the volume."""
    levels, _, _ = grid.bounds(regions, 0)
    _, rows, columns = grid.bounds(regions, MARGIN_PIXELS)
    return levels, rows, columns


# ---------------------------------------------------------------------- loading


def load(settings: AnalysisSection, weights: Path) -> Multitask:
    """The method, ready to judge, with the weights `lungs` and `multitask` of a folder.

    Raises ConfigurationError where device or weights cannot be used.
    """
    device = engine.device_of(settings.device)
    torch.set_num_threads(engine.threads())
    try:
        lung_network, lung_card = nets_weights.load_lungs(weights / "lungs.safetensors")
        network, card = nets_weights.load_multitask(weights / "multitask.safetensors")
    except nets_weights.WeightsError as error:
        raise ConfigurationError(f'analysis.method: "multitask" cannot be used: {error}') from None
    thresholds = Thresholds(
        lungs=lung_card.thresholds.lungs,
        lesion=card.thresholds.lesion if settings.lesion_threshold is None else settings.lesion_threshold,
        consolidation=card.thresholds.consolidation,
    )
    return Multitask(
        model=_model(lung_card, card, thresholds),
        thresholds=thresholds,
        lungs=engine.engine_for(lung_slices(lung_network), device),
        lungs_exact=engine.Torch(lung_slices(lung_network), device, half=False, batch=1),
        lesions=engine.engine_for(lesion_slices(network), device),
        network=network,
        calibration=card.calibration,
        device=device,
        lung_step=lung_network.backbone.step,
        lesion_step=network.backbone.step,
    )


# What decides how masks and probability come out of the networks: all of it is in the digest.
_RULES = (sys.modules[__name__], axial, distance, grid, laterality, lungs, nets_slices, blocks, unet2d, multitask)


def _model(lung_card: nets_weights.Card, card: nets_weights.Card, thresholds: Thresholds) -> Model:
    """Name, version and digest; the digest is over both networks' weights, the thresholds and the rules around them."""
    point = card.operating_point
    rules = [inspect.getsource(module) for module in _RULES]
    numbers = {
        "weights": [lung_card.sha256, card.sha256],
        "calibration": card.calibration.model_dump(),
        "thresholds": [thresholds.lungs, thresholds.lesion, thresholds.consolidation],
        "margin_pixels": MARGIN_PIXELS,
        "piece_share": PIECE_SHARE,
    }
    digest = hashlib.sha256(json.dumps([numbers, rules], sort_keys=True).encode()).hexdigest()
    return Model(
        name="multitask",
        version=card.version,
        digest=digest,
        describes="lungs by a 2D U-Net, lesions and probability by the multitask network (Goncharov et al. 2021)",
        operating_point=OperatingPoint(**point.model_dump()),
        parameters=(
            ("Lung network", f"{lung_card.version}, SHA-256 {lung_card.sha256}"),
            ("Multitask network", f"{card.version}, SHA-256 {card.sha256}"),
            ("Lung threshold", f"{thresholds.lungs:g}"),
            ("Lesion threshold", f"{thresholds.lesion:g}"),
            ("Consolidation threshold", f"{thresholds.consolidation:g}"),
            ("Probability", f"sigmoid({card.calibration.scale:g} * logit {card.calibration.offset:+g})"),
        ),
        trust=card.trust,
    )
