"""Measures a method against expert masks: Dice of lungs and lesions, affected fractions, seconds and memory.

    python tools/evaluate.py ../shared/data --method threshold --json

The folder holds what `data/README.md` there describes. Whole series (dicom/, volumes/medseg_9/) are judged as they
are. Single slices say less about a method that works in three dimensions, and are made fit for it in this way:
covid_ct_seg is cropped to the lungs, so 10 mm of tissue and 10 mm of air are put around it; each slice of
finding_lungs.npz becomes a stack of 20 equal ones. Attenuations of the converted sets are approximate.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from triage_node import inference, severity, volume
from triage_node.config import AnalysisSection
from triage_node.errors import Refused
from triage_node.study import Instance, Mask, SeriesKey, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STACKED_SLICES, STACKED_MM = 20, 6.0
STACKED_PIXEL_MM = (1.4, 1.4)  # assumed: the set does not say
ASSUMED_CHEST_MM = 190.0  # what the slices of a scan of covid_ct_seg span, its spacing along z being unknown
TISSUE_HU, AIR_HU = 40, -1000
BORDER_MM = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A volume and what experts drew in it, where they did."""

    source: str
    name: str
    read: Callable[[], Volume]
    lungs: Mask | None = None
    lesions: Mask | None = None
    counted: tuple[int, int] | None = None  # the slices that the masks are compared on; None for all


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One row of the result; fractions and Dice coefficients are 0..1."""

    source: str
    name: str
    seconds: float
    refused: str | None = None
    right_ml: float | None = None
    left_ml: float | None = None
    fraction_right: float | None = None
    fraction_left: float | None = None
    fraction_both: float | None = None
    expert_fraction_both: float | None = None
    ct_grade: str | None = None
    dice_lungs: float | None = None
    dice_lesions: float | None = None
    warnings: tuple[str, ...] = ()


def measure(case: Case, method: inference.Method, settings: AnalysisSection) -> Measured:
    """Judge one case; reading it does not count."""
    try:
        read = case.read()
        start = time.perf_counter()
        findings = method(read)
        seconds = time.perf_counter() - start
        result = severity.assess(read, findings, generation=1, settings=settings)
    except Refused as error:
        return Measured(source=case.source, name=case.name, seconds=0.0, refused=str(error))
    counted = slice(*case.counted) if case.counted else slice(None)
    expert = None
    if case.lungs is not None and case.lesions is not None:
        expert = np.count_nonzero(case.lesions & case.lungs) / np.count_nonzero(case.lungs)
    return Measured(
        source=case.source,
        name=case.name,
        seconds=seconds,
        right_ml=result.right.volume_ml if result.right else None,
        left_ml=result.left.volume_ml if result.left else None,
        fraction_right=result.right.affected_fraction if result.right else None,
        fraction_left=result.left.affected_fraction if result.left else None,
        fraction_both=result.affected_fraction_both,
        expert_fraction_both=expert,
        ct_grade=str(result.ct_grade),
        dice_lungs=None if case.lungs is None else dice(findings.lungs[counted] > 0, case.lungs),
        dice_lesions=None if case.lesions is None else dice(findings.lesions[counted], case.lesions),
        warnings=result.warnings,
    )


def dice(one: Mask, other: Mask) -> float:
    """Twice the common part over the sum; 1 for two empty masks."""
    both = np.count_nonzero(one) + np.count_nonzero(other)
    return 2.0 * np.count_nonzero(one & other) / both if both else 1.0


def dicom_cases(data: Path, settings: AnalysisSection) -> Iterator[Case]:
    """Real series; the largest series of each folder."""
    for folder in sorted((data / "dicom").glob("*/")):
        if folder.name == "transfer-syntaxes":
            continue
        series = max((s for study in volume.study_in(folder) for s in study.series), key=lambda s: len(s.instances))
        masks = folder.with_name(f"{folder.name}-lungs.npz")
        lungs = np.load(masks)["lung"] > 0 if masks.exists() else None
        yield Case(
            source="dicom",
            name=folder.name,
            read=partial(volume.read, series, settings),
            lungs=lungs,
        )


def medseg_cases(data: Path) -> Iterator[Case]:
    """Whole volumes of COVID-19 patients."""
    for path in sorted((data / "volumes" / "medseg_9").glob("*.npz")):
        with np.load(path) as file:
            made = partial(made_volume, file["hu_approx"], tuple(file["spacing_zyx_mm_unreliable"]))
            lungs, lesions = file["lung"] > 0, file["lesion"] > 0
        yield Case(source="medseg_9", name=path.stem, read=made, lungs=lungs, lesions=lesions)


def covid_ct_seg_cases(data: Path) -> Iterator[Case]:
    """Slices with a lesion, cropped to the lungs."""
    for path in sorted((data / "slices" / "covid_ct_seg").glob("*.npz")):
        with np.load(path) as file:
            order = np.argsort(file["slice_index"])
            spacing = tuple(float(mm) for mm in file["pixel_spacing_mm"])
            hounsfield, lungs, lesions = (file[key][order] for key in ("hu", "lung", "lesion"))
            boxes, last = file["valid_box"][order], int(file["slice_index"].max())
        for plane, (top, bottom, first, beyond) in zip(hounsfield, boxes, strict=True):
            outside = np.ones(plane.shape, dtype=np.bool_)
            outside[top:bottom, first:beyond] = False
            plane[outside] = TISSUE_HU
        border = [(0, 0), *((round(BORDER_MM / mm),) * 2 for mm in spacing)]
        hounsfield = np.pad(np.pad(hounsfield, border, constant_values=TISSUE_HU), border, constant_values=AIR_HU)
        masks = [np.pad(np.pad(mask > 0, border), border) for mask in (lungs, lesions)]
        made = partial(made_volume, hounsfield, (max(1.0, ASSUMED_CHEST_MM / (last + 1)), *spacing))
        yield Case(source="covid_ct_seg", name=path.stem, read=made, lungs=masks[0], lesions=masks[1])


def finding_lungs_cases(data: Path) -> Iterator[Case]:
    """Single slices of LUNA16 patients, some upside down."""
    path = data / "slices" / "finding_lungs.npz"
    if not path.exists():
        return
    with np.load(path) as file:
        images, lungs, names = file["hu"], file["lung"] > 0, file["name"]
    for image, lung, name in zip(images, lungs, names, strict=True):
        stack = np.repeat(image[np.newaxis], STACKED_SLICES, axis=0)
        made = partial(made_volume, stack, (STACKED_MM, *STACKED_PIXEL_MM))
        middle = (STACKED_SLICES // 2, STACKED_SLICES // 2 + 1)
        yield Case(
            source="finding_lungs",
            name=str(name),
            read=made,
            lungs=lung[np.newaxis],
            counted=middle,
        )


def made_volume(hounsfield: npt.NDArray[np.int16], spacing_zyx_mm: tuple[float, ...]) -> Volume:
    """A volume of an array whose axes run to the head, to the back and to the left."""
    instance = Instance(
        sop_instance_uid="",
        sop_class_uid="",
        transfer_syntax_uid="",
        series=SeriesKey(study_instance_uid="", series_instance_uid=""),
        path=Path(),
        digest="",
    )
    positions = np.zeros((len(hounsfield), 3))
    positions[:, 2] = np.arange(len(hounsfield)) * spacing_zyx_mm[0]
    return Volume(
        hounsfield=np.ascontiguousarray(hounsfield, dtype=np.int16),
        affine_lps_mm=np.diag([*spacing_zyx_mm[::-1], 1.0]),
        slice_positions_mm=positions,
        instances=(instance,) * len(hounsfield),
    )


def summary(rows: list[Measured]) -> dict[str, object]:
    """Means for each source, and how well the affected fraction ranks the cases with lesion masks (Spearman)."""
    result: dict[str, object] = {}
    for source in dict.fromkeys(row.source for row in rows):
        mine = [row for row in rows if row.source == source]
        lungs = [row.dice_lungs for row in mine if row.dice_lungs is not None]
        lesions = [row.dice_lesions for row in mine if row.dice_lesions is not None]
        pairs = [(row.fraction_both, row.expert_fraction_both) for row in mine if row.expert_fraction_both is not None]
        result[source] = {
            "cases": len(mine),
            "refused": sum(row.refused is not None for row in mine),
            "dice_lungs_mean": float(np.mean(lungs)) if lungs else None,
            "dice_lungs_least": min(lungs, default=None),
            "dice_lesions_mean": float(np.mean(lesions)) if lesions else None,
            "spearman_fraction": float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else None,
            "seconds_mean": float(np.mean([row.seconds for row in mine])),
        }
    # Linux counts in KiB
    result["peak_memory_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return result


def main(
    data: Annotated[Path, typer.Argument(help="Folder with dicom/, volumes/ and slices/.", exists=True)],
    method: Annotated[str, typer.Option(help="Which method judges, by its name in the configuration.")] = "threshold",
    slices: Annotated[bool, typer.Option(help="Also judge the sets of single slices.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Measure a method against expert masks: Dice, affected fractions, seconds, memory."""
    settings = AnalysisSection.model_validate({"method": method})
    judge = inference.load(settings)
    rows: list[Measured] = []
    console = Console(stderr=True)
    sources = [dicom_cases(data, settings), medseg_cases(data)]
    if slices:
        sources += [covid_ct_seg_cases(data), finding_lungs_cases(data)]
    with console.status("judging") as status:
        for cases in sources:
            for case in cases:
                status.update(f"judging {case.source} {case.name}")
                rows.append(measure(case, judge, settings))
    if not rows:
        raise typer.BadParameter(f"{data} holds none of dicom/, volumes/medseg_9/ and slices/")
    whole = summary(rows)
    if as_json:
        typer.echo(json.dumps({"model": asdict(judge.model), "summary": whole, "cases": [asdict(r) for r in rows]}))
        return
    table = Table(title=f"{judge.model.name} {judge.model.digest[:12]}, not for diagnostic use")
    for column in ("source", "case", "s", "right", "left", "both", "expert", "grade", "Dice lungs", "lesions"):
        table.add_column(column)
    for row in rows:
        if row.source != "finding_lungs":
            numbers = (row.fraction_right, row.fraction_left, row.fraction_both, row.expert_fraction_both)
            cells = [*("-" if n is None else f"{n:.3f}" for n in numbers), row.ct_grade or row.refused or ""]
            cells += ["-" if n is None else f"{n:.3f}" for n in (row.dice_lungs, row.dice_lesions)]
            table.add_row(row.source, row.name[-32:], f"{row.seconds:.1f}", *cells)
    Console().print(table)
    typer.echo(json.dumps(whole, indent=2))


if __name__ == "__main__":
    typer.run(main)
