"""A series becomes a Hounsfield volume in its true place, or is refused with a code."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pydicom.uid
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRBigEndian, JPEG2000Lossless

from tests import builders
from tests.builders import AXIAL, CORONAL, Raw, ct_series, enhanced_ct, series_of
from triage_node import headers, hounsfield, volume
from triage_node.config import AnalysisSection
from triage_node.errors import Refused
from triage_node.jpeg import JpegDecoders
from triage_node.study import Reason, Series, Volume

SETTINGS = AnalysisSection()
REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom"
REAL_SERIES = ["ct-md-cap-001", "ct-md-covid-p001", "ct-md-normal-001", "lidc-1011", "lung1-001", "ricord-1a-000082"]

LOSSLESS = [
    "ImplicitVRLittleEndian",
    "ExplicitVRLittleEndian",
    "DeflatedExplicitVRLittleEndian",
    "ExplicitVRBigEndian",
    "RLELossless",
    "JPEGLosslessSV1",
    "JPEGLossless",
    "JPEGLSLossless",
    "JPEG2000Lossless",
]


def read(series: Series, settings: AnalysisSection = SETTINGS) -> Volume:
    return volume.read(series, settings)


def refused(series: Series) -> tuple[Reason, str]:
    with pytest.raises(Refused) as caught:
        read(series)
    return caught.value.not_analysed.reason, caught.value.not_analysed.words


def places_of(image: Volume) -> np.ndarray:
    """[z, 3] where the affine puts the first voxel of every slice."""
    count = len(image.hounsfield)
    return (image.affine_lps_mm @ np.array([[0, 0, z, 1] for z in range(count)]).T)[:3].T


def by_sitk(image: Volume) -> tuple[np.ndarray, np.ndarray]:
    """[z, y, x] what SimpleITK reads of the same files in this order, and its affine."""
    files = [str(instance.path) for instance in image.instances]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.SetOutputPixelType(sitk.sitkFloat64)
    read_back = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(read_back.GetDirection()).reshape(3, 3) * np.array(read_back.GetSpacing())
    affine[:3, 3] = read_back.GetOrigin()
    return sitk.GetArrayFromImage(read_back), affine


# ------------------------------------------------------------------ order and geometry


def test_slices_are_ordered_by_position_not_by_instance_number(tmp_path: Path) -> None:
    built = ct_series(tmp_path, numbered_downwards=True)
    image = read(built.series)
    assert (image.hounsfield == built.hounsfield).all()
    assert np.allclose(image.slice_positions_mm, built.positions_mm)
    assert np.allclose(places_of(image), built.positions_mm)
    assert image.warnings == ()


def test_rows_and_columns_have_their_own_spacing(tmp_path: Path) -> None:
    """Pixel Spacing is row spacing first (PS3.3 10.7.1.1): the step down a column."""
    image = read(ct_series(tmp_path, pixel_spacing_mm=(0.9, 0.5), spacing_mm=11.0).series)
    assert image.spacing_zyx_mm == pytest.approx((11.0, 0.9, 0.5))
    assert np.allclose(image.affine_lps_mm[:3, 0], (0.5, 0, 0))
    assert np.allclose(image.affine_lps_mm[:3, 1], (0, 0.9, 0))


def oblique(degrees: float) -> tuple[float, ...]:
    angle = np.radians(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))


@pytest.mark.parametrize(
    ("orientation", "position", "warning"),
    [
        (AXIAL, "HFS", ""),
        (AXIAL, "FFS", ""),
        ((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), "HFP", "prone"),
        ((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), "FFP", "prone"),
        ((0.0, 1.0, 0.0, -1.0, 0.0, 0.0), "HFDR", "on the side"),
        ((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), "HFS", ""),  # the normal points to the feet
        (oblique(17.0), "HFS", ""),
        (oblique(-25.0), "HFS", ""),
    ],
)
def test_the_affine_puts_every_voxel_where_an_independent_reader_puts_it(
    tmp_path: Path, orientation: tuple[float, ...], position: str, warning: str
) -> None:
    built = ct_series(tmp_path, orientation=orientation, attributes={"PatientPosition": position})
    image = read(built.series)
    pixels, affine = by_sitk(image)
    assert (image.hounsfield == pixels).all()
    assert np.allclose(image.affine_lps_mm, affine, atol=1e-4)
    assert np.allclose(places_of(image), image.slice_positions_mm, atol=1e-4)
    assert (warning in " ".join(image.warnings)) if warning else image.warnings == ()


def test_a_feet_first_series_that_descends_is_ordered_by_position(tmp_path: Path) -> None:
    built = ct_series(tmp_path, step_mm=(0.0, 0.0, -12.0), attributes={"PatientPosition": "FFS"})
    image = read(built.series)
    assert (image.hounsfield == built.hounsfield[::-1]).all()
    assert (np.diff(image.slice_positions_mm[:, 2]) > 0).all()


def test_a_tilted_gantry_gives_a_sheared_affine_and_a_warning(tmp_path: Path) -> None:
    """The table moves along the patient while the slices lean: origins step along z, not along the normal."""
    built = ct_series(tmp_path, orientation=oblique(15.0), step_mm=(0.0, 0.0, 12.0))
    image = read(built.series)
    assert np.allclose(image.affine_lps_mm[:3, 2], (0.0, 0.0, 12.0))
    assert np.allclose(places_of(image), built.positions_mm, atol=1e-6)
    assert image.spacing_zyx_mm[0] == pytest.approx(12.0 * np.cos(np.radians(15.0)))
    assert any("tilted by 15.0 degrees" in warning for warning in image.warnings)


def test_a_shear_steeper_than_any_gantry_is_refused(tmp_path: Path) -> None:
    built = ct_series(tmp_path, step_mm=(0.0, 12.0, 12.0))
    assert refused(built.series) == (Reason.NOT_AXIAL, "the slices are sheared by 45 degrees, more than a gantry tilts")


def test_a_coronal_series_is_refused(tmp_path: Path) -> None:
    reason, words = refused(ct_series(tmp_path, orientation=CORONAL).series)
    assert reason == Reason.NOT_AXIAL
    assert "90 degrees" in words


def test_slices_that_wander_within_their_plane_are_refused(tmp_path: Path) -> None:
    places = [(-100.0 + (30.0 if z == 5 else 0.0), -90.0, 12.0 * z) for z in range(12)]
    reason, words = refused(ct_series(tmp_path, positions_mm=places).series)
    assert reason == Reason.MIXED_ORIENTATION
    assert "30.0 mm" in words


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_arrival_changes_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "arrival"
    built = ct_series(folder, orientation=oblique(3.0))
    order = data.draw(st.permutations(range(len(built.paths))))
    shuffled = Series(key=built.series.key, instances=tuple(built.series.instances[i] for i in order))
    one, other = read(built.series), read(shuffled)
    assert (one.hounsfield == other.hounsfield).all()
    assert (one.affine_lps_mm == other.affine_lps_mm).all()
    assert (one.slice_positions_mm == other.slice_positions_mm).all()
    assert (one.instances, one.warnings) == (other.instances, other.warnings)
    assert volume.facts_of(built.series) == volume.facts_of(shuffled)


# ------------------------------------------------------------------ gaps, duplicates, strays


def test_a_missing_slice_is_a_gap_and_the_words_say_where(tmp_path: Path) -> None:
    built = ct_series(tmp_path, slices=30, spacing_mm=5.0, origin_mm=(0, 0, 0))
    short = Series(key=built.series.key, instances=built.series.instances[:10] + built.series.instances[13:])
    assert refused(short) == (Reason.GAP, "3 slices seem to be missing between 45.0 mm and 65.0 mm")
    assert volume.facts_of(short).refusal is not None
    one = Series(key=built.series.key, instances=built.series.instances[:10] + built.series.instances[11:])
    assert refused(one) == (Reason.GAP, "1 slice seems to be missing between 45.0 mm and 55.0 mm")


def test_a_spacing_that_varies_is_accepted_with_a_warning(tmp_path: Path) -> None:
    z = np.cumsum([0.0] + [10.0, 12.0] * 7)
    built = ct_series(tmp_path, positions_mm=[(0.0, 0.0, along) for along in z])
    image = read(built.series)
    assert np.allclose(image.slice_positions_mm, built.positions_mm)
    assert image.slice_thicknesses_mm.sum() == pytest.approx(z[-1] + 11.0)
    assert image.warnings == ("the distance between slices varies from 10.00 mm to 12.00 mm",)


def test_pixel_identical_duplicates_are_dropped_with_a_warning(tmp_path: Path) -> None:
    built = ct_series(tmp_path / "one")
    twice = ct_series(tmp_path / "two", slices=4)
    for index, path in enumerate(twice.paths):
        builders.change(path, SOPInstanceUID=builders.uid("resent", index))
    image = read(series_of([*built.paths, *twice.paths]))
    assert (image.hounsfield == built.hounsfield).all()
    assert image.warnings == ("4 of 16 images were there twice with the same pixels",)


def other_pixels(z: int, rows: int, columns: int) -> np.ndarray:
    return builders.texture(z + 50, rows, columns)


def second_stack(folder: Path, slices: int, **attributes: object) -> builders.Built:
    """Slices of the same series at the same places with other pixels."""
    other = ct_series(folder, slices=slices, pixels=other_pixels, attributes=attributes)
    for index, path in enumerate(other.paths):
        builders.change(path, SOPInstanceUID=builders.uid("second", index))
    return other


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("AcquisitionNumber", "Acquisition Number"), ("TemporalPositionIdentifier", "Temporal Position"),
     ("AcquisitionTime", "Acquisition Time"), ("ConvolutionKernel", "Convolution Kernel")],
)  # fmt: skip
def test_two_stacks_in_one_series_are_told_apart_and_the_larger_is_taken(
    tmp_path: Path, attribute: str, name: str
) -> None:
    values = {"AcquisitionNumber": 7, "TemporalPositionIdentifier": 7, "AcquisitionTime": "111111"}
    built = ct_series(tmp_path / "one", slices=12)
    other = second_stack(tmp_path / "two", 14, **{attribute: values.get(attribute, "B70f")})
    series = series_of([*built.paths, *other.paths])
    image = read(series)
    assert (image.hounsfield == other.hounsfield).all()
    words = f"the series holds 2 stacks that differ by {name}: the one of 14 images was taken, 12 images were left out"
    assert words in image.warnings


def test_differing_images_at_one_place_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    built = ct_series(tmp_path / "one")
    reason, words = refused(series_of([*built.paths, *second_stack(tmp_path / "two", 12).paths]))
    assert reason == Reason.DUPLICATE_POSITIONS
    assert words.startswith("12 images lie where others lie")


def test_positions_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    built = ct_series(tmp_path, positions_mm=[(0.0, 0.0, 0.0)] * 12)
    assert refused(built.series)[0] == Reason.DUPLICATE_POSITIONS


def test_a_near_duplicate_is_refused(tmp_path: Path) -> None:
    z = [12.0 * i for i in range(12)] + [29.0]
    assert refused(ct_series(tmp_path, positions_mm=[(0.0, 0.0, a) for a in z]).series)[0] == Reason.DUPLICATE_POSITIONS


@pytest.mark.parametrize("marked", [True, False])
def test_a_stray_localizer_is_left_out_with_a_warning(tmp_path: Path, marked: bool) -> None:
    built = ct_series(tmp_path / "axial")
    stray = ct_series(tmp_path / "stray", slices=1, orientation=CORONAL, rows=40, columns=50)
    marks = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "RescaleSlope": None} if marked else {}
    builders.change(stray.paths[0], SOPInstanceUID=builders.uid("stray"), **marks)
    image = read(series_of([*built.paths, *stray.paths]))
    assert (image.hounsfield == built.hounsfield).all()
    assert "1 of 13 images" in image.warnings[0]
    assert "left out" in image.warnings[0]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"FrameOfReferenceUID": "1.2.3"}, Reason.MIXED_FRAME_OF_REFERENCE),
        ({"PixelSpacing": ["0.5", "0.5"]}, Reason.MIXED_MATRIX),
        ({"ImageOrientationPatient": list(oblique(10.0))}, Reason.MIXED_ORIENTATION),
    ],
)
def test_halves_that_do_not_belong_together_are_refused(
    tmp_path: Path, attributes: dict[str, object], reason: Reason
) -> None:
    built = ct_series(tmp_path)
    for path in built.paths[6:]:
        builders.change(path, **attributes)
    assert refused(series_of(built.paths))[0] == reason


# ------------------------------------------------------------------ limits and kinds


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"slices": 9}, Reason.TOO_FEW_SLICES),
        ({"slices": 1}, Reason.TOO_FEW_SLICES),
        ({"spacing_mm": 13.0}, Reason.SPACING_TOO_LARGE),
        ({"spacing_mm": 5.0}, Reason.COVERAGE_TOO_SHORT),
        ({"attributes": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}}, Reason.LOCALIZER),
        ({"attributes": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}}, Reason.NOT_PRIMARY),
        ({"attributes": {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MIP"]}}, Reason.NOT_PRIMARY),
        ({"attributes": {"RescaleType": "Z_EFF"}}, Reason.NOT_HOUNSFIELD),
        ({"attributes": {"Modality": "PT"}}, Reason.NOT_CT),
        ({"attributes": {"SOPClassUID": pydicom.uid.SecondaryCaptureImageStorage}}, Reason.NOT_CT),
        ({"attributes": {"SamplesPerPixel": 3}}, Reason.NOT_CT),
    ],
)
def test_what_is_no_chest_ct_to_judge_is_refused(tmp_path: Path, arguments: dict[str, object], reason: Reason) -> None:
    built = ct_series(tmp_path, **arguments)  # type: ignore[arg-type]  # a table of keywords
    assert refused(built.series)[0] == reason


def test_too_many_slices_are_refused(tmp_path: Path) -> None:
    built = ct_series(tmp_path, slices=12)
    with pytest.raises(Refused, match="TOO_MANY_SLICES: 12 slices; at most 10 are taken"):
        read(built.series, AnalysisSection(maximum_slices=10))


@pytest.mark.parametrize(
    ("attributes", "warning"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"], "LossyImageCompression": "01"}, "compressed with loss"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "not marked ORIGINAL"),
        ({"ImageType": None}, "no Image Type"),
        ({"RescaleType": "US"}, "unspecified"),
    ],
)
def test_what_can_be_judged_with_reserve_carries_a_warning(
    tmp_path: Path, attributes: dict[str, object], warning: str
) -> None:
    (words,) = read(ct_series(tmp_path, attributes=attributes).series).warnings
    assert warning in words


# ------------------------------------------------------------------ pixel values


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_syntax_gives_the_same_values(tmp_path: Path, syntax: str, signed: bool) -> None:
    built = ct_series(
        tmp_path, transfer_syntax=getattr(pydicom.uid, syntax), signed=signed, intercept=0.0 if signed else -1024.0
    )
    assert (read(built.series).hounsfield == built.hounsfield).all()


def test_lossy_jpeg_2000_is_close(tmp_path: Path) -> None:
    def smooth(z: int, rows: int, columns: int) -> np.ndarray:
        y, x = np.mgrid[:rows, :columns]
        return (x * 9 + y * 5 + z * 20 - 800).astype(np.int16)

    built = ct_series(tmp_path, rows=64, columns=64, pixels=smooth, transfer_syntax=pydicom.uid.JPEG2000)
    difference = read(built.series).hounsfield.astype(int) - built.hounsfield
    assert np.abs(difference).max() < 25


@pytest.mark.parametrize(("bits_stored", "signed"), [(12, False), (12, True), (13, True), (16, True), (16, False)])
def test_bits_outside_of_bits_stored_mean_nothing(tmp_path: Path, bits_stored: int, signed: bool) -> None:
    intercept = 0.0 if signed else -1024.0
    built = ct_series(tmp_path, bits_stored=bits_stored, signed=signed, intercept=intercept)
    for path in built.paths:
        dataset = pydicom.dcmread(path)
        cells = np.frombuffer(dataset.PixelData, "<u2")
        keep = np.uint16(2**bits_stored - 1)
        dataset.PixelData = ((cells & keep) | (np.uint16(0xA5A5) & ~keep)).astype("<u2").tobytes()
        dataset.save_as(path)
    assert (read(series_of(built.paths)).hounsfield == built.hounsfield).all()


def test_slope_and_intercept_are_each_slices_own(tmp_path: Path) -> None:
    built = ct_series(tmp_path)
    for index, path in enumerate(built.paths):
        builders.change(path, RescaleSlope=f"{0.5 + index / 7:.6f}", RescaleIntercept=f"{-1000 - index}.5")
    image = read(series_of(built.paths))
    pixels, _ = by_sitk(image)
    files = [pydicom.dcmread(instance.path) for instance in image.instances]
    for z, file in enumerate(files):
        expected = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        assert (image.hounsfield[z] == np.rint(expected)).all()
    assert pixels.shape == image.hounsfield.shape


def test_values_beyond_int16_are_clipped(tmp_path: Path) -> None:
    built = ct_series(tmp_path)
    for path in built.paths:
        builders.change(path, RescaleSlope="100")
    image = read(series_of(built.paths))
    assert image.hounsfield.max() == 32767


@pytest.mark.parametrize("limit", [None, 60])
def test_padding_becomes_air(tmp_path: Path, limit: int | None) -> None:
    def padded(z: int, rows: int, columns: int) -> np.ndarray:
        values = builders.texture(z, rows, columns)
        values[:3] = 50  # stored as 50: the padding value
        values[3] = 60
        return values

    built = ct_series(tmp_path, pixels=padded, signed=True, intercept=0.0)
    for path in built.paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS", 50)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", "SS", limit)
        dataset.save_as(path)
    expected = built.hounsfield.copy()
    expected[(expected >= 50) & (expected <= (limit or 50))] = -1024
    assert (read(series_of(built.paths)).hounsfield == expected).all()


def test_padding_that_bits_stored_cannot_hold_is_padding_too(tmp_path: Path) -> None:
    built = ct_series(tmp_path, signed=True, intercept=0.0, bits_stored=12)
    for path in built.paths:
        dataset = pydicom.dcmread(path)
        cells = np.frombuffer(dataset.PixelData, "<i2").copy()
        cells[:40] = -32768
        dataset.PixelData = cells.tobytes()
        dataset.add_new("PixelPaddingValue", "SS", -32768)
        dataset.save_as(path)
    image = read(series_of(built.paths))
    assert (image.hounsfield[:, 0] == -1024).all()
    assert (image.hounsfield[:, 1:] == built.hounsfield[:, 1:]).all()


def test_eight_bit_cells_are_rescaled(tmp_path: Path) -> None:
    built = ct_series(tmp_path, bits_allocated=8, bits_stored=8, slope=8.0, rows=5, columns=5)
    assert (read(built.series).hounsfield == built.hounsfield).all()


# ------------------------------------------------------------------ multi-frame


@pytest.mark.parametrize("sop_class", [EnhancedCTImageStorage, builders.LEGACY_CONVERTED_ENHANCED_CT])
@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "JPEG2000Lossless", "RLELossless", "ExplicitVRBigEndian"])
def test_frames_of_an_enhanced_object_are_ordered_by_position(tmp_path: Path, sop_class: str, syntax: str) -> None:
    order = [(index * 5) % 12 for index in range(12)]
    built = enhanced_ct(
        tmp_path,
        sop_class=sop_class,
        frame_order=order,
        transfer_syntax=getattr(pydicom.uid, syntax),
        orientation=oblique(5),
    )
    image = read(built.series)
    assert (image.hounsfield == built.hounsfield).all()
    assert np.allclose(image.slice_positions_mm, built.positions_mm)
    assert image.frame_numbers == tuple(order.index(z) + 1 for z in range(12))
    assert image.instances == built.series.instances * 12


def test_a_concatenation_is_one_volume(tmp_path: Path) -> None:
    built = enhanced_ct(tmp_path, parts=3, rescale_per_frame=True)
    image = read(built.series)
    assert (image.hounsfield == built.hounsfield).all()
    assert len(set(image.instances)) == 3
    assert image.frame_numbers == (1, 2, 3, 4) * 3


def test_localizer_frames_are_left_out(tmp_path: Path) -> None:
    localizer = ("ORIGINAL", "PRIMARY", "LOCALIZER", "NONE")
    built = enhanced_ct(tmp_path, slices=13, frame_types={0: localizer})
    image = read(built.series)
    assert (image.hounsfield == built.hounsfield[1:]).all()
    assert refused(enhanced_ct(tmp_path / "all", frame_type=localizer).series)[0] == Reason.LOCALIZER


def test_an_enhanced_object_without_functional_groups_is_refused(tmp_path: Path) -> None:
    built = enhanced_ct(tmp_path, attributes={"PerFrameFunctionalGroupsSequence": None})
    assert refused(built.series)[0] == Reason.MISSING_ATTRIBUTE
    assert refused(enhanced_ct(tmp_path / "b", attributes={"NumberOfFrames": 13}).series)[0] == Reason.MISSING_ATTRIBUTE


# ------------------------------------------------------------------ broken input


@pytest.mark.parametrize(
    "attribute",
    ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
     "FrameOfReferenceUID", "Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"],
)  # fmt: skip
def test_a_missing_attribute_is_refused_by_name(tmp_path: Path, attribute: str) -> None:
    built = ct_series(tmp_path)
    builders.change(built.paths[4], **{attribute: None})
    reason, words = refused(series_of(built.paths))
    assert reason == Reason.MISSING_ATTRIBUTE
    assert words.startswith("image 5 has no ")


BROKEN = [b"", b"nan", b"inf\\0\\0", b"1\\2\\3\\4", b"a\\b\\c", b"0,7\\0,7", b"1e999\\1\\1", b"\xff\xfe\x00",
          b"0\\0\\0\\0\\0\\0", b"1_0\\1_0", b"\\\\\\\\\\", b"-1\\-1"]  # fmt: skip


@pytest.mark.parametrize(
    "attribute", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"]
)
@pytest.mark.parametrize("value", BROKEN)
def test_a_broken_attribute_is_refused_by_name(tmp_path: Path, attribute: str, value: bytes) -> None:
    built = ct_series(tmp_path)
    builders.change(built.paths[4], **{attribute: Raw(value)})
    series = series_of(built.paths)
    reason, words = refused(series)
    assert reason == Reason.MISSING_ATTRIBUTE
    assert "image 5" in words
    facts = volume.facts_of(series)
    assert facts.refusal is not None
    assert facts.refusal.reason == reason


@pytest.mark.parametrize("damage", ["empty", "short", "long"])
@pytest.mark.parametrize("syntax", LOSSLESS[:4])
def test_pixel_data_of_the_wrong_length_is_refused(tmp_path: Path, damage: str, syntax: str) -> None:
    built = ct_series(tmp_path, transfer_syntax=getattr(pydicom.uid, syntax))
    dataset = pydicom.dcmread(built.paths[4])
    data = dataset.PixelData
    dataset.PixelData = {"empty": b"", "short": data[:-2], "long": data + b"\0\0"}[damage]
    dataset.save_as(built.paths[4])
    reason, words = refused(series_of(built.paths))
    assert reason == Reason.UNDECODABLE
    assert words.startswith("the pixel data of image 5 at -252.0 mm cannot be decoded")
    assert words.endswith(f"{len(dataset.PixelData)} bytes instead of 2560")


@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("syntax", LOSSLESS[4:])
def test_a_compressed_frame_that_is_cut_off_is_refused(tmp_path: Path, kept: int, syntax: str) -> None:
    built = ct_series(tmp_path, transfer_syntax=getattr(pydicom.uid, syntax))
    data = pydicom.dcmread(built.paths[4]).PixelData
    whole = built.paths[4].read_bytes()
    built.paths[4].write_bytes(whole[: whole.index(data) + len(data) * kept // 4])
    reason, words = refused(series_of(built.paths))
    assert reason == Reason.UNDECODABLE
    assert words.startswith("the pixel data of image 5 at -252.0 mm cannot be decoded")
    assert "Phantom" not in words


@pytest.mark.parametrize("syntax", LOSSLESS[4:])
def test_a_damaged_image_ends_neither_the_process_nor_the_next_series(tmp_path: Path, syntax: str) -> None:
    """GDCM aborts its process on some of these; whatever happens, the next series is read."""
    built = ct_series(tmp_path, transfer_syntax=getattr(pydicom.uid, syntax))
    for seed, path in enumerate(built.paths):
        whole = bytearray(path.read_bytes())
        at = whole.index(b"\xe0\x7f\x10\x00OB")
        random = np.random.default_rng(seed)
        for where in random.integers(at + 30, len(whole), size=8):
            whole[where] = random.integers(256)
        damaged = tmp_path / "damaged.dcm"
        damaged.write_bytes(whole)
        with contextlib.suppress(Refused):
            read(series_of([damaged, *(other for other in built.paths if other != path)]))
    assert (read(built.series).hounsfield == built.hounsfield).all()


def test_a_syntax_that_nobody_decodes_is_refused_by_name(tmp_path: Path) -> None:
    built = ct_series(tmp_path, transfer_syntax=JPEG2000Lossless)
    for path in built.paths:
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.52"))
    reason, words = refused(series_of(built.paths))
    assert reason == Reason.UNDECODABLE
    assert "JPEG Extended (Process 3 and 5)" in words


def test_no_pixel_data_at_all_is_refused(tmp_path: Path) -> None:
    built = ct_series(tmp_path)
    builders.change(built.paths[0], PixelData=None)
    assert refused(series_of(built.paths))[0] == Reason.UNDECODABLE


def test_a_matrix_that_no_scanner_makes_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    built = ct_series(tmp_path, attributes={"Rows": 65535, "Columns": 65535})
    assert refused(built.series)[0] == Reason.UNDECODABLE


def test_a_length_field_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    built = ct_series(tmp_path)
    whole = built.paths[3].read_bytes()
    at = whole.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    built.paths[3].write_bytes(whole[:at] + b"\xfe\xff\xff\xff" + whole[at + 4 :])
    assert refused(built.series)[0] == Reason.UNDECODABLE


def test_a_file_that_has_vanished_or_is_empty_is_refused(tmp_path: Path) -> None:
    built = ct_series(tmp_path)
    built.paths[3].write_bytes(b"")
    assert refused(built.series)[0] == Reason.UNDECODABLE
    built.paths[3].unlink()
    assert refused(built.series)[0] == Reason.UNDECODABLE
    assert volume.facts_of(built.series).refusal is not None


@settings(max_examples=150, deadline=None)
@given(cut=st.floats(0.0, 1.0), flips=st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 255)), max_size=12))
def test_garbage_is_read_or_refused_but_never_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flips: list[tuple[float, int]]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "garbage"
    built = ct_series(folder)
    whole = bytearray(built.paths[2].read_bytes()[: -32 * 40 * 2])
    header_bytes = len(whole)
    whole += built.paths[2].read_bytes()[header_bytes:]
    for where, byte in flips:
        whole[132 + int(where * (header_bytes - 133))] = byte
    built.paths[2].write_bytes(whole[: int(cut * len(whole))] if cut < 0.5 else whole)
    volume.facts_of(built.series)
    with contextlib.suppress(Refused):
        read(built.series)


# ------------------------------------------------------------------ folders


def test_a_folder_gives_its_studies_and_tells_what_it_ignored(tmp_path: Path) -> None:
    one = ct_series(tmp_path / "a" / "deep", study="first", series="x")
    ct_series(tmp_path / "b", study="first", series="y")
    ct_series(tmp_path / "c", study="second")
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "z.dcm").write_bytes(one.paths[0].read_bytes())
    contents = volume.contents_of(tmp_path)
    assert {(s.study_instance_uid, len(s.series)) for s in contents.studies} == {
        (builders.uid("first"), 2),
        (builders.uid("second"), 1),
    }
    assert sorted(ignored.path.name for ignored in contents.ignored) == ["notes.txt", "z.dcm"]
    assert volume.study_in(tmp_path) == contents.studies
    assert volume.study_in(tmp_path / "notes.txt") == ()


def test_a_digest_is_of_the_data_set_not_of_the_file_meta_information(tmp_path: Path) -> None:
    built = ct_series(tmp_path, slices=1)
    dataset = pydicom.dcmread(built.paths[0])
    dataset.file_meta.ImplementationVersionName = "ANOTHER"
    dataset.save_as(built.paths[0])
    assert volume.instance_of(built.paths[0]).digest == built.series.instances[0].digest
    builders.change(built.paths[0], KVP="100")
    assert volume.instance_of(built.paths[0]).digest != built.series.instances[0].digest


def test_facts_come_from_headers_alone(tmp_path: Path) -> None:
    built = ct_series(tmp_path, spacing_mm=11.0, attributes={"ContrastBolusAgent": "x", "ConvolutionKernel": "B70f"})
    for path in built.paths:
        builders.change(path, PixelData=b"")
    facts = volume.facts_of(series_of(built.paths))
    assert facts.refusal is None
    assert (facts.modality, facts.kernel, facts.body_part, facts.contrast) == ("CT", "B70f", "CHEST", True)
    assert (facts.slices, facts.rows, facts.columns) == (12, 32, 40)
    assert (facts.spacing_mm, facts.coverage_mm) == pytest.approx((11.0, 132.0))
    assert (facts.pixel_spacing_mm, facts.original, facts.series_number) == ((0.8, 0.7), True, 2)


def test_progress_reaches_the_last_slice(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    volume.read(ct_series(tmp_path).series, SETTINGS, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 12) for done in range(1, 13)]


# ------------------------------------------------------------------ real scanners, judged by SimpleITK

needs_real_series = pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/dicom")


@needs_real_series
@pytest.mark.parametrize("name", REAL_SERIES)
def test_a_real_series_has_the_values_and_the_place_that_simpleitk_gives_it(name: str) -> None:
    (study,) = volume.study_in(REAL / name)
    image = read(study.series[0])
    pixels, affine = by_sitk(image)
    padded = image.hounsfield == -1024
    assert (image.hounsfield == pixels)[~padded].all()
    assert (pixels[padded] <= -1024).all()
    assert np.allclose(image.affine_lps_mm, affine, atol=0.01)
    assert image.warnings == ()


@needs_real_series
def test_one_slice_in_fifteen_syntaxes_has_the_same_values() -> None:
    """Lossless exactly, lossy closely: 12-bit JPEG within the noise, 8-bit JPEG within its coarse slope of 32 HU."""
    files = sorted((REAL / "transfer-syntaxes").glob("*TransferSyntax_*.dcm"))
    assert len(files) == 15
    values = {}
    with JpegDecoders() as decoders:
        for path in files:
            (frame,) = headers.read(volume.instance_of(path)).frames
            values[path.name] = np.empty((512, 512), dtype=np.int16)
            hounsfield.decode([frame], [values[path.name]], decoders)
    truth = next(v for name, v in values.items() if name.startswith("LittleEndianExplicit")).astype(int)
    assert truth.max() - truth.min() > 2000
    for name, found in values.items():
        lossy = {"JPEG2000TransferSyntax": 3, "JPEGLSLossy": 3, "JPEGProcess1T": 24, "JPEGProcess2_4": 6,
                 "JPEGProcess6_8": 6, "JPEGProcess10_12": 6}  # fmt: skip
        allowed = next((mean for start, mean in lossy.items() if name.startswith(start)), 0)
        assert np.abs(found - truth).mean() <= allowed, name


@needs_real_series
def test_philips_big_endian_has_the_values_that_simpleitk_gives_it() -> None:
    for path in sorted((REAL / "transfer-syntaxes").glob("philips-*.dcm")):
        instance = volume.instance_of(path)
        assert instance.transfer_syntax_uid == ExplicitVRBigEndian
        (frame,) = headers.read(instance).frames
        found = np.empty((512, 512), dtype=np.int16)
        hounsfield.decode([frame], [found], JpegDecoders())
        assert (found == sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]).all()
