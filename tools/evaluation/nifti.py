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

import nibabel
import numpy as np
import numpy.typing as npt

from evaluation.cases import Case, Drawn, LeftOut, Unreadable, classes_of, sides_of, volume_on
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
SAME_AFFINE_MM = 0.5


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
    volume, affine = _oriented(nibabel.load(image))
    if volume.min() >= 0:
        raise Unreadable(f"{image.name} has no value under 0: these are no Hounsfield units")
    hounsfield = np.clip(np.rint(volume), -32768, 32767).astype(np.int16)
    lps = _lps(affine)
    drawn: dict[str, Any] = {}
    remarks: list[str] = []
    for path, role in masks.items():
        labels = _labels(path, image, hounsfield.shape, affine, remarks)
        if labels is None:
            continue
        if role == "lesions":
            drawn["lesions"], drawn["consolidation"] = classes_of(labels)
        elif role == "lungs":
            drawn["lungs"], drawn["sided"] = sides_of(labels, lps)
        else:
            # what is diseased has lost its side
            drawn["lungs"], drawn["lesions"] = (labels > 0).astype(np.uint8), labels == 3
    return Drawn(volume=volume_on(hounsfield, lps), **drawn, remarks=tuple(remarks))


def _oriented(file: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """[z, y, x] turned to head, back and left, and the affine (x, y, z, 1) -> RAS millimetres of what was turned."""
    if len(file.shape) == 4 and file.shape[3] == 1:
        file = file.slicer[..., 0]
    if len(file.shape) != 3:
        raise Unreadable(f"an image of three axes is needed, this one has {file.shape}")
    turned = nibabel.as_closest_canonical(file)  # type: ignore[no-untyped-call]  # right, anterior, superior
    values = np.asarray(turned.dataobj, dtype=np.float32)[::-1, ::-1, :]
    affine = np.array(turned.affine, dtype=np.float64)
    for axis in (0, 1):
        affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
        affine[:3, axis] *= -1
    return np.ascontiguousarray(values.transpose(2, 1, 0)), affine


def _lps(affine_ras_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras_mm


def _labels(
    path: Path, image: Path, shape: tuple[int, ...], affine: npt.NDArray[np.float64], remarks: list[str]
) -> npt.NDArray[np.uint8] | None:
    """Labels on the image's grid; None with a remark where they do not fit on it."""
    try:
        file: Any = nibabel.load(path)
        turned, own = _oriented(file)
        if turned.shape == shape and np.abs(own - affine).max() < SAME_AFFINE_MM:
            return _whole(turned)
        raw: Any = nibabel.load(image)
        if file.shape == raw.shape:
            # tools that lose the header keep the order of the voxels
            remarks.append(f"{path.name} lies elsewhere than the image by its header: taken voxel by voxel")
            values = np.asarray(file.dataobj, dtype=np.float32)
            moved = nibabel.Nifti1Image(values, raw.affine)  # type: ignore[no-untyped-call]  # nibabel ships this untyped
            return _whole(_oriented(moved)[0])
    except (OSError, ValueError, nibabel.filebasedimages.ImageFileError, Unreadable) as error:
        remarks.append(f"{path.name} cannot be read: {error}")
        return None
    remarks.append(f"{path.name} is {file.shape}, the image {raw.shape}: it was not compared")
    return None


def _whole(labels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    whole = np.rint(labels)
    if np.abs(whole - labels).max() > 0.01 or whole.min() < 0 or whole.max() > 255:
        raise Unreadable("a mask holds whole numbers from 0 to 255")
    return whole.astype(np.uint8)
