"""Cases in DICOM: CT series with Segmentations or RT Structure Sets (PS3.3 A.51, A.19), or with masks in .npz beside.

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
from annotations import regions
from annotations.unusable import Unusable
from pydicom.errors import InvalidDicomError

from evaluation import archives
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
    drawn_in: dict[str, list[Instance]] = defaultdict(list)  # Series Instance UID or Study Instance UID -> drawings
    for study in contents.studies:
        for series in study.series:
            for instance in series.instances:
                if instance.sop_class_uid in regions.SOP_CLASSES:
                    for uid in _refers_to(instance):
                        drawn_in[uid].append(instance)
    found, present = [], set()
    for study in contents.studies:
        ct = [s for s in study.series if any(i.sop_class_uid in CT_SOP_CLASSES for i in s.instances)]
        if ct:
            found.append(_case(study, ct, drawn_in, data, settings))
            present |= {study.study_instance_uid, *(series.key.series_instance_uid for series in ct)}
    left_out = [
        LeftOut(path=str(ignored.path), why=ignored.words)
        for ignored in contents.ignored
        if ignored.path.suffix.lower() in {".dcm", ".ima"}
    ]
    left_out += [
        LeftOut(path=str(path), why="drawn on a series that is not in the folder")
        for path in sorted(
            {
                instance.path
                for instances in drawn_in.values()
                for instance in instances
                if not any(instance in drawn_in[uid] for uid in present & drawn_in.keys())
            }
        )
    ]
    return _named_apart(found), left_out


def _refers_to(instance: Instance) -> set[str]:
    """Series Instance UIDs of what a drawing was drawn in, its Study Instance UID where it does not say."""
    tags = ["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"]
    header = pydicom.dcmread(instance.path, stop_before_pixels=True, specific_tags=tags)
    return regions.drawn_series(header) or {instance.series.study_instance_uid}


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
    drawn = {**_of_objects(objects, read, remarks), **drawn}
    if "lungs" in drawn and not drawn.get("sided"):
        drawn["lungs"], drawn["sided"] = sides_of(drawn["lungs"], read.affine_lps_mm)
    return Drawn(volume=read, **drawn, remarks=tuple(dict.fromkeys(remarks)))


def _of_objects(objects: list[Instance], read: Volume, remarks: list[str]) -> dict[str, Any]:
    """What was drawn in Segmentations and Structure Sets, also by a program; what cannot be used is remarked."""
    usable = []
    for instance in objects:
        try:
            one = regions.read(
                pydicom.dcmread(instance.path), read, regions.ANY_NAMES, also_automatic=True, resampled=True
            )
        except (Unusable, OSError, InvalidDicomError) as error:
            remarks.append(f"{instance.path.name} cannot be used: {error}")
            continue
        usable.append(one)
        remarks += [f"region {name!r} is neither lungs nor lesions" for name in one.ignored]
        remarks += one.automatic
    masks = regions.together(usable)
    found: dict[str, Any] = {}
    try:
        lungs = regions.lungs_in(masks)
        if lungs is not None:
            found["lungs"], found["sided"] = lungs
    except Unusable as error:
        remarks.append(f"{error}: the lungs were not compared")
    labels = regions.lesions_in(masks)
    if labels is not None:
        found["lesions"], found["consolidation"] = classes_of(labels, told=regions.tells_apart(masks))
    return found


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
