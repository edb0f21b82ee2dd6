"""Which RIS gets the answers as HL7 v2 messages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from triage_node.config.fields import Host, Port, Section


def _hierarchic_designator(value: str) -> str:
    # HL7 2.5.1 section 2.A.33: namespace, or namespace^universal id^type; nothing that would be a delimiter elsewhere
    if len(value) > 227 or not value.isascii() or not value.isprintable() or any(sign in value for sign in "|~\\&"):
        raise ValueError('a name such as "RIS", or "name^identifier^type": ASCII, and none of | ~ \\ &')
    return value


Designator = Annotated[str, AfterValidator(_hierarchic_designator)]


class Hl7Section(Section):
    """A RIS that gets every answer as ORU^R01 over MLLP."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """Name in journal, log and page; not that of one of the destinations."""
    host: Host
    """Host name or address."""
    port: Port
    """TCP port."""
    receiving_application: Designator = ""
    """MSH-5: how the receiver calls its application."""
    receiving_facility: Designator = ""
    """MSH-6: how the receiver calls its facility."""
    sending_application: Designator = ""
    """MSH-3: how this node is called there; empty: node.ae_title."""
    sending_facility: Designator = ""
    """MSH-4: of which facility this node is."""
    processing_id: Literal["production", "training", "debugging"] = "production"
    """MSH-11: a receiver keeps what is not production out of its patients' records."""
    result_status: Literal["preliminary", "not verified", "final"] = "preliminary"
    """OBX-11 of a first answer (P, R or F); that of a newer one is C, correction."""
    acknowledgement: Literal["original", "enhanced"] = "original"
    """"original": wait for AA, AE or AR; "enhanced": ask for CA, CE or CR in MSH-15 and wait for that."""
    character_set: Literal["UNICODE UTF-8", "8859/1"] = "UNICODE UTF-8"
    """MSH-18, and how the message is encoded."""
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """A receiver that does not acknowledge for this long counts as silent until the next attempt."""
    retry_first_s: Annotated[float, Field(gt=0)] = 5.0
    """Pause before the second attempt; each further pause is twice as long."""
    retry_longest_s: Annotated[float, Field(gt=0)] = 3600.0
    """Longest pause between attempts."""
    probe_longest_s: Annotated[float, Field(gt=0)] = 300.0
    """Longest pause between two probes of a receiver that is not reached at all."""
    give_up_after_h: Annotated[float, Field(gt=0)] = 168.0
    """After this long the message is given up (and can be requeued by hand)."""
