"""`triage-node mark`: claim, finish or put back a reading from the command line."""

from __future__ import annotations

import getpass
import time
from enum import StrEnum
from typing import Annotated

import typer

from triage_node.commands.options import DEFAULT_CONFIG, ConfigOption, journal_of, settings_of
from triage_node.journal import workitems


class ReadingState(StrEnum):
    """What `mark` can say of a study."""

    WAITING = "waiting"
    READING = "reading"
    READ = "read"
    CANCELLED = "cancelled"


def mark(
    uid: Annotated[str, typer.Argument(help="Study Instance UID.", metavar="UID")],
    state: Annotated[ReadingState, typer.Argument(help="Where its reading stands.")],
    config_path: ConfigOption = DEFAULT_CONFIG,
    by: Annotated[
        str | None, typer.Option("--by", help="Who reads it; without it your name on this machine.", metavar="NAME")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also where somebody else is reading it.")] = False,
) -> None:
    """Say that a study is being read, was read or need not be, or put it back into the queue."""
    settings = settings_of(config_path, "mark")
    journal, name, now = journal_of(settings), by or getpass.getuser(), time.time()
    match state:
        case ReadingState.WAITING:
            workitems.release(journal, uid, name, now, force=force)
        case ReadingState.READING:
            if force:
                workitems.release(journal, uid, name, now, force=True)
            workitems.claim(journal, uid, name, now)
        case ReadingState.READ:
            workitems.finish(journal, uid, name, now, force=force)
        case ReadingState.CANCELLED:
            workitems.cancel(journal, uid, name, now, words=f"called off by {name}")
    typer.echo(f"{uid}: {state.value}")


def add(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(mark)
