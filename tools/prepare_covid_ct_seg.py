"""Turns COVID-19-CT-Seg (20 scans) into the training layout.

    python tools/prepare_covid_ct_seg.py COVID-19-CT-Seg training-data

Expected below the folder: COVID-19-CT-Seg_20cases/, Lung_Mask/ and Infection_Mask/ (or Lung_and_Infection_Mask/) with
coronacases_NNN.nii.gz and radiopaedia_*.nii.gz in each; the longer file names of the first edition are known, too.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from annotations import nifti
from training import layout, preparation, published
from training.layout import StudyCard
from training.preparation import Arrays, Made, ToPrepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LICENCE = "CC BY-NC-SA 4.0"

# The radiopaedia files hold a window as grey levels 0..255. Which window is said nowhere; these are the windows that
# MedSeg gives for the same patients.
WINDOW_HU = (-1350.0, 150.0)
OTHER_WINDOWS_HU = {"radiopaedia_36_86526_0": (-1150.0, 250.0), "radiopaedia_40_86625_0": (-1200.0, 400.0)}

# The headers of the radiopaedia files name the rows the wrong way round, this one's also the slices (the paper's public
# implementation corrects the same); scan and masks share the mistake.
SLICES_REVERSED = ("radiopaedia_7_85703_0",)


def studies(data: Path) -> Iterator[ToPrepare]:
    """Prepare COVID-19-CT-Seg: 20 scans of COVID-19 with lungs and infections.

    COVID-19 CT Lung and Infection Segmentation Dataset (Ma et al. 2020), doi:10.5281/zenodo.3757476. Licence: CC
    BY-NC-SA 4.0. DATA is the folder with COVID-19-CT-Seg_20cases/, Lung_Mask/ and Infection_Mask/ (or
    Lung_and_Infection_Mask/).

    The file name decides what the values are: coronacases in Hounsfield units; radiopaedia as grey levels of a lung
    window (approximate; a value outside 0..255 is refused) whose headers name the rows the wrong way round.
    """
    for path in published.niftis(published.folder(data, "COVID-19-CT-Seg_20cases"), "*"):
        name = short_name(published.stem_of(path))
        yield ToPrepare(
            name=name, source="covid_ct_seg_20", patient=patient_of(name), make=partial(_study, data, path, name)
        )


def short_name(stem: str) -> str:
    """The name of a scan in every edition: coronacases_001, radiopaedia_10_85902_1."""
    stem = stem.removesuffix("-dcm").replace("_org_covid-19-pneumonia-", "_")
    return stem.replace("coronacases_org_", "coronacases_")


def patient_of(name: str) -> str:
    """Who was scanned; the two scans of 10_85902 are one person, so are those of case 29."""
    if name.startswith("radiopaedia_29_"):
        return "radiopaedia_29"
    return re.sub(r"^(radiopaedia_\d+_\d+)_\d+$", r"\1", name)


def _study(data: Path, path: Path, name: str) -> Made:
    grey = name.startswith("radiopaedia")
    scan = nifti.grey_scan(path, OTHER_WINDOWS_HU.get(name, WINDOW_HU)) if grey else nifti.scan(path)
    lungs, lesions = _masks(data, name, scan)
    turn = np.s_[:: -1 if name in SLICES_REVERSED else 1, :: -1 if grey else 1]
    spacing = scan.pixel_spacing_mm
    card = StudyCard(
        patient=patient_of(name),
        source="covid_ct_seg_20",
        licence=LICENCE,
        covid=True,
        healthy=False,
        spacing_zyx_mm=(scan.spacing_zyx_mm[0], 2.0, 2.0),
        exact_hounsfield=not grey,
        lungs_by="radiologist",
        lesions_by="radiologist",
    )
    arrays: Arrays = {
        "hounsfield": layout.images_on_grid(np.ascontiguousarray(scan.hounsfield[turn]), spacing),
        "lungs": layout.labels_on_grid(np.ascontiguousarray(lungs[turn]), spacing),
        "lesions": layout.labels_on_grid(np.ascontiguousarray(lesions[turn]), spacing),
    }
    return Made(card, arrays)


def _masks(data: Path, name: str, scan: nifti.Scan) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Lungs (1 left, 2 right) and infection; 3 in the files that hold all of it."""
    if not (data / "Lung_Mask").is_dir() and (data / "Lung_and_Infection_Mask").is_dir():
        whole = nifti.labels(published.nifti(data / "Lung_and_Infection_Mask", name), scan)
        return (whole > 0).astype(np.uint8), (whole == 3).astype(np.uint8)
    lungs = nifti.labels(published.nifti(published.folder(data, "Lung_Mask"), name), scan)
    lesions = nifti.labels(published.nifti(published.folder(data, "Infection_Mask"), name), scan)
    return (lungs > 0).astype(np.uint8), (lesions > 0).astype(np.uint8)


if __name__ == "__main__":
    preparation.program(studies)()
