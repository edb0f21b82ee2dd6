"""What the node does, from intake to the answer: one class for each section of the file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from triage_node.config.fields import AeTitle, Device, Folder, Fraction, Host, Network, Port, Seconds, Section


class NodeSection(Section):
    """Who this node is and where it keeps its state."""

    ae_title: AeTitle = "TRIAGE"
    """AE title under which the node is called and under which it calls."""
    state_dir: Folder = "state"
    """Folder of archive, journal and log: relative to the configuration file's folder, or absolute."""


class Peer(Section):
    """Who may send; nobody else gets an association."""

    ae_title: AeTitle = "*"
    """Calling AE title, "*" for any."""
    address: Network = "127.0.0.1"
    """Address or network (CIDR) of the sender, "*" for any."""


class IntakeSection(Section):
    """The DICOM port."""

    host: Host = "127.0.0.1"
    """Address to listen on; "0.0.0.0" for all interfaces."""
    port: Port = 11112
    """TCP port to listen on."""
    peers: tuple[Peer, ...] = (Peer(),)
    """Who may send."""
    maximum_associations: Annotated[int, Field(ge=1, le=1000)] = 32
    """Associations at a time; one more is rejected as transient (2/3/2), so that the sender tries again."""
    maximum_pdu_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    """Largest P-DATA-TF PDU that the node offers to take."""
    network_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """An association without traffic for this long is aborted."""
    minimum_free_bytes: Annotated[int, Field(ge=0)] = 1_073_741_824
    """Disk watermark: with less room in state_dir new associations are rejected as transient."""
    maximum_instance_bytes: Annotated[int, Field(ge=1_048_576)] = 1_073_741_824
    """A larger data set is refused with 0xA700."""
    keep_other_sop_classes: bool = False
    """Accept and keep every storage SOP class instead of CT alone (the others are never analysed)."""


class CompletionSection(Section):
    """When a series counts as complete."""

    quiet_s: Seconds = 2.0
    """Seconds without a new instance: released, no gap."""
    long_quiet_s: Seconds = 30.0
    """Seconds without a new instance: everything else."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.long_quiet_s < self.quiet_s:
            raise ValueError(f"long_quiet_s ({self.long_quiet_s}) must not be under quiet_s ({self.quiet_s})")
        return self


class AnalysisSection(Section):
    """How a study is judged."""

    method: Literal["threshold", "multitask"] = "multitask"
    """Which method judges."""
    device: Device = "auto"
    """"auto", "cpu", "cuda" or "cuda:N"; the threshold method always runs on the CPU."""
    kernel: Literal["any", "soft", "lung"] = "any"
    """Reconstruction preferred where a study has several."""
    minimum_slices: Annotated[int, Field(ge=2)] = 10
    """Fewer slices are refused (TOO_FEW_SLICES)."""
    maximum_slices: Annotated[int, Field(ge=10)] = 3000
    """More slices are refused (TOO_MANY_SLICES)."""
    maximum_spacing_mm: Annotated[float, Field(gt=0)] = 12.5
    """Wider slice spacing is refused (SPACING_TOO_LARGE)."""
    preferred_spacing_mm: Annotated[float, Field(gt=0)] = 1.0
    """Thinnest slice spacing that still helps: of thinner series the one nearest to it is judged."""
    minimum_coverage_mm: Annotated[float, Field(ge=0)] = 120.0
    """Shorter series along the slice normal are refused (COVERAGE_TOO_SHORT)."""
    consolidation_hu: Annotated[int, Field(ge=-1000, le=300)] = -200
    """Lesion voxels from this attenuation on count as consolidation where the method knows no classes of lesion."""
    lesion_threshold: Fraction | None = None
    """A network marks a voxel as lesion from this output on."""
    grades_up_to: tuple[Fraction, Fraction, Fraction] | None = None
    """Largest affected fractions of the worse lung that are CT-1, CT-2 and CT-3."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often a study whose analysis was cut off is tried before it is reported as ANALYSIS_FAILED."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        cuts = self.grades_up_to
        if cuts is not None and not 0.0 < cuts[0] < cuts[1] < cuts[2]:
            raise ValueError(f"grades_up_to ({', '.join(map(str, cuts))}) must rise and begin above 0")
        return self


class ResultsSection(Section):
    """How the answer is written."""

    language: Literal["en", "de"] = "en"
    """Language of the report's words; its codes are the same in every language."""


class LogSection(Section):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe event that is written."""
    maximum_bytes: Annotated[int, Field(ge=65_536)] = 50_000_000
    """The file is rotated at this size."""
    keep: Annotated[int, Field(ge=1, le=100)] = 10
    """Rotated files kept."""
    patient_identity: bool = False
    """Write patient names and identifiers into log lines."""
