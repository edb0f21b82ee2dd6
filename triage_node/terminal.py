"""How lists, studies and states look in a terminal."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from triage_node import priority
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, ReadingPriority, StudyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triage_node.worklist import WorklistItem

_STYLES = {ReadingPriority.HIGH: "bold red", ReadingPriority.MEDIUM: "yellow", ReadingPriority.LOW: "green"}
_BAR_CELLS = 10
_WIDE_COLUMNS = 150
_UID_TAIL = 12
_PARTS = ("ground_glass", "consolidation")  # of a lesion


def console() -> Console:
    """The terminal; wide enough for a list where the output goes into a file.

    Without markup: a square bracket in a study description is no style.
    """
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 150)


def plain(text: str) -> str:
    """What came from outside, without signs that steer a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


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
    return "-" if fraction is None else priority.percent(fraction)


def bar(fraction: float | None) -> str:
    """A fraction as a bar of block characters."""
    filled = round((fraction or 0.0) * _BAR_CELLS)
    return "█" * filled + "·" * (_BAR_CELLS - filled)


def _movement(item: WorklistItem) -> str:
    moved = item.arrival_rank - item.rank
    return "" if moved == 0 else f"{'▲' if moved > 0 else '▼'}{abs(moved)}"


def reading_list(items: Sequence[WorklistItem], title: str) -> RenderableType:
    """The worklist: a table where the terminal is wide enough, otherwise two lines a study."""
    return _ReadingList(items, title)


class _ReadingList:
    def __init__(self, items: Sequence[WorklistItem], title: str) -> None:
        self._items = items
        self._title = title

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self._title, style="bold")
        if self._items:
            wide = options.max_width >= _WIDE_COLUMNS
            yield _wide_list(self._items) if wide else _narrow_list(self._items)
        counted = {state: sum(item.state is state for item in self._items) for state in StudyState}
        summary = ", ".join(f"{number} {_words(state)}" for state, number in counted.items() if number)
        studies = "1 study" if len(self._items) == 1 else f"{len(self._items)} studies"
        yield Text(f"{studies}{f': {summary}' if summary else ''}.  {NOT_FOR_DIAGNOSTIC_USE}", style="dim")


