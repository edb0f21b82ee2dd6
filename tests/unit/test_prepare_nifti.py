"""Files of any storage order come into patient order, and what cannot be right is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest
from annotations import nifti
from annotations.unusable import Unusable

from tests import published_sets
from tests.published_sets import FLIPS, SPACING_ZYX_MM

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("flips", FLIPS)
def test_a_scan_is_the_same_however_its_axes_run(flips: tuple[bool, bool, bool], tmp_path: Path) -> None:
    path = published_sets.nifti(tmp_path / "a.nii.gz", published_sets.scan(), flips=flips)
    read = nifti.scan(path)
    assert np.array_equal(read.hounsfield, published_sets.scan())
    assert read.spacing_zyx_mm == pytest.approx(SPACING_ZYX_MM)
    mask = published_sets.nifti(tmp_path / "m.nii.gz", published_sets.lungs(), flips=flips)
    assert np.array_equal(nifti.labels(mask, read), published_sets.lungs())


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_a_scan_is_the_same_in_whatever_order_its_axes_are_stored(axes: tuple[int, int, int], tmp_path: Path) -> None:
    spacing = (5.0, 1.5, 2.5)
    path = published_sets.nifti(tmp_path / "a.nii", published_sets.scan(), axes=axes, spacing_zyx_mm=spacing)
    read = nifti.scan(path)
    assert np.array_equal(read.hounsfield, published_sets.scan())
    assert read.spacing_zyx_mm == pytest.approx(spacing)


def test_values_with_a_slope_and_with_fractions_are_rounded_hounsfield_units(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(published_sets.scan().astype(np.float64), np.diag([-2.0, -2.0, 10.0, 1.0]))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")  # nibabel stores a slope
    stored = np.asarray(nibabel.load(tmp_path / "a.nii.gz").dataobj)
    read = nifti.scan(tmp_path / "a.nii.gz").hounsfield
    assert np.abs(read.transpose(2, 1, 0) - stored).max() <= 0.5
    halves = nibabel.Nifti1Image((published_sets.scan() + 0.25).astype(np.float32), np.diag([-2.0, -2.0, 10.0, 1.0]))
    nibabel.save(halves, tmp_path / "b.nii.gz")
    assert np.array_equal(nifti.scan(tmp_path / "b.nii.gz").hounsfield.transpose(2, 1, 0), published_sets.scan())


def test_labels_that_their_header_turns_another_way_are_refused(tmp_path: Path) -> None:
    read = nifti.scan(published_sets.nifti(tmp_path / "a.nii.gz", published_sets.scan()))
    mask = published_sets.nifti(tmp_path / "m.nii.gz", published_sets.lungs(), flips=(False, False, True))
    with pytest.raises(Unusable, match="turned another way"):
        nifti.labels(mask, read)
    assert np.array_equal(nifti.labels_by_header(mask, read.hounsfield.shape), published_sets.lungs())


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    read = nifti.scan(published_sets.nifti(tmp_path / "a.nii.gz", published_sets.scan()))
    mask = published_sets.nifti(tmp_path / "m.nii.gz", published_sets.lungs()[:-1])
    with pytest.raises(Unusable, match=r"m.nii.gz is \(200, 200, 29\), its scan is \(200, 200, 30\)"):
        nifti.labels(mask, read)
    with pytest.raises(Unusable, match="in patient order"):
        nifti.labels_by_header(mask, read.hounsfield.shape)


def test_labels_stored_as_numbers_near_whole_ones_are_labels_and_others_are_refused(tmp_path: Path) -> None:
    read = nifti.scan(published_sets.nifti(tmp_path / "a.nii.gz", published_sets.scan()))
    near = published_sets.nifti(tmp_path / "m.nii.gz", published_sets.lungs() * np.float32(0.9999))
    assert np.array_equal(nifti.labels(near, read), published_sets.lungs())
    with pytest.raises(Unusable, match="labels were expected"):
        nifti.labels(tmp_path / "a.nii.gz", read)


def test_grey_levels_are_never_taken_for_hounsfield_units(tmp_path: Path) -> None:
    grey = np.clip((published_sets.scan() + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
    path = published_sets.nifti(tmp_path / "a.nii.gz", grey)
    with pytest.raises(Unusable, match="no Hounsfield units"):
        nifti.scan(path)
    window = np.clip(published_sets.scan(), -1350, 150)
    assert np.abs(nifti.grey_scan(path, (-1350, 150)).hounsfield - window).max() <= 1500 / 255 + 0.5


def test_hounsfield_units_are_never_taken_for_grey_levels(tmp_path: Path) -> None:
    path = published_sets.nifti(tmp_path / "a.nii.gz", published_sets.scan())
    with pytest.raises(Unusable, match=r"grey levels 0\.\.255, not -10\d\d"):
        nifti.grey_scan(path, (-1350, 150))


def test_files_that_are_no_single_volume_are_refused(tmp_path: Path) -> None:
    missing = published_sets.scan().astype(np.float32)
    missing[3, 4, 5] = np.nan
    with pytest.raises(Unusable, match="no numbers"):
        nifti.scan(published_sets.metaimage(tmp_path / "nan.mhd", missing, turned=False))
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.int16), np.eye(4)), tmp_path / "two.nii.gz")
    with pytest.raises(Unusable, match="a single volume was expected"):
        nifti.scan(tmp_path / "two.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "two.nii.gz").read_bytes()[:50])
    with pytest.raises(Unusable, match=r"cut.nii.gz cannot be read"):
        nifti.scan(tmp_path / "cut.nii.gz")


def test_slices_that_are_not_axial_are_refused(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]]
    image = nibabel.Nifti1Image(published_sets.scan().transpose(2, 1, 0), turn @ np.diag([-2.0, -2.0, 10.0, 1.0]))
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(Unusable, match="not axial"):
        nifti.scan(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("turned", [False, True])
def test_a_metaimage_is_the_same_whichever_way_it_is_turned(turned: bool, tmp_path: Path) -> None:
    path = published_sets.metaimage(tmp_path / "a.mhd", published_sets.scan(), turned=turned)
    assert path.with_suffix(".raw").exists()
    assert np.array_equal(nifti.scan(path).hounsfield, published_sets.scan())
