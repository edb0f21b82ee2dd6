"""The command line.

Exit status: 0 done; 1 the thing asked for is not there or did not work; 2 wrong usage or configuration; 3 a port is
in use; 4 another node holds the state directory; 5 some studies were not analysed (`analyze`).
"""

from __future__ import annotations

import sqlite3
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from triage_node import __version__, config, logbook, terminal, worklist
from triage_node.commands import access, marking, what_if
from triage_node.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption, journal_of, settings_of
from triage_node.errors import ConfigurationError, StateInUse, TriageError
from triage_node.journal import outbox

FAILED, USAGE, IN_USE, NOT_ALL_ANALYSED = 1, 2, 4, 5

app = typer.Typer(
    name="triage-node",
    help="A DICOM node beside a PACS: judges chest CT and reorders the reading worklist. NOT FOR DIAGNOSTIC USE.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def serve(config_path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the node in the foreground until SIGTERM or Ctrl-C."""
    from triage_node import node, tls

    settings = config.load(config_path)
    tls.pair(settings)  # which says what is wrong with certificate and key before anything starts
    lock = node.StateLock(settings.state_dir)
    logbook.configure("node", settings.state_dir, settings.log)
    raise typer.Exit(node.serve(settings, config_path.resolve(), lock))


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="Your own DICOM files instead of the phantom.", metavar="[DIR]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where configuration, state and results go.")] = Path("demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave node and page running until Ctrl-C.")] = False,
) -> None:
    """Show a whole node at work on loopback: studies in, objects and a reordered list out."""
    from triage_node import demo as demonstration

    raise typer.Exit(demonstration.run(out, folder, keep=keep))


