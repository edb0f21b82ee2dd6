"""Weights and their model cards: `<name>.safetensors` beside `<name>.json`.

The card says how the network is built, what it was made from, how far it can be trusted, and the SHA-256 of the
weights; it is written last, so that a card never stands beside weights it does not know. What ships lies in the
folder `weights` of this package: a plain folder without code, so that the name `nets.weights` stays this module's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from nets.multitask import MultitaskNetwork
from nets.slices import SPACING_MM, WINDOW_HU
from nets.unet2d import Levels, LungNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

PACKAGED = Path(__file__).with_name("weights")
HALF_FROM_DIMENSIONS = 2  # vectors (biases, batch normalisation) stay as they are: they cost nothing and range far


# ---------------------------------------------------------------------- errors


class WeightsError(Exception):
    """Weights cannot be used; the message says why and what to do."""


class WeightsMissing(WeightsError):
    """There is no weights file or no card where one was asked for."""


class WeightsDamaged(WeightsError):
    """A card that is none, or weights that are not the ones that their card was written for."""


class WeightsMismatch(WeightsError):
    """Sound weights of another network, or of one that saw other images than ours does."""


# ---------------------------------------------------------------------- the card

Fraction = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a model card: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LevelTable(Part):
    """`Levels` as numbers: one pair (down, up) a level, and the bottom."""

    table: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    bottom: tuple[int, ...]

    @classmethod
    def of(cls, levels: Levels) -> Self:
        """The numbers of the levels."""
        return cls.model_validate(levels.table())

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.levels()
        return self

    def levels(self) -> Levels:
        """The levels of the numbers."""
        return Levels.of(self.table, self.bottom)


class LungArchitecture(Part):
    """What a `LungNetwork` is built from."""

    network: Literal["lungs"] = "lungs"
    levels: LevelTable

    def build(self) -> LungNetwork:
        """The network, with the weights that torch begins with."""
        return LungNetwork(self.levels.levels())


class MultitaskArchitecture(Part):
    """What a `MultitaskNetwork` is built from; see there."""

    network: Literal["multitask"] = "multitask"
    levels: LevelTable
    lesion_classes: Literal[1, 2] = 2
    pooling_levels: Annotated[int, Field(ge=1)] = 4
    hidden: Annotated[int, Field(ge=1)] = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    def build(self) -> MultitaskNetwork:
        """The network, with the weights that torch begins with."""
        return MultitaskNetwork(
            self.levels.levels(),
            lesion_classes=self.lesion_classes,
            pooling_levels=self.pooling_levels,
            hidden=self.hidden,
            dropout=self.dropout,
        )


class Thresholds(Part):
    """Probabilities from which on a pixel counts."""

    lungs: Fraction = 0.5
    lesion: Fraction = 0.5
    consolidation: Fraction = 0.5


class OperatingPoint(Part):
    """From which probabilities and affected fractions on a study is read earlier, and how extents are graded."""

    probability_high: Fraction = 0.5
    probability_medium: Fraction = 0.2
    fraction_high: Fraction = 0.5
    fraction_medium: Fraction = 0.25
    grades_up_to: tuple[Fraction, ...] = (0.25, 0.5, 0.75)
    source: str = "not chosen on data"

    @model_validator(mode="after")
    def _rise(self) -> Self:
        if self.probability_medium > self.probability_high or self.fraction_medium > self.fraction_high:
            raise ValueError("what is MEDIUM cannot lie above what is HIGH")
        if list(self.grades_up_to) != sorted(set(self.grades_up_to)):
            raise ValueError(f"grades_up_to must rise: {self.grades_up_to}")
        return self


class Calibration(Part):
    """Probability of COVID-19 = sigmoid(scale * logit + offset)."""

    scale: Annotated[float, Field(gt=0)] = 1.0
    offset: float = 0.0

    def probability(self, logit: float) -> float:
        """0..1 of the network's logit."""
        return 0.5 * (1.0 + math.tanh(0.5 * (self.scale * logit + self.offset)))


class Card(Part):
    """What must be known of weights before they are used on patients.

    `name`, `sha256` and nothing else are filled in by `save`. Sentences are for people; `metrics` is for both.
    """

    name: str = ""
    version: str
    architecture: Annotated[LungArchitecture | MultitaskArchitecture, Field(discriminator="network")]
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    spacing_mm: float = SPACING_MM
    window_hu: tuple[int, int] = WINDOW_HU
    thresholds: Thresholds = Thresholds()
    operating_point: OperatingPoint = OperatingPoint()
    calibration: Calibration = Calibration()
    data: tuple[str, ...]  # one sentence a source
    licence: str  # of the data, and what follows for the weights
    split: str  # how patients were kept apart, and which
    training: str  # the command and what it ran on
    metrics: dict[str, JsonValue]  # on patients kept out of training; empty where nobody measured
    not_for: tuple[str, ...]  # what the weights must not be used for
    trust: str  # how far the probability and the masks can be believed

    @field_validator("window_hu")
    @classmethod
    def _window_rises(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] >= value[1]:
            raise ValueError(f"the window must rise: {value}")
        return value


# ---------------------------------------------------------------------- writing


