"""Turns the data of the COVID-19-20 challenge into the training layout.

    python tools/prepare_covid_19_20.py COVID-19-20_v2 training-data

Expected below the folder: Train/volume-covid19-A-NNNN_ct.nii.gz and ..._seg.nii.gz; Validation/ with scans, used with
their masks where these are at hand, otherwise for identification alone.
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

LICENCE = "images CC BY 4.0 (CT Images in COVID-19, TCIA); annotations under the challenge's terms"
PATIENT = re.compile(r"(volume-covid19-A-\d+)")


def studies(data: Path) -> Iterator[ToPrepare]:
    """Prepare COVID-19-20: 199 CT of COVID-19 with lesions, and those of its validation phase.

    COVID-19 Lung CT Lesion Segmentation Challenge 2020 (Roth et al., doi:10.1016/j.media.2022.102605); the images are
    CT Images in COVID-19, doi:10.7937/TCIA.2020.GQRY-NC81. Licence: CC BY 4.0 for the images, the challenge's terms for
    the annotations. DATA is the folder with Train/ and, if at hand, Validation/.

    Confirmed COVID-19 throughout. Nobody drew the lungs.
    """
    train = published.folder(data, "Train")
    found = [(path, True) for path in published.niftis(train, "volume-covid19-A-*_ct")]
    beside = train.parent / "Validation"
    if beside.is_dir():
        found += [(path, False) for path in published.niftis(beside, "volume-covid19-A-*_ct")]
    for path, annotated in found:
        name = published.stem_of(path).removesuffix("_ct")
        match = PATIENT.match(name)
        assert match is not None
        yield ToPrepare(
            name=name, source="covid_19_20", patient=match[1], make=partial(_study, path, name, match[1], annotated)
        )


def _study(path: Path, name: str, patient: str, annotated: bool) -> Made:
    scan = nifti.scan(path)
    lesions = None
    try:
        drawn = published.nifti(path.parent, f"{name}_seg")
    except Unusable:
        if annotated:
            raise
    else:
        lesions = (nifti.labels(drawn, scan) > 0).astype(np.uint8)
    card = StudyCard(
        patient=patient,
        source="covid_19_20",
        licence=LICENCE,
        covid=True,
        healthy=False,
        spacing_zyx_mm=(scan.spacing_zyx_mm[0], 2.0, 2.0),
        lesions_by=None if lesions is None else "radiologist",
    )
    arrays: Arrays = {
        "hounsfield": layout.images_on_grid(scan.hounsfield, scan.pixel_spacing_mm),
        "lesions": None if lesions is None else layout.labels_on_grid(lesions, scan.pixel_spacing_mm),
    }
    return Made(card, arrays)


if __name__ == "__main__":
    preparation.program(studies)()
