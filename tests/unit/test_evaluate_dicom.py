"""DICOM with Segmentation objects, written by the node or by others, comes back as it was drawn."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from annotations import regions, segments
from evaluation import finding
from evaluation.cases import Case, Drawn
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests import builders, readers
from tests.unit import results_cases
from triage_node import volume
from triage_node.config import AnalysisSection
from triage_node.study import Volume

SETTINGS = AnalysisSection(method="threshold")


def the_case(data: Path) -> Case:
    (case,) = finding.find(data, SETTINGS).cases
    return case


def written(folder: Path, name: str = "head first supine") -> results_cases.Case:
    """A series with the node's two segmentations beside it."""
    case = results_cases.build(folder / "study-covid" / "ct", name)
    for kind, dataset in case.segmented().items():
        place = folder / "study-covid" / "seg"
        place.mkdir(exist_ok=True)
        dataset.save_as(place / f"{kind}.dcm", enforce_file_format=True)
    return case


@pytest.mark.parametrize("name", [*results_cases.SINGLE_FRAME, *results_cases.MULTI_FRAME, "gantry tilt"])
def test_what_the_node_segmented_comes_back(tmp_path: Path, name: str) -> None:
    case = written(tmp_path, name)
    read = the_case(tmp_path)
    assert read.group == "covid"
    drawn = read.read()
    assert drawn.sided
    assert np.array_equal(drawn.lungs, case.findings.lungs)
    assert np.array_equal(drawn.lesions, case.findings.lesions)
    assert drawn.consolidation is None
    assert np.array_equal(drawn.volume.hounsfield, case.volume.hounsfield)
    assert any("drawn by a program" in words for words in drawn.remarks)


def test_frames_that_another_program_turned_over_land_where_they_belong(tmp_path: Path) -> None:
    case = written(tmp_path)
    path = tmp_path / "study-covid" / "seg" / "lesions.dcm"
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array[:, ::-1, :]  # the last row first
    groups = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array([float(v) for v in groups.PlaneOrientationSequence[0].ImageOrientationPatient])
    row_mm = float(groups.PixelMeasuresSequence[0].PixelSpacing[0])
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        corner = np.array([float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient])
        moved = corner + orientation[3:] * row_mm * (dataset.Rows - 1)
        frame.PlanePositionSequence[0].ImagePositionPatient = [f"{v:.6f}" for v in moved]
    turned = [*orientation[:3], *-orientation[3:]]
    groups.PlaneOrientationSequence[0].ImageOrientationPatient = [f"{v:.6f}" for v in turned]
    dataset.PixelData = pydicom.pixels.pack_bits(frames.ravel())
    dataset.save_as(path)
    assert np.array_equal(the_case(tmp_path).read().lesions, case.findings.lesions)


def test_a_label_map_with_classes_of_lesions_is_read(tmp_path: Path) -> None:
    case = results_cases.build(tmp_path / "ct")
    labels = np.zeros(case.volume.hounsfield.shape, dtype=np.uint8)
    labels[3, 10:20, 5:9] = 1
    labels[4, 10:20, 5:9] = 2
    dataset = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(instance.path) for instance in case.volume.instances],
        pixel_array=labels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.LABELMAP,
        segment_descriptions=[_segment(1, "Ground-glass opacity"), _segment(2, "Consolidation")],
        series_instance_uid="2.25.77",
        series_number=77,
        sop_instance_uid="2.25.78",
        instance_number=1,
        manufacturer="reader",
        manufacturer_model_name="reader",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    dataset.save_as(tmp_path / "labelmap.dcm")
    drawn = the_case(tmp_path).read()
    assert drawn.lungs is None
    assert drawn.lesions is not None
    assert np.array_equal(drawn.lesions, labels > 0)
    assert np.array_equal(drawn.consolidation, labels == 2)
    assert not any("program" in words for words in drawn.remarks)


def _segment(number: int, label: str) -> highdicom.seg.SegmentDescription:
    opacity = highdicom.sr.CodedConcept("42", "99TEST", "a finding")
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=highdicom.sr.CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
        segmented_property_type=opacity,
        algorithm_type="MANUAL",
    )


