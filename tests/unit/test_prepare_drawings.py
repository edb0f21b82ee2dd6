"""What readers drew lies on the voxels they drew it on, whatever drew it and however the series lies."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from annotations import segments, structures
from annotations.regions import Names, plain
from annotations.unusable import Unusable
from highdicom.seg import SegmentationTypeValues
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr.coding import Code
from training import drawings, sources

from tests import builders, readers
from tests.unit import results_cases
from triage_node import volume
from triage_node.config import AnalysisSection

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from triage_node.study import Volume

EVERY = [*results_cases.SINGLE_FRAME, *results_cases.MULTI_FRAME, *results_cases.SHEARED]
SHAPE = (12, 32, 40)


def blob(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> npt.NDArray[np.bool_]:
    """[z, y, x] a mask without symmetry, with holes, empty in the first and last slice."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=np.bool_)
    mask[1:-1, 3:25, 6:33] = rng.random((shape[0] - 2, 22, 27)) < 0.6
    mask[1:-1, 3:10, 6:12] = True
    return mask


def read(folder: Path, name: str = "head first supine", **keywords: object) -> Volume:
    """A series built as the results' cases are, read by the node."""
    if keywords:
        built = builders.ct_series(folder, **keywords)  # type: ignore[arg-type]
    elif name in results_cases.MULTI_FRAME:
        built = builders.enhanced_ct(folder, **results_cases.MULTI_FRAME[name])
    else:
        built = builders.ct_series(folder, **{**results_cases.SINGLE_FRAME, **results_cases.SHEARED}[name])
    return volume.read(built.series, AnalysisSection())


# ---------------------------------------------------------------------- polygons


