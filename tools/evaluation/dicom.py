"""Cases in DICOM: CT series with Segmentation objects (PS3.3 A.51) of the same study, or with masks in .npz beside.

`NAME-lungs.npz`, `NAME-lesions.npz` or `NAME-masks.npz` beside or inside the folder `NAME` of a series hold `lung`
and `lesion` (or `classes`) [z, y, x] with z ascending to the head. Study labels come from names and label files.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

from evaluation import archives, segments
from evaluation.cases import Case, Drawn, LeftOut, classes_of, sides_of
from evaluation.naming import group_of_path, patient_of
from triage_node import selection, volume
from triage_node.conformance import CT_SOP_CLASSES
from triage_node.errors import Refused

if TYPE_CHECKING:
    from triage_node.config import AnalysisSection
    from triage_node.study import Instance, Series, Study, Volume

MASK_FILES = ("lungs", "lesions", "masks")


def cases(data: Path, settings: AnalysisSection) -> tuple[list[Case], list[LeftOut]]:
    """A case for every study with CT images: the series that was drawn in, else the one that the node would judge."""
    contents = volume.contents_of(data)
    drawn_in: dict[str, list[Instance]] = defaultdict(list)  # Series Instance UID or Study Instance UID -> SEG objects
    for study in contents.studies:
        for series in study.series:
            for instance in series.instances:
                if instance.sop_class_uid in segments.SOP_CLASSES:
                    drawn_in[_refers_to(instance)].append(instance)
    found = []
    for study in contents.studies:
        ct = [s for s in study.series if any(i.sop_class_uid in CT_SOP_CLASSES for i in s.instances)]
        if ct:
            found.append(_case(study, ct, drawn_in, data, settings))
    left_out = [
        LeftOut(path=str(ignored.path), why=ignored.words)
        for ignored in contents.ignored
        if ignored.path.suffix.lower() in {".dcm", ".ima"}
    ]
    return _named_apart(found), left_out


def _refers_to(instance: Instance) -> str:
    """Series Instance UID that a segmentation was drawn in, its Study Instance UID where it does not say."""
    header = pydicom.dcmread(instance.path, stop_before_pixels=True, specific_tags=["ReferencedSeriesSequence"])
    series = header.get("ReferencedSeriesSequence") or []
    uid = series[0].get("SeriesInstanceUID") if series else None
    return str(uid or instance.series.study_instance_uid)


def _case(
    study: Study, ct: list[Series], drawn_in: dict[str, list[Instance]], data: Path, settings: AnalysisSection
) -> Case:
    folder = Path(os.path.commonpath([i.path.parent for s in ct for i in s.instances]))
    inside = folder.relative_to(data).parts
    name = "/".join(inside) or data.name
    patient, others = patient_of(folder.name)
    source = inside[0] if len(inside) > 1 else (data.name if inside else folder.parent.name)
    return Case(
        name=name,
        source=source,
        kind="series",
        read=partial(_read, study, ct, drawn_in, folder, data, settings),
        patient=patient,
        names=(*others, folder.name, study.study_instance_uid),
        group=group_of_path(inside or (folder.name,)),
        masks=tuple(path for place in _around(folder, data) for path in mask_files(place)),
    )


def _named_apart(found: list[Case]) -> list[Case]:
    """Several studies in one folder get numbers."""
    counts = Counter(case.name for case in found)
    seen: Counter[str] = Counter()
    named = []
    for case in found:
        if counts[case.name] > 1:
            seen[case.name] += 1
            number = f"{case.name}#{seen[case.name]}"
            named.append(replace(case, name=number, patient=number))
        else:
            named.append(case)
    return named


def _read(
    study: Study,
    ct: list[Series],
    drawn_in: dict[str, list[Instance]],
    folder: Path,
    data: Path,
    settings: AnalysisSection,
) -> Drawn:
    series, refused = _chosen(ct, drawn_in, settings)
    try:
        read = volume.read(series, settings)
    except Refused as error:
        raise (refused or error) from error
    remarks: list[str] = []
    drawn = _of_files(_around(folder, data), read, remarks)
    objects = drawn_in.get(series.key.series_instance_uid) or drawn_in.get(study.study_instance_uid) or []
    for kind, mask in segments.read(objects, read, remarks).items():
        drawn.setdefault(kind, mask)
    if "lungs" in drawn and not drawn.get("sided"):
        drawn["lungs"], drawn["sided"] = sides_of(drawn["lungs"], read.affine_lps_mm)
    return Drawn(volume=read, **drawn, remarks=tuple(dict.fromkeys(remarks)))


def _chosen(
    ct: list[Series], drawn_in: dict[str, list[Instance]], settings: AnalysisSection
) -> tuple[Series, Refused | None]:
    """The series that was drawn in; else the node's first choice, or the largest with the reason why there is none."""
    largest = max(ct, key=lambda series: len(series.instances))
    marked = [series for series in ct if series.key.series_instance_uid in drawn_in]
    if marked:
        return max(marked, key=lambda series: len(series.instances)), None
    choice = selection.choose([volume.facts_of(series) for series in ct], settings)
    if choice.candidates:
        return next(series for series in ct if series.key == choice.candidates[0].key), None
    return largest, Refused(choice.no_suitable({})[1][0].not_analysed) if len(ct) == 1 else None


def _around(folder: Path, data: Path) -> list[Path]:
    """The folder of a series and those around it, the innermost first, as far as the folder of data."""
    return [place for place in (folder, *folder.parents) if place.is_relative_to(data)]


def mask_files(folder: Path) -> list[Path]:
    """Where the masks of the series in a folder may lie."""
    beside = [folder.with_name(f"{folder.name}-{kind}.npz") for kind in MASK_FILES]
    return beside + [folder / f"{kind}.npz" for kind in MASK_FILES]


def _of_files(folders: list[Path], read: Volume, remarks: list[str]) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for folder in folders:
        for path in mask_files(folder):
            if not path.is_file():
                continue
            try:
                masks = archives.masks_of(path)
            except (OSError, ValueError) as error:
                remarks.append(f"{path.name} cannot be read: {error}")
                continue
            for what, mask in masks.items():
                if mask.shape != read.hounsfield.shape:
                    remarks.append(f"{path.name} is {mask.shape}, the series {read.hounsfield.shape}: not compared")
                    continue
                # the volume runs along the normal of its slices, which points to the feet in some series
                turned = mask if read.affine_lps_mm[2, 2] > 0 else mask[::-1]
                if what in drawn:
                    continue
                if what == "lungs":
                    drawn["lungs"] = np.ascontiguousarray(turned)
                else:
                    drawn["lesions"], drawn["consolidation"] = classes_of(turned)
    return drawn
