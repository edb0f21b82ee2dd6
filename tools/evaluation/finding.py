"""A folder of any layout -> the cases in it. No file is decoded here; what is broken shows when a case is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from annotations import labels as labels_file
from annotations.unusable import Unusable

from evaluation import archives, dicom, paired
from evaluation.cases import Case, LeftOut
from evaluation.naming import Labels, group_of_path, side_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from triage_node.config import AnalysisSection

LOOKED_FOR = (
    "DICOM series (with Segmentations or RT Structure Sets, or NAME-lungs.npz beside the folder NAME), "
    "NIfTI images with masks (images/ and masks/, X_ct.nii.gz and X_seg.nii.gz), "
    "or .npz files with hu, hu_approx or hounsfield"
)

IMAGES = {
    ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img", ".npy", ".mat", ".h5", ".hdf5", ".tif", ".tiff", ".png", ".jpg",
    ".jpeg", ".xml", ".zip", ".7z", ".rar", ".tar", ".gz", ".tgz",
}  # fmt: skip
TABLES = {".csv", ".tsv", ".xls", ".xlsx", ".json"}
IMAGES_COME = "scans and drawings come as DICOM, NIfTI or .npz, and tools/prepare_*.py turn public sets into a layout"
LABELS_COME = "labels of studies come from labels.csv with the columns study, patient, covid, healthy, group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder holds."""

    cases: tuple[Case, ...]
    left_out: tuple[LeftOut, ...]


def find(data: Path, settings: AnalysisSection, split: Mapping[str, str] | None = None) -> Found:
    """The cases below a folder, at any depth, labelled and put on their side of the split.

    Raises BadLabels where a label file or the split cannot be used.
    """
    labels = Labels(data)
    cases: list[tuple[Path, Case]] = []
    left_out: list[LeftOut] = []
    images: list[Path] = []
    masks: list[Path] = []
    for path in sorted(entry for entry in data.rglob("*") if entry.is_file()):
        if paired.is_nifti(path):
            images.append(path)
        elif path.suffix == ".npz":
            try:
                names = archives.holds(path)
                if archives.only_masks(names):
                    masks.append(path)
                else:
                    cases += [(path, case) for case in archives.cases(path, names)]
            except (Unusable, OSError, ValueError, KeyError) as error:
                left_out.append(LeftOut(path=str(path), why=str(error)))
    for found, others in (dicom.cases(data, settings), paired.cases(images, data)):
        cases += [(data / case.name, case) for case in found]
        left_out += others
    folders = {path for _, case in cases for path in case.masks}
    left_out += [
        LeftOut(path=str(path), why="masks, but no DICOM series lies in a folder of that name")
        for path in masks
        if path not in folders
    ]
    left_out += _other_files(data)
    finished = [_known(case, place, data, labels, split or {}) for place, case in cases]
    left_out += [
        LeftOut(path=f"{path}, {name!r}", why="no study of this name was found") for path, name in labels.unused()
    ]
    return Found(cases=tuple(finished), left_out=tuple(left_out))


def _other_files(data: Path) -> list[LeftOut]:
    """What may be a scan, a drawing or a label to people and is none here; an entry for each folder and ending."""
    found: Counter[tuple[Path, str]] = Counter()
    for path in sorted(entry for entry in data.rglob("*") if entry.is_file()):
        ending = path.suffix.lower()
        card = ending == ".json" and path.with_suffix(".npz").exists()
        known = paired.is_nifti(path) or path.name == labels_file.FILE
        if (ending in IMAGES or ending in TABLES) and not card and not known:
            found[path.parent, ending] += 1
    return [
        LeftOut(
            path=str(folder / f"*{ending}"),
            why=f"{count} of a kind that is not read: {IMAGES_COME if ending in IMAGES else LABELS_COME}",
        )
        for (folder, ending), count in found.items()
    ]


def _known(case: Case, place: Path, data: Path, labels: Labels, split: Mapping[str, str]) -> Case:
    """A case with what label files, the split and the path say of it."""
    said = labels.of(place, (case.name, *case.names))
    patient = said.patient or case.patient
    side = side_of((patient, case.patient, case.name, *case.names), split)
    named = None if case.kind == "slice" else case.group
    if named is None and case.kind != "slice" and place.is_relative_to(data):
        named = group_of_path(place.relative_to(data).parts)
    return replace(
        case,
        patient=said.patient or (side[0] if side else patient),
        group=said.group or named,
        split=side[1] if side else case.split,
    )