def crossings(row: float, column: float, corners: list[tuple[float, float]]) -> bool:
    """Whether a point lies inside, edge by edge."""
    inside = False
    for (row0, column0), (row1, column1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (row0 <= row) != (row1 <= row):
            (upper, left), (lower, right) = sorted([(row0, column0), (row1, column1)])
            inside ^= left + (row - upper) / (lower - upper) * (right - left) <= column
    return inside


def filled(corners: list[tuple[float, float]], shape: tuple[int, int] = (12, 15)) -> npt.NDArray[np.bool_]:
    rows, columns = np.array(corners, dtype=float).T
    return structures.filled(rows, columns, shape)


places = st.tuples(st.integers(-8, 56), st.integers(-8, 68)).map(lambda at: (at[0] / 4, at[1] / 4))


@given(corners=st.lists(places, min_size=3, max_size=9))
def test_a_polygon_covers_the_pixels_whose_centres_lie_inside(corners: list[tuple[float, float]]) -> None:
    wanted = [[crossings(row, column, corners) for column in range(15)] for row in range(12)]
    assert filled(corners).tolist() == wanted


@given(middle=places)
def test_polygons_that_share_edges_share_no_pixel_and_leave_none_out(middle: tuple[float, float]) -> None:
    frame = [(-10.0, -10.0), (-10.0, 30.0), (30.0, 30.0), (30.0, -10.0)]
    parts = [filled([*edge, middle]) for edge in zip(frame, frame[1:] + frame[:1], strict=True)]
    assert (np.sum(parts, axis=0) == 1).all()


def test_a_circle_has_its_area() -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    mask = structures.filled(50 + 40 * np.sin(angle), 60 + 40 * np.cos(angle), (100, 120))
    assert mask.sum() == pytest.approx(np.pi * 1600, rel=0.005)
    assert np.argwhere(mask).mean(axis=0) == pytest.approx((50, 60), abs=0.05)


# ---------------------------------------------------------------------- structure sets


@pytest.mark.parametrize("name", EVERY)
def test_contours_come_back_as_they_were_drawn(name: str, tmp_path: Path) -> None:
    on = read(tmp_path, name)
    mask = blob(1, on.hounsfield.shape)
    drawn = readers.structure_set(on, {"Heart": [], "Lung_L": readers.outlines(mask)})
    assert structures.rois(drawn) == {5: "Lung_L"}  # a region without contours was not drawn
    assert np.array_equal(structures.mask_of(drawn, 5, on), mask)


def test_a_contour_inside_another_cuts_a_hole_and_so_does_a_keyhole(tmp_path: Path) -> None:
    on = read(tmp_path)
    outer = [(2.5, 2.5), (2.5, 20.5), (20.5, 20.5), (20.5, 2.5)]
    inner = [(6.5, 6.5), (6.5, 12.5), (12.5, 12.5), (12.5, 6.5)]
    keyhole = [*outer, outer[0], *inner, inner[0]]
    wanted = np.zeros(SHAPE[1:], dtype=np.bool_)
    wanted[3:21, 3:21] = True
    wanted[7:13, 7:13] = False
    drawn = readers.structure_set(on, {"a": [(4, outer), (4, inner)], "b": [(5, keyhole)]})
    assert np.array_equal(structures.mask_of(drawn, 4, on)[4], wanted)
    assert np.array_equal(structures.mask_of(drawn, 5, on)[5], wanted)


def test_contours_of_another_series_are_refused(tmp_path: Path) -> None:
    on = read(tmp_path)
    square = [(2.5, 2.5), (2.5, 20.5), (20.5, 20.5), (20.5, 2.5)]
    drawn = readers.structure_set(on, {"a": [(0, square)], "b": [(11, square)], "c": [(3, square)]})
    for item, shift in zip(drawn.ROIContourSequence, (-6.5, 20.0, 5.0), strict=True):
        contour = item.ContourSequence[0]
        moved = np.array(contour.ContourData, dtype=float).reshape(-1, 3) + np.array([0, 0, shift])
        contour.ContourData = [f"{value:.6g}" for value in moved.ravel()]
    for number, off in ((4, "6.5"), (5, "20.0")):
        with pytest.raises(Unusable, match=f"a contour lies {off} mm off the nearest slice"):
            structures.mask_of(drawn, number, on)
    assert structures.mask_of(drawn, 6, on)[3].sum() == 18 * 18  # 5 of 12 mm: still this slice
    tipped = drawn.ROIContourSequence[2].ContourSequence[0]
    tipped.ContourData = [f"{v + 10 * (i == 2):.6g}" for i, v in enumerate(float(v) for v in tipped.ContourData)]
    with pytest.raises(Unusable, match="not parallel"):
        structures.mask_of(drawn, 6, on)


# ---------------------------------------------------------------------- segmentations


@pytest.mark.parametrize("name", [*results_cases.SINGLE_FRAME, *results_cases.SHEARED])
def test_segments_come_back_as_they_were_drawn(name: str, tmp_path: Path) -> None:
    on = read(tmp_path, name)
    masks = {"one": blob(1, on.hounsfield.shape), "two": blob(2, on.hounsfield.shape)}
    written = readers.segmentation(on, masks)
    assert [(s.number, s.names, s.automatic) for s in segments.segments(written)] == [
        (1, ("one",), False), (2, ("two",), False),
    ]  # fmt: skip
    assert np.array_equal(segments.mask_of(written, {1}, on), masks["one"])
    assert np.array_equal(segments.mask_of(written, {2}, on), masks["two"])
    assert np.array_equal(segments.mask_of(written, {1, 2}, on), masks["one"] | masks["two"])


def test_a_label_map_and_a_fractional_segmentation_come_back(tmp_path: Path) -> None:
    on = read(tmp_path)
    one, two = blob(1), blob(2) & ~blob(1)
    labels = readers.segmentation(on, {"one": one, "two": two}, kind=SegmentationTypeValues.LABELMAP)
    assert np.array_equal(segments.mask_of(labels, {2}, on), two)
    shares = np.where(one, 0.5, 0.0) + np.where(two, 0.49, 0.0)
    halves = readers.segmentation(on, {"one": shares}, kind=SegmentationTypeValues.FRACTIONAL)
    limit = round(0.49 * halves.MaximumFractionalValue) >= halves.MaximumFractionalValue / 2
    assert np.array_equal(segments.mask_of(halves, {1}, on), one | (two & limit))


def turned_over(written: pydicom.FileDataset, axis: int) -> pydicom.FileDataset:
    """The same masks with the frames' rows (0) or columns (1) stored the other way round."""
    frames = np.flip(written.pixel_array, axis=axis + 1)
    groups = written.SharedFunctionalGroupsSequence[0]
    plane = groups.PlaneOrientationSequence[0]
    directions = np.array([float(v) for v in plane.ImageOrientationPatient]).reshape(2, 3)[::-1]  # down, across
    mm = float(groups.PixelMeasuresSequence[0].PixelSpacing[axis])
    for frame in written.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        corner = np.array([float(v) for v in position.ImagePositionPatient])
        moved = corner + directions[axis] * mm * (frames.shape[axis + 1] - 1)
        position.ImagePositionPatient = [f"{v:.6f}" for v in moved]
    directions[axis] *= -1
    plane.ImageOrientationPatient = [f"{v:.6f}" for v in directions[::-1].ravel()]
    written.PixelData = pydicom.pixels.pack_bits(frames.ravel())
    return written


@pytest.mark.parametrize("axis", [0, 1])
def test_frames_that_run_against_the_slices_land_where_they_belong(axis: int, tmp_path: Path) -> None:
    on = read(tmp_path)
    written = turned_over(readers.segmentation(on, {"one": blob()}), axis)
    assert np.array_equal(segments.mask_of(written, {1}, on), blob())


def cropped(written: pydicom.FileDataset, box: tuple[slice, slice]) -> pydicom.FileDataset:
    """The same masks on smaller frames."""
    frames = np.ascontiguousarray(written.pixel_array[:, box[0], box[1]])
    groups = written.SharedFunctionalGroupsSequence[0]
    across, down = np.array([float(v) for v in groups.PlaneOrientationSequence[0].ImageOrientationPatient]).reshape(
        2, 3
    )
    row_mm, column_mm = (float(mm) for mm in groups.PixelMeasuresSequence[0].PixelSpacing)
    for frame in written.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        corner = np.array([float(v) for v in position.ImagePositionPatient])
        moved = corner + down * row_mm * box[0].start + across * column_mm * box[1].start
        position.ImagePositionPatient = [f"{v:.6f}" for v in moved]
    written.Rows, written.Columns = frames.shape[1:]
    written.PixelData = pydicom.pixels.pack_bits(frames.ravel())
    return written


def test_frames_smaller_than_the_slices_land_where_they_belong(tmp_path: Path) -> None:
    on = read(tmp_path)
    written = cropped(readers.segmentation(on, {"one": blob()}), (slice(2, 26), slice(5, 37)))
    assert np.array_equal(segments.mask_of(written, {1}, on), blob())


def test_frames_beside_the_pixels_of_the_series_are_refused(tmp_path: Path) -> None:
    on = read(tmp_path)
    written = readers.segmentation(on, {"one": blob()})
    other = deepcopy(written)
    for frame in other.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 0.35  # half a pixel
    with pytest.raises(Unusable, match="does not lie on the pixels"):
        segments.mask_of(other, {1}, on)
    coarse = deepcopy(written)
    coarse.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = ["0.8", "0.75"]
    with pytest.raises(Unusable, match="does not lie on the pixels"):
        segments.mask_of(coarse, {1}, on)
    beyond = deepcopy(written)
    for frame in beyond.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[1] += 8.0  # ten rows
    with pytest.raises(Unusable, match="reaches beyond the images"):
        segments.mask_of(beyond, {1}, on)
    elsewhere = deepcopy(written)
    elsewhere.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[2] -= 400.0
    with pytest.raises(Unusable, match="off the nearest slice"):
        segments.mask_of(elsewhere, {1}, on)


# ---------------------------------------------------------------------- what a region is


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Lung_L", "left"),
        ("Lung-Left", "left"),
        ("LUNG  LT", "left"),
        ("Right Lung", "right"),
        ("Lungs-Total", "lungs"),
        ("COVID-19 lesion", "lesions"),
        ("GGO", "ground_glass"),
        ("Ground-glass opacity", "ground_glass"),
        ("Consolidation", "consolidation"),
        ("GTV-1", None),
        ("Lung tumour", None),
        ("SpinalCord", None),
    ],
)
def test_names_are_known_in_every_spelling(name: str, kind: str | None) -> None:
    assert Names().kind_of(name) == kind


