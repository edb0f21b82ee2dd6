"""Turns LUNA16 into the training layout.

    python tools/prepare_luna16.py LUNA16 training-data

Expected below the folder: subset0 .. subset9 with <series>.mhd and .raw, seg-lungs-LUNA16 with <series>.mhd and .zraw.
"""

from __future__ import annotations

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

LICENCE = "CC BY 4.0 (LUNA16), CC BY 3.0 (the images, LIDC-IDRI)"
LUNGS = (3, 4)  # 5 is the trachea


def studies(data: Path) -> Iterator[ToPrepare]:
    """Prepare LUNA16: 888 CT of LIDC-IDRI from before the pandemic, with lungs.

    LUNA16, doi:10.5281/zenodo.3723295 (subsets 0 to 6) and doi:10.5281/zenodo.4121926 (7 to 9). Licence: CC BY 4.0, of
    the images (LIDC-IDRI) CC BY 3.0. DATA is the folder with subset0 .. subset9 (those at hand are enough) and
    seg-lungs-LUNA16, whose labels 3 and 4 are the lungs and 5 the trachea, which is left out.

    All are labelled as not COVID-19 and without its lesions. The patient is not published: each series counts as one.
    """
    found = sorted(path for folder in sorted(data.glob("subset[0-9]")) for path in folder.rglob("*.mhd"))
    if not found:
        raise Unusable(f"expected subset0 .. subset9 with .mhd files below {data}")
    masks = published.folder(data, "seg-lungs-LUNA16")
    for path in found:
        yield ToPrepare(
            name=path.stem, source="luna16", patient=f"luna16/{path.stem}", make=partial(_study, path, masks)
        )


def _study(path: Path, masks: Path) -> Made:
    drawn = next(iter(sorted(masks.rglob(path.name))), None)
    if drawn is None:
        raise Unusable(f"expected {path.name} in {masks}")
    scan = nifti.scan(path)
    lungs = np.isin(nifti.labels(drawn, scan), LUNGS).astype(np.uint8)
    hounsfield = layout.images_on_grid(scan.hounsfield, scan.pixel_spacing_mm)
    card = StudyCard(
        patient=f"luna16/{path.stem}",
        source="luna16",
        licence=LICENCE,
        covid=False,
        spacing_zyx_mm=(scan.spacing_zyx_mm[0], 2.0, 2.0),
        lungs_by="LUNA16",
        lesions_by="none expected: before 2020",
    )
    arrays: Arrays = {
        "hounsfield": hounsfield,
        "lungs": layout.labels_on_grid(lungs, scan.pixel_spacing_mm),
        "lesions": np.zeros(hounsfield.shape, dtype=np.uint8),
    }
    return Made(card, arrays)


if __name__ == "__main__":
    preparation.program(studies)()
