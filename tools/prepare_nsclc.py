"""Turns NSCLC-Radiomics into the training layout, with the lungs of PleThora where these are at hand.

    python tools/prepare_nsclc.py NSCLC training-data

Expected below the folder: NSCLC-Radiomics/LUNG1-NNN/<study>/<series>/*.dcm as TCIA delivers it (CT, RTSTRUCT, SEG) and,
if at hand, Thoracic_Cavities/LUNG1-NNN/*.nii.gz.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from annotations import nifti
from annotations.unusable import Unusable
from training import drawings, layout, preparation, published
from training.drawings import Drawn
from training.layout import StudyCard
from training.preparation import Made, ToPrepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LICENCE = "CC BY-NC 3.0"


def studies(data: Path) -> Iterator[ToPrepare]:
    """Prepare NSCLC-Radiomics: 422 CT of lung cancer from before the pandemic, with lungs.

    NSCLC-Radiomics, doi:10.7937/K9/TCIA.2015.PF0M9REI; the lungs of PleThora, doi:10.7937/tcia.2020.6c7y-gq39. Licence:
    CC BY-NC 3.0 for both. DATA is the folder with NSCLC-Radiomics/ and, if at hand, Thoracic_Cavities/.

    The lungs are PleThora's where it has them (with effusions and what a tumour hides), otherwise those that radiation
    oncologists drew (Lung-Left and Lung-Right, RTSTRUCT before SEG). All are labelled as not COVID-19; nothing is said
    of lesions, since tumours and pneumonia look alike in places.
    """
    for folder in published.patients(data, "NSCLC-Radiomics", "LUNG1-*"):
        name = folder.name.lower()
        yield ToPrepare(name=name, source="nsclc", patient=name, make=partial(_study, data, folder, name))


def _study(data: Path, folder: Path, name: str) -> Made:
    volume, objects = drawings.read(folder)
    cavities = sorted((data / "Thoracic_Cavities" / folder.name).glob("*.nii*"))
    if cavities:
        arrays = drawings.arrays_of(volume, Drawn())
        cavity = (nifti.labels_by_header(cavities[0], volume.hounsfield.shape) > 0).astype(np.uint8)
        arrays["lungs"] = layout.labels_on_grid(cavity, volume.spacing_zyx_mm[1:])
        by = "PleThora"
    else:
        drawn = drawings.drawn(volume, objects, also_automatic=True)  # whatever tool the publishers name
        if drawn.lungs is None:
            names = ", ".join(drawn.ignored) or "nothing"
            raise Unusable(f"expected Lung-Left and Lung-Right in {folder}, found {names}")
        arrays, by = drawings.arrays_of(volume, Drawn(lungs=drawn.lungs)), "radiation oncologist"
    card = StudyCard(
        patient=name,
        source="nsclc",
        licence=LICENCE,
        covid=False,
        healthy=False,
        spacing_zyx_mm=(volume.spacing_zyx_mm[0], 2.0, 2.0),
        lungs_by=by,
    )
    return Made(card, arrays)


if __name__ == "__main__":
    preparation.program(studies)()
