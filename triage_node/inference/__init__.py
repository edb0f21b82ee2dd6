"""The one door through which a volume becomes findings: Volume -> Findings, by a method chosen by name.

A method is pure: the same volume gives the same findings, bit for bit. This package alone may import torch and the
networks, and this module does so only when a method that needs them is loaded: `multitask` is the method, `axial` the
way of a volume to the networks and of their masks back, `engine` what runs them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from triage_node import threshold
from triage_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from triage_node.config import AnalysisSection
    from triage_node.study import Findings, Model, Volume

    Progress = Callable[[str, float], None]  # what is being done, and how much is done, 0..1


class Method(Protocol):
    """A way to judge a chest CT."""

    @property
    def model(self) -> Model:
        """What judges: name, version, digest."""

    def __call__(self, volume: Volume, progress: Progress | None = None) -> Findings:
        """Judge a volume. Raises Refused where it shows no lungs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The weight-free method of `triage_node.threshold`; always on the CPU."""

    model: Model
    warnings: tuple[str, ...] = ()

    def __call__(self, volume: Volume, progress: Progress | None = None) -> Findings:
        """Judge a volume. Raises Refused where it shows no lungs."""
        findings = threshold.judge(volume, self.model, progress)
        return replace(findings, warnings=(*findings.warnings, *self.warnings))


# What the multitask method needs, and what makes it.
TRAINED_BY = {"lungs": "python tools/train_lungs.py", "multitask": "python tools/train_multitask.py"}


def _threshold(settings: AnalysisSection, _: Path) -> Method:
    warnings: tuple[str, ...] = ()
    if settings.device.startswith("cuda"):
        warnings = (f"device {settings.device!r} was asked for, but the threshold method runs on the CPU",)
    return Threshold(model=threshold.model(), warnings=warnings)


def _multitask(settings: AnalysisSection, weights: Path) -> Method:
    missing = [
        f"{name} ({command})"
        for name, command in TRAINED_BY.items()
        if not all((weights / f"{name}{end}").is_file() for end in (".json", ".safetensors"))
    ]
    if missing:  # said before torch is loaded, which takes seconds
        raise ConfigurationError(
            f'analysis.method: "multitask" has no weights in {weights}: missing {", ".join(missing)}; '
            'train them with the command in brackets, or set "threshold"'
        )
    from triage_node.inference import multitask

    return multitask.load(settings, weights)


METHODS: dict[str, Callable[[AnalysisSection, Path], Method]] = {"threshold": _threshold, "multitask": _multitask}


def load(settings: AnalysisSection, weights: Path | None = None) -> Method:
    """The method that the configuration names, ready to judge.

    Args:
        settings: method, device and thresholds.
        weights: folder of weights and model cards instead of those that ship.

    Raises:
        ConfigurationError: the device or the weights cannot be used, with what to do about it.
    """
    return METHODS[settings.method](settings, packaged_weights() if weights is None else weights)


def packaged_weights() -> Path:
    """The folder of the weights that ship; found without importing the networks."""
    spec = find_spec("nets")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("weights")