def test_every_known_name_is_written_as_names_are_compared() -> None:
    names = Names()
    every = [names.right, names.left, names.lungs, names.lesions, names.ground_glass, names.consolidation]
    assert all(plain(name) == name for kind in every for name in kind)
    assert sum(len(kind) for kind in every) == len(frozenset().union(*every))


def test_lungs_are_known_by_their_code_whatever_they_are_called(tmp_path: Path) -> None:
    on = read(tmp_path)
    one, two = blob(1), blob(2)
    types = {
        "Poumon D": Code("3341006", "SCT", "Right lung structure"),
        "Poumon G": Code("44029006", "SCT", "Left lung structure"),
    }
    drawn = drawings.drawn(on, [readers.segmentation(on, {"Poumon D": one, "Poumon G": two}, types=types)])
    assert drawn.lungs is not None
    assert np.array_equal(drawn.lungs, one | two)
    assert drawn.ignored == ()
    whole = {"Lunge": Code("39607008", "SCT", "Lung")}
    drawn = drawings.drawn(on, [readers.segmentation(on, {"Lunge": one}, types=whole)])
    assert drawn.lungs is not None
    assert np.array_equal(drawn.lungs, one)


def test_lesions_of_both_classes_are_told_apart_and_others_are_left_out(tmp_path: Path) -> None:
    on = read(tmp_path)
    glass, dense = blob(1), blob(2)
    drawn = drawings.drawn(on, [readers.segmentation(on, {"GGO": glass, "Consolidation": dense, "Nodule": blob(3)})])
    assert drawn.lesions is not None
    assert np.array_equal(drawn.lesions, np.where(dense, 2, np.where(glass, 1, 0)))
    assert (drawn.classes, drawn.lungs, drawn.ignored) == (True, None, ("Nodule",))
    whole = drawings.drawn(on, [readers.segmentation(on, {"Lesion": glass})])
    assert whole.classes is False
    named = Names(lesions=frozenset({"herd"}))
    assert drawings.drawn(on, [readers.segmentation(on, {"Herd": glass})], named).lesions is not None


