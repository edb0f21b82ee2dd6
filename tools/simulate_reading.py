"""Does it help? Simulates a reading room under each strategy and in order of arrival, on the same patients.

    python tools/simulate_reading.py                                          tables on the screen, some minutes
    python tools/simulate_reading.py --studies-a-day 120 --readers 1 --reading-min 9 --max-wait-min 240
    python tools/simulate_reading.py --by-hour 0,0,0,0,0,0,1,3,8,9,9,9,8,8,9,8,6,4,3,2,1,1,1,0 --json room.json

Patients come by the hour and wait until a reader takes them; whose turn it is says the node's own rule
(`priority.turns`, within `triage_node.reading_room`). What the model says of each is drawn from its evaluation: the
probabilities on the model's card, the errors of the affected fraction in the README. All that is assumed of the room
is an option; `triage-node what-if` asks the same of the studies that a node really had.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from reading_room import judge, outcome, policies, tables
from reading_room.patients import Room, Shares
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from triage_node.config import WorklistSection

ROOT = Path(__file__).parent.parent
screen = Console(stderr=True, highlight=False)
USUAL = Room()
BY_HOUR = ",".join(f"{number:g}" for number in USUAL.by_hour)
READERS = ",".join(map(str, USUAL.readers))


def main(
    studies_a_day: Annotated[float, typer.Option(help="How many come.", min=1)] = USUAL.studies_a_day,
    by_hour: Annotated[
        str, typer.Option(help="Of a day's studies, 24 numbers from midnight, in any measure.")
    ] = BY_HOUR,
    readers: Annotated[
        str, typer.Option(help="Readers at work: one number, 24 by the hour, 168 for a week.")
    ] = READERS,
    reading_min: Annotated[
        float, typer.Option(help="Minutes to read a study, on average.", min=0.1)
    ] = USUAL.reading_min,
    covid: Annotated[float, typer.Option(help="Share with COVID-19.", min=0, max=1)] = USUAL.shares.covid,
    other: Annotated[float, typer.Option(help="Share with other diseases.", min=0, max=1)] = USUAL.shares.other,
    not_analysed: Annotated[
        float, typer.Option(help="Share that the node refuses.", min=0, max=0.99)
    ] = USUAL.shares.not_analysed,
    stat: Annotated[float, typer.Option(help="Share that is ordered STAT.", min=0, max=1)] = USUAL.shares.stat,
    answer_s: Annotated[float, typer.Option(help="Seconds from arrival to the node's answer.", min=0)] = USUAL.answer_s,
    max_wait_min: Annotated[float, typer.Option(help="As worklist.max_wait_min.")] = WorklistSection().max_wait_min,
    probability_weight: Annotated[
        float, typer.Option(help="As worklist.probability_weight.", min=0, max=1)
    ] = WorklistSection().probability_weight,
    days: Annotated[int, typer.Option(help="Measured, after one day to warm up.", min=1)] = USUAL.days,
    replications: Annotated[int, typer.Option(help="How often it is repeated.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="Of the first repetition.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything as JSON; - for the screen.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture: .png, .pdf or .svg.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Write the tables into this README, between its markers.")] = None,
    card: Annotated[
        Path, typer.Option(help="Model card with test stacks.", show_default="nets/weights/multitask.json")
    ] = ROOT / "nets" / "weights" / "multitask.json",
    evaluation: Annotated[
        Path, typer.Option(help="README with the table of tools/evaluate.py.", show_default="README.md")
    ] = ROOT / "README.md",
) -> None:
    """Report turnaround of severe, positive and all other studies, in order of arrival and under each strategy."""
    _plot_possible(plot)
    try:
        room = Room(
            studies_a_day=studies_a_day,
            by_hour=tuple(map(float, by_hour.split(","))),
            readers=_readers(readers),
            reading_min=reading_min,
            answer_s=answer_s,
            days=days,
            shares=Shares(covid=covid, other=other, not_analysed=not_analysed, stat=stat),
        )
        worklist = WorklistSection(max_wait_min=max_wait_min, probability_weight=probability_weight)
        judges = (judge.measured(card, evaluation), judge.published(evaluation), judge.coin(evaluation))
    except (ValueError, ValidationError) as error:
        raise typer.BadParameter(str(error)) from error
    if room.load >= 1:
        screen.print(
            f"the readers have {room.load:.0%} of the time they need: the queue grows from day to day", style="yellow"
        )
    compared = policies.every(room, judges, worklist)
    weeks = _simulate(compared, range(seed, seed + replications))
    report: dict[str, Any] = {
        "room": asdict(room),
        "load": round(room.load, 3),
        "worklist": worklist.model_dump(mode="json"),
        "models": {one.name: one.words for one in judges},
        "replications": replications,
        "seed": seed,
        "tables": outcome.summary(compared, weeks),
    }
    text = json.dumps(report, indent=1)
    if json_file == Path("-"):
        sys.stdout.write(text + "\n")
    else:
        if json_file is not None:
            json_file.write_text(text + "\n", encoding="utf-8")
        Console(width=None if sys.stdout.isatty() else 140).print(Markdown(tables.markdown(report)))
    if markdown is not None:
        markdown.write_text(tables.markdown(report) + "\n", encoding="utf-8")
    if plot is not None:
        from reading_room import plots

        plots.write(plot, report, weeks)
    if readme is not None:
        tables.write_readme(readme, report)


def _readers(text: str) -> tuple[int, ...]:
    numbers = tuple(map(int, text.split(",")))
    return numbers * 24 if len(numbers) == 1 else numbers


def _plot_possible(plot: Path | None) -> None:
    if plot is None:
        return
    if plot.suffix not in {".png", ".pdf", ".svg"}:
        raise typer.BadParameter(f"--plot {plot}: the file's name must end in .png, .pdf or .svg")
    try:
        importlib.import_module("matplotlib")  # said before the long work, not after it
    except ImportError as error:
        raise typer.BadParameter("--plot needs matplotlib: pip install --editable '.[evaluation]'") from error


def _simulate(compared: list[policies.Policy], seeds: range) -> dict[tuple[str, str], list[outcome.Week]]:
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task("reading", total=len(compared) * len(seeds))
        return outcome.simulate(compared, seeds, lambda policy: bar.update(task, advance=1, description=policy.name))


if __name__ == "__main__":
    typer.run(main)