@pytest.mark.parametrize(
    ("code", "modifier", "label", "kind"),
    [
        ("39607008", "24028007", "", "right"),
        ("T-28000", "G-A101", "", "left"),
        ("44029006", None, "", "left"),
        ("39607008", None, "Lungs", "lungs"),
        ("39607008", None, "Lung_Left", "left"),
        ("47351003", None, "Something", "lesions"),
        ("0", None, "COVID-19 infection", "lesions"),
        ("0", None, "Ground glass", "ground_glass"),
        ("0", None, "consolidations", "consolidation"),
        ("80891009", None, "Heart", None),
        ("0", None, "Neoplasm, Primary", None),
    ],
)
def test_a_segment_is_what_its_code_or_its_label_says(
    code: str, modifier: str | None, label: str, kind: str | None
) -> None:
    drawing, segment, concept = Dataset(), Dataset(), Dataset()
    concept.CodeValue = code
    if modifier:
        concept.SegmentedPropertyTypeModifierCodeSequence = [deepcopy(concept)]
        concept.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue = modifier
    segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence = label, [concept]
    segment.SegmentNumber, drawing.SegmentSequence = 1, [segment]
    (said,) = segments.segments(drawing)
    assert regions.kind_of(said, regions.ANY_NAMES) == kind


def drawn_on(folder: Path, patient: str) -> tuple[Volume, np.ndarray]:
    """A patient of NSCLC-Radiomics as TCIA delivers it, and where the lungs are: 1 right, 2 left."""
    built = builders.ct_series(folder / patient / "06-15-2008" / "1.000000-ct", study=f"1.2.{patient[-1]}")
    on = volume.read(built.series, SETTINGS)
    lungs = np.zeros(on.hounsfield.shape, dtype=np.uint8)
    lungs[2:9, 5:25, 4:14], lungs[2:9, 5:25, 24:36] = 1, 2
    return on, lungs


def test_contours_of_a_structure_set_are_scored_and_count_before_segments(tmp_path: Path) -> None:
    data = tmp_path / "NSCLC-Radiomics"
    on, lungs = drawn_on(data, "LUNG1-001")
    contours = {
        "Lung-Left": readers.outlines(lungs == 2),
        "Lung-Right": readers.outlines(lungs == 1),
        "GTV-1": readers.outlines(lungs == 1),
    }
    beside = data / "LUNG1-001" / "06-15-2008"
    readers.save(readers.structure_set(on, contours), beside / "0.000000-NA" / "1-1.dcm")
    other = {"Lung-Left": np.roll(lungs == 2, 3, axis=1), "Lung-Right": lungs == 1, "Neoplasm, Primary": lungs == 1}
    readers.save(readers.segmentation(on, other, automatic=True), beside / "300.000000-Segmentation" / "1-1.dcm")
    case = the_case(data)
    assert case.group == "other"
    drawn = case.read()
    assert drawn.sided
    assert np.array_equal(drawn.lungs, lungs)
    assert drawn.lesions is None
    assert "region 'GTV-1' is neither lungs nor lesions" in drawn.remarks


def test_a_patient_with_segments_alone_and_one_with_nothing_drawn_are_read_too(tmp_path: Path) -> None:
    on, lungs = drawn_on(tmp_path, "LUNG1-002")
    drawn_on(tmp_path, "LUNG1-003")
    sides = {"Lung-Left": lungs == 2, "Lung-Right": lungs == 1}
    readers.save(readers.segmentation(on, sides), tmp_path / "LUNG1-002" / "06-15-2008" / "seg" / "1-1.dcm")
    with_masks, without = (case.read() for case in finding.find(tmp_path, SETTINGS).cases)
    assert np.array_equal(with_masks.lungs, lungs)
    assert without.lungs is None


def test_a_single_lung_is_not_compared_as_if_the_other_were_not_there(tmp_path: Path) -> None:
    on, lungs = drawn_on(tmp_path, "LUNG1-004")
    readers.save(readers.structure_set(on, {"Lung_L": readers.outlines(lungs == 2)}), tmp_path / "rt.dcm")
    drawn = the_case(tmp_path).read()
    assert drawn.lungs is None
    assert "only the left lung was drawn: the lungs were not compared" in drawn.remarks


