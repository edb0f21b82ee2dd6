"""`triage-node what-if`: what other rules would do to the list."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from triage_node import terminal, what_if
from triage_node.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption, journal_of, settings_of
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from triage_node.config import WorklistSection
    from triage_node.what_if import Now, Past

Strategy = Literal["identification", "severity", "combined"]
_Share = Annotated[
    float | None, typer.Option(help="Instead of the key of [worklist].", min=0, max=1, show_default="as configured")
]
_SHOWN = 12


def ask(
    config_path: ConfigOption = DEFAULT_CONFIG,
    strategy: Annotated[
        Strategy | None, typer.Option(help="Instead of the key of [worklist].", show_default="as configured")
    ] = None,
    probability_high: _Share = None,
    probability_medium: _Share = None,
    fraction_high: _Share = None,
    fraction_medium: _Share = None,
    probability_weight: _Share = None,
    max_wait_min: Annotated[
        float | None, typer.Option(help="Instead of the key of [worklist].", min=0, show_default="as configured")
    ] = None,
    days: Annotated[float, typer.Option(help="How much of the past is read again.", min=0.01)] = 7.0,
    readers: Annotated[
        int | None, typer.Option(help="Assume so many readers.", min=1, show_default="when studies were really taken")
    ] = None,
    reading_min: Annotated[
        float | None, typer.Option(help="Assume so many minutes a study.", min=0.1, show_default="as the journal says")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what other rules would do: to the list as it is now, and to how long the studies of the last days waited.

    Nothing is changed. Where the journal says when readers took studies, the past is read again at the same moments.
    """
    settings = settings_of(config_path, "what-if")
    given = {
        "strategy": strategy,
        "probability_high": probability_high,
        "probability_medium": probability_medium,
        "fraction_high": fraction_high,
        "fraction_medium": fraction_medium,
        "probability_weight": probability_weight,
        "max_wait_min": max_wait_min,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    tried = _tried(settings.worklist, changed)
    journal, at = journal_of(settings), time.time()
    with Console(stderr=True).status("reading the past again"):
        now = what_if.now(journal, settings.worklist, tried, at)
        past = what_if.past(journal, settings.worklist, tried, at, days, readers=readers, reading_min=reading_min)
    if json:
        terminal.print_json({"tried": changed, "now": asdict(now), "past": asdict(past)})
    else:
        terminal.console().print(_shown(changed, now, past))


def _tried(configured: WorklistSection, changed: dict[str, Any]) -> WorklistSection:
    try:
        return type(configured).model_validate({**configured.model_dump(), **changed})
    except ValidationError as error:
        words = "; ".join(str(one["msg"]).removeprefix("Value error, ") for one in error.errors())
        raise typer.BadParameter(words) from error


def _shown(changed: dict[str, Any], now: Now, past: Past) -> Group:
    words = ", ".join(f"{name} = {value}" for name, value in changed.items()) or "nothing: give it a key of [worklist]"
    levels = ", ".join(
        f"{count} {name}" + (f" (as configured {now.levels[name]})" if now.levels[name] != count else "")
        for name, count in now.levels_as_tried.items()
    )
    parts: list[Text | Table] = [
        Text(f"Tried: {words}", style="bold"),
        Text(
            f"\nThe list now: {now.studies} studies in the queue; of the judged {levels}. {len(now.moves)} would move."
        ),
    ]
    if now.moves:
        parts.append(_moves(now))
    parts.append(Text(f"\nThe last {past.days:g} days: {past.studies} studies came. Read again: {past.how}."))
    if past.groups:
        parts.append(_waits(past))
    return Group(*parts, Text(NOT_FOR_DIAGNOSTIC_USE, style="dim"))


def _moves(now: Now) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("accession", no_wrap=True)
    table.add_column("place", justify="right", no_wrap=True)
    table.add_column("priority", no_wrap=True)
    table.add_column("why", overflow="fold")
    for move in now.moves[:_SHOWN]:
        levels = dict.fromkeys((move.reading_priority.value, move.reading_priority_as_tried.value))
        table.add_row(
            terminal.plain(move.accession_number) or move.study_instance_uid[-12:],
            f"{move.rank} -> {move.rank_as_tried}",
            " -> ".join(levels),
            terminal.plain(move.explanation),
        )
    if len(now.moves) > _SHOWN:
        table.caption, table.caption_justify = f"and {len(now.moves) - _SHOWN} more (--json lists all)", "left"
    return table


def _waits(past: Past) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("configured -> tried", no_wrap=True)
    table.add_column("studies", justify="right")
    for name in what_if.POLICIES:
        table.add_column(f"{name}\nmean / 95 % / longest, min", justify="right", no_wrap=True)
    for group, waits in past.groups.items():
        cells = []
        for name in what_if.POLICIES:
            one = waits[name]
            left = f" ({one.left} left)" if one.left else ""
            numbers = (one.mean_min, one.percentile_95_min, one.longest_min)
            cells.append(" / ".join("-" if number is None else f"{number:.0f}" for number in numbers) + left)
        first = waits[what_if.POLICIES[0]]
        table.add_row(group, str(first.read + first.left), *cells)
    if any(one.left for waits in past.groups.values() for one in waits.values()):
        table.caption, table.caption_justify = "left: would still wait, and is in none of these numbers", "left"
    return table


def add(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("what-if")(ask)