def test_what_a_program_drew_is_no_truth_unless_asked_for(tmp_path: Path) -> None:
    on = read(tmp_path)
    written = readers.segmentation(on, {"Lesion": blob()}, automatic=True)
    assert drawings.drawn(on, [written]).lesions is None
    assert drawings.drawn(on, [written]).ignored == ("Lesion (drawn by a program)",)
    asked = drawings.drawn(on, [written], also_automatic=True)
    assert asked.lesions is not None
    assert np.array_equal(asked.lesions > 0, blob())


def test_the_node_never_learns_from_its_own_segmentations(tmp_path: Path) -> None:
    case = results_cases.build(tmp_path)
    drawn = drawings.drawn(case.volume, list(case.segmented().values()))
    assert (drawn.lungs, drawn.lesions) == (None, None)
    assert len(drawn.ignored) == 3
    assert all("drawn by a program" in name for name in drawn.ignored)


def test_contours_count_before_segments_and_both_sides_before_the_whole(tmp_path: Path) -> None:
    on = read(tmp_path)
    right, left, whole, other = (blob(seed) for seed in range(4))
    contours = {"Lung_R": right, "Lung_L": left, "Lungs-Total": whole}
    rtstruct = readers.structure_set(on, {name: readers.outlines(mask) for name, mask in contours.items()})
    drawn = drawings.drawn(on, [readers.segmentation(on, {"Lungs": other, "Lesion": other}), rtstruct])
    assert drawn.lungs is not None
    assert np.array_equal(drawn.lungs, right | left)
    assert drawn.lesions is not None
    assert np.array_equal(drawn.lesions > 0, other)


