"""The reading worklist as other systems see it: Unified Procedure Steps on a port of their own."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from triage_node.config.fields import AeTitle, Host, Port, Section
from triage_node.config.sections import Peer


class SubscriberSection(Section):
    """Where reports go; only AE titles that are named here may subscribe."""

    ae_title: AeTitle
    """AE title that subscribes and is called."""
    host: Host
    """Host name or address."""
    port: Port
    """TCP port."""


class UpsSection(Section):
    """The reading worklist by DICOM (UPS)."""

    enabled: bool = False
    """Serve the worklist at all."""
    host: Host = "127.0.0.1"
    """Address to listen on; "0.0.0.0" for all interfaces."""
    port: Port = 11114
    """TCP port to listen on."""
    peers: tuple[Peer, ...] = (Peer(),)
    """Who may query, claim and order."""
    subscribers: tuple[SubscriberSection, ...] = ()
    """Where reports of changes go."""
    maximum_associations: Annotated[int, Field(ge=1, le=1000)] = 32
    """Associations at a time; one more is rejected as transient."""
    network_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """An association without traffic for this long is aborted."""
    worklist_label: Annotated[str, Field(min_length=1, max_length=64)] = "Chest CT"
    """Worklist Label (0074,1202) of what was not ordered under another one."""
    complete_descriptions: bool = False
    """true: what a performer has not set when it completes a workitem is filled in; false: refused (0xC304)."""
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """A subscriber that does not answer for this long counts as unreachable until the next attempt."""
    retry_first_s: Annotated[float, Field(gt=0)] = 5.0
    """Pause before the second attempt to report; each further pause is twice as long."""
    retry_longest_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest pause between attempts."""
    give_up_after_h: Annotated[float, Field(gt=0)] = 24.0
    """After this long a report is given up."""

    @model_validator(mode="after")
    def _different(self) -> Self:
        titles = [one.ae_title for one in self.subscribers]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"subscribers: the AE title {twice[0]!r} is named {titles.count(twice[0])} times")
        return self
