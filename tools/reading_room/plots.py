"""One picture: turnaround of each group under each strategy, how soon severe ones are read, what the maximum does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reading_room.patients import Group
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from reading_room.outcome import Week

COLORS = {Group.SEVERE: "#d55e00", Group.POSITIVE: "#e69f00", Group.OTHERS: "#0072b2"}  # Okabe and Ito
STYLES = ("#333333", "#0072b2", "#d55e00", "#009e73")
LATEST_MIN = 240
MINUTES = (10, 20, 50, 100, 200, 500, 1000, 2000)


def write(path: Path, report: Mapping[str, Any], weeks: Mapping[tuple[str, str], Sequence[Week]]) -> None:
    """Draw the picture into a .png, .pdf or .svg file."""
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    room = report["room"]
    figure.suptitle(
        f"A simulated reading room: {room['studies_a_day']:.0f} studies a day, readers busy {report['load']:.0%} of "
        f"their time, {report['replications']} x {room['days']} days  |  {NOT_FOR_DIAGNOSTIC_USE}",
        fontsize=10,
    )
    left, middle, right = figure.subplots(1, 3)
    _groups(left, report["tables"]["strategies"])
    _soon(middle, {name: found for (table, name), found in weeks.items() if table == "strategies"})
    _maximum(right, report["tables"]["maximum wait"])
    for axes in (left, middle, right):
        axes.grid(color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=110)


def _groups(axes: Axes, policies: Mapping[str, Any]) -> None:
    axes.set_title("minutes from arrival to report, mean and 95 % interval", fontsize=9)
    width = 0.26
    for offset, group in enumerate(Group):
        found = [policy["groups"][group]["mean"] for policy in policies.values()]
        heights = [one["mean"] if one else 0.0 for one in found]
        error = [one["high"] - one["mean"] if one else 0.0 for one in found]
        places = np.arange(len(found)) + (offset - 1) * width
        axes.bar(places, heights, width * 0.92, color=COLORS[group], label=group.value)
        axes.errorbar(places, heights, error, fmt="none", ecolor="#222222", capsize=2, lw=1)
        for place, height, above in zip(places, heights, error, strict=True):
            axes.annotate(
                f"{height:.0f}", (place, height + above), (0, 3), textcoords="offset points", ha="center", fontsize=7
            )
    axes.set_xticks(range(len(policies)), [name.replace("in order of ", "in order\nof ") for name in policies])
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=3)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)


def _soon(axes: Axes, weeks: Mapping[str, Sequence[Week]]) -> None:
    axes.set_title("share of severe studies reported within ... minutes", fontsize=9)
    for (name, found), color in zip(weeks.items(), STYLES, strict=True):
        minutes = np.sort(np.concatenate([week[Group.SEVERE] for week in found]))
        if len(minutes):
            axes.step(
                minutes, 100 * np.arange(1, len(minutes) + 1) / len(minutes), color=color, label=name, where="post"
            )
    axes.set_xlim(0, LATEST_MIN)
    axes.set_ylim(0, 101)
    axes.set_xlabel("minutes from arrival", fontsize=8)
    axes.set_ylabel("%", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _maximum(axes: Axes, policies: Mapping[str, Any]) -> None:
    axes.set_title("what the maximum wait does, strategy combined (minutes)", fontsize=9)
    triaged = {name: policy for name, policy in policies.items() if name != "in order of arrival"}
    places = np.arange(len(triaged))
    lines = (
        ("severe, mean", Group.SEVERE, "mean", COLORS[Group.SEVERE], "-"),
        ("others, mean", Group.OTHERS, "mean", COLORS[Group.OTHERS], "-"),
        ("others, 95th percentile", Group.OTHERS, "percentile_95", COLORS[Group.OTHERS], "--"),
        ("longest of all", "everybody", "longest", "#333333", ":"),
    )
    for label, group, metric, color, style in lines:
        found = [policy["groups"][group][metric] for policy in triaged.values()]
        heights = np.array([one["mean"] if one else np.nan for one in found])
        axes.plot(places, heights, style, marker="o", ms=4, color=color, label=label)
        axes.annotate(f"{heights[-1]:.0f}", (places[-1], heights[-1]), (5, -2), textcoords="offset points", fontsize=7)
        axes.annotate(
            f"{heights[0]:.0f}",
            (places[0], heights[0]),
            (-5, -8 if group is Group.SEVERE else 0),
            textcoords="offset points",
            ha="right",
            fontsize=7,
        )
    axes.set_yscale("log")
    axes.set_yticks(MINUTES, [str(number) for number in MINUTES])
    axes.minorticks_off()
    axes.set_xlim(-0.6, len(triaged) - 0.4)
    axes.set_xticks(places, [name.removesuffix(" min").replace("no maximum", "none") for name in triaged])
    axes.set_xlabel("max_wait_min", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
