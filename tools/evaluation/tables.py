"""The figures of all methods side by side, in Markdown, with those of the papers; and the README's table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Report = dict[str, Any]  # what `--json` writes


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a metric, how it is called and shown, and what the papers report."""

    metric: str
    title: str
    form: str = "{:.3f}"
    papers: str = ""


# Figures of the papers as they print them; their data, scanners and experts differ from each other and from any here.
ROWS = (
    Row("lungs_dice", "Dice of the lungs", papers="Goncharov 0.976, LungQuant 0.95, MIScnn 0.971"),
    Row("lungs_iou", "IoU of the lungs", papers="MIScnn 0.944"),
    Row("lungs_sensitivity", "sensitivity, lungs", papers="MIScnn 0.971"),
    Row("lungs_specificity", "specificity, lungs", papers="MIScnn 0.999"),
    Row(
        "lesion_dice",
        "Dice of the lesions",
        papers="Goncharov 0.48, LungQuant 0.66, MIScnn 0.804 and 0.661, Bartoli 0.75",
    ),
    Row("lesion_iou", "IoU of the lesions", papers="MIScnn 0.672"),
    Row("lesion_sensitivity", "sensitivity, lesions", papers="MIScnn 0.778"),
    Row("lesion_specificity", "specificity, lesions", papers="MIScnn 0.999"),
    Row("ground_glass_dice", "Dice of ground glass", papers="Bartoli 0.71"),
    Row("consolidation_dice", "Dice of consolidation", papers="Bartoli 0.64"),
    Row("fraction_mae", "affected fraction: mean absolute error", "{:.1%}", "LungQuant 4.2 %, Bartoli 2.1 %"),
    Row("fraction_bias", "affected fraction: bias (found minus expert)", "{:+.1%}", "Bartoli -0.1 %"),
    Row("fraction_limit_low", "affected fraction: lower limit of agreement", "{:+.1%}"),
    Row("fraction_limit_high", "affected fraction: upper limit of agreement", "{:+.1%}"),
    Row("fraction_spearman", "affected fraction: Spearman's rho", papers="Goncharov 0.98 (thresholds 0.87)"),
    Row("fraction_pearson", "affected fraction: Pearson's r", papers="Bartoli 0.947"),
    Row("ground_glass_fraction_mae", "extent of ground glass: mean absolute error", "{:.1%}"),
    Row("consolidation_fraction_mae", "extent of consolidation: mean absolute error", "{:.1%}"),
    Row("lungs_ml_mae", "volume of the lungs: mean absolute error", "{:.0f} ml"),
    Row("lungs_ml_bias", "volume of the lungs: bias", "{:+.0f} ml"),
    Row("lesion_ml_mae", "volume of the lesions: mean absolute error", "{:.0f} ml"),
    Row("lesion_ml_bias", "volume of the lesions: bias", "{:+.0f} ml"),
    Row("ct_ss_accuracy", "CT-SS right", "{:.0%}", "LungQuant 90 %"),
    Row("ct_ss_within_one", "CT-SS wrong by one at most", "{:.0%}", "LungQuant 100 %"),
    Row("auc_vs_healthy", "AUC, COVID-19 against healthy", papers="Goncharov 0.978 (thresholds 0.649)"),
    Row("auc_vs_all_others", "AUC, COVID-19 against all others", papers="Goncharov 0.951 (thresholds 0.567)"),
    Row("fraction_in_healthy", "affected fraction found in the healthy", "{:.1%}"),
)
MARKER = "evaluation"
NO_VALUE = "-"


