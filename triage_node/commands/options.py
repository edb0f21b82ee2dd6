"""What every command takes: the configuration file, --json, and the journal of the node it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triage_node import config, logbook
from triage_node.errors import TriageError
from triage_node.journal import Journal

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="Configuration file.", show_default=True, metavar="FILE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DEFAULT_CONFIG = Path("conf/node.toml")


def settings_of(path: Path, process: str, *, log_file: bool = False) -> config.Settings:
    """The configuration, with the log set up for `process`. Raises ConfigurationError."""
    settings = config.load(path)
    logbook.configure(process, settings.state_dir if log_file else None, settings.log)
    return settings


def journal_of(settings: config.Settings) -> Journal:
    """The node's journal. Raises TriageError where the node has never been started."""
    if not (settings.state_dir / "journal.sqlite").exists():
        raise TriageError(f"no journal in {settings.state_dir}: the node has not been started with this configuration")
    return Journal(settings.state_dir)