def test_a_single_lung_is_refused(tmp_path: Path) -> None:
    on = read(tmp_path)
    with pytest.raises(Unusable, match="only the left lung was drawn"):
        drawings.drawn(on, [readers.segmentation(on, {"Left lung": blob()})])


def test_an_object_that_lacks_what_it_must_have_is_said(tmp_path: Path) -> None:
    on = read(tmp_path)
    written = readers.segmentation(on, {"Lesion": blob(), "Lungs": blob(1)})
    del written.PerFrameFunctionalGroupsSequence[3].SegmentIdentificationSequence[0].ReferencedSegmentNumber
    with pytest.raises(Unusable, match=r"Segmentation Storage 2\.25\.\d+ cannot be read: .*ReferencedSegmentNumber"):
        drawings.drawn(on, [written])
    short = readers.segmentation(on, {"Lesion": blob()})
    short.PixelData = short.PixelData[:10]
    with pytest.raises(Unusable, match="cannot be read"):
        drawings.drawn(on, [short])
    contours = readers.structure_set(on, {"Lesion": readers.outlines(blob())})
    del contours.StructureSetROISequence[0].ROIName
    with pytest.raises(Unusable, match=r"RT Structure Set Storage .* cannot be read"):
        drawings.drawn(on, [contours])


# ---------------------------------------------------------------------- folders


def test_the_series_that_was_drawn_on_is_read_though_another_is_larger(tmp_path: Path) -> None:
    builders.ct_series(tmp_path / "thin", slices=30, spacing_mm=5.0, series="thin")
    on = read(tmp_path / "thick", slices=12, series="thick")
    readers.save(readers.segmentation(on, {"Lesion": blob()}), tmp_path / "seg.dcm")
    found, objects = drawings.read(tmp_path)
    assert found.hounsfield.shape == SHAPE
    assert len(objects) == 1
    (tmp_path / "seg.dcm").unlink()
    found, objects = drawings.read(tmp_path)
    assert found.hounsfield.shape == (30, 32, 40)
    assert objects == []


def test_drawings_on_another_series_are_left_alone(tmp_path: Path) -> None:
    on = read(tmp_path / "ct")
    drawn = readers.structure_set(on, {"Lung_L": readers.outlines(blob())}, series=builders.uid("another"))
    readers.save(drawn, tmp_path / "rt.dcm")
    assert drawings.read(tmp_path)[1] == []
    del drawn.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    drawn.FrameOfReferenceUID = pydicom.dcmread(on.instances[0].path).FrameOfReferenceUID
    readers.save(drawn, tmp_path / "rt.dcm")
    assert len(drawings.read(tmp_path)[1]) == 1


def test_a_folder_without_a_ct_series_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(Unusable, match="expected a CT series below"):
        drawings.read(tmp_path)


@pytest.mark.parametrize("name", ["head first supine", "feet first supine", "head first prone", "decreasing positions"])
def test_arrays_come_in_patient_order(name: str, tmp_path: Path) -> None:
    on = read(tmp_path, name)
    drawn = drawings.Drawn(lungs=blob(), lesions=blob(2).astype(np.uint8))
    arrays = drawings.arrays_of(on, drawn)
    assert arrays["hounsfield"] is not None
    assert arrays["lungs"] is not None
    z, y, x = np.argwhere(blob()).mean(axis=0)
    place = (on.affine_lps_mm @ [x, y, z, 1.0])[:3]  # L, P, S
    corners = [on.affine_lps_mm @ [x, y, z, 1.0] for z in (0, 11) for y in (0, 31) for x in (0, 39)]
    least = np.min(corners, axis=0)[:3]
    spacing = [0.7 * 40 / arrays["hounsfield"].shape[2], 0.8 * 32 / arrays["hounsfield"].shape[1], 12.0]
    middle = np.argwhere(arrays["lungs"]).mean(axis=0)[::-1]
    assert middle * spacing == pytest.approx(place - least, abs=1.5)
    turn = sources.patient_order(on)
    assert arrays["hounsfield"].mean() == pytest.approx(on.hounsfield[turn].mean(), abs=10)
