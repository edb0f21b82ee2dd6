from __future__ import annotations

import numpy as np
import pytest
import torch

from nets import slices


@pytest.mark.parametrize(
    ("shape", "spacing", "grid"),
    [
        ((512, 512), (0.7, 0.7), (179, 179)),  # 358.4 mm
        ((512, 400), (1.0, 0.5), (256, 100)),
        ((180, 180), (2.0, 2.0), (180, 180)),
        ((100, 100), (3.0, 3.0), (150, 150)),
        ((1, 1), (0.5, 0.5), (1, 1)),
    ],
)
def test_the_grid_has_two_millimetres(
    shape: tuple[int, int], spacing: tuple[float, float], grid: tuple[int, int]
) -> None:
    assert slices.grid_shape(shape, spacing) == grid


def test_places_keep_their_millimetres() -> None:
    # attenuation rises by 4 HU a millimetre along the rows and by 2 HU along the columns, from the image's corner
    rows, columns = (np.arange(200) + 0.5) * 0.8, (np.arange(300) + 0.5) * 0.5
    ramp = (4 * rows[:, None] + 2 * columns - 700).round().astype(np.int16)
    shape = slices.grid_shape((200, 300), (0.8, 0.5))
    assert shape == (80, 75)
    grid = slices.to_grid(ramp[None], shape)[0].numpy()
    expected = 4 * (np.arange(80) + 0.5)[:, None] * 2 + 2 * (np.arange(75) + 0.5) * 2 - 700
    assert np.abs(grid - expected)[2:-2, 2:-2].max() < 1


@pytest.mark.parametrize("shape", [(57, 71), (180, 200), (31, 150)])
def test_a_constant_image_stays_constant(shape: tuple[int, int]) -> None:
    grid = slices.to_grid(np.full((3, 90, 101), -823, np.int16), shape)
    assert grid.shape == (3, *shape)
    assert grid.dtype == torch.float32
    torch.testing.assert_close(grid, torch.full_like(grid, -823.0), rtol=0, atol=1e-2)


def test_fine_stripes_are_averaged_instead_of_sampled() -> None:
    stripes = np.full((1, 64, 64), -900, np.int16)
    stripes[:, :, ::4] = -500
    grid = slices.to_grid(stripes, (16, 16))
    torch.testing.assert_close(grid, torch.full_like(grid, -800.0), rtol=0, atol=30)


def test_fillers_and_metal_are_clipped_before_they_reach_their_neighbours() -> None:
    image = np.full((1, 40, 40), 40, np.int16)
    image[:, :, :20], image[:, 0, 39] = -3024, 30000
    resampled = slices.to_grid(image, (20, 20))
    assert resampled.min() == slices.LEAST_HU == -1200
    clipped = np.clip(image, slices.LEAST_HU, slices.MOST_HU)
    assert torch.equal(resampled, slices.to_grid(clipped, (20, 20)))
    same_size = slices.to_grid(image, (40, 40))
    assert (same_size.min().item(), same_size.max().item()) == (-1200, 2000)


def test_an_image_of_the_right_size_is_taken_as_it_is() -> None:
    image = np.random.default_rng(0).integers(-1000, 400, (2, 30, 20)).astype(np.int16)
    assert np.array_equal(slices.to_grid(image, (30, 20)).numpy(), image)


def test_slices_do_not_reach_into_each_other() -> None:
    image = np.random.default_rng(0).integers(-1000, 400, (5, 33, 47)).astype(np.int16)
    whole = slices.to_grid(image, (20, 31))
    for number in range(5):
        assert torch.equal(slices.to_grid(image[number : number + 1], (20, 31))[0], whole[number])


def test_a_mask_keeps_its_area() -> None:
    mask = torch.zeros(1, 60, 80)
    mask[:, 13:41, 21:66] = 1
    for shape in ((30, 40), (23, 37), (120, 160)):
        assert slices.resized(mask, shape).mean().item() == pytest.approx(mask.mean().item(), rel=0.02)


def test_the_window_ends_at_zero_and_one() -> None:
    hounsfield = torch.tensor([-3024.0, -1000.0, -675.0, -350.0, 300.0, 2000.0])
    assert slices.windowed(hounsfield).tolist() == [0, 0, 0.25, 0.5, 1, 1]


@pytest.mark.parametrize(("rows", "columns", "step"), [(93, 139, 16), (96, 144, 16), (1, 250, 32)])
def test_aligned_images_lie_in_air_and_are_found_again(rows: int, columns: int, step: int) -> None:
    images = torch.rand(3, 1, rows, columns) + 0.5
    padded, inner = slices.aligned(images, step)
    assert padded.shape[2] % step == 0
    assert padded.shape[3] % step == 0
    assert padded.shape[2] - rows < step
    assert torch.equal(padded[:, 0][inner], images[:, 0])
    assert float(padded.sum()) == pytest.approx(float(images.sum()), rel=1e-5)