def test_segments_on_a_grid_of_their_own_are_taken_by_the_nearest_pixel(tmp_path: Path) -> None:
    on, lungs = drawn_on(tmp_path, "LUNG1-005")
    dataset = readers.segmentation(on, {"Lungs": lungs > 0})
    twice = dataset.pixel_array.repeat(2, axis=1).repeat(2, axis=2)
    groups = dataset.SharedFunctionalGroupsSequence[0]
    directions = np.array([float(v) for v in groups.PlaneOrientationSequence[0].ImageOrientationPatient]).reshape(2, 3)
    row_mm, column_mm = (float(mm) for mm in groups.PixelMeasuresSequence[0].PixelSpacing)
    groups.PixelMeasuresSequence[0].PixelSpacing = [f"{row_mm / 2}", f"{column_mm / 2}"]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0]
        corner = np.array([float(v) for v in position.ImagePositionPatient])
        moved = corner - directions[0] * column_mm / 4 - directions[1] * row_mm / 4
        position.ImagePositionPatient = [f"{v:.6f}" for v in moved]
    dataset.Rows, dataset.Columns = twice.shape[1:]
    dataset.PixelData = pydicom.pixels.pack_bits(twice.ravel())
    readers.save(dataset, tmp_path / "seg.dcm")
    assert np.array_equal(the_case(tmp_path).read().lungs, lungs > 0)


def test_a_drawing_without_its_series_is_said(tmp_path: Path) -> None:
    on, lungs = drawn_on(tmp_path / "elsewhere", "LUNG1-006")
    readers.save(readers.segmentation(on, {"Lungs": lungs > 0}), tmp_path / "data" / "seg.dcm")
    readers.save(readers.structure_set(on, {"Lung_L": readers.outlines(lungs)}), tmp_path / "data" / "rt.dcm")
    found = finding.find(tmp_path / "data", SETTINGS)
    assert found.cases == ()
    assert {Path(entry.path).name: entry.why for entry in found.left_out} == dict.fromkeys(
        ("rt.dcm", "seg.dcm"), "drawn on a series that is not in the folder"
    )


def test_masks_in_npz_beside_the_folder_are_taken_from_feet_to_head(tmp_path: Path) -> None:
    # the normal of these slices points to the feet: the volume runs downwards
    downwards = {"orientation": (1, 0, 0, 0, -1, 0), "step_mm": (0, 0, -12.0)}
    built = builders.ct_series(tmp_path / "p1", **downwards)
    slices, rows, columns = built.hounsfield.shape
    lung = np.zeros((slices, rows, columns), dtype=np.uint8)
    lung[0, 2:5, 3:9] = 1  # at the feet
    np.savez(tmp_path / "p1-lungs.npz", lung=lung)
    case = the_case(tmp_path)
    assert case.name == "p1"
    drawn = case.read()
    assert drawn.lungs is not None
    lowest = int(drawn.volume.slice_positions_mm[:, 2].argmin())
    assert drawn.lungs.any(axis=(1, 2)).nonzero()[0].tolist() == [lowest]
    np.savez(tmp_path / "p1-lungs.npz", lung=lung[1:])
    other: Drawn = the_case(tmp_path).read()
    assert other.lungs is None
    assert any("p1-lungs.npz is (11," in words for words in other.remarks)


def test_masks_may_lie_beside_an_outer_folder_and_those_of_no_series_are_left_out(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path / "p1" / "study" / "series")
    np.savez(tmp_path / "p1-lungs.npz", lung=np.ones(built.hounsfield.shape, np.uint8))
    np.savez(tmp_path / "p2-lungs.npz", lung=np.ones(built.hounsfield.shape, np.uint8))
    drawn = the_case(tmp_path).read()
    assert drawn.lungs is not None
    assert drawn.lungs.all()
    (left_out,) = finding.find(tmp_path, SETTINGS).left_out
    assert Path(left_out.path).name == "p2-lungs.npz"


def test_studies_in_one_folder_get_numbers(tmp_path: Path) -> None:
    for number in (1, 2):
        built = builders.ct_series(tmp_path / str(number), study=f"1.2.{number}")
        for path in built.paths:
            path.rename(tmp_path / f"{number}-{path.name}")
    names = [case.name for case in finding.find(tmp_path, SETTINGS).cases]
    assert names == [f"{tmp_path.name}#1", f"{tmp_path.name}#2"]
