"""Turns LCTSC (Lung CT Segmentation Challenge 2017) into the training layout.

    python tools/prepare_lctsc.py LCTSC training-data

Expected below the folder: LCTSC/LCTSC-Train-Sn-NNN and LCTSC-Test-Sn-NNN/<study>/<series>/*.dcm as TCIA delivers it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from annotations.unusable import Unusable
from training import drawings, preparation, published
from training.drawings import Drawn
from training.layout import StudyCard
from training.preparation import Made, ToPrepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LICENCE = "CC BY 3.0"


def studies(data: Path) -> Iterator[ToPrepare]:
    """Prepare LCTSC: 60 CT for the planning of radiotherapy, from before the pandemic, with lungs.

    Lung CT Segmentation Challenge 2017, doi:10.7937/K9/TCIA.2017.3R3FVZ08. Licence: CC BY 3.0. DATA is the folder with
    LCTSC/ (CT and RTSTRUCT of every patient).

    The lungs are the contours Lung_L and Lung_R. All are labelled as not COVID-19; nothing is said of lesions.
    """
    for folder in published.patients(data, "LCTSC", "LCTSC-*"):
        name = folder.name.lower()
        yield ToPrepare(name=name, source="lctsc", patient=name, make=partial(_study, folder, name))


def _study(folder: Path, name: str) -> Made:
    volume, objects = drawings.read(folder)
    drawn = drawings.drawn(volume, objects)
    if drawn.lungs is None:
        names = ", ".join(drawn.ignored) or "nothing"
        raise Unusable(f"expected Lung_L and Lung_R in {folder}, found {names}")
    card = StudyCard(
        patient=name,
        source="lctsc",
        licence=LICENCE,
        covid=False,
        healthy=False,
        spacing_zyx_mm=(volume.spacing_zyx_mm[0], 2.0, 2.0),
        lungs_by="radiation oncologist",
    )
    return Made(card, drawings.arrays_of(volume, Drawn(lungs=drawn.lungs)))


if __name__ == "__main__":
    preparation.program(studies)()
