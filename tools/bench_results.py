"""Measures how long the objects of a result take to make and how large they are.

    python tools/bench_results.py                 a phantom of 300 slices of 512 x 512
    python tools/bench_results.py --series DIR    a series of your own

Every repetition makes the BINARY segmentations twice: as the node does, and by highdicom alone, the reference; the
ratio is taken within each repetition. All is measured up to the bytes of a Part 10 file, with the node's own check.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pydicom
import typer
from bench_inference import largest, phantom
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from rich.console import Console
from rich.table import Table

from triage_node import inference, results, severity, volume
from triage_node.config import AnalysisSection
from triage_node.identity import ResultIdentity
from triage_node.results import overview, report, segmentation, source
from triage_node.results.center import centers

if TYPE_CHECKING:
    import numpy.typing as npt

    from triage_node.identity import ResultKind
    from triage_node.study import Assessment, Findings, Volume

NAMES = {
    "lesions": "lesions, BINARY",
    "lungs": "lungs, BINARY",
    "lesion map": "lesions, label map",
    "lung map": "lungs, label map",
    "report": "report",
    "overview": "overview",
}
REFERENCE = "highdicom alone"


Makers = dict[str, Callable[[], Dataset | None]]


def makers_of(ct: Volume, findings: Findings, assessment: Assessment, identity: ResultIdentity) -> Makers:
    """What makes each kind of object from the masks; the report takes finished segmentations."""
    origin = source.of_volume(ct)

    def segmented(kind: ResultKind) -> Dataset | None:
        masks = (segmentation.lungs if kind in ("lungs", "lung map") else segmentation.lesions)(findings)
        return segmentation.dataset(kind, masks, ct, findings.model, origin, identity)

    makers: Makers = {
        "lesions": lambda: segmented("lesions"),
        "lungs": lambda: segmented("lungs"),
        "lesion map": lambda: segmented("lesion map"),
        "lung map": lambda: segmented("lung map"),
        "overview": lambda: overview.dataset(ct, findings, assessment, origin, identity),
    }
    finished = tuple(dataset for kind in ("lesions", "lungs") if (dataset := makers[kind]()) is not None)
    if len(finished) < 2:
        raise SystemExit("bench_results: the series has no lesion or no lungs: choose one with both")
    masks = segmentation.lesions(findings), segmentation.lungs(findings)

    def reported() -> Dataset:
        return report.judged(assessment, origin, identity, finished, centers(*masks, ct), "en")

    return makers | {"report": reported}


def encoded(make: Callable[[], Dataset | None]) -> bytes:
    """An object as the node makes, writes and checks it."""
    dataset, buffer = make(), BytesIO()
    assert dataset is not None
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    results.check(data)
    return data


def by_highdicom(labels: npt.NDArray[np.uint8], headers: list[Dataset]) -> bytes:
    """The same masks as a BINARY segmentation that highdicom makes and saves."""
    filled = np.flatnonzero(labels.any(axis=(1, 2)))
    numbers = [int(number) for number in np.unique(labels) if number]
    compact = np.searchsorted([0, *numbers], labels[filled]).astype(np.uint8)
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=f"segment {number}",
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Lung,
            algorithm_type="MANUAL",
        )
        for number in range(1, len(numbers) + 1)
    ]
    dataset = Segmentation(
        source_images=[headers[index] for index in filled],
        pixel_array=compact,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="bench",
        manufacturer_model_name="bench",
        software_versions="1",
        device_serial_number="1",
    )
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def timed(work: Callable[[], bytes]) -> tuple[float, bytes]:
    """Seconds, and what came out."""
    started = time.perf_counter()
    data = work()
    return time.perf_counter() - started, data


def measured(
    ct: Volume, findings: Findings, assessment: Assessment, identity: ResultIdentity, repeat: int
) -> dict[str, Any]:
    """Medians over the repetitions; the first one warms up and does not count."""
    makers = makers_of(ct, findings, assessment, identity)
    headers: list[Dataset] = [pydicom.dcmread(instance.path, stop_before_pixels=True) for instance in ct.instances]
    lesions = findings.lesions.astype(np.uint8)
    if findings.consolidation is not None:
        lesions += findings.lesions & findings.consolidation
    seconds: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    ratios = []
    for number in range(repeat + 1):
        walk: dict[str, float] = {}
        for kind, name in NAMES.items():
            walk[name], data = timed(partial(encoded, makers[kind]))
            sizes[name] = len(data)
            if kind in ("lesions", "lungs"):
                sizes[f"{name}, deflated"] = len(zlib.compress(data, 6))
        for name, labels in (("lesions", lesions), ("lungs", findings.lungs)):
            walk[f"{name}, {REFERENCE}"], data = timed(partial(by_highdicom, labels, headers))
            sizes[f"{name}, {REFERENCE}"] = len(data)
        if number:
            for name, value in walk.items():
                seconds.setdefault(name, []).append(value)
            reference = sum(value for name, value in walk.items() if name.endswith(REFERENCE))
            ratios.append(reference / (walk[NAMES["lesions"]] + walk[NAMES["lungs"]]))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "slices": len(ct.instances),
        "matrix": list(ct.hounsfield.shape[1:]),
        "repetitions": repeat,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "bytes": sizes,
        "binary_seconds": round(medians[NAMES["lesions"]] + medians[NAMES["lungs"]], 4),
        "binary_bytes": sizes[NAMES["lesions"]] + sizes[NAMES["lungs"]],
        "binary_deflated_bytes": sum(value for name, value in sizes.items() if name.endswith("deflated")),
        "label_map_seconds": round(medians[NAMES["lesion map"]] + medians[NAMES["lung map"]], 4),
        "label_map_bytes": sizes[NAMES["lesion map"]] + sizes[NAMES["lung map"]],
        "binary_times_as_fast_as_highdicom": round(statistics.median(ratios), 1),
    }


def main(
    series: Annotated[Path | None, typer.Option(help="A folder of DICOM files instead of the phantom.")] = None,
    slices: Annotated[int, typer.Option(help="Slices of the phantom.", min=10)] = 300,
    matrix: Annotated[int, typer.Option(help="Rows and columns of the phantom.", min=64)] = 512,
    repeat: Annotated[int, typer.Option(help="Repetitions; one more before them warms up.", min=1)] = 5,
    method: Annotated[str, typer.Option(help="Which method finds lungs and lesions.")] = "multitask",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Seconds and bytes of every kind of object."""
    settings = AnalysisSection.model_validate({"method": method})
    with (
        tempfile.TemporaryDirectory(prefix="bench-results-") as folder,
        Console(stderr=True).status("making the phantom") as status,
    ):
        subject = phantom(Path(folder), slices, matrix) if series is None else largest(series)
        status.update("finding lungs and lesions")
        judge = inference.load(settings)
        ct = volume.read(subject, settings)
        findings = judge(ct)
        identity = ResultIdentity(
            study_instance_uid=subject.key.study_instance_uid,
            series_digest=subject.digest,
            model_digest=judge.model.digest,
            generation=1,
            created_at=datetime(2020, 1, 1, tzinfo=UTC),
        )
        assessment = severity.assess(ct, findings, generation=1, settings=settings)
        status.update("encoding")
        answer = measured(ct, findings, assessment, identity, repeat)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    table = Table(title=f"{answer['slices']} slices of {answer['matrix'][0]} x {answer['matrix'][1]}")
    table.add_column("object")
    table.add_column("s", justify="right")
    table.add_column("MB", justify="right")
    for name, size in answer["bytes"].items():
        spent = answer["seconds"].get(name)
        table.add_row(name, "" if spent is None else f"{spent:.3f}", f"{size / 1e6:.2f}")
    Console().print(table)
    for key, value in answer.items():
        if key not in ("seconds", "bytes"):
            typer.echo(f"{key:34} {value}")


if __name__ == "__main__":
    typer.run(main)
