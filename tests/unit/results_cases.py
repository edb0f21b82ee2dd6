"""Series of many kinds with masks whose truth is known, and the results made of them."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from tests import builders
from tests.peers import require
from triage_node import results, severity, volume
from triage_node.config import AnalysisSection
from triage_node.identity import ResultIdentity
from triage_node.results import segmentation, source
from triage_node.study import Findings, Model

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from pydicom.dataset import Dataset

    from tests.builders import Built
    from triage_node.results import ResultObject
    from triage_node.study import Assessment, Volume

SETTINGS = AnalysisSection()
MODEL = Model(name="threshold", version="1", digest="ab" * 32, describes="lesions by attenuation")


def _turned(degrees: float) -> tuple[float, ...]:
    """Row and column directions of an axial slice that is turned about the patient's long axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (c, s, 0.0, -s, c, 0.0)


def _tilted(degrees: float) -> tuple[float, ...]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (1.0, 0.0, 0.0, 0.0, c, -s)


# How a series may lie; the keywords of `builders.ct_series`
SINGLE_FRAME: dict[str, dict[str, Any]] = {
    "head first supine": {},
    "feet first supine": {"orientation": (-1, 0, 0, 0, 1, 0), "attributes": {"PatientPosition": "FFS"}},
    "head first prone": {"orientation": (-1, 0, 0, 0, -1, 0), "attributes": {"PatientPosition": "HFP"}},
    "decreasing positions": {"step_mm": (0, 0, -12.0), "numbered_downwards": True},
    "oblique": {"orientation": _turned(12)},
    "tilted along the normal": {"orientation": _tilted(15)},
}
MULTI_FRAME: dict[str, dict[str, Any]] = {
    "enhanced": {"frame_order": [5, 3, 0, 1, 2, 4, 6, 11, 10, 9, 8, 7]},
    "legacy converted": {"sop_class": builders.LEGACY_CONVERTED_ENHANCED_CT},
    "concatenation": {"parts": 3},
}
SHEARED: dict[str, dict[str, Any]] = {
    "gantry tilt": {"orientation": _tilted(15), "step_mm": (0, 0, 12.0)},
    "varying spacing": {
        "positions_mm": [(-120.0, -90.0, z) for z in (0, 10, 20, 30, 40, 50, 60, 72, 84, 96, 108, 120, 132)]
    },
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A series and what was found in it."""

    built: Built
    volume: Volume
    findings: Findings
    assessment: Assessment
    identity: ResultIdentity

    def segmented(self) -> dict[str, Dataset]:
        """The two segmentations alone, which is quicker."""
        origin = source.of_volume(self.volume)
        made = {
            kind: segmentation.dataset(kind, masks, self.volume, self.findings.model, origin, self.identity)
            for kind, masks in (
                ("lungs", segmentation.lungs(self.findings)),
                ("lesions", segmentation.lesions(self.findings)),
            )
        }
        return {kind: dataset for kind, dataset in made.items() if dataset is not None}

    def objects(self) -> dict[str, ResultObject]:
        """All objects, as the node makes them."""
        made = results.judged(self.volume, self.findings, self.assessment, self.identity)
        return {entry.kind: entry for entry in made}


def build(folder: Path, name: str = "head first supine", **more: Any) -> Case:
    """The series called `name`, read by the node's own reader, with two lungs and a lesion in each."""
    if name in MULTI_FRAME:
        built = builders.enhanced_ct(folder, **(MULTI_FRAME[name] | more))
    else:
        built = builders.ct_series(folder, **({**SINGLE_FRAME, **SHEARED}[name] | more))
    return judge(built)


def judge(built: Built, **findings: Any) -> Case:
    """Two lungs without any symmetry, a lesion in each; `findings` replaces fields."""
    ct = volume.read(built.series, SETTINGS)
    found = replace(masks(ct), **findings)
    identity = ResultIdentity(
        study_instance_uid=built.series.key.study_instance_uid,
        series_digest=built.series.digest,
        model_digest=MODEL.digest,
        generation=1,
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    )
    return Case(
        built=built,
        volume=ct,
        findings=found,
        assessment=severity.assess(ct, found, generation=1, settings=SETTINGS),
        identity=identity,
    )


def masks(ct: Volume) -> Findings:
    """Lungs as boxes on the right and left half of the patient; lesions where the texture is dense."""
    slices, rows, columns = ct.hounsfield.shape
    lungs: npt.NDArray[np.uint8] = np.zeros(ct.hounsfield.shape, np.uint8)
    to_left = ct.affine_lps_mm[0, 0] > 0
    first, second = (1, 2) if to_left else (2, 1)
    lungs[1 : slices - 2, 2 : rows - 5, 1 : columns // 2] = first
    lungs[2 : slices - 1, 3 : rows - 2, columns // 2 + 1 : columns - 3] = second
    lesions = (lungs > 0) & (ct.hounsfield > 450)
    lesions[: slices // 3] = False
    return Findings(lungs=lungs, lesions=lesions, covid_probability=None, model=MODEL)


def by_class(folder: Path, name: str = "head first supine", *, model: Model = MODEL, **more: Any) -> Case:
    """The series called `name`, judged by a method that tells classes apart; `more` replaces fields of the findings.

    The dense part of the lesions is consolidation, and so are voxels outside of them, which must not count.
    """
    plain = build(folder, name)
    lesions = more.get("lesions", plain.findings.lesions)
    dense = plain.volume.hounsfield > 700
    dense[:, -2:] = True
    assert (lesions & dense).any() or not lesions.any() or "consolidation" in more
    return judge(plain.built, **({"consolidation": dense, "model": model} | more))


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error."""
    judged = run("dciodvfy", "-new", str(path), package="dicom3tools")
    return [line for line in (judged.stderr + judged.stdout).splitlines() if line.startswith("Error")]


def run(program: str, *arguments: str, package: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require(program, package=package), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )


def written(case: Case, folder: Path) -> dict[str, Path]:
    """Every object of a case as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for kind, made in case.objects().items():
        paths[kind] = folder / f"{kind}.dcm"
        results.write(made, paths[kind])
    return paths


def content(dataset: Dataset) -> list[tuple[str, str]]:
    """(concept, value) of every content item of a report with a value, in order."""
    found = []
    for item in dataset.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else ""
        if item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            found.append((name, f"{float(measured.NumericValue):g} {unit}"))
        elif item.ValueType == "CODE":
            found.append((name, str(item.ConceptCodeSequence[0].CodeMeaning)))
        elif item.ValueType in ("TEXT", "UIDREF"):
            found.append((name, str(item.TextValue if item.ValueType == "TEXT" else item.UID)))
        found += content(item)
    return found