@app.command()
def analyze(
    folder: Annotated[Path, typer.Argument(help="Folder of DICOM files.", metavar="DIR", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="Where the objects go.", metavar="DIR")],
    method: Annotated[str | None, typer.Option(help="Which method judges.")] = None,
    config_path: Annotated[
        Path | None, typer.Option("--config", "-c", help="Take [analysis] from this file.", metavar="FILE")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Judge a folder of DICOM files without a node: SEG, SR, overview and the measurements."""
    from triage_node import folder as folders

    settings = config.load(config_path) if config_path else config.parse("", folder=Path.cwd())
    if method is not None:
        settings = config.with_method(settings, method)
    logbook.configure("analyze", None, settings.log)
    answers = folders.analyze(folder, out, settings, show=not json)
    if json:
        terminal.print_json(answers)
    if not answers:
        raise TriageError(f"no DICOM study in {folder}")
    if any(answer["state"] != "judged" for answer in answers):
        raise typer.Exit(NOT_ALL_ANALYSED)


@app.command()
def send(
    folder: Annotated[Path, typer.Argument(help="Folder of DICOM files.", metavar="DIR", exists=True)],
    config_path: ConfigOption = DEFAULT_CONFIG,
    to: Annotated[
        str | None, typer.Option("--to", help="Another node instead of this one.", metavar="AE@HOST:PORT")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Send a folder of DICOM files by C-STORE, to this node unless told otherwise."""
    from triage_node import folder as folders

    settings = settings_of(config_path, "send")
    target = folders.target(to, settings)
    outcome = folders.send(folder, target, settings, show=not json)
    if json:
        terminal.print_json(outcome)
    if outcome["refused"] or not outcome["sent"]:
        raise typer.Exit(FAILED)


@app.command("worklist")
def show_worklist(config_path: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Print the reading list in reading order."""
    settings = settings_of(config_path, "worklist")
    items = worklist.reading_list(journal_of(settings), settings, time.time())
    if json:
        terminal.print_json([asdict(item) for item in items])
    else:
        terminal.console().print(terminal.reading_list(items, f"Reading list, strategy {settings.worklist.strategy}"))


@app.command()
def status(config_path: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Print what came, what waits and what failed; exit 1 when the node is not running."""
    from triage_node import node

    settings = settings_of(config_path, "status")
    numbers = {
        "version": __version__,
        "running": node.is_running(settings.state_dir),
        **worklist.status(journal_of(settings), settings.destination_names),
    }
    if json:
        terminal.print_json(numbers)
    else:
        terminal.console().print(terminal.status(numbers))
    if not numbers["running"]:
        raise typer.Exit(FAILED)


@app.command()
def study(
    uid: Annotated[str, typer.Argument(help="Study Instance UID.", metavar="UID")],
    config_path: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Print all that is known of a study: evidence, refusals, measurements, delivery ledger, who looked at it."""
    settings = settings_of(config_path, "study")
    journal = journal_of(settings)
    report = worklist.study_report(journal, uid)
    if report is None:
        raise TriageError(f"no study {uid} in {settings.state_dir}")
    report["audit"] = access.looks_at(journal, settings, uid)
    if json:
        terminal.print_json(report)
    else:
        terminal.console().print(terminal.study(report))


@app.command()
def logs(
    config_path: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    study: Annotated[str | None, typer.Option(help="Only this Study Instance UID.", metavar="UID")] = None,
    json: JsonOption = False,
) -> None:
    """Print the log, one line an event."""
    import json as json_text

    settings = settings_of(config_path, "logs")
    if not follow and not logbook.file_of(settings.state_dir).parent.is_dir():
        raise TriageError(f"no log in {settings.state_dir}: the node has not been started with this configuration")
    try:
        for event in logbook.read(settings.state_dir, study=study, follow=follow):
            typer.echo(json_text.dumps(event) if json else logbook.sentence(event))
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command()
def requeue(
    config_path: ConfigOption = DEFAULT_CONFIG,
    study: Annotated[str | None, typer.Option(help="Only this Study Instance UID.", metavar="UID")] = None,
    destination: Annotated[str | None, typer.Option(help="Only this destination.", metavar="NAME")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Only list what was refused or given up.")] = False,
    json: JsonOption = False,
) -> None:
    """Send again what was refused or given up (--list), and at once what waits for its next attempt."""
    settings = settings_of(config_path, "requeue")
    known = settings.destination_names
    if destination is not None and destination not in known:
        raise TriageError(f"no destination {destination!r}; configured are: {', '.join(known) or 'none'}")
    if list_only:
        letters = [
            letter
            for letter in worklist.dead_letters(journal_of(settings))
            if study in (None, letter["study_instance_uid"]) and destination in (None, letter["destination"])
        ]
        if json:
            terminal.print_json(letters)
        else:
            terminal.console().print(terminal.dead_letters(letters))
        return
    number = outbox.requeue(journal_of(settings), time.time(), study=study, destination=destination)
    if json:
        terminal.print_json({"requeued": number})
    else:
        typer.echo(f"{number} objects queued")


@app.command()
def reanalyze(
    uid: Annotated[str | None, typer.Argument(help="Study Instance UID.", metavar="[UID]")] = None,
    config_path: ConfigOption = DEFAULT_CONFIG,
    every: Annotated[bool, typer.Option("--all", help="Every study that has an answer.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where the same model would judge the same way.")] = False,
    json: JsonOption = False,
) -> None:
    """Judge a study again on unchanged images where model or configuration are others now; exit 1 if it is unknown.

    The new answer supersedes the old one in every archive that has it. New studies go first.
    """
    from triage_node import reanalysis

    if every == (uid is not None):
        raise typer.BadParameter("give either a Study Instance UID or --all")
    settings = settings_of(config_path, "reanalyze")
    outcomes = reanalysis.queue(journal_of(settings), settings, uid, force=force)
    if json:
        terminal.print_json(outcomes)
    else:
        typer.echo(reanalysis.sentence(outcomes))
    if uid is not None and outcomes["unknown"]:
        raise typer.Exit(FAILED)


@app.command()
def echo(config_path: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """C-ECHO this node and every destination; exit 1 when one does not answer."""
    from triage_node import folder as folders

    settings = settings_of(config_path, "echo")
    answers = folders.echo_all(settings)
    if json:
        terminal.print_json(answers)
    for answer in answers if not json else ():
        typer.echo(f"{answer['name']:<12} {answer['ae_title']}@{answer['host']}:{answer['port']}  {answer['answer']}")
    if not all(answer["ok"] for answer in answers):
        raise typer.Exit(FAILED)


@app.command("check-config")
def check_config(config_path: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Validate the configuration and print it with all defaults."""
    from triage_node import inference, operating, tls

    settings = config.load(config_path)
    if operating.overrides(worklist=settings.worklist):  # only they can contradict the model's card
        operating.check(inference.load(settings.analysis).model, worklist=settings.worklist)
    pair = tls.pair(settings)
    for warning in pair.warnings(tls.now()) if pair else ():
        typer.echo(f"warning: {warning}", err=True)
    if json:
        terminal.print_json(settings.model_dump(mode="json"))
    else:
        typer.echo(f"{config_path} is valid; state directory {settings.state_dir}")


@app.command()
def conformance(json: JsonOption = False) -> None:
    """Print the DICOM conformance statement: SOP classes, roles, transfer syntaxes."""
    from triage_node import conformance as table

    if json:
        terminal.print_json(table.listing())
    else:
        typer.echo(table.statement())


marking.add(app)
what_if.add(app)
access.add(app)


@app.command(hidden=True)
def child(role: str, config_path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run one child process of a node."""
    from triage_node import node

    if role not in node.ROLES:
        raise typer.BadParameter(f"a role is one of {', '.join(node.ROLES)}")
    settings = settings_of(config_path, role, log_file=True)
    raise typer.Exit(node.run_child(role, settings))


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version and nothing else, when asked to."""
    if show:
        typer.echo(f"triage-node {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command; what goes wrong on purpose is one clear message, not a traceback."""
    try:
        app(prog_name="triage-node")
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(USAGE)
    except StateInUse as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(IN_USE)
    except (TriageError, sqlite3.Error, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
