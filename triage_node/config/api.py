"""The list and its studies for programs that speak HTTP instead of DICOM."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from triage_node.config.fields import AeTitle, Section


class ApiSection(Section):
    """Addresses for programs, on the page's port and behind its access control."""

    enabled: bool = False
    """Serve the JSON API under /api/v1, with its OpenAPI description."""
    ups_rs: bool = False
    """Serve the reading worklist as UPS-RS (PS3.18 section 11) under /ups-rs."""
    subscriber_ae_titles: tuple[AeTitle, ...] = ()
    """AE titles under which programs may subscribe by UPS-RS; others than those of ups.subscribers."""
    largest_answer: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Workitems in one answer to a search; whoever wants more asks for the next ones by offset."""
    give_up_after_h: Annotated[float, Field(gt=0)] = 24.0
    """A report that its subscriber has not fetched for this long is dropped."""