def _wide_list(items: Sequence[WorklistItem]) -> Table:
    table = _table("")
    table.add_column("#", justify="right", no_wrap=True)
    for name in ("", "priority", "accession"):
        table.add_column(name, no_wrap=True)
    table.add_column("study", max_width=26, overflow="fold")
    table.add_column("waits", justify="right", no_wrap=True)
    for name in ("right lung", "left lung", "grade"):
        table.add_column(name, no_wrap=True)
    table.add_column("P(COVID-19)", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", min_width=24)
    for item in items:
        judged = item.affected_fraction is not None
        sides = [
            f"{bar(fraction)} {percent(fraction):>4}" if judged else ""
            for fraction in (item.affected_fraction_right, item.affected_fraction_left)
        ]
        table.add_row(
            str(item.rank),
            _movement(item),
            _priority(item),
            plain(item.accession_number) or "-",
            _name(item),
            minutes(item.waiting_s),
            *sides,
            str(item.ct_grade or "-"),
            _probability(item),
            _why(item),
        )
    return table


def _narrow_list(items: Sequence[WorklistItem]) -> Table:
    table = _table("")
    table.add_column("#", justify="right", no_wrap=True)
    for name in ("", "priority"):
        table.add_column(name, no_wrap=True)
    table.add_column("study", overflow="fold", ratio=1)
    table.add_column("waits", justify="right", no_wrap=True)
    table.add_column("right", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    for item in items:
        judged = item.affected_fraction is not None
        name = " ".join(part for part in (plain(item.accession_number), _name(item)) if part)
        probability = "" if item.covid_probability is None else f"P(COVID-19) {_probability(item)}"
        why = "; ".join(part for part in (probability, _why(item)) if part)
        table.add_row(
            str(item.rank),
            _movement(item),
            _priority(item),
            Text.assemble(name, (f"\n{why}" if why else "", "dim")),
            minutes(item.waiting_s),
            percent(item.affected_fraction_right) if judged else "",
            percent(item.affected_fraction_left) if judged else "",
            str(item.ct_grade or "-"),
        )
    return table


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )


def _priority(item: WorklistItem) -> Text:
    style = _STYLES[item.reading_priority] if item.affected_fraction is not None else "dim"
    return Text(item.reading_priority.value, style=style)


def _name(item: WorklistItem) -> str:
    return plain(item.description) or f"study {_tail(item.study_instance_uid)}"


def _probability(item: WorklistItem) -> str:
    return "-" if item.covid_probability is None else priority.probability(item.covid_probability)


def _why(item: WorklistItem) -> str:
    """The reasons that no other column shows."""
    shown = ("% of the right lung affected", "% of the left lung affected")
    levels = tuple(f"{level}: " for level in ReadingPriority)
    return "; ".join(
        plain(reason)
        for reason in item.reasons
        if not reason.endswith(shown) and not reason.startswith(("moved from ", "P(COVID-19) ", *levels))
    )


def _tail(uid: str) -> str:
    return uid if len(uid) <= _UID_TAIL else f"...{uid[-_UID_TAIL:]}"


def _words(state: str) -> str:
    return state.replace("_", " ")


def study(report: dict[str, Any]) -> Group:
    """All that is known of a study."""
    head = Table.grid(padding=(0, 2))
    for name in ("study_instance_uid", "accession_number", "description", "study_date", "arrived_at", "state"):
        head.add_row(
            Text(_words(name), style="dim"),
            _words(plain(str(report[name] or "-"))) if name == "state" else plain(str(report[name] or "-")),
        )
    parts: list[Any] = [head]
    if report["not_analysed"]:
        refusal = report["not_analysed"]
        parts.append(Text(f"\nNot analysed, because {refusal['words']} ({refusal['reason']})", style="yellow"))
    if report["measurements"]:
        parts += [Text(), _measurements(report["measurements"])]
    parts += [Text(), _series(report["series"])]
    if report["objects"]:
        parts += [Text(), _ledger(report["objects"])]
    if report["messages"]:
        parts += [Text(), _messages(report["messages"])]
    parts += [Text(), _events(report["events"])]
    if report.get("audit"):
        parts += [Text(), audit("Who looked at it", report["audit"])]
    parts.append(Text(str(report["notice"]), style="bold"))
    return Group(*parts)


def _measurements(numbers: dict[str, Any]) -> Group:
    table = _table("Measurements")
    for name in ("", "volume", "lesions", "ground glass", "consolidation", "affected"):
        table.add_column(name, justify="left" if not name else "right")
    for side, name in (("right", "right lung"), ("left", "left lung"), ("both", "both lungs")):
        lung = numbers[side]
        if lung is None:
            table.add_row(name, "not found", "", "", "", "")
            continue
        table.add_row(
            name,
            *(f"{lung[key]:.0f} ml" for key in ("volume_ml", "lesion_ml")),
            *(f"{lung[f'{part}_ml']:.0f} ml, {lung[f'{part}_fraction']:.1%}" for part in _PARTS),
            f"{lung['affected_fraction']:.1%}",
        )
    probability = numbers["covid_probability"]
    model, point = numbers["model"], numbers["operating_point"]
    split, cuts = numbers["consolidation_from_hu"], point["grades_up_to"]
    grades = f"CT-1, CT-2 and CT-3 up to {', '.join(f'{cut:.3g}' for cut in cuts)}"
    thresholds = [f"affected fraction {point['fraction_high']:.3g}, {point['fraction_medium']:.3g}"]
    if probability is not None:
        thresholds.insert(0, f"P(COVID-19) {point['probability_high']:.3g}, {point['probability_medium']:.3g}")
    lines = [
        f"grade {numbers['ct_grade']} (worse lung {numbers['affected_fraction']:.1%})",
        f"CT-SS {numbers['ct_ss']} (both lungs {numbers['affected_fraction_both']:.1%})",
        f"P(COVID-19) {'not provided by this method' if probability is None else format(probability, '.2f')}",
        *([f"how far it can be trusted: {model['trust']}"] if probability is not None and model["trust"] else []),
        f"thresholds when it was judged: HIGH and MEDIUM from {'; '.join(thresholds)}; {grades} ({point['source']})",
        *([] if split is None else [f"consolidation: lesion from {split} HU on"]),
        *(f"{name}: {value}" for name, value in model["parameters"]),
        f"method {model['name']} {model['version']}, generation {numbers['generation']}",
        *(f"warning: {warning}" for warning in numbers["warnings"]),
    ]
    return Group(table, *(Text(line) for line in lines))


def _series(series: list[dict[str, Any]]) -> Table:
    table = _table("Series")
    for name in ("series", "images", "state (generation)", "closed on this evidence", "outcome"):
        table.add_column(name, overflow="fold")
    for entry in series:
        refusal = entry["refusal"]
        outcome = "judged" if entry["judged"] else f"{refusal['reason']}: {refusal['words']}" if refusal else "-"
        table.add_row(
            plain(f"{entry['modality']} {entry['description'] or _tail(entry['series_instance_uid'])}"),
            str(entry["instances"]),
            f"{entry['state']} ({entry['generation']})",
            "; ".join(entry["evidence"]) or "-",
            outcome,
        )
    return table


def _ledger(objects: list[dict[str, Any]]) -> Table:
    table = _table("Objects and their delivery")
    for name in ("object", "generation", "destination", "state", "attempts", "last answer"):
        table.add_column(name, overflow="fold")
    for entry in objects:
        steps = [(proof, entry[f"{proof}_at"]) for proof in ("stored", "committed", "confirmed")]
        proofs = [f"{proof} {at[11:19]}" for proof, at in steps if at]
        if entry["awaiting"]:
            proofs.append(f"awaiting {' and '.join(entry['awaiting'])}")
        if entry["resends"]:
            proofs.append(f"sent again: {entry['resends']}")
        table.add_row(
            entry["kind"],
            str(entry["generation"]) + ("" if entry["current"] else " (superseded)"),
            entry["destination"] or "nowhere",
            Text.assemble(entry["state"] or "-", *((f"\n{words}", "dim") for words in proofs)),
            str(entry["attempts"]),
            plain(entry["words"]) or "-",
        )
    return table


def _messages(messages: list[dict[str, Any]]) -> Table:
    table = _table("Messages to other systems")
    for name in ("message", "generation", "receiver", "state", "attempts", "last answer"):
        table.add_column(name, overflow="fold")
    for entry in messages:
        at = entry["acknowledged_at"]
        table.add_row(
            entry["kind"],
            str(entry["generation"]) + ("" if entry["current"] else " (superseded)"),
            entry["destination"],
            Text.assemble(entry["state"], (f"\nacknowledged {at[11:19]}" if at else "", "dim")),
            str(entry["attempts"]),
            plain(entry["words"]) or "-",
        )
    return table


def dead_letters(letters: list[dict[str, Any]]) -> RenderableType:
    """What will not be sent again by itself."""
    if not letters:
        return Text("Nothing was refused or given up.")
    table = _table("Refused or given up; `triage-node requeue` sends it again")
    for name in ("since", "study", "object", "destination", "state", "last answer"):
        table.add_column(name, overflow="fold")
    for letter in letters:
        since = str(letter["at"])[:19].replace("T", " ")
        names = (letter[name] for name in ("study_instance_uid", "kind", "destination", "state"))
        table.add_row(since, *(plain(name) for name in names), plain(letter["words"]) or "-")
    return table


def _events(events: list[dict[str, Any]]) -> Table:
    table = _table("What happened")
    table.show_header = False
    for name in ("time", "process", "event"):
        table.add_column(name, no_wrap=True)
    table.add_column("detail", overflow="fold")
    for entry in events:
        detail = ", ".join(
            f"{key} {_tail(value) if key == 'series' else value}"
            for key, value in entry["detail"].items()
            if value not in (None, [], "") and key != "words"
        )
        table.add_row(str(entry["at"])[11:19], entry["process"], entry["event"], Text(detail, style="dim"))
    return table


def audit(title: str, entries: list[dict[str, Any]]) -> Table:
    """Entries of the audit, oldest first."""
    table = _table(title)
    for name in ("time (UTC)", "user", "from", "event"):
        table.add_column(name, no_wrap=True)
    for name in ("study", "words"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        event = " ".join(part for part in (entry["event"], entry["kind"], "FAILED" if entry["outcome"] else "") if part)
        who = f"{entry['user_name']} ({entry['role']})" if entry["role"] else entry["user_name"]
        at, study = str(entry["at"])[:19].replace("T", " "), entry["study_instance_uid"] or ""
        table.add_row(at, plain(who), entry["address"] or "this machine", event, study, plain(entry["words"]))
    return table


def status(numbers: dict[str, Any]) -> Group:
    """The numbers of one screen."""
    grid = Table.grid(padding=(0, 2))
    for name in ("studies", "instances", "open_series", "open_associations", "quarantined"):
        grid.add_row(Text(name.replace("_", " "), style="dim"), str(numbers[name]))
    jobs = ", ".join(f"{number} {state}" for state, number in numbers["jobs"].items()) or "none"
    grid.add_row(Text("jobs", style="dim"), jobs)
    for destination in numbers["destinations"]:
        grid.add_row(Text(f"to {destination['name']}", style="dim"), _destination(destination))
    if "running" in numbers:
        grid.add_row(Text("node", style="dim"), "running" if numbers["running"] else "not running")
    return Group(grid)


def _destination(entry: dict[str, Any]) -> Text:
    words = [", ".join(f"{number} {state}" for state, number in entry["deliveries"].items()) or "nothing yet"]
    if entry["awaiting"]:
        words.append(f"{entry['awaiting']} not proven yet")
    if entry["dead_letters"]:
        words.append(f"{entry['dead_letters']} refused or given up: `triage-node requeue --list`")
    if entry["state"] != "not reached":
        return Text("; ".join(words))
    since, probe = (str(entry[name])[:19].replace("T", " ") for name in ("since", "next_probe_at"))
    words.append(f"NOT REACHED since {since}, tried again at {probe} (UTC): {plain(entry['words'])}")
    return Text("; ".join(words), style="bold red")
