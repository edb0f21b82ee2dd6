"""The reading worklist."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from triage_node.config.fields import Fraction, Section


class WorklistSection(Section):
    """In which order studies are read."""

    strategy: Literal["identification", "severity", "combined"] = "combined"
    """The three kinds of clinic of Goncharov 2021, section 1."""
    max_wait_min: Annotated[float, Field(gt=0)] = 120.0
    """No study waits longer than this because of others."""
    probability_high: Fraction | None = None
    """From this probability of COVID-19 on a study is HIGH (identification)."""
    probability_medium: Fraction | None = None
    """From this probability on it is MEDIUM (identification)."""
    fraction_high: Fraction | None = None
    """From this affected fraction of the worse lung on a study is HIGH (severity)."""
    fraction_medium: Fraction | None = None
    """From this affected fraction on it is MEDIUM (severity)."""
    probability_weight: Fraction = 0.5
    """Weight of the probability against the affected fraction (combined)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("probability", "fraction"):
            high, medium = getattr(self, f"{name}_high"), getattr(self, f"{name}_medium")
            if medium is not None and high is not None and medium > high:
                raise ValueError(f"{name}_medium ({medium}) must not be over {name}_high ({high})")
        return self
