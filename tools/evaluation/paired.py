"""Cases in NIfTI files: an image and its masks, paired by their names in the layouts that data sets are published in.

`images/X.nii.gz` with `masks/X_mask.nii.gz`, `X_ct.nii.gz` with `X_seg.nii.gz`, `imagesTr/X_0000.nii.gz` with
`labelsTr/X.nii.gz`, `Lung_Mask/X.nii.gz` with `Infection_Mask/X.nii.gz`, or a folder a study with `ct.nii.gz`,
`lungs.nii.gz` and `lesions.nii.gz`. Names decide what a file is, never its values.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from annotations import nifti, volumes
from annotations.unusable import Unusable

from evaluation.cases import Case, Drawn, LeftOut, classes_of, sides_of
from evaluation.naming import group_of_path, patient_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Role = Literal["image", "lungs", "lesions", "both"]  # both: 1 and 2 the lungs, 3 the lesions, as in COVID-19-CT-Seg

SUFFIXES = (".nii", ".nii.gz")
IMAGE = {"image", "images", "img", "im", "ct", "volume", "volumes", "scan", "scans", "studies", "0000"}
MASK = {"mask", "masks", "msk", "seg", "segs", "label", "labels", "segmentation", "segmentations", "gt", "annotation"}
LUNG = {"lung", "lungs"}
LESION = {"lesion", "lesions", "infection", "infections", "inf", "opacity", "opacities", "ggo"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    role: Role
    key: str  # what the files of one study have in common


def is_nifti(path: Path) -> bool:
    """Whether a path's name is that of a NIfTI file."""
    return path.name.endswith(SUFFIXES)


def cases(paths: Iterable[Path], data: Path) -> tuple[list[Case], list[LeftOut]]:
    """Pair images with masks; masks without an image are left out."""
    studies: dict[str, list[_File]] = defaultdict(list)
    for path in paths:
        file = _of(path, data)
        studies[file.key].append(file)
    found, left_out = [], []
    for key, files in sorted(studies.items()):
        images = [file for file in files if file.role == "image"]
        masks = [file for file in files if file.role != "image"]
        if not images:
            left_out += [LeftOut(path=str(file.path), why=f"a mask, but no image is called {key}") for file in masks]
        for image in images:
            near = masks if len(images) == 1 else [file for file in masks if file.path.parent == image.path.parent]
            patient, others = patient_of(key)
            place = image.path.relative_to(data).parts
            found.append(
                Case(
                    name=key if len(images) == 1 else _stem(image.path),
                    source=place[0] if len(place) > 1 else data.name,
                    kind="series",
                    read=partial(_read, image.path, {file.path: file.role for file in near}),
                    patient=patient,
                    names=others,
                    group=group_of_path((*place[:-1], _stem(image.path))),
                )
            )
    return found, left_out


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", re.sub(r"T[rs]\b", "", text).lower()) if word]


def _of(path: Path, data: Path) -> _File:
    stem, folder = _stem(path), path.parent.name if path.parent != data else ""
    words, around = _words(stem), _words(folder)
    # "COVID-19-CT-Seg_20cases" is no folder of masks: seg counts as a folder's last word alone
    around = [word for index, word in enumerate(around) if word != "seg" or index == len(around) - 1]
    role = _role(words, alone=True) or _role(around, alone=False) or "image"
    kinds = IMAGE | MASK | LUNG | LESION | {"and"}
    kept = re.sub(r"[_\-. ]+", "_", "_".join(part for part in re.split(r"[_\-. ]+", stem) if part.lower() not in kinds))
    if not kept:  # a folder a study: ct.nii.gz, lungs.nii.gz
        kept = path.parent.name
    elif kept.isdigit():  # 1.nii.gz, 2.nii.gz: of the folder that holds the images' folder and the masks' folder
        above = path.parent.parent if around and _is_of_roles(around) else path.parent
        prefix = "_".join(word for word in around if word not in kinds)
        kept = "_".join(part for part in (prefix or ("" if above == data else above.name), kept) if part)
    return _File(path=path, role=role, key=kept)


def _is_of_roles(words: list[str]) -> bool:
    return any(word in IMAGE | MASK | LUNG | LESION for word in words)


def _role(words: list[str], *, alone: bool) -> Role | None:
    """What a name's words say; `alone`: lungs or lesions without a word for mask are masks, as in lungs.nii.gz."""
    lung, lesion = not LUNG.isdisjoint(words), not LESION.isdisjoint(words)
    if not MASK.isdisjoint(words) or (alone and (lung or lesion)):
        return "both" if lung and lesion else "lungs" if lung else "lesions"
    return "image" if not IMAGE.isdisjoint(words) else None


def _read(image: Path, masks: dict[Path, Role]) -> Drawn:
    scan = nifti.scan(image)
    drawn: dict[str, Any] = {}
    remarks: list[str] = []
    both = None
    for path, role in masks.items():
        try:
            labels, by_header = nifti.labels_somehow(path, scan)
        except Unusable as error:
            remarks.append(f"{error}: it was not compared")
            continue
        if not by_header:
            remarks.append(f"{path.name} lies elsewhere than the image by its header: taken voxel by voxel")
        if role == "lesions":
            drawn["lesions"], drawn["consolidation"] = classes_of(labels)
        elif role == "lungs":
            drawn["lungs"], drawn["sided"] = sides_of(labels, scan.affine_lps_mm)
        else:
            both = labels
    if both is not None:  # what is diseased in it has lost its side: masks of one kind say more
        drawn.setdefault("lungs", (both > 0).astype(np.uint8))
        drawn.setdefault("lesions", both == 3)
    return Drawn(volume=volumes.placed(scan.hounsfield, scan.affine_lps_mm), **drawn, remarks=tuple(remarks))