def save(folder: Path, name: str, network: nn.Module, card: Card, *, half: bool = True) -> Path:
    """Write `<name>.safetensors`, then `<name>.json`; each appears whole or not at all.

    Args:
        folder: made where it is missing.
        name: of both files, and written into the card.
        network: as the card's architecture describes it, on any device.
        card: its name and SHA-256 are filled in.
        half: store matrices and kernels as float16, which moves logits by a few thousandths; vectors never are.

    Returns:
        The path of the weights.

    Raises:
        WeightsMismatch: the network is not the one that the card describes.
        WeightsDamaged: the network holds values that are not finite.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    _compare(state, card, f"the network to be saved as {name!r}")
    wrong = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if wrong:
        raise WeightsDamaged(f"{name!r} is not saved: {_some(wrong)} hold values that are not finite; train again")
    if half:
        state = {key: _halved(value) for key, value in state.items()}
    blob = safetensors.torch.save(state)
    card = card.model_copy(update={"name": name, "sha256": hashlib.sha256(blob).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{name}.safetensors"
    _write(weights, blob)
    _write(weights.with_suffix(".json"), (card.model_dump_json(indent=2) + "\n").encode())
    return weights


def _halved(value: torch.Tensor) -> torch.Tensor:
    if value.dtype != torch.float32 or value.dim() < HALF_FROM_DIMENSIONS:
        return value
    half = value.half()
    return half if bool(torch.isfinite(half).all()) else value  # float16 ends at 65504


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        written = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            written.chmod(0o644)
            written.replace(path)
        except BaseException:
            written.unlink(missing_ok=True)
            raise


# ---------------------------------------------------------------------- reading


def load_lungs(path_or_name: Path | str = "lungs") -> tuple[LungNetwork, Card]:
    """The lung network in float32 on the CPU, ready for inference, and its card.

    Args:
        path_or_name: weights that ship ("lungs"), or the path of a weights file or its card.

    Raises:
        WeightsMissing, WeightsDamaged, WeightsMismatch: with what to do about it.
    """
    network, card = _load(path_or_name)
    if not isinstance(network, LungNetwork):
        raise WeightsMismatch(f"{path_or_name} is a {card.architecture.network} network; a lungs network is needed")
    return network, card


def load_multitask(path_or_name: Path | str = "multitask") -> tuple[MultitaskNetwork, Card]:
    """The multitask network in float32 on the CPU, ready for inference, and its card; see `load_lungs`."""
    network, card = _load(path_or_name)
    if not isinstance(network, MultitaskNetwork):
        raise WeightsMismatch(f"{path_or_name} is a {card.architecture.network} network; a multitask network is needed")
    return network, card


def read_card(path_or_name: Path | str) -> Card:
    """The card alone, without a look at the weights; see `load_lungs` for the argument.

    Raises:
        WeightsMissing: there is none.
        WeightsDamaged: it is not a model card.
    """
    path = _weights_path(path_or_name).with_suffix(".json")
    try:
        return Card.model_validate_json(_bytes(path))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise WeightsDamaged(f"{path} is not a model card ({wrong}); take it and its weights anew") from None


def _load(path_or_name: Path | str) -> tuple[nn.Module, Card]:
    path = _weights_path(path_or_name)
    card = read_card(path)
    blob = _bytes(path)
    found = hashlib.sha256(blob).hexdigest()
    if found != card.sha256:
        raise WeightsDamaged(
            f"{path} is not the file that its card was written for: {len(blob)} bytes with the SHA-256 {found}, "
            f"expected {card.sha256 or 'none at all'}; take both files anew"
        )
    try:
        state = safetensors.torch.load(blob)
    except safetensors.SafetensorError as error:
        raise WeightsDamaged(f"{path} is not a safetensors file ({error}); take it and its card anew") from None
    _compare(state, card, str(path))
    if card.spacing_mm != SPACING_MM or card.window_hu != WINDOW_HU:
        raise WeightsMismatch(
            f"{path} saw slices of {card.spacing_mm} mm in the window {card.window_hu} HU; here they have "
            f"{SPACING_MM} mm in the window {WINDOW_HU} HU: train it again with this version's tools"
        )
    network = _empty(card)
    network.load_state_dict({key: _single(value) for key, value in state.items()}, assign=True)
    return network.eval(), card


def _weights_path(path_or_name: Path | str) -> Path:
    if isinstance(path_or_name, str) and Path(path_or_name).name == path_or_name and "." not in path_or_name:
        return PACKAGED / f"{path_or_name}.safetensors"
    path = Path(path_or_name)
    if path.suffix in {".safetensors", ".json"}:
        return path.with_suffix(".safetensors")
    return path.with_name(f"{path.name}.safetensors")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        there = sorted(other.stem for other in path.parent.glob("*.safetensors"))
        if path.parent == PACKAGED:
            hint = "reinstall the package, or name the path of weights"
        else:
            hint = "a weights file and its card must lie side by side"
        raise WeightsMissing(f"there is no {path}: {hint}; weights there: {', '.join(there) or 'none'}") from None
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read: {error.strerror}") from None


def _empty(card: Card) -> nn.Module:
    with torch.device("meta"):  # no memory and no random numbers: every value comes from the file
        return card.architecture.build()


def _single(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()


def _compare(state: Mapping[str, torch.Tensor], card: Card, what: str) -> None:
    """Raises WeightsMismatch unless names and shapes are those of the card's architecture."""
    wanted = _empty(card).state_dict()
    problems = []
    if missing := [key for key in wanted if key not in state]:
        problems.append(f"{_some(missing)} missing")
    if unknown := [key for key in state if key not in wanted]:
        problems.append(f"{_some(unknown)} unknown")
    if other := [key for key in wanted if key in state and state[key].shape != wanted[key].shape]:
        key = other[0]
        shapes = f"{key} is {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        problems.append(f"{_some(other)} of another shape ({shapes})")
    if problems:
        architecture = json.dumps(card.architecture.model_dump(mode="json"))
        raise WeightsMismatch(
            f"{what} is not the network of its card: {'; '.join(problems)}; the card's: {architecture}"
        )


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"
