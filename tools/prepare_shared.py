"""Turns the real CT that the project's developers train on into the training layout, split by patient.

    python tools/prepare_shared.py ../shared/data training-data

The folder holds what its README describes: dicom/ (whole series), slices/ (covid_ct_seg, medseg_100, finding_lungs)
and volumes/medseg_9. Which patient is trained on and which is kept out stands in nets/weights/split.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from prepare_covid_ct_seg import patient_of, short_name
from prepare_medseg import ASSUMED_LUNGS_MM, ASSUMED_SLICE_MM, slice_study, volume_study
from rich.progress import track
from training import layout, sources
from training.layout import StudyCard
from training.preparation import Arrays, Made

from triage_node import lungs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LICENCE = "CC BY-NC-SA 4.0 (the strictest of the sources; partly unsettled)"
SPLIT = Path(__file__).parent.parent / "nets" / "weights" / "split.json"
ASSUMED_PIXEL_MM = 1.4  # finding_lungs: 512 pixels of about 0.7 mm, halved

# folder under dicom/ -> COVID-19, healthy
SERIES: dict[str, tuple[bool | None, bool | None]] = {
    "ct-md-covid-p001": (True, False),
    "ct-md-cap-001": (False, False),
    "ct-md-normal-001": (False, True),
    "ricord-1a-000082": (True, False),
    "lidc-1011": (False, False),
    "lung1-001": (False, False),
}


def main(
    data: Annotated[Path, typer.Argument(help="The folder with dicom/, slices/ and volumes/.", exists=True)],
    out: Annotated[Path, typer.Argument(help="Where the training layout is written.")],
) -> None:
    """Write every study of the folder in the training layout."""
    split: dict[str, str] = json.loads(SPLIT.read_text(encoding="utf-8"))
    kinds: dict[str, Callable[[Path], Iterator[tuple[str, Made]]]] = {
        "covid_ct_seg": covid_ct_seg,
        "medseg_9": medseg_9,
        "medseg_100": medseg_100,
        "finding_lungs": finding_lungs,
        "dicom": dicom,
    }
    for kind, prepare in kinds.items():
        count = 0
        for name, (card, arrays, _) in track(prepare(data), description=f"{kind:14}"):
            with_split = card.model_copy(update={"split": split.get(card.patient)})
            layout.write(out, name, with_split, **arrays)
            count += 1
        print(f"{kind}: {count} studies")


def covid_ct_seg(data: Path) -> Iterator[tuple[str, Made]]:
    """Stacks of the annotated slices of a scan, cropped to the lungs; every slice has a lesion."""
    for path in sorted((data / "slices" / "covid_ct_seg").glob("*.npz")):
        name = short_name(path.stem)
        with np.load(path) as file:
            spacing = (float(file["pixel_spacing_mm"][0]), float(file["pixel_spacing_mm"][1]))
            order = np.argsort(file["slice_index"], kind="stable")
            images = file["hu"][order]
            on_grid = layout.images_on_grid(images, spacing)
            arrays: Arrays = {
                "hounsfield": on_grid,
                "lungs": layout.labels_on_grid((file["lung"][order] > 0).astype(np.uint8), spacing),
                "lesions": layout.labels_on_grid((file["lesion"][order] > 0).astype(np.uint8), spacing),
                "valid_box": layout.boxes_on_grid(file["valid_box"][order], images.shape[1:], on_grid.shape[1:]),
            }
        yield (
            name,
            Made(
                StudyCard(
                    patient=patient_of(name),
                    source="covid_ct_seg",
                    licence="CC BY-NC-SA 4.0",
                    covid=True,
                    healthy=False,
                    spacing_zyx_mm=(ASSUMED_SLICE_MM, 2.0, 2.0),
                    contiguous=False,
                    exact_hounsfield=False,
                    lungs_by="radiologist",
                    lesions_by="radiologist",
                ),
                arrays,
            ),
        )


def medseg_9(data: Path) -> Iterator[tuple[str, Made]]:
    """Whole COVID-19 volumes with slices free of lesions."""
    for path in sorted((data / "volumes" / "medseg_9").glob("*.npz")):
        with np.load(path) as file:
            z_mm, y_mm, x_mm = (float(mm) for mm in file["spacing_zyx_mm_unreliable"])
            study = volume_study(
                path.stem, file["hu_approx"], file["lung"], file["lesion"], (z_mm, y_mm, x_mm), licence=LICENCE
            )
        yield path.stem, study


def medseg_100(data: Path) -> Iterator[tuple[str, Made]]:
    """Single slices of some 40 patients, with both classes; a study each, since nobody says which belong together."""
    with np.load(data / "slices" / "medseg_100.npz") as file:
        images, classes, boxes = file["hu_approx"], file["classes"], file["valid_box"]
        unreliable = file["hu_unreliable"]
    for index, (image, labels, box) in enumerate(zip(images, classes, boxes, strict=True)):
        if unreliable[index]:
            continue
        row0, row1, column0, column1 = (int(place) for place in box)
        imaged = np.s_[row0:row1, column0:column1]
        pixel_mm = ASSUMED_LUNGS_MM / (column1 - column0)
        patient = f"medseg_100/{index}"
        yield (
            f"slice_{index:03d}",
            slice_study(image[imaged], None, labels[imaged], pixel_mm, patient=patient, licence=LICENCE),
        )


def finding_lungs(data: Path) -> Iterator[tuple[str, Made]]:
    """Single slices of LUNA16 patients, from before the pandemic; some are upside down."""
    with np.load(data / "slices" / "finding_lungs.npz") as file:
        images, masks, names = file["hu"], file["lung"], file["name"]
    spacing = (ASSUMED_PIXEL_MM, ASSUMED_PIXEL_MM)
    for image, mask, name in zip(images, masks, names, strict=True):
        stem = str(name).removesuffix(".tif")
        on_grid = layout.images_on_grid(image[None], spacing)
        yield (
            stem,
            Made(
                StudyCard(
                    patient=f"finding_lungs/{stem}",
                    source="finding_lungs",
                    licence="CC BY 4.0 (LUNA16)",
                    covid=False,
                    healthy=None,
                    spacing_zyx_mm=(ASSUMED_SLICE_MM, 2.0, 2.0),
                    contiguous=False,
                    lungs_by="LUNA16",
                    lesions_by="none expected: before 2020",
                ),
                {
                    "hounsfield": on_grid,
                    "lungs": layout.labels_on_grid((mask[None] > 0).astype(np.uint8), spacing),
                    "lesions": np.zeros(on_grid.shape, dtype=np.uint8),
                },
            ),
        )


def dicom(data: Path) -> Iterator[tuple[str, Made]]:
    """Whole series; lungs by the node's classical finder where no expert drew them."""
    for name, (covid, healthy) in SERIES.items():
        volume = sources.read_series(data / "dicom" / name)
        turn = sources.patient_order(volume)
        z_mm, y_mm, x_mm = volume.spacing_zyx_mm
        drawn = data / "dicom" / f"{name}-lungs.npz"
        if drawn.exists():
            with np.load(drawn) as file:
                masks = file["lung"].astype(np.uint8)
        else:
            masks = (lungs.find(volume).map > 0).astype(np.uint8)
        images = sources.in_patient_order(volume.hounsfield, turn)
        on_grid = layout.images_on_grid(images, (y_mm, x_mm))
        arrays: Arrays = {
            "hounsfield": on_grid,
            "lungs": layout.labels_on_grid(np.ascontiguousarray(masks[turn]), (y_mm, x_mm)),
        }
        if healthy:
            arrays["lesions"] = np.zeros(on_grid.shape, dtype=np.uint8)
        yield (
            name,
            Made(
                StudyCard(
                    patient=name,
                    source="dicom",
                    licence=LICENCE,
                    covid=covid,
                    healthy=healthy,
                    spacing_zyx_mm=(z_mm, 2.0, 2.0),
                    lungs_by="radiation oncologist" if drawn.exists() else "classical",
                    lesions_by="healthy" if healthy else None,
                ),
                arrays,
            ),
        )


if __name__ == "__main__":
    typer.run(main)
