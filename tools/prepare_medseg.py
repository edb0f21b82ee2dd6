"""Turns the two COVID-19 sets of MedSeg (100 slices, 9 volumes) into the training layout.

    python tools/prepare_medseg.py MedSeg training-data

Expected below the folder: rp_im/, rp_msk/, rp_lung_msk/ with 1.nii.gz .. 9.nii.gz; tr_im.nii.gz, tr_mask.nii.gz and, if
at hand, tr_lungmasks_updated.nii.gz. One of the two sets is enough. val_im.nii.gz has no masks and is not used.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from annotations import nifti
from annotations.unusable import Unusable
from training import layout, preparation, published
from training.layout import StudyCard
from training.preparation import Arrays, Made, ToPrepare

from nets import slices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LICENCE = "CC0 as published; the Radiopaedia images CC BY-NC-SA 3.0"
ASSUMED_LUNGS_MM = 270.0  # what the lungs of a slice span; the slices give no pixel size
ASSUMED_SLICE_MM = 6.0  # single slices have no spacing along z; nothing depends on it
WITHOUT_CLASSES = ("medseg_6", "medseg_7")  # annotated with one class only

# The same patients under another annotator, found by correlating the slices of both sets (0.97 to 0.995 for the
# pairs, at most 0.87 for all others).
PATIENTS = {
    "medseg_1": "radiopaedia_7_85703",
    "medseg_2": "radiopaedia_10_85902",
    "medseg_3": "radiopaedia_10_85902",
    "medseg_4": "radiopaedia_4_85506",
    "medseg_5": "radiopaedia_27_86410",
    "medseg_6": "radiopaedia_29",
    "medseg_7": "radiopaedia_29",
    "medseg_8": "radiopaedia_36_86526",
    "medseg_9": "radiopaedia_40_86625",
}
GROUND_GLASS, CONSOLIDATION, EFFUSION = 1, 2, 3  # effusion lies outside the lungs and is no lesion of them
ASSUMED_PIXEL_MM = 0.7  # of a slice without a lung mask; the pictures were cropped and scaled by hand
PIXEL_LIMITS_MM = (0.5, 1.0)


def studies(data: Path) -> Iterator[ToPrepare]:
    """Prepare MedSeg's COVID-19 sets: 100 single slices and 9 volumes with ground glass and consolidation.

    MedSeg Covid Dataset 1, doi:10.6084/m9.figshare.13521488, and 2, doi:10.6084/m9.figshare.13521509. Licence: CC0 as
    published; the volumes show Radiopaedia images (CC BY-NC-SA 3.0). DATA is the folder with rp_im/, rp_msk/,
    rp_lung_msk/ and tr_im.nii.gz, tr_mask.nii.gz, or one of the two.

    Attenuations are approximate: both sets were made from pictures. The volumes show patients of COVID-19-CT-Seg and
    stay on their side of a split. Nobody says which slices belong together, so that all 100 are one patient.
    """
    slices = _file(data, "tr_im")
    if slices is None and not (data / "rp_im").is_dir():
        raise Unusable(f"expected the folder rp_im or tr_im.nii.gz below {data}")
    if (data / "rp_im").is_dir():
        for path in published.niftis(data / "rp_im", "[1-9]"):
            name = f"medseg_{published.stem_of(path)}"
            yield ToPrepare(
                name=name, source="medseg_9", patient=PATIENTS[name], make=partial(_volume, data, path, name)
            )
    if slices is not None:
        for index in range(len(_slices(data)[0])):
            yield ToPrepare(
                name=f"slice_{index:03d}", source="medseg_100", patient="medseg_100", make=partial(_slice, data, index)
            )


def _file(data: Path, stem: str) -> Path | None:
    return next((path for ending in published.NIFTI_ENDINGS if (path := data / f"{stem}{ending}").is_file()), None)


def _lesions(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if labels.max() > EFFUSION:
        raise Unusable(f"the lesion mask has the label {labels.max()}; 1, 2 and 3 are known")
    return np.where(labels == EFFUSION, 0, labels).astype(np.uint8)


def _volume(data: Path, path: Path, name: str) -> Made:
    stem = published.stem_of(path)
    scan = nifti.scan(path)
    lungs = nifti.labels(published.nifti(published.folder(data, "rp_lung_msk"), stem), scan)
    lesions = nifti.labels(published.nifti(published.folder(data, "rp_msk"), stem), scan)
    return volume_study(name, scan.hounsfield, lungs, lesions, scan.spacing_zyx_mm)


def volume_study(
    name: str,
    hounsfield: npt.NDArray[np.int16],
    lungs: npt.NDArray[np.uint8],
    lesions: npt.NDArray[np.uint8],
    spacing_zyx_mm: tuple[float, float, float],
    licence: str = LICENCE,
) -> Made:
    """One of the nine volumes; arrays [z, y, x] in patient order. Raises Unusable for a label that nobody knows."""
    spacing = spacing_zyx_mm[1:]
    card = StudyCard(
        patient=PATIENTS[name],
        source="medseg_9",
        licence=licence,
        covid=True,
        healthy=False,
        classes=name not in WITHOUT_CLASSES,
        spacing_zyx_mm=(spacing_zyx_mm[0], 2.0, 2.0),
        exact_hounsfield=False,
        lungs_by="radiologist",
        lesions_by="radiologist",
    )
    arrays: Arrays = {
        "hounsfield": layout.images_on_grid(hounsfield, spacing),
        "lungs": layout.labels_on_grid((lungs > 0).astype(np.uint8), spacing),
        "lesions": layout.labels_on_grid(_lesions(lesions), spacing),
    }
    return Made(card, arrays)


@cache
def _slices(data: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Images, lesions and lungs [n, y, x] as stored: they were pictures, their headers say nothing of a patient."""
    images = nifti.as_stored(published.nifti(data, "tr_im"))
    lesions = nifti.as_stored(published.nifti(data, "tr_mask"))
    drawn = _file(data, "tr_lungmasks_updated")
    lungs = None if drawn is None else nifti.as_stored(drawn)
    for masks in (lesions, lungs):
        if masks is not None and masks.shape != images.shape:
            raise Unusable(f"tr_im.nii.gz is {images.shape}, a mask {masks.shape}")
    return images, lesions, lungs


