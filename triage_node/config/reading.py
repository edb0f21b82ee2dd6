"""The reading worklist and who looks at it."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from triage_node.config.fields import Fraction, Port, Section


def _loopback_host(value: str) -> str:
    try:
        loopback = value == "localhost" or ipaddress.ip_address(value).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError('a loopback address such as "127.0.0.1", since the page has no log-in in this version')
    return value


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


class WebSection(Section):
    """The worklist page."""

    enabled: bool = True
    """Serve the page at all."""
    host: Annotated[str, AfterValidator(_loopback_host)] = "127.0.0.1"
    """Address to listen on. The page has no log-in in this version, so only loopback is allowed."""
    port: Port = 8080
    """TCP port to listen on."""
