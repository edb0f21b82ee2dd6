"""The answer as Markdown: for the screen, for a file, and between the markers of the README."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from reading_room.outcome import EVERYBODY, NOT_ANALYSED, SOON_MIN
from reading_room.patients import SEVERE_FROM, Group
from reading_room.policies import ARRIVAL
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MARKER = "reading room"
Report = dict[str, Any]


def markdown(report: Report) -> str:
    """Everything."""
    tables = report["tables"]
    return "\n\n".join(
        (
            _in_words(tables),
            strategies(tables["strategies"]),
            _maximum(tables["maximum wait"]),
            _models(tables["models"]),
            _load(tables["load"]),
            assumptions(report),
        )
    )


def _in_words(tables: Mapping[str, Any]) -> str:
    """What the tables below say, with their numbers."""

    def minutes(table: str, name: str, group: str, metric: str = "mean") -> str:
        return _mean(tables[table][name]["groups"][group][metric])

    sooner, alone = minutes("strategies", "combined", Group.SEVERE), minutes("strategies", ARRIVAL, Group.SEVERE)
    price = _difference(tables["strategies"]["combined"]["groups"][Group.OTHERS])
    longest = minutes("strategies", ARRIVAL, EVERYBODY, "longest")
    unlimited = minutes("maximum wait", "no maximum", Group.SEVERE)
    somebody = minutes("maximum wait", "no maximum", EVERYBODY, "longest")
    return (
        f"With the strategy combined a severe study is reported {sooner} instead of {alone} minutes after it came; who "
        f"has no COVID-19 waits {price} minutes longer. Nothing is read faster: triage moves waiting from the sick to "
        "the others, and the maximum wait limits how much of it. Whoever has reached it goes first; so a maximum under "
        f"the longest wait in order of arrival (here {longest} minutes) takes from triage what the tables show. "
        f"Without any, severe studies would take {unlimited} minutes, and somebody {somebody}."
    )


def strategies(policies: Mapping[str, Any]) -> str:
    """Turnaround by group, and what the others pay."""
    head = ["minutes from arrival to report", *(f"{group} ({_studies(policies, group)})" for group in Group)]
    head += [f"severe within {SOON_MIN:.0f} min", "others pay", "longest"]
    rows = []
    for name, policy in policies.items():
        groups = policy["groups"]
        rows.append(
            [
                name if name == ARRIVAL else f"triage: {name}",
                *(_interval(groups[group]) for group in Group),
                _percent(groups[Group.SEVERE]["soon"]),
                "" if name == ARRIVAL else _difference(groups[Group.OTHERS]),
                _mean(groups[EVERYBODY]["longest"]),
            ]
        )
    return _table(head, rows)


def _maximum(policies: Mapping[str, Any]) -> str:
    head = ["`max_wait_min`, strategy combined", *Group, "others pay", "others, 95th percentile", "longest"]
    rows = []
    for name, policy in policies.items():
        groups = policy["groups"]
        rows.append(
            [
                name,
                *(_mean(groups[group]["mean"]) for group in Group),
                "" if name == ARRIVAL else _difference(groups[Group.OTHERS]),
                _mean(groups[Group.OTHERS]["percentile_95"]),
                _mean(groups[EVERYBODY]["longest"]),
            ]
        )
    return _table(head, rows)


def _models(policies: Mapping[str, Any]) -> str:
    head = ["model, strategy combined", *(f"{group}" for group in Group), "not analysed"]
    rows = [
        [name, *(_interval(policy["groups"][group]) for group in (*Group, NOT_ANALYSED))]
        for name, policy in policies.items()
    ]
    return _table(head, rows)


def _load(policies: Mapping[str, Any]) -> str:
    head = ["how busy", "load", *(f"{group}" for group in Group), "longest"]
    rows = [
        [
            name,
            f"{policy['load']:.0%}",
            *(_interval(policy["groups"][group]) for group in Group),
            _mean(policy["groups"][EVERYBODY]["longest"]),
        ]
        for name, policy in policies.items()
    ]
    return _table(head, rows)


def assumptions(report: Report) -> str:
    """What was put in, in sentences."""
    room, shares = report["room"], report["room"]["shares"]
    judges = "; ".join(f"{name}: {words}" for name, words in report["models"].items())
    return " ".join(
        (
            f"Written by `tools/simulate_reading.py --readme`: means of {report['replications']} simulated times of",
            f"{room['days']} days [95 % interval], with the same patients in every row. Severe: COVID-19 with",
            f"{SEVERE_FROM:.0%} or more of a lung affected; positive: all other COVID-19; others: everybody else.",
            "Others pay: what they wait longer than in order of arrival. Assumed, and yours to change:",
            f"{room['studies_a_day']:.0f} studies a day, most of them by day; {min(room['readers'])} to",
            f"{max(room['readers'])} readers by the hour, busy {report['load']:.0%} of their time;",
            f"{room['reading_min']:g} min a study on average; {shares['covid']:.0%} with COVID-19, their grades as in",
            f"MosMedData (Goncharov 2021, section 3.1), {shares['other']:.0%} with other diseases;",
            f"{shares['not_analysed']:.0%} not analysed; {room['answer_s']:g} s to the answer;",
            f"`max_wait_min = {report['worklist']['max_wait_min']:g}`. What the model says of a patient, with the",
            f"errors of the affected fraction from the evaluation above: {judges}. {NOT_FOR_DIAGNOSTIC_USE}.",
        )
    )


def _studies(policies: Mapping[str, Any], group: str) -> str:
    first = next(iter(policies.values()))
    return f"{first['groups'][group]['studies']:.0f} a week"


def _interval(group: Mapping[str, Any]) -> str:
    found = group["mean"]
    return "-" if found is None else f"{found['mean']:.0f} [{found['low']:.0f}, {found['high']:.0f}]"


def _difference(group: Mapping[str, Any]) -> str:
    found = group["difference"]
    return "-" if found is None else f"{found['mean']:+.0f} [{found['low']:+.0f}, {found['high']:+.0f}]"


def _mean(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{found['mean']:.0f}"


def _percent(found: Mapping[str, float] | None) -> str:
    return "-" if found is None else f"{found['mean']:.0%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_readme(path: Path, report: Report) -> None:
    """Put the tables between their two markers. Raises ValueError where the file has none."""
    text = path.read_text(encoding="utf-8")
    match = re.search(rf"(<!-- {MARKER}:[^>]*-->\n).*?(<!-- end of {MARKER} -->)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{path} has no lines <!-- {MARKER}: ... --> and <!-- end of {MARKER} -->")
    path.write_text(f"{text[: match.end(1)]}{markdown(report)}\n{text[match.start(2) :]}", encoding="utf-8")
