"""The one door through which a volume becomes findings: Volume -> Findings, by a method chosen by name.

A method is pure: the same volume gives the same findings, bit for bit. This module alone may import torch and the
networks, and only when a method that needs them is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from triage_node import threshold

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


def _threshold(settings: AnalysisSection) -> Method:
    warnings: tuple[str, ...] = ()
    if settings.device.startswith("cuda"):
        warnings = (f"device {settings.device!r} was asked for, but the threshold method runs on the CPU",)
    return Threshold(model=threshold.model(), warnings=warnings)


METHODS: dict[str, Callable[[AnalysisSection], Method]] = {"threshold": _threshold}


def load(settings: AnalysisSection) -> Method:
    """The method that the configuration names, ready to judge."""
    return METHODS[settings.method](settings)
