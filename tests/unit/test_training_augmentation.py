"""Augmentation changes images and labels alike, and nothing where it is told to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from training import augmentation
from training.augmentation import NONE, Augmentation

STRONG = Augmentation()


def test_without_any_change_the_image_comes_back() -> None:
    images = torch.from_numpy(np.random.default_rng(0).normal(-500, 300, (3, 40, 52))).float()
    rng = np.random.default_rng(1)
    grid = augmentation.sampling_grid((40, 52), (19.5, 25.5), (40, 52), NONE, rng)
    assert torch.allclose(augmentation.warped(images, grid, fill=-1000.0), images, atol=0.05)
    assert torch.equal(augmentation.changed_intensities(images, NONE, rng), images)


def test_the_centre_comes_to_the_middle() -> None:
    images = torch.full((1, 60, 80), -1000.0)
    images[0, 10, 65] = 1000.0
    grid = augmentation.sampling_grid((60, 80), (10.0, 65.0), (31, 31), NONE, np.random.default_rng(0))
    assert int(augmentation.warped(images, grid, fill=-1000.0)[0].argmax()) == 15 * 31 + 15


@pytest.mark.parametrize("seed", range(8))
def test_a_label_goes_where_its_place_goes(seed: int) -> None:
    mask = torch.zeros(1, 80, 100)
    mask[0, 30:50, 60:85] = 1
    image = mask * 800 - 900
    grid = augmentation.sampling_grid((80, 100), (40.0, 70.0), (96, 96), STRONG, np.random.default_rng(seed))
    moved_image = augmentation.warped(image, grid, fill=-900.0)
    moved_mask = augmentation.warped(mask, grid, fill=0.0)
    assert torch.allclose(moved_image, moved_mask * 800 - 900, atol=0.5)
    assert moved_mask.max() > 0.9


def test_a_mirror_mirrors_and_a_turn_turns() -> None:
    image = torch.arange(63.0).reshape(1, 7, 9)
    grid = augmentation.sampling_grid(
        (7, 9), (3.0, 4.0), (7, 9), replace(NONE, mirror_chance=1.0), np.random.default_rng(0)
    )
    assert torch.allclose(augmentation.warped(image, grid, fill=0.0), image.flip(2), atol=1e-3)
    grid = augmentation.sampling_grid(
        (7, 9), (3.0, 4.0), (7, 9), replace(NONE, prone_chance=1.0), np.random.default_rng(0)
    )
    assert torch.allclose(augmentation.warped(image, grid, fill=0.0), image.flip(1), atol=1e-3)


def test_what_scales_by_two_covers_four_times_the_area() -> None:
    mask = torch.zeros(1, 64, 64)
    mask[0, 24:40, 24:40] = 1
    grid = augmentation.sampling_grid(
        (64, 64), (31.5, 31.5), (64, 64), replace(NONE, scale=(2.0, 2.0)), np.random.default_rng(0)
    )
    assert math.isclose(float(augmentation.warped(mask, grid, fill=0.0).sum()), 4 * 256, rel_tol=0.02)


def test_the_same_seed_gives_the_same_image_and_another_seed_another() -> None:
    images = torch.from_numpy(np.random.default_rng(0).normal(-500, 300, (2, 32, 32))).float()

    def made(seed: int) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        grid = augmentation.sampling_grid((32, 32), (16.0, 16.0), (32, 32), STRONG, rng)
        return augmentation.changed_intensities(augmentation.warped(images, grid, fill=-1000.0), STRONG, rng)

    assert torch.equal(made(3), made(3))
    assert not torch.equal(made(3), made(4))


def test_intensities_stay_finite_and_keep_their_order() -> None:
    """Air stays darker than lung, lung darker than soft tissue: a change of scanner, not of anatomy."""
    images = torch.tensor([-1000.0, -850.0, -400.0, 40.0])[:, None].repeat(1, 64).reshape(1, 16, 16)
    calm = replace(STRONG, noise_chance=0.0, blur_chance=0.0, sharpen_chance=0.0, coarse_chance=0.0)
    for seed in range(40):
        changed = augmentation.changed_intensities(images, calm, np.random.default_rng(seed))
        assert torch.isfinite(changed).all()
        levels = changed.reshape(4, 64).mean(1)
        assert (levels[1:] >= levels[:-1]).all()
        assert levels[3] - levels[1] > 300
