"""One page of plots: fractions against the experts', Bland-Altman, Dice of every scan, CT-SS, ROC; a row a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation import agreement
from evaluation.summary import COVID, CT_SS, GROUP, HEALTHY, SCORE, confusions, main_scans
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from evaluation.summary import Scan

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")  # Okabe and Ito
ROW_INCHES, WIDTH_INCHES = 3.3, 22.0
COLUMNS = 6


def write(path: Path, methods: Mapping[str, Sequence[Scan]], title: str) -> None:
    """Draw the page into a .png, .pdf or .svg file. Raises ValueError for another kind of file."""
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * max(1, len(methods)) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}  |  {NOT_FOR_DIAGNOSTIC_USE}", fontsize=10)
    axes = figure.subplots(max(1, len(methods)), COLUMNS, squeeze=False)
    for row, (name, scans) in zip(axes, methods.items(), strict=True):
        judged = [scan for scan in main_scans(scans) if scan.failed is None]
        colors = _colors(judged)
        _fractions(row[0], judged, colors)
        _bland_altman(row[1], judged, colors, "fraction", 100, "%")
        _bland_altman(row[2], judged, colors, "lesion_ml", 1, "ml")
        _dice(row[3], judged)
        _ct_ss(row[4], judged)
        _roc(row[5], judged)
        row[0].set_title(f"{name}: affected fraction", fontsize=9)
    figure.savefig(path, dpi=110)


def _colors(scans: Sequence[Scan]) -> dict[str, str]:
    sources = sorted({scan.case.source for scan in scans})
    return {source: COLORS[index % len(COLORS)] for index, source in enumerate(sources)}


def _pairs(scans: Sequence[Scan], name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[str]]:
    """Predicted and expert values of a figure, and their sources."""
    rows = [(scan.column(f"predicted_{name}"), scan.column(f"expert_{name}"), scan.case.source) for scan in scans]
    whole = [(found, expert, source) for found, expert, source in rows if found is not None and expert is not None]
    values = np.array([row[:2] for row in whole], dtype=np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1], [source for _, _, source in whole]


def _nothing(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=8, color="#666666", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _labels(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)


def _scatter(axes: Axes, x: Any, y: Any, sources: list[str], colors: Mapping[str, str]) -> None:
    for source, color in colors.items():
        mine = np.array([name == source for name in sources], dtype=np.bool_)
        if mine.any():
            axes.scatter(x[mine], y[mine], s=18, color=color, label=source, alpha=0.8)


def _fractions(axes: Axes, scans: Sequence[Scan], colors: Mapping[str, str]) -> None:
    predicted, expert, sources = _pairs(scans, "fraction")
    _labels(axes, "", "expert (%)", "found (%)")
    if not len(predicted):
        _nothing(axes, "no scan with lungs and lesions\ndrawn by an expert")
        return
    _scatter(axes, 100 * expert, 100 * predicted, sources, colors)
    top = 105 * float(max(expert.max(), predicted.max(), 0.01))
    axes.plot([0, top], [0, top], color="#999999", lw=0.8)
    rho = agreement.spearman(predicted, expert)
    axes.text(0.03, 0.95, "" if rho is None else f"Spearman {rho:.2f}", fontsize=7, transform=axes.transAxes, va="top")
    axes.legend(fontsize=6, loc="lower right")


def _bland_altman(
    axes: Axes, scans: Sequence[Scan], colors: Mapping[str, str], name: str, scale: int, unit: str
) -> None:
    predicted, expert, sources = _pairs(scans, name)
    predicted, expert = scale * predicted, scale * expert
    what = "affected fraction" if name == "fraction" else "volume of the lesions"
    _labels(axes, f"Bland-Altman: {what}", f"mean of found and expert ({unit})", f"found minus expert ({unit})")
    limits = agreement.bland_altman(predicted, expert)
    if limits is None:
        _nothing(axes, f"fewer than three scans with\n{what} by an expert")
        return
    _scatter(axes, (predicted + expert) / 2, predicted - expert, sources, colors)
    for value, style in ((limits.bias, "-"), (limits.low, "--"), (limits.high, "--")):
        axes.axhline(value, color="#333333", lw=0.8, ls=style)
        axes.annotate(f"{value:+.1f}", (1.0, value), xycoords=("axes fraction", "data"), fontsize=7)


def _dice(axes: Axes, scans: Sequence[Scan]) -> None:
    _labels(axes, "Dice, a dot a scan, a bar the mean", "", "")
    names = ("lungs", "lesion", "ground_glass", "consolidation")
    found = {name: [v for scan in scans if (v := scan.column(f"{name}_dice")) is not None] for name in names}
    if not any(found.values()):
        _nothing(axes, "no masks drawn by an expert")
        return
    for place, values in enumerate(found.values()):
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(len(values))
        axes.scatter(place + spread, values, s=14, color=COLORS[place], alpha=0.7)
        if values:
            axes.hlines(float(np.mean(values)), place - 0.25, place + 0.25, color="#333333", lw=1.5)
            axes.text(place, 1.03, f"{np.mean(values):.2f}", ha="center", fontsize=7)
    axes.set_ylim(-0.02, 1.1)
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=7)


def _ct_ss(axes: Axes, scans: Sequence[Scan]) -> None:
    _labels(axes, "CT-SS", "found", "expert")
    table = np.array(confusions(scans)["ct_ss_confusion"])
    if not table.any():
        _nothing(axes, "no scan with lungs and lesions\ndrawn by an expert")
        return
    axes.imshow(table, cmap="Blues")
    for (row, column), count in np.ndenumerate(table):
        if count:
            dark = count > table.max() / 2
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_xticks(range(len(CT_SS)), [str(score) for score in CT_SS])
    axes.set_yticks(range(len(CT_SS)), [str(score) for score in CT_SS])


def _roc(axes: Axes, scans: Sequence[Scan]) -> None:
    _labels(axes, "COVID-19: ROC", "1 - specificity", "sensitivity")
    rows = [(scan.column(SCORE), scan.column(GROUP)) for scan in scans]
    whole = np.array([row for row in rows if None not in row], dtype=np.float64).reshape(-1, 2)
    drawn = False
    for title, kept, color in (
        ("against healthy", (whole[:, 1] == COVID) | (whole[:, 1] == HEALTHY), COLORS[2]),
        ("against all others", np.ones(len(whole), dtype=np.bool_), COLORS[0]),
    ):
        scores, positive = whole[kept, 0], whole[kept, 1] == COVID
        value = agreement.auc(scores, positive)
        if value is None:
            continue
        cuts = np.r_[np.inf, np.unique(scores)[::-1]]
        hits = [float((scores[positive] >= cut).mean()) for cut in cuts]
        alarms = [float((scores[~positive] >= cut).mean()) for cut in cuts]
        axes.plot(alarms, hits, color=color, label=f"{title}: {value:.2f} ({positive.sum()}/{(~positive).sum()})")
        drawn = True
    if not drawn:
        _nothing(axes, "no scans of both groups")
        return
    axes.plot([0, 1], [0, 1], color="#999999", lw=0.8)
    axes.legend(fontsize=7, loc="lower right")
