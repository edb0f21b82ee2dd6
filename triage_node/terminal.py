"""How lists, studies and states look in a terminal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from triage_node.study import ReadingPriority, StudyState
from triage_node.worklist import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triage_node.worklist import WorklistItem

_STYLES = {ReadingPriority.HIGH: "bold red", ReadingPriority.MEDIUM: "yellow", ReadingPriority.LOW: "green"}
_BAR_CELLS = 10


def console() -> Console:
    """The terminal; wide enough for a list where the output goes into a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def print_json(value: object) -> None:
    """JSON for programs, on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def minutes(seconds: float) -> str:
    """A waiting time for people."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(fraction: float | None) -> str:
    """A fraction for people; what is not known is never shown as zero."""
    return "-" if fraction is None else f"{fraction:.0%}"


def bar(fraction: float | None) -> str:
    """A fraction as a bar of block characters."""
    filled = round((fraction or 0.0) * _BAR_CELLS)
    return "█" * filled + "·" * (_BAR_CELLS - filled)


def _movement(item: WorklistItem) -> str:
    moved = item.arrival_rank - item.rank
    return "" if moved == 0 else f"{'▲' if moved > 0 else '▼'}{abs(moved)}"


def reading_list(items: Sequence[WorklistItem], title: str) -> Group:
    """The worklist as a table."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1))
    for name, justify in (
        ("#", "right"),
        ("moved", "left"),
        ("priority", "left"),
        ("accession", "left"),
        ("study", "left"),
        ("waits", "right"),
        ("right lung", "left"),
        ("left lung", "left"),
        ("grade", "left"),
        ("P(COVID-19)", "right"),
        ("why", "left"),
    ):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]  # a literal type
    for item in items:
        judged = item.affected_fraction is not None
        sides = [
            f"{bar(fraction)} {percent(fraction):>4}" if judged else ""
            for fraction in (item.affected_fraction_right, item.affected_fraction_left)
        ]
        table.add_row(
            str(item.rank),
            _movement(item),
            Text(item.reading_priority.value, style=_STYLES[item.reading_priority] if judged else "dim"),
            item.accession_number or "-",
            item.description or item.study_instance_uid[-16:],
            minutes(item.waiting_s),
            *sides,
            str(item.ct_grade or "-"),
            f"{item.covid_probability:.2f}" if item.covid_probability is not None else "-",
            "; ".join(reason for reason in item.reasons if "lung affected" not in reason),
        )
    counted = {state: sum(item.state is state for item in items) for state in StudyState}
    summary = ", ".join(f"{number} {state.value.replace('_', ' ')}" for state, number in counted.items() if number)
    footer = Text(f"{len(items)} studies: {summary or 'none yet'}.  {NOT_FOR_DIAGNOSTIC_USE}", style="dim")
    return Group(table, footer)


def study(report: dict[str, Any]) -> Group:
    """All that is known of a study."""
    head = Table.grid(padding=(0, 2))
    for name in ("study_instance_uid", "accession_number", "description", "study_date", "arrived_at", "state"):
        head.add_row(Text(name.replace("_", " "), style="dim"), str(report[name] or "-"))
    parts: list[Any] = [head]
    if report["not_analysed"]:
        refusal = report["not_analysed"]
        parts.append(Text(f"\nNot analysed, because {refusal['words']} ({refusal['reason']})", style="yellow"))
    if report["measurements"]:
        parts += [Text(), _measurements(report["measurements"])]
    parts += [Text(), _series(report["series"])]
    if report["objects"]:
        parts += [Text(), _ledger(report["objects"])]
    parts += [Text(), _events(report["events"]), Text(str(report["notice"]), style="bold")]
    return Group(*parts)


def _measurements(numbers: dict[str, Any]) -> Group:
    table = Table(box=box.SIMPLE_HEAD, title="Measurements", title_justify="left")
    for name in ("", "volume", "lesions", "ground glass", "consolidation", "affected"):
        table.add_column(name, justify="left" if not name else "right")
    for side in ("right", "left"):
        lung = numbers[side]
        if lung is None:
            table.add_row(f"{side} lung", "not found", "", "", "", "")
            continue
        table.add_row(
            f"{side} lung",
            *(f"{lung[key]:.0f} ml" for key in ("volume_ml", "lesion_ml", "ground_glass_ml", "consolidation_ml")),
            f"{lung['affected_fraction']:.1%}",
        )
    probability = numbers["covid_probability"]
    model = numbers["model"]
    lines = [
        f"grade {numbers['ct_grade']} (worse lung {numbers['affected_fraction']:.1%}), CT-SS {numbers['ct_ss']}"
        f" (both lungs {numbers['affected_fraction_both']:.1%})",
        f"P(COVID-19) {'not provided by this method' if probability is None else format(probability, '.2f')}",
        f"method {model['name']} {model['version']}, generation {numbers['generation']}",
        *(f"warning: {warning}" for warning in numbers["warnings"]),
    ]
    return Group(table, *(Text(line) for line in lines))


def _series(series: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Series", title_justify="left")
    for name in ("series", "images", "state", "closed on this evidence", "outcome"):
        table.add_column(name, overflow="fold")
    for entry in series:
        refusal = entry["refusal"]
        outcome = "judged" if entry["judged"] else f"{refusal['reason']}: {refusal['words']}" if refusal else "-"
        table.add_row(
            f"{entry['modality']} {entry['description'] or entry['series_instance_uid'][-16:]}",
            str(entry["instances"]),
            f"{entry['state']} ({entry['generation']})",
            "; ".join(entry["evidence"]) or "-",
            outcome,
        )
    return table


def _ledger(objects: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Objects and their delivery", title_justify="left")
    for name in ("object", "generation", "destination", "state", "attempts", "last answer"):
        table.add_column(name, overflow="fold")
    for entry in objects:
        last = entry["deliveries"][-1]["words"] if entry["deliveries"] else "-"
        table.add_row(
            entry["kind"],
            str(entry["generation"]) + ("" if entry["current"] else " (superseded)"),
            entry["destination"] or "nowhere",
            entry["state"] or "-",
            str(entry["attempts"]),
            last,
        )
    return table


def _events(events: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="What happened", title_justify="left", show_header=False)
    for entry in events:
        detail = ", ".join(
            f"{key} {value}" for key, value in entry["detail"].items() if value not in (None, [], "") and key != "words"
        )
        table.add_row(str(entry["at"])[11:19], entry["process"], entry["event"], Text(detail, style="dim"))
    return table


def status(numbers: dict[str, Any]) -> Group:
    """The numbers of one screen."""
    grid = Table.grid(padding=(0, 2))
    for name in ("studies", "instances", "open_series", "open_associations", "quarantined"):
        grid.add_row(Text(name.replace("_", " "), style="dim"), str(numbers[name]))
    jobs = ", ".join(f"{number} {state}" for state, number in numbers["jobs"].items()) or "none"
    grid.add_row(Text("jobs", style="dim"), jobs)
    for destination, states in numbers["deliveries"].items():
        grid.add_row(
            Text(f"to {destination}", style="dim"), ", ".join(f"{number} {state}" for state, number in states.items())
        )
    if "running" in numbers:
        grid.add_row(Text("node", style="dim"), "running" if numbers["running"] else "not running")
    return Group(grid)