def markdown(report: Report) -> str:
    """The whole report: the table, confusions, what must be known, every scan, what was not scored."""
    methods = report["methods"]
    parts = [f"# Evaluation of {', '.join(methods)}", _heading(report), side_by_side(report, papers=True)]
    for name, method in methods.items():
        if method.get("error"):
            parts.append(f"**{name}** could not be loaded: {method['error']}")
            continue
        parts.append(f"## {name}")
        parts.append("\n".join(f"- {sentence}" for sentence in method["cautions"]))
        if any(any(row) for row in method["ct_ss_confusion"]):
            parts.append(
                "CT-SS: a row for each of the expert's scores, a column for each found\n\n" + _confusion(method)
            )
        parts += [_by_source(method), _scans(method["scans"]), _not_scored(method["scans"])]
    if report["left_out"]:
        listed = "\n".join(f"- {entry['path']}: {entry['why']}" for entry in report["left_out"])
        parts.append(f"## Left out\n\n{listed}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(report: Report) -> str:
    return (
        f"Data: {report['data']}; split: {report['split']}. Means over scans, in brackets the 95 % interval of "
        f"{report['resamples']} resamples by patient, then the number of scans. {NOT_FOR_DIAGNOSTIC_USE}."
    )


def side_by_side(report: Report, *, papers: bool) -> str:
    """A row for every metric that any method has, a column for every method."""
    methods = {name: method for name, method in report["methods"].items() if not method.get("error")}
    last = ["the papers, on their data"] if papers else []
    rows = [
        [row.title, *(_cell(row, method) for method in methods.values()), *([row.papers] if papers else [])]
        for row in ROWS
        if any(method.get(row.metric) is not None for method in methods.values())
    ]
    rows.append(
        ["seconds a scan", *(_number("{:.1f}", m["seconds_mean"]) for m in methods.values()), *[""] * len(last)]
    )
    rows.append(
        ["peak memory", *(_number("{:.0f} MiB", m["peak_memory_mib"]) for m in methods.values()), *[""] * len(last)]
    )
    return _table(["", *methods, *last], rows)


def _cell(row: Row, method: Mapping[str, Any]) -> str:
    value = method.get(row.metric)
    if value is None:
        return NO_VALUE
    interval = method["intervals"].get(row.metric)
    bracket = f" [{row.form.format(interval[0])}, {row.form.format(interval[1])}]" if interval else ""
    return f"{row.form.format(value)}{bracket} ({method['counts'][row.metric]['scans']})"


def _number(form: str, value: float | None) -> str:
    return NO_VALUE if value is None else form.format(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _confusion(method: Mapping[str, Any]) -> str:
    rows = [[f"expert {score}", *map(str, row)] for score, row in enumerate(method["ct_ss_confusion"], start=1)]
    return _table(["", *(f"found {score}" for score in range(1, 6))], rows)


def _by_source(method: Mapping[str, Any]) -> str:
    shown = (
        "lungs_dice",
        "lesion_dice",
        "ground_glass_dice",
        "consolidation_dice",
        "fraction_mae",
        "fraction_spearman",
    )
    rows = [
        [name, str(source["scans"]), *(_number("{:.3f}", source.get(metric)) for metric in shown)]
        for name, source in method["by_source"].items()
    ]
    return _table(["source", "scans", *(metric.replace("_", " ") for metric in shown)], rows)


def _scans(scans: Sequence[Mapping[str, Any]]) -> str:
    forms = {
        "lungs_dice": "{:.3f}",
        "lesion_dice": "{:.3f}",
        "predicted_fraction": "{:.1%}",
        "expert_fraction": "{:.1%}",
        "covid_probability": "{:.2f}",
        "seconds": "{:.1f}",
        "peak_memory_mib": "{:.0f}",
    }
    rows = [
        [scan["study"], scan["group"] or NO_VALUE, scan["split"] or NO_VALUE]
        + [_number(form, scan[name]) for name, form in forms.items()]
        for scan in scans
        if scan["kind"] != "slice" and not scan["failed"]
    ]
    titles = ("lungs Dice", "lesion Dice", "found fraction", "expert fraction", "P(COVID-19)", "s", "MiB")
    return _table(["scan", "group", "split", *titles], rows) if rows else ""


def _not_scored(scans: Sequence[Mapping[str, Any]]) -> str:
    """What could not be scored and why, scans with the same reasons together."""
    reasons: dict[str, list[str]] = {}
    for scan in scans:
        for what, why in scan["not_scored"].items():
            reasons.setdefault(f"{what.replace('_', ' ')}: {why}", []).append(scan["study"])
    lines = []
    for reason, studies in reasons.items():
        named = ", ".join(studies[:4]) + (f" and {len(studies) - 4} more" if len(studies) > 4 else "")
        lines.append(f"- {reason} ({named})")
    return "Not scored:\n\n" + "\n".join(lines) if lines else ""


def readme_section(report: Report) -> str:
    """What stands in the README: the table beside the papers' figures, and how far it can be believed."""
    where = f"{report['data']}, split {report['split']}"
    how = f"means over scans [95 % interval, {report['resamples']} resamples by patient] (scans)"
    sentences = [f"Written by `tools/evaluate.py --readme` on {where}: {how}."]
    for name, method in report["methods"].items():
        if not method.get("error"):
            sentences.append(f"{name}: {'; '.join(method['cautions'])}.")
    sentences.append(
        "So few patients of so few sources show that the methods work, not how well they would in a hospital: the "
        "intervals are wide, images of the converted sets have approximate attenuations, and the papers' figures come "
        "from other patients, scanners and experts. They stand here for their order of size alone."
    )
    return side_by_side(report, papers=True) + "\n\n" + "\n".join(sentences)


def write_readme(path: Path, report: Report) -> None:
    """Put the section between its two markers. Raises ValueError where the file has none."""
    text = path.read_text(encoding="utf-8")
    match = re.search(rf"(<!-- {MARKER}:[^>]*-->\n).*?(<!-- end of {MARKER} -->)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{path} has no lines <!-- {MARKER}: ... --> and <!-- end of {MARKER} -->")
    path.write_text(
        f"{text[: match.end(1)]}{readme_section(report)}\n{text[match.start(2) :]}",
        encoding="utf-8",
    )
