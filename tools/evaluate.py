"""Measures methods against experts on any folder of studies: lungs, lesions, affected fractions, grades, COVID-19.

    python tools/evaluate.py --data ../shared/data --markdown report.md --json report.json --plots report.png
    python tools/evaluate.py --data DIR --method threshold --method multitask --split test

DIR may hold, at any depth and in any mixture: DICOM CT series, with Segmentations or RT Structure Sets or with masks
in NAME-lungs.npz beside the folder NAME; NIfTI images with masks in the usual layouts; .npz files of COVID-19-CT-Seg,
MedSeg or of the training programs. What cannot be read or scored is named with its reason and stops nothing. Study
labels come from names, or from a `labels.csv` with the columns study, patient, covid (1 or 0) and group (healthy,
other, covid); fractions are measured inside what was drawn and imaged.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from evaluation import finding, judging, summary, tables
from evaluation.bootstrap import RESAMPLES
from evaluation.naming import BadLabels, read_split
from pydantic import ValidationError
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from triage_node import inference
from triage_node.config import AnalysisSection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.cases import Case
    from evaluation.summary import Scan

Split = Literal["all", "train", "validation", "test"]
SPLIT_TABLE = Path(__file__).parent.parent / "nets" / "weights" / "split.json"
screen = Console(stderr=True, highlight=False)


def main(
    data: Annotated[Path, typer.Option(help="Folder of studies.", exists=True, file_okay=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"Which method judges; may be repeated. All of {', '.join(inference.METHODS)}."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything as JSON; - for the screen.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Draw one page of plots: .png, .pdf or .svg.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Write the table into this README, between its markers.")] = None,
    split: Annotated[Split, typer.Option(help="Only patients of this side of the split.")] = "all",
    split_table: Annotated[
        Path, typer.Option(help="JSON: patient -> train, validation or test.", show_default="nets/weights/split.json")
    ] = SPLIT_TABLE,
    weights: Annotated[Path | None, typer.Option(help="Folder of other weights than the shipped ones.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    single_slices: Annotated[bool, typer.Option(help="Also judge sets of single slices.")] = True,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap; 0: no intervals.", min=0)] = RESAMPLES,
) -> None:
    """Measure methods against experts on any folder of studies. Exit status 1 where nothing could be judged."""
    _plots_possible(plots)
    wanted = method or list(inference.METHODS)
    if unknown := [name for name in wanted if name not in inference.METHODS]:
        raise typer.BadParameter(f"there is no method {unknown[0]!r}; there are {', '.join(inference.METHODS)}")
    try:
        table = read_split(split_table) if split_table.exists() or split != "all" else {}
        found = finding.find(data.resolve(), AnalysisSection(), table)
    except BadLabels as error:
        raise typer.BadParameter(str(error)) from error
    cases = [case for case in found.cases if split in ("all", case.split)]
    cases = [case for case in cases if single_slices or case.kind != "slice"]
    for entry in found.left_out:
        screen.print(f"left out: {entry.path}: {entry.why}", style="dim", markup=False)
    if not cases:
        held = f"{len(found.cases)} studies, none of them in the split {split!r}" if found.cases else "no study"
        raise typer.BadParameter(f"{data} holds {held}. Looked for: {finding.LOOKED_FOR}")
    methods, errors = _loaded(wanted, device, weights)
    if not methods:
        raise typer.Exit(1)
    scans = _judge_all(cases, methods)
    report: dict[str, Any] = {
        "data": str(data),
        "split": split,
        "resamples": resamples,
        "studies": len(cases),
        "left_out": [asdict(entry) for entry in found.left_out],
        "methods": {
            **{
                name: {"model": _model(methods[name][0]), **summary.as_json(judged, resamples=resamples)}
                for name, judged in scans.items()
            },
            **{name: {"error": words} for name, words in errors.items()},
        },
    }
    _write(report, scans, json_file, markdown, plots, readme)
    if not any(scan.failed is None for judged in scans.values() for scan in judged):
        raise typer.Exit(1)


def _plots_possible(plots: Path | None) -> None:
    if plots is None:
        return
    if plots.suffix not in {".png", ".pdf", ".svg"}:
        raise typer.BadParameter(f"--plots {plots}: the file's name must end in .png, .pdf or .svg")
    try:
        importlib.import_module("matplotlib")  # said before the long work, not after it
    except ImportError as error:
        raise typer.BadParameter("--plots needs matplotlib: pip install --editable '.[evaluation]'") from error


def _loaded(
    names: Sequence[str], device: str, weights: Path | None
) -> tuple[dict[str, tuple[inference.Method, AnalysisSection]], dict[str, str]]:
    """The methods that could be loaded, and why the others could not."""
    methods: dict[str, tuple[inference.Method, AnalysisSection]] = {}
    errors: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            settings = AnalysisSection.model_validate({"method": name, "device": device})
        except ValidationError as error:
            raise typer.BadParameter(str(error)) from error
        try:
            methods[name] = (inference.load(settings, weights), settings)
        except Exception as error:  # noqa: BLE001  # a method without its weights must not stop the others
            errors[name] = f"{type(error).__name__}: {error}"
            screen.print(f"{name} cannot be loaded: {errors[name]}", style="red", markup=False)
    return methods, errors


def _judge_all(
    cases: Sequence[Case], methods: dict[str, tuple[inference.Method, AnalysisSection]]
) -> dict[str, list[Scan]]:
    scans: dict[str, list[Scan]] = defaultdict(list, {name: [] for name in methods})
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task("reading", total=len(cases) * max(1, len(methods)))
        for case in cases:
            bar.update(task, description=case.name[-48:])
            for name, scan in judging.judged(case, methods, lambda _: bar.advance(task)).items():
                scans[name].append(scan)
                if scan.failed is not None:
                    bar.console.print(f"{case.name} by {name}: {scan.failed}", style="yellow", markup=False)
    return dict(scans)


def _model(method: inference.Method) -> dict[str, Any]:
    model = method.model
    return {"name": model.name, "version": model.version, "digest": model.digest, "describes": model.describes}


def _write(
    report: dict[str, Any],
    scans: dict[str, list[Scan]],
    json_file: Path | None,
    markdown: Path | None,
    plots: Path | None,
    readme: Path | None,
) -> None:
    text = json.dumps(report, indent=1)
    if json_file == Path("-"):
        sys.stdout.write(text + "\n")
    else:
        if json_file is not None:
            json_file.write_text(text + "\n", encoding="utf-8")
        Console(width=None if sys.stdout.isatty() else 160).print(Markdown(tables.markdown(report)))
    if markdown is not None:
        markdown.write_text(tables.markdown(report), encoding="utf-8")
    if plots is not None:
        from evaluation import plots as page

        page.write(plots, scans, f"{report['data']}, split {report['split']}")
    if readme is not None:
        tables.write_readme(readme, report)


if __name__ == "__main__":
    typer.run(main)
