"""The phantom as DICOM: valid for dciodvfy, the same Hounsfield units for other readers, true to each habit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from triage_node import volume
from triage_node.config import AnalysisSection
from triage_node.phantom import Body, Phantom, PhantomSpec, make
from triage_node.phantom_dicom import (
    CANON,
    GE,
    HABITS,
    PHILIPS,
    SIEMENS,
    TRANSFER_SYNTAXES,
    Person,
    VendorHabit,
    datasets,
    round_field,
    save,
    write_series,
)
from triage_node.phantom_study import enhanced, localizer, write_demo_study, write_enhanced, write_localizer
from triage_node.study import Series, SeriesKey
from triage_node.volume import instance_of

if TYPE_CHECKING:
    from pydicom.uid import UID

SMALL = PhantomSpec(
    slices=12, rows=96, columns=90, spacing_zyx_mm=(20.0, 4.0, 4.2), right_fraction=0.3, left_fraction=0.1
)
ANY_SPACING = AnalysisSection(maximum_spacing_mm=25.0)
by_habit = pytest.mark.parametrize("habit", HABITS, ids=lambda habit: habit.name)


@cache
def small(*, prone: bool = False, tilt: float = 0.0) -> Phantom:
    """One small phantom for all tests that look at it."""
    return make(replace(SMALL, prone=prone, gantry_tilt_deg=tilt))


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error."""
    judge = Path(sys.executable).with_name("dciodvfy")
    said = subprocess.run([judge, "-new", path], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    assert any(line in {"CTImage", "EnhancedCTImage"} for line in lines), lines
    return [line for line in lines if line.startswith("Error")]


def series_of(paths: list[Path]) -> Series:
    """The files as the node keeps them."""
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    key = SeriesKey(study_instance_uid=first.StudyInstanceUID, series_instance_uid=first.SeriesInstanceUID)
    return Series(key=key, instances=tuple(instance_of(path) for path in paths))


@by_habit
def test_dciodvfy_finds_no_error_in_any_image(habit: VendorHabit, tmp_path: Path) -> None:
    """Axial images, the localizer and the Enhanced CT object."""
    phantom = small()
    paths = [write_series(tmp_path, phantom, habit)[5], write_localizer(tmp_path, phantom, habit)]
    paths.append(tmp_path / "enhanced.dcm")
    save(enhanced(phantom, habit), paths[-1])
    assert {path.name: errors_of(path) for path in paths} == {path.name: [] for path in paths}


@by_habit
def test_simpleitk_reads_the_same_hounsfield_units_at_the_same_places(habit: VendorHabit, tmp_path: Path) -> None:
    """A reader that is not ours, ordered by position."""
    phantom = small()
    write_series(tmp_path, phantom, habit)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    read = sitk.GetArrayFromImage(image)
    if habit.padding is not None:
        outside = ~round_field(phantom.spec)
        assert np.all(read[:, outside] == habit.padding * habit.slope + habit.intercept)
        read[:, outside] = phantom.hounsfield[:, outside]
    assert np.array_equal(read, phantom.hounsfield)
    assert image.GetOrigin() == pytest.approx(phantom.affine_lps_mm[:3, 3], abs=1e-4)
    assert image.GetSpacing() == pytest.approx(phantom.spec.spacing_zyx_mm[::-1])


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("habit", [SIEMENS, CANON], ids=["unsigned", "signed"])
def test_every_transfer_syntax_gives_the_same_pixels(habit: VendorHabit, syntax: UID, tmp_path: Path) -> None:
    """Unsigned 12-bit and signed 16-bit pixels, decoded by pydicom and again by SimpleITK."""
    phantom = replace(small(), hounsfield=small().hounsfield[-1:], spec=replace(SMALL, slices=1))
    [path] = write_series(tmp_path, phantom, habit, transfer_syntax=syntax)
    ds = pydicom.dcmread(path)
    assert ds.file_meta.TransferSyntaxUID == syntax
    values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    assert np.array_equal(values, phantom.hounsfield[0])
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0], phantom.hounsfield[0])
    assert errors_of(path) == []


def test_an_unknown_transfer_syntax_is_refused_with_the_possible_ones(tmp_path: Path) -> None:
    """Instead of a file that nobody reads."""
    with pytest.raises(ValueError, match="JPEG 2000"):
        write_series(tmp_path, small(), SIEMENS, transfer_syntax=ExplicitVRBigEndian)


@by_habit
@pytest.mark.parametrize("prone", [False, True], ids=["supine", "prone"])
@pytest.mark.parametrize("feet_first", [False, True], ids=["head first", "feet first"])
def test_the_node_reads_right_lung_voxels_on_the_patients_right(
    habit: VendorHabit, prone: bool, feet_first: bool, tmp_path: Path
) -> None:
    """Whatever the numbering and the position on the table, the mean place of the right lung stays."""
    phantom = small(prone=prone)
    paths = write_series(tmp_path, phantom, habit, feet_first=feet_first)
    header = pydicom.dcmread(paths[0], stop_before_pixels=True)
    assert header.PatientPosition == ("FF" if feet_first else "HF") + ("P" if prone else "S")
    read = volume.read(series_of(paths[::2] + paths[1::2]), ANY_SPACING)
    for voxel_zyx in ((6, 40, 20), (3, 50, 60), (9, 60, 45)):
        z, y, x = voxel_zyx
        place = phantom.affine_lps_mm @ (x, y, z, 1)
        column, row, depth = np.rint((np.linalg.inv(read.affine_lps_mm) @ place)[:3]).astype(int)
        assert read.hounsfield[depth, row, column] == phantom.hounsfield[voxel_zyx]


