"""Where the answers go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from triage_node.config.fields import AeTitle, Host, Port, Seconds, Section

ResultChoice = Literal["lesions", "lungs", "report", "overview"]


class DestinationSection(Section):
    """Who gets the results."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """Name in journal, log and page."""
    ae_title: AeTitle
    """Called AE title."""
    host: Host
    """Host name or address."""
    port: Port
    """TCP port."""
    send: tuple[ResultChoice, ...] = ("lesions", "lungs", "report", "overview")
    """Which kinds of object."""
    segmentations: Literal["binary", "label map", "both"] = "binary"
    """How lesions and lungs are sent; BINARY instead of label maps to a destination that takes none."""
    deflated: bool = False
    """Send segmentations deflated to a destination that accepts the transfer syntax."""
    storage_commitment: bool = False
    """Ask for storage commitment after each delivery; who reports must be among intake.peers."""
    commitment_wait_s: Seconds = 5.0
    """The association of a request is kept open for this long, for a report on the same association."""
    commitment_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Without a report for this long commitment is asked for again; each further pause is twice as long."""
    read_back: bool = False
    """Look each delivered object up by C-FIND (Study Root)."""
    resends: Annotated[int, Field(ge=0, le=100)] = 3
    """How often an object that the destination has lost is sent again before it counts as refused."""
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """A destination that does not answer for this long counts as dead until the next attempt."""
    retry_first_s: Annotated[float, Field(gt=0)] = 5.0
    """Pause before the second attempt; each further pause is twice as long."""
    retry_longest_s: Annotated[float, Field(gt=0)] = 3600.0
    """Longest pause between attempts."""
    probe_longest_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest pause between two probes of a destination that is not reached at all."""
    give_up_after_h: Annotated[float, Field(gt=0)] = 168.0
    """After this long the object is given up (and can be requeued by hand)."""
