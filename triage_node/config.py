"""conf/node.toml -> frozen settings.

Every key has a default, so that the smallest file says only what differs. Unknown keys are refused, and all
problems are reported at once, each with the key's path, what was found and what is allowed.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from triage_node import misconfiguration
from triage_node.errors import ConfigurationError

ResultChoice = Literal["lesions", "lungs", "report", "overview"]


def _ae_title(value: str) -> str:
    # PS3.5 table 6.2-1, AE: 16 bytes of the default repertoire, no backslash, not only spaces
    if not 1 <= len(value) <= 16 or not value.isascii() or not value.isprintable() or "\\" in value:
        raise ValueError("1 to 16 printable ASCII characters and no backslash")
    if value != value.strip():
        raise ValueError("no leading and trailing spaces: they are not significant in an AE title")
    return value


def _network(value: str) -> str:
    if value != "*":
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(
                'an address ("10.0.0.5"), a network ("10.0.0.0/8") or "*"; host names are not looked up'
            ) from None
    return value


def _host(value: str) -> str:
    if not value or not value.isascii() or any(sign.isspace() or not sign.isprintable() for sign in value):
        raise ValueError("a host name or an address, without spaces")
    return value


def _loopback_host(value: str) -> str:
    try:
        loopback = value == "localhost" or ipaddress.ip_address(value).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError('a loopback address such as "127.0.0.1", since the page has no log-in in this version')
    return value


def _folder(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError('the path of a folder, "." for the folder of this file')
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", value, re.ASCII):
        raise ValueError('"auto", "cpu", "cuda" or "cuda:N"')
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """Common to all sections: frozen, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class NodeSection(Section):
    """Who this node is and where it keeps its state."""

    ae_title: AeTitle = "TRIAGE"
    """AE title under which the node is called and under which it calls."""
    state_dir: Annotated[str, AfterValidator(_folder)] = "state"
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
    device: Annotated[str, AfterValidator(_device)] = "auto"
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


class WebSection(Section):
    """The worklist page."""

    enabled: bool = True
    """Serve the page at all."""
    host: Annotated[str, AfterValidator(_loopback_host)] = "127.0.0.1"
    """Address to listen on. The page has no log-in in this version, so only loopback is allowed."""
    port: Port = 8080
    """TCP port to listen on."""


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


class Settings(Section):
    """The whole configuration."""

    node: NodeSection = NodeSection()
    intake: IntakeSection = IntakeSection()
    completion: CompletionSection = CompletionSection()
    analysis: AnalysisSection = AnalysisSection()
    results: ResultsSection = ResultsSection()
    worklist: WorklistSection = WorklistSection()
    destinations: tuple[DestinationSection, ...] = ()
    web: WebSection = WebSection()
    log: LogSection = LogSection()
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = []
        names = [destination.name for destination in self.destinations]
        problems += [
            f"destinations: the name {name!r} is used {names.count(name)} times; each needs its own"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if self.web.enabled and self.web.port == self.intake.port:
            problems.append(f"web.port and intake.port are both {self.web.port}; each needs its own")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def state_dir(self) -> Path:
        """Absolute path of the state directory."""
        return (self.folder / self.node.state_dir).resolve()

    @property
    def destination_names(self) -> tuple[str, ...]:
        """Names of all destinations, in the order of the file."""
        return tuple(destination.name for destination in self.destinations)


def load(path: Path) -> Settings:
    """Read and validate the configuration file.

    Raises ConfigurationError with one line a problem.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}") from error
    return parse(text, folder=path.resolve().parent, name=str(path))


def parse(text: str, *, folder: Path, name: str = "configuration") -> Settings:
    """Validate TOML `text`; relative paths in it are relative to `folder`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is not TOML: {error}") from error
    return validate(table, folder=folder, name=name)


def validate(table: dict[str, Any], *, folder: Path, name: str) -> Settings:
    """Validate the table of a TOML file, which is used up. Raises ConfigurationError with one line a problem."""
    problems = (
        [f"folder: unknown key; allowed here: {', '.join(misconfiguration.keys((), Settings))}"]
        if "folder" in table
        else []
    )
    table.pop("folder", None)
    while True:
        try:
            settings = Settings.model_validate({**_tuples(table), "folder": folder})
        except ValidationError as error:
            problems += misconfiguration.problems(error, Settings)
            faults = [problem["loc"] for problem in error.errors()]
        else:
            faults = []
        if not faults or () in faults:
            break
        # What contradicts itself shows only once each key is right by itself: mend the faults and look again.
        for fault in faults:
            misconfiguration.mend(table, fault)
    if problems:
        raise ConfigurationError("\n".join([f"{name}:", *(f"  {line}" for line in problems)]))
    return settings


def with_method(settings: Settings, method: str) -> Settings:
    """The same settings with another method. Raises ConfigurationError if there is no such method."""
    try:
        analysis = AnalysisSection.model_validate({**settings.analysis.model_dump(), "method": method})
    except ValidationError as error:
        raise ConfigurationError("\n".join(misconfiguration.problems(error, AnalysisSection))) from None
    return settings.model_copy(update={"analysis": analysis})


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    """The table with tuples of what TOML gives as lists: strict validation takes nothing else."""

    def convert(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: convert(entry) for key, entry in item.items()}
        return tuple(convert(entry) for entry in item) if isinstance(item, list) else item

    return {key: convert(entry) for key, entry in value.items()}


SECTIONS: dict[str, type[Section]] = {
    "node": NodeSection,
    "intake": IntakeSection,
    "peers": Peer,
    "completion": CompletionSection,
    "analysis": AnalysisSection,
    "results": ResultsSection,
    "worklist": WorklistSection,
    "destinations": DestinationSection,
    "web": WebSection,
    "log": LogSection,
}
