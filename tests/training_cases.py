"""Small studies in the training layout: lungs of known texture, lesions of known place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from training import layout
from training.layout import StudyCard, TrainingStudy

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

SHAPE = (12, 90, 120)
TISSUE_HU, LUNG_HU, LESION_HU = 40, -850, -450


def arrays(seed: int, *, lesion: bool, depth: int = SHAPE[0]) -> dict[str, npt.NDArray[np.generic]]:
    """Two elliptic lungs with texture in soft tissue; a ball of ground glass in the one at the right of the image."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(side) for side in (depth, *SHAPE[1:])), indexing="ij")
    lungs = np.zeros(z.shape, dtype=np.bool_)
    for centre in (35, 85):
        lungs |= ((y - 45) / 32) ** 2 + ((x - centre) / 20) ** 2 < 1
    hounsfield = np.where(lungs, LUNG_HU, TISSUE_HU) + rng.normal(0, 25, z.shape)
    row, column = rng.integers(35, 55), rng.integers(78, 92)
    ball = lungs & ((y - row) ** 2 + (x - column) ** 2 + (2 * (z - depth // 2)) ** 2 < 81)
    if lesion:
        hounsfield = np.where(ball, LESION_HU + rng.normal(0, 40, z.shape), hounsfield)
    return {
        "hounsfield": hounsfield.round().astype(np.int16),
        "lungs": lungs.astype(np.uint8),
        "lesions": (ball & lesion).astype(np.uint8),
    }


def card(source: str, patient: str, *, covid: bool | None, split: str = "train", **others: object) -> StudyCard:
    """A card with what a test does not care about filled in."""
    return StudyCard.model_validate(
        {
            "patient": patient,
            "source": source,
            "licence": "made for a test",
            "covid": covid,
            "spacing_zyx_mm": (5.0, 2.0, 2.0),
            "lungs_by": "made",
            "lesions_by": "made",
            "split": split,
            **others,
        }
    )


def write_layout(root: Path) -> Path:
    """Three COVID-19 patients (one to validate on) with ground glass of both classes, two without lesions."""
    for number, split in enumerate(("train", "train", "validation")):
        data = arrays(number, lesion=True)
        half = data["lesions"].copy()
        half[:, :45] *= 2
        data["lesions"] = half
        layout.write(root, f"ill_{number}", card("one", f"ill {number}", covid=True, split=split, classes=True), **data)
    for number in range(2):
        layout.write(
            root, f"well_{number}", card("two", f"well {number}", covid=False), **arrays(9 + number, lesion=False)
        )
    return root


def study(seed: int, *, covid: bool, lesion: bool) -> TrainingStudy:
    """A study in memory."""
    made = arrays(seed, lesion=lesion)
    return TrainingStudy(
        name=f"study_{seed}",
        card=card("one", f"patient {seed}", covid=covid),
        hounsfield=made["hounsfield"],  # type: ignore[arg-type]
        lungs=made["lungs"].astype(np.bool_),
        lesions=made["lesions"],  # type: ignore[arg-type]
        valid=None,
    )