def test_instance_numbers_run_against_the_position_where_the_habit_says_so() -> None:
    """Instance 1 is the top slice, or the bottom one."""
    for habit, from_feet in ((SIEMENS, False), (PHILIPS, True)):
        heights = [float(ds.ImagePositionPatient[2]) for ds in datasets(small(), habit)]
        assert heights == sorted(heights, reverse=not from_feet)
        turned = [float(ds.ImagePositionPatient[2]) for ds in datasets(small(), habit, from_feet=not from_feet)]
        assert turned == heights[::-1]


def test_a_tilted_gantry_shows_in_orientation_and_header() -> None:
    """Slices lean, their step stays along the table; the lungs are as large as upright."""
    phantom = small(tilt=15.0)
    first, second, *_ = datasets(phantom)
    assert first.GantryDetectorTilt == 15
    assert [float(v) for v in first.ImageOrientationPatient] == pytest.approx(
        [1, 0, 0, 0, np.cos(np.radians(15)), np.sin(np.radians(15))], abs=1e-5
    )
    step = np.subtract(first.ImagePositionPatient, second.ImagePositionPatient)
    assert step.astype(float) == pytest.approx([0, 0, 20])
    assert phantom.lung_volume_ml(1) == pytest.approx(small().lung_volume_ml(1), rel=0.1)


def test_names_and_uids_are_plainly_fictitious_and_derived() -> None:
    """The same request gives the same UIDs; a salt gives fresh ones; nobody is named."""
    person = Person(number=12)
    first, again = (next(iter(datasets(small(), person=person))) for _ in range(2))
    assert first == again
    assert str(first.PatientName) == "PHANTOM^ONE TWO"
    assert first.PatientID == "PHANTOM-0012"
    assert first.SOPInstanceUID.startswith("2.25.")
    salted = next(iter(datasets(small(), person=replace(person, salt="another"))))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert first[keyword].value != salted[keyword].value
    uids = {ds.SOPInstanceUID for habit in HABITS for ds in datasets(small(), habit)}
    assert len(uids) == len(HABITS) * SMALL.slices


def test_the_enhanced_object_holds_the_frames_of_the_series(tmp_path: Path) -> None:
    """Pixels, positions and rescaling, frame by frame, and the node reads the same volume."""
    path = write_enhanced(tmp_path, SMALL, GE)
    ds = pydicom.dcmread(path)
    images = list(datasets(small(), GE))
    frames = ds.pixel_array
    assert len(frames) == SMALL.slices
    for frame, groups, image in zip(frames, ds.PerFrameFunctionalGroupsSequence, images, strict=True):
        assert np.array_equal(frame, image.pixel_array)
        assert groups.PlanePositionSequence[0].ImagePositionPatient == image.ImagePositionPatient
    read = volume.read(Series(key=series_of([path]).key, instances=(instance_of(path),)), ANY_SPACING)
    inside = round_field(SMALL)
    assert np.array_equal(read.hounsfield[:, inside], small().hounsfield[:, inside])


def test_the_localizer_is_a_frontal_projection() -> None:
    """Marked as localizer, coronal, with the head at its upper edge and lungs darker than the abdomen."""
    ds = localizer(small())
    assert list(ds.ImageType) == ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    assert [float(v) for v in ds.ImageOrientationPatient] == [1, 0, 0, 0, 0, -1]
    image = ds.pixel_array.astype(float)
    lungs = image[image.shape[0] // 3 : image.shape[0] // 2, ds.Columns // 4 : ds.Columns // 3]
    liver = image[-6:, ds.Columns // 4 : ds.Columns // 3]
    assert lungs.mean() + 200 < liver.mean()


def test_a_demo_study_has_a_localizer_a_thick_and_a_thin_series(tmp_path: Path) -> None:
    """One study, three series, each with the right number of images."""
    spec = replace(SMALL, slices=6, spacing_zyx_mm=(40.0, 4.0, 4.0))
    person = Person(number=3)
    paths = write_demo_study(tmp_path, spec, CANON, person=person, thin_mm=20.0)
    found = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    assert {ds.StudyInstanceUID for ds in found} == {person.study_uid()}
    assert [sum(ds.SeriesNumber == number for ds in found) for number in (1, 2, 3)] == [1, 6, 12]
    assert len({ds.SeriesInstanceUID for ds in found}) == 3
    assert len({ds.FrameOfReferenceUID for ds in found}) == 1
    assert {ds.ConvolutionKernel for ds in found if ds.SeriesNumber == 3} == {"FC51"}


def test_the_habits_write_what_their_scanners_are_known_for() -> None:
    """Signs, padding, slope and implicit VR differ as the table says."""
    first = {habit.name: next(iter(datasets(small(), habit))) for habit in HABITS}
    assert first[SIEMENS.name].PixelRepresentation == 0
    assert list(first[SIEMENS.name].ImageType)[3] == "CT_SOM5 SPI"
    assert first[GE.name].PixelPaddingValue == -2000
    assert first[GE.name].file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert first[GE.name].PatientPosition == "FFS"
    assert float(first[PHILIPS.name].RescaleSlope) == 0.5
    assert first[CANON.name].PixelRepresentation == 1
    assert "BodyPartExamined" not in first[CANON.name]
    assert [element for element in first[CANON.name] if element.tag.is_private]


def test_a_head_says_that_it_is_a_head() -> None:
    """Body Part Examined and descriptions follow the body."""
    spec = replace(SMALL, body=Body.HEAD, right_fraction=0.0, left_fraction=0.0, centre_z_mm=0.0)
    ds = next(iter(datasets(make(spec))))
    assert ds.BodyPartExamined == "HEAD"
