"""Turns the real CT that the project's developers train on into the training layout, split by patient.

    python tools/prepare_shared.py ../shared/data training-data

The folder holds what its README describes: dicom/ (whole series), slices/ (covid_ct_seg, medseg_100, finding_lungs)
and volumes/medseg_9. Which patient is trained on and which is kept out stands in nets/weights/split.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.progress import track
from training import layout, sources
from training.layout import StudyCard

from triage_node import lungs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LICENCE = "CC BY-NC-SA 4.0 (the strictest of the sources; partly unsettled)"
SPLIT = Path(__file__).parent.parent / "nets" / "weights" / "split.json"
ASSUMED_PIXEL_MM = 1.4  # finding_lungs: 512 pixels of about 0.7 mm, halved
ASSUMED_LUNGS_MM = 270.0  # medseg_100: what the cropped width of an image spans; the set gives no pixel size
ASSUMED_SLICE_MM = 6.0  # covid_ct_seg gives no spacing along z; nothing depends on it
WITHOUT_CLASSES = ("medseg_6", "medseg_7")  # of medseg_9: annotated with one class only

# The same patients under another annotator, found by correlating the slices of both sets (0.97 to 0.995 for the
# pairs, at most 0.87 for all others).
SAME_PATIENT = {
    "medseg_1": "radiopaedia_7_85703",
    "medseg_2": "radiopaedia_10_85902",
    "medseg_4": "radiopaedia_4_85506",
    "medseg_5": "radiopaedia_27_86410",
    "medseg_6": "radiopaedia_29",
    "medseg_7": "radiopaedia_29",
    "medseg_8": "radiopaedia_36_86526",
    "medseg_9": "radiopaedia_40_86625",
}

# folder under dicom/ -> COVID-19, healthy
SERIES: dict[str, tuple[bool | None, bool | None]] = {
    "ct-md-covid-p001": (True, False),
    "ct-md-cap-001": (False, False),
    "ct-md-normal-001": (False, True),
    "ricord-1a-000082": (True, False),
    "lidc-1011": (False, False),
    "lung1-001": (False, False),
}

Arrays = dict[str, npt.NDArray[Any]]
Prepared = tuple[str, StudyCard, Arrays]


def main(
    data: Annotated[Path, typer.Argument(help="The folder with dicom/, slices/ and volumes/.", exists=True)],
    out: Annotated[Path, typer.Argument(help="Where the training layout is written.")],
) -> None:
    """Write every study of the folder in the training layout."""
    split: dict[str, str] = json.loads(SPLIT.read_text(encoding="utf-8"))
    kinds: dict[str, Callable[[Path], Iterator[Prepared]]] = {
        "covid_ct_seg": covid_ct_seg,
        "medseg_9": medseg_9,
        "medseg_100": medseg_100,
        "finding_lungs": finding_lungs,
        "dicom": dicom,
    }
    for kind, prepare in kinds.items():
        count = 0
        for name, card, arrays in track(prepare(data), description=f"{kind:14}"):
            with_split = card.model_copy(update={"split": split.get(card.patient)})
            layout.write(out, name, with_split, **arrays)
            count += 1
        print(f"{kind}: {count} studies")


def covid_ct_seg(data: Path) -> Iterator[Prepared]:
    """Stacks of the annotated slices of a scan, cropped to the lungs; every slice has a lesion."""
    for path in sorted((data / "slices" / "covid_ct_seg").glob("*.npz")):
        name = path.stem.replace("_org_covid-19-pneumonia-", "_").replace("_org_", "_").removesuffix("-dcm")
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
        patient = "_".join(name.split("_")[:2] if "_29_" in name or "corona" in name else name.split("_")[:3])
        yield (
            name,
            StudyCard(
                patient=patient,
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
        )


def medseg_9(data: Path) -> Iterator[Prepared]:
    """Whole COVID-19 volumes with slices free of lesions."""
    for path in sorted((data / "volumes" / "medseg_9").glob("*.npz")):
        with np.load(path) as file:
            z_mm, y_mm, x_mm = (float(mm) for mm in file["spacing_zyx_mm_unreliable"])
            arrays: Arrays = {
                "hounsfield": layout.images_on_grid(file["hu_approx"], (y_mm, x_mm)),
                "lungs": layout.labels_on_grid((file["lung"] > 0).astype(np.uint8), (y_mm, x_mm)),
                "lesions": layout.labels_on_grid(file["lesion"].astype(np.uint8), (y_mm, x_mm)),
            }
        yield (
            path.stem,
            StudyCard(
                patient=SAME_PATIENT[path.stem],
                source="medseg_9",
                licence=LICENCE,
                covid=True,
                healthy=False,
                classes=path.stem not in WITHOUT_CLASSES,
                spacing_zyx_mm=(z_mm, 2.0, 2.0),
                exact_hounsfield=False,
                lungs_by="radiologist",
                lesions_by="radiologist",
            ),
            arrays,
        )


def medseg_100(data: Path) -> Iterator[Prepared]:
    """Single slices of some 40 patients, with both classes; a study each, since nobody says which belong together."""
    with np.load(data / "slices" / "medseg_100.npz") as file:
        images, classes, boxes = file["hu_approx"], file["classes"], file["valid_box"]
        unreliable = file["hu_unreliable"]
    for index, (image, labels, box) in enumerate(zip(images, classes, boxes, strict=True)):
        if unreliable[index]:
            continue
        row0, row1, column0, column1 = (int(place) for place in box)
        imaged = np.s_[None, row0:row1, column0:column1]
        spacing = (ASSUMED_LUNGS_MM / (column1 - column0),) * 2
        yield (
            f"slice_{index:03d}",
            StudyCard(
                patient=f"medseg_100/{index}",
                source="medseg_100",
                licence=LICENCE,
                covid=True,
                healthy=False,
                classes=True,
                spacing_zyx_mm=(ASSUMED_SLICE_MM, 2.0, 2.0),
                contiguous=False,
                exact_hounsfield=False,
                lesions_by="radiologist",
            ),
            {
                "hounsfield": layout.images_on_grid(image[imaged[1:]][None], spacing),
                "lesions": layout.labels_on_grid(labels[imaged[1:]][None].astype(np.uint8), spacing),
            },
        )


def finding_lungs(data: Path) -> Iterator[Prepared]:
    """Single slices of LUNA16 patients, from before the pandemic; some are upside down."""
    with np.load(data / "slices" / "finding_lungs.npz") as file:
        images, masks, names = file["hu"], file["lung"], file["name"]
    spacing = (ASSUMED_PIXEL_MM, ASSUMED_PIXEL_MM)
    for image, mask, name in zip(images, masks, names, strict=True):
        stem = str(name).removesuffix(".tif")
        on_grid = layout.images_on_grid(image[None], spacing)
        yield (
            stem,
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
        )


def dicom(data: Path) -> Iterator[Prepared]:
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
        )


if __name__ == "__main__":
    typer.run(main)
