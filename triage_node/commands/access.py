"""Commands around who may look: `hash-password`, `sessions`, `audit`."""

from __future__ import annotations

import getpass
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from triage_node import audit, config, logbook, terminal
from triage_node.audit import AuditEvent, AuditType, Entry
from triage_node.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption, journal_of
from triage_node.errors import TriageError
from triage_node.journal import audit as audit_rows
from triage_node.journal import sessions
from triage_node.worklist import iso

if TYPE_CHECKING:
    from triage_node.config import Settings
    from triage_node.journal import Journal

LAST = 1000


def hash_password() -> None:
    """Ask for a new password twice, without showing it, and print its hash for [[web.users]] password_hash.

    From a pipe the password is read once, the first line.
    """
    from triage_node import passwords

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        again = getpass.getpass("The same again: ")
    else:
        password = again = sys.stdin.readline().rstrip("\r\n")
    if password != again:
        raise TriageError("these were two different passwords; nothing was printed")
    fault = passwords.fault(password)
    if fault is not None:
        raise TriageError(f"{fault}; nothing was printed")
    typer.echo(passwords.hashed(password))


def show_sessions(
    config_path: ConfigOption = DEFAULT_CONFIG,
    end: Annotated[
        str | None, typer.Option("--end", help="End every session of this user at once.", metavar="NAME")
    ] = None,
    end_all: Annotated[bool, typer.Option("--end-all", help="End every session at once.")] = False,
    json: JsonOption = False,
) -> None:
    """Print who is logged in on the page, or put them out (--end); open pages notice within seconds."""
    settings = config.load(config_path)
    journal = _opened(settings, "sessions")
    found = sessions.current(journal, end)
    if end is not None and not found:
        raise TriageError(f"{end!r} has no session")
    if end is not None or end_all:
        now = time.time()
        ended = [row for row in found if sessions.end(journal, row.digest, "by an administrator", now)]
        roles = {user.name: user.role for user in settings.web.users}
        for row in ended:
            name = row.user_name
            audit.record(
                journal,
                Entry(
                    event=AuditEvent.USER_AUTHENTICATION,
                    kind=AuditType.LOGOUT,
                    user=name,
                    role=roles.get(name, ""),
                    address=row.address,
                    words=f"by an administrator ({getpass.getuser()} on this machine)",
                ),
                now,
            )
        if json:
            terminal.print_json({"ended": len(ended)})
        else:
            typer.echo(f"{len(ended)} sessions ended")
        return
    # the digest is of no use to anybody, and neither is the mark
    hidden = ("digest", "password_mark", "ended_at", "ending")
    listed = [{key: value for key, value in asdict(row).items() if key not in hidden} for row in found]
    entries = [{**row, **{key: iso(row[key]) for key in ("begun_at", "used_at")}} for row in listed]
    if json:
        terminal.print_json(entries)
        return
    for entry in entries:
        begun, used = (str(entry[key])[:19].replace("T", " ") for key in ("begun_at", "used_at"))
        typer.echo(
            f"{terminal.plain(entry['user_name']):<24} from {entry['address']:<24} since {begun}, used {used} (UTC)"
        )
    if not entries:
        typer.echo("nobody is logged in")


def show_audit(
    config_path: ConfigOption = DEFAULT_CONFIG,
    study: Annotated[str | None, typer.Option(help="Only this Study Instance UID.", metavar="UID")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user.", metavar="NAME")] = None,
    since: Annotated[
        str | None, typer.Option(help="From this time on, ISO 8601; UTC unless it says otherwise.", metavar="TIME")
    ] = None,
    last: Annotated[int, typer.Option(help="The newest so many entries; 0 for all.", min=0, metavar="NUMBER")] = LAST,
    json: JsonOption = False,
) -> None:
    """Print who came in and who looked at which study, oldest first; that you did is an entry, too."""
    settings = config.load(config_path)
    journal = _opened(settings, "audit")
    rows = audit_rows.rows(journal, study=study, user=user, since=_at(since), last=last or None)
    asked = ", ".join(
        f"{name} {value}" for name, value in (("study", study), ("user", user), ("since", since)) if value
    )
    audit.on_this_machine(
        journal, AuditEvent.AUDIT_LOG_USED, f"triage-node audit{f' ({asked})' if asked else ''}", time.time()
    )
    entries = audit.listing(rows)
    if json:
        terminal.print_json(entries)
    elif entries:
        terminal.console().print(terminal.audit("Audit", entries))
    else:
        typer.echo("no such entry")


def looks_at(journal: Journal, settings: Settings, study: str) -> list[dict[str, object]]:
    """Who has looked at a study; that it is looked at now is the last entry."""
    logbook.configure("cli", settings.state_dir, settings.log, console=False)
    audit.on_this_machine(journal, AuditEvent.INSTANCES_ACCESSED, "triage-node study", time.time(), study=study)
    return audit.of_study(journal, study)


def _opened(settings: Settings, process: str) -> Journal:
    """The journal, with the log set up for its file alone: entries of the audit are not printed as well."""
    journal = journal_of(settings)
    logbook.configure(process, settings.state_dir, settings.log, console=False)
    return journal


def _at(text: str | None) -> float:
    if text is None:
        return 0.0
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter('--since takes a time such as "2026-11-21" or "2026-11-21T14:30"') from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def add(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("hash-password")(hash_password)
    app.command("sessions")(show_sessions)
    app.command("audit")(show_audit)