def _slice(data: Path, index: int) -> Made:
    images, lesions, lungs = _slices(data)
    lung = None if lungs is None or not lungs[index].any() else (lungs[index] > 0).astype(np.uint8)
    hounsfield = np.clip(np.rint(images[index]), slices.LEAST_HU, slices.MOST_HU).astype(np.int16)
    return slice_study(hounsfield, lung, np.rint(lesions[index]).astype(np.uint8), _pixel_mm(lung))


def slice_study(
    hounsfield: npt.NDArray[np.int16],
    lung: npt.NDArray[np.uint8] | None,
    labels: npt.NDArray[np.uint8],
    pixel_mm: float,
    *,
    patient: str = "medseg_100",
    licence: str = LICENCE,
) -> Made:
    """One of the hundred slices; arrays [y, x]. Raises Unusable for a label that nobody knows."""
    spacing = (pixel_mm, pixel_mm)
    card = StudyCard(
        patient=patient,
        source="medseg_100",
        licence=licence,
        covid=True,
        healthy=False,
        classes=True,
        spacing_zyx_mm=(ASSUMED_SLICE_MM, 2.0, 2.0),
        contiguous=False,
        exact_hounsfield=False,
        lungs_by=None if lung is None else "radiologist",
        lesions_by="radiologist",
    )
    arrays: Arrays = {
        "hounsfield": layout.images_on_grid(hounsfield[None], spacing),
        "lungs": None if lung is None else layout.labels_on_grid(lung[None], spacing),
        "lesions": layout.labels_on_grid(_lesions(labels)[None], spacing),
    }
    return Made(card, arrays)


def _pixel_mm(lung: npt.NDArray[np.uint8] | None) -> float:
    """Such that the lungs are as wide as lungs are; the set gives no pixel size."""
    if lung is None:
        return ASSUMED_PIXEL_MM
    columns = np.flatnonzero(lung.any(axis=0))
    return float(np.clip(ASSUMED_LUNGS_MM / (columns[-1] + 1 - columns[0]), *PIXEL_LIMITS_MM))


if __name__ == "__main__":
    preparation.program(studies)()
