"""conf/node.toml -> frozen settings.

Every key has a default, so that the smallest file says only what differs. Unknown keys are refused, and all
problems are reported at once, each with the key's path, what was found and what is allowed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from triage_node import misconfiguration
from triage_node.config.api import ApiSection
from triage_node.config.destinations import DestinationSection
from triage_node.config.fields import Section
from triage_node.config.hl7 import Hl7Section
from triage_node.config.reading import WorklistSection
from triage_node.config.sections import (
    AnalysisSection,
    CompletionSection,
    IntakeSection,
    LogSection,
    NodeSection,
    Peer,
    ResultsSection,
)
from triage_node.config.ups import SubscriberSection, UpsSection
from triage_node.config.web import UserSection, WebSection
from triage_node.errors import ConfigurationError

__all__ = [
    "AnalysisSection",
    "ApiSection",
    "CompletionSection",
    "DestinationSection",
    "Hl7Section",
    "IntakeSection",
    "LogSection",
    "NodeSection",
    "Peer",
    "ResultsSection",
    "Settings",
    "SubscriberSection",
    "UpsSection",
    "UserSection",
    "WebSection",
    "WorklistSection",
]


class Settings(Section):
    """The whole configuration."""

    node: NodeSection = NodeSection()
    intake: IntakeSection = IntakeSection()
    completion: CompletionSection = CompletionSection()
    analysis: AnalysisSection = AnalysisSection()
    results: ResultsSection = ResultsSection()
    worklist: WorklistSection = WorklistSection()
    ups: UpsSection = UpsSection()
    destinations: tuple[DestinationSection, ...] = ()
    hl7: tuple[Hl7Section, ...] = ()
    web: WebSection = WebSection()
    api: ApiSection = ApiSection()
    log: LogSection = LogSection()
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = []
        names, systems = list(self.destination_names), {system.name for system in self.hl7}
        problems += [
            f"{'hl7' if name in systems else 'destinations'}: the name {name!r} is used {names.count(name)} times; each"
            " needs its own"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if self.web.enabled and self.web.port == self.intake.port:
            problems.append(f"web.port and intake.port are both {self.web.port}; each needs its own")
        for name, port in (("intake", self.intake.port), ("web", self.web.port if self.web.enabled else None)):
            if self.ups.enabled and self.ups.port == port:
                problems.append(f"ups.port and {name}.port are both {port}; each needs its own")
        if (self.api.enabled or self.api.ups_rs) and not self.web.enabled:
            problems.append("api: enabled and ups_rs need web.enabled, since they are served on its port")
        both = sorted({one.ae_title for one in self.ups.subscribers} & set(self.api.subscriber_ae_titles))
        problems += [
            f"api.subscriber_ae_titles: {title!r} is among ups.subscribers, and is told by DICOM" for title in both
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def state_dir(self) -> Path:
        """Absolute path of the state directory."""
        return (self.folder / self.node.state_dir).resolve()

    @property
    def destination_names(self) -> tuple[str, ...]:
        """Names of all that get answers, archives and RIS, in the order of the file."""
        return (*(destination.name for destination in self.destinations), *(system.name for system in self.hl7))


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
    "ups": UpsSection,
    "subscribers": SubscriberSection,
    "destinations": DestinationSection,
    "hl7": Hl7Section,
    "web": WebSection,
    "users": UserSection,
    "api": ApiSection,
    "log": LogSection,
}
