"""Turns MosMed-1110 into the training layout.

    python tools/prepare_mosmed.py COVID19_1110 training-data

Expected below the folder: studies/CT-0 .. CT-4/study_NNNN.nii.gz, masks/study_NNNN_mask.nii.gz (50 of CT-1). The folder
of a study is its category; dataset_registry.xlsx says the same again and is not read. One study a patient.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from annotations import nifti
from annotations.unusable import Unusable
from training import layout, preparation, published
from training.layout import StudyCard
from training.preparation import Arrays, Made, ToPrepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LICENCE = "CC BY-NC-ND 3.0"
CATEGORY = re.compile(r"CT-?([0-4])", re.IGNORECASE)


def studies(data: Path) -> Iterator[ToPrepare]:
    """Prepare MosMed-1110: 1110 chest CT of Moscow, sorted into CT-0 .. CT-4.

    MosMedData: Chest CT Scans with COVID-19 Related Findings, doi:10.48550/arXiv.2005.06465, from the Center of
    Diagnostics and Telemedicine. Licence: CC BY-NC-ND 3.0. DATA is the folder with studies/ and masks/.

    CT-0 is labelled healthy, without lesions; CT-1 to CT-4 (findings of COVID-19, not confirmed by PCR) COVID-19. 50
    studies of CT-1 have lesion masks. Nobody drew the lungs.
    """
    found = [
        (int(match[1]), path)
        for folder in sorted(published.folder(data, "studies").iterdir())
        if folder.is_dir() and (match := CATEGORY.fullmatch(folder.name))
        for path in published.niftis(folder, "study_*")
    ]
    if not found:
        raise Unusable(f"expected the folders CT-0 .. CT-4 in {data / 'studies'}")
    masks = published.folder(data, "masks") if (data / "masks").is_dir() else None
    for category, path in found:
        name = published.stem_of(path)
        yield ToPrepare(
            name=name,
            source="mosmed",
            patient=f"mosmed/{name}",
            make=partial(_study, path, name, category, masks),
        )


def _study(path: Path, name: str, category: int, masks: Path | None) -> Made:
    scan = nifti.scan(path)
    hounsfield = layout.images_on_grid(scan.hounsfield, scan.pixel_spacing_mm)
    arrays: Arrays = {"hounsfield": hounsfield}
    drawn = None if masks is None else next(iter(sorted(masks.glob(f"{name}_mask.nii*"))), None)
    by = None
    if drawn is not None:
        mask = (nifti.labels(drawn, scan) > 0).astype(np.uint8)
        arrays["lesions"] = layout.labels_on_grid(mask, scan.pixel_spacing_mm)
        by = "radiologist"
    elif category == 0:
        arrays["lesions"] = np.zeros(hounsfield.shape, dtype=np.uint8)
        by = "category CT-0"
    card = StudyCard(
        patient=f"mosmed/{name}",
        source="mosmed",
        licence=LICENCE,
        covid=category > 0,
        healthy=category == 0,
        spacing_zyx_mm=(scan.spacing_zyx_mm[0], 2.0, 2.0),
        lesions_by=by,
    )
    return Made(card, arrays)


if __name__ == "__main__":
    preparation.program(studies)()
