"""The training layout: what is written comes back, and masks keep their area when they are resampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from training import layout
from training.layout import LayoutError, StudyCard

if TYPE_CHECKING:
    from pathlib import Path


def card(source: str = "made", **others: object) -> StudyCard:
    known = {"patient": "p", "licence": "none", "covid": None, "spacing_zyx_mm": (5.0, 2.0, 2.0)}
    return StudyCard.model_validate({**known, "source": source, **others})


def test_a_study_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "hounsfield": rng.integers(-1024, 2000, (3, 8, 9)).astype(np.int16),
        "lungs": rng.integers(0, 2, (3, 8, 9)).astype(np.uint8),
        "lesions": rng.integers(0, 3, (3, 8, 9)).astype(np.uint8),
        "valid_box": np.array([[0, 8, 0, 9], [1, 7, 2, 9], [3, 3, 0, 0]], dtype=np.int16),
    }
    known = card(covid=True, healthy=False, classes=True, contiguous=False, exact_hounsfield=False, split="test")
    layout.write(tmp_path, "one", known, **arrays)
    (study,) = layout.studies(tmp_path)
    assert (study.name, study.card) == ("one", known)
    assert np.array_equal(study.hounsfield, arrays["hounsfield"])
    assert study.lungs is not None
    assert np.array_equal(study.lungs, arrays["lungs"] > 0)
    assert study.lesions is not None
    assert np.array_equal(study.lesions, arrays["lesions"])
    assert study.valid is not None
    assert [int(part.sum()) for part in study.valid] == [72, 42, 0]
    assert study.valid[1, 1:7, 2:].all()


def test_what_is_not_known_is_not_there(tmp_path: Path) -> None:
    layout.write(tmp_path, "one", card(), hounsfield=np.zeros((1, 2, 2), np.int16), lungs=None)
    (study,) = layout.studies(tmp_path)
    assert (study.lungs, study.lesions, study.valid, study.card.covid) == (None, None, None, None)


def test_studies_come_sorted_and_of_the_wanted_splits(tmp_path: Path) -> None:
    for source, name, split in (("b", "1", "train"), ("a", "2", "validation"), ("a", "1", None)):
        layout.write(tmp_path, name, card(source, split=split), hounsfield=np.zeros((1, 2, 2), np.int16))
    assert [(s.card.source, s.name) for s in layout.studies(tmp_path)] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert [s.card.split for s in layout.studies(tmp_path, ("train", None))] == [None, "train"]


def test_a_layout_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no study"):
        list(layout.studies(tmp_path))
    scan = np.zeros((1, 2, 2), np.int16)
    path = layout.write(tmp_path, "one", card(), hounsfield=scan, lungs=np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(LayoutError, match=r"lungs is \(1, 2, 3\), hounsfield is \(1, 2, 2\)"):
        list(layout.studies(tmp_path))
    path.write_bytes(b"cut off")
    with pytest.raises(LayoutError, match="cannot be read"):
        list(layout.studies(tmp_path))
    path.with_suffix(".json").write_text('{"patient": "p", "unknown": 1}')
    with pytest.raises(LayoutError, match="unknown"):
        list(layout.studies(tmp_path))


def test_a_pixel_is_labelled_where_labels_cover_at_least_half_of_it() -> None:
    fine = np.zeros((1, 8, 8), np.uint8)
    fine[0, 2:6, 2:5] = 1  # of 2 x 2 pixels: two columns whole, the third half
    coarse = layout.labels_on_grid(fine, (1.0, 1.0))
    assert coarse.shape == (1, 4, 4)
    inner = coarse[0, 1:3]
    assert inner[:, 1].tolist() == [1, 1]
    assert inner[:, 3].tolist() == [0, 0]
    assert coarse[0, 0, 3] == 0
    assert coarse[0, 3, 0] == 0


def test_of_several_labels_the_larger_wins_and_none_is_made_up() -> None:
    fine = np.zeros((1, 40, 40), np.uint8)
    fine[0, :, :23] = 1
    fine[0, :, 23:] = 2
    coarse = layout.labels_on_grid(fine, (0.5, 0.5))
    assert set(np.unique(coarse)) == {1, 2}
    assert coarse[0, 5].tolist() == [1] * 6 + [2] * 4  # column 5 holds 3 of the first, 1 of the second
    only = layout.labels_on_grid(np.where(fine == 1, 0, fine), (0.5, 0.5))
    assert set(np.unique(only)) == {0, 2}


def test_resampled_masks_keep_their_area() -> None:
    y, x = np.mgrid[:300, :300]
    disc = ((y - 150) ** 2 + (x - 140) ** 2 < 100**2).astype(np.uint8)[None]
    coarse = layout.labels_on_grid(disc, (0.7, 0.7))
    assert coarse.sum() * 4.0 == pytest.approx(disc.sum() * 0.49, rel=0.01)
    slabs = np.repeat(disc, layout.SLAB + 3, axis=0)
    assert (layout.labels_on_grid(slabs, (0.7, 0.7)) == coarse).all()


def test_images_keep_their_mean_and_pixels_of_2_mm_their_values() -> None:
    image = np.random.default_rng(0).integers(-1100, 1500, (2, 60, 50)).astype(np.int16)
    assert np.array_equal(layout.images_on_grid(image, (2.0, 2.0)), image)
    smaller = layout.images_on_grid(image, (1.0, 0.8))
    assert smaller.shape == (2, 30, 20)
    assert smaller.mean() == pytest.approx(image.mean(), abs=15)


def test_boxes_never_reach_into_the_filler() -> None:
    boxes = np.array([[0, 100, 0, 80], [3, 97, 5, 79], [50, 50, 0, 0]], dtype=np.int16)
    on_grid = layout.boxes_on_grid(boxes, (100, 80), (70, 56))
    assert on_grid.tolist() == [[0, 70, 0, 56], [3, 67, 4, 55], [35, 35, 0, 0]]
