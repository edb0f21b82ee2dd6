"""Segmentations lie on the voxels of their source, also for readers that are not ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
import SimpleITK

from tests import builders
from tests.unit import results_cases
from tests.unit.results_cases import MULTI_FRAME, SHEARED, SINGLE_FRAME, build, by_class, judge, run
from triage_node.study import LEFT_LUNG, RIGHT_LUNG

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.results_cases import Case

EVERY = [*SINGLE_FRAME, *MULTI_FRAME, *SHEARED]


def _points(case: Case, mask: np.ndarray) -> set[tuple[float, ...]]:
    """Places of a mask's voxels, from what the builder wrote rather than from what the node read."""
    z, y, x = np.nonzero(mask)
    header = pydicom.dcmread(case.built.paths[0], stop_before_pixels=True)
    if "SharedFunctionalGroupsSequence" in header:
        shared = header.SharedFunctionalGroupsSequence[0]
        orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        rows_mm, columns_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    else:
        orientation = np.array(header.ImageOrientationPatient, float)
        rows_mm, columns_mm = map(float, header.PixelSpacing)
    # The slices of the volume, found again in what was built by their pixels
    order = [
        next(i for i, truth in enumerate(case.built.hounsfield) if (truth == plane).all())
        for plane in case.volume.hounsfield
    ]
    start = case.built.positions_mm[np.array(order)[z]]
    places = start + x[:, None] * columns_mm * orientation[:3] + y[:, None] * rows_mm * orientation[3:]
    return {tuple(place) for place in np.round(places, 2) + 0.0}


def _places(image: SimpleITK.Image) -> set[tuple[float, ...]]:
    found = np.argwhere(SimpleITK.GetArrayViewFromImage(image))[:, ::-1]
    places = np.array([image.TransformIndexToPhysicalPoint(index.tolist()) for index in found])
    return {tuple(place) for place in np.round(places, 2) + 0.0}


def _files(case: Case, folder: Path) -> dict[str, Path]:
    paths = {}
    for kind, dataset in case.segmented().items():
        paths[kind] = folder / f"{kind}.dcm"
        dataset.save_as(paths[kind], enforce_file_format=True)
    return paths


def _read_by_dcmqi(path: Path, folder: Path) -> dict[str, SimpleITK.Image]:
    """Label -> mask, as dcmqi reads the object."""
    folder.mkdir()
    options = ("-t", "nrrd", "-p", "s", "--outputDirectory", str(folder))
    read = run("segimage2itkimage", *options, "--inputDICOM", str(path), package="dcmqi")
    assert read.returncode == 0, read.stderr
    meta = json.loads((folder / "s-meta.json").read_text())
    labels = [group[0]["SegmentLabel"] for group in meta["segmentAttributes"]]
    return {
        label: SimpleITK.ReadImage(str(folder / f"s-{number}.nrrd")) for number, label in enumerate(labels, start=1)
    }


@pytest.mark.parametrize("name", [*SINGLE_FRAME, *MULTI_FRAME])
def test_dcmqi_finds_every_voxel_where_the_source_has_it(name: str, tmp_path: Path) -> None:
    case = build(tmp_path / "source", name)
    paths = _files(case, tmp_path)
    found = _read_by_dcmqi(paths["lungs"], tmp_path / "lungs") | _read_by_dcmqi(paths["lesions"], tmp_path / "lesions")
    assert set(found) == {"Right lung", "Left lung", "Lung lesion"}
    assert _places(found["Right lung"]) == _points(case, case.findings.lungs == RIGHT_LUNG)
    assert _places(found["Left lung"]) == _points(case, case.findings.lungs == LEFT_LUNG)
    assert _places(found["Lung lesion"]) == _points(case, case.findings.lesions)


@pytest.mark.parametrize("name", ["head first supine", "feet first supine", "head first prone", "oblique"])
def test_the_lesions_lie_on_the_dense_voxels_of_the_source_as_simpleitk_reads_it(name: str, tmp_path: Path) -> None:
    case = build(tmp_path / "source", name)
    paths = _files(case, tmp_path)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "source")))
    source = reader.Execute()
    lesions = _read_by_dcmqi(paths["lesions"], tmp_path / "lesions")["Lung lesion"]
    places = [
        lesions.TransformIndexToPhysicalPoint(i.tolist())
        for i in np.argwhere(SimpleITK.GetArrayViewFromImage(lesions))[:, ::-1]
    ]
    values = [source.GetPixel(source.TransformPhysicalPointToIndex(place)) for place in places]
    assert len(values) == int(case.findings.lesions.sum()) > 50
    assert min(values) > 450


@pytest.mark.parametrize("name", EVERY)
def test_every_frame_has_the_decimal_strings_of_its_source(name: str, tmp_path: Path) -> None:
    case = build(tmp_path / "source", name)
    lungs = case.segmented()["lungs"]
    strings = {}
    for path in case.built.paths:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        groups = header.get("PerFrameFunctionalGroupsSequence")
        frames = [header] if groups is None else [group.PlanePositionSequence[0] for group in groups]
        for number, frame in enumerate(frames, start=1):
            key = (header.SOPInstanceUID, number if groups is not None else None)
            strings[key] = [value.original_string for value in frame.ImagePositionPatient]
    for frame in lungs.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        key = (image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber"))
        position = [value.original_string for value in frame.PlanePositionSequence[0].ImagePositionPatient]
        assert position == strings[key]


@pytest.mark.parametrize("name", EVERY)
def test_frames_show_the_masks_of_the_slices_they_refer_to(name: str, tmp_path: Path) -> None:
    case = build(tmp_path / "source", name)
    lungs = case.segmented()["lungs"]
    slices = {
        (instance.sop_instance_uid, number): index
        for index, (instance, number) in enumerate(
            zip(case.volume.instances, case.volume.frame_numbers or [None] * len(case.volume.instances), strict=True)
        )
    }
    rows, columns = lungs.Rows, lungs.Columns
    bits = np.unpackbits(np.frombuffer(lungs.PixelData, np.uint8), bitorder="little")
    frames = bits[: int(lungs.NumberOfFrames) * rows * columns].reshape(-1, rows, columns)
    for pixels, frame in zip(frames, lungs.PerFrameFunctionalGroupsSequence, strict=True):
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        index = slices[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")]
        label = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(pixels, case.findings.lungs[index] == label)
    filled = sum(int((case.findings.lungs == label).any(axis=(1, 2)).sum()) for label in (RIGHT_LUNG, LEFT_LUNG))
    assert len(frames) == filled, "frames only for slices that have the segment"


def test_the_whole_source_series_is_referenced_even_where_slices_are_empty(tmp_path: Path) -> None:
    case = build(tmp_path)
    for kind in ("lungs", "lesions"):
        (series,) = case.segmented()[kind].ReferencedSeriesSequence
        assert series.SeriesInstanceUID == case.built.series.key.series_instance_uid
        referenced = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
        assert referenced == {instance.sop_instance_uid for instance in case.built.series.instances}


def test_without_a_lesion_there_is_no_lesion_object(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    case = judge(built)
    healthy = judge(built, lesions=np.zeros_like(case.findings.lesions))
    assert set(healthy.objects()) == {"lungs", "report", "overview"}


@pytest.mark.parametrize("name", ["head first supine", "feet first supine", "enhanced"])
def test_classes_of_lesion_are_two_segments_that_share_no_voxel_and_are_the_whole_lesion(
    name: str, tmp_path: Path
) -> None:
    case = by_class(tmp_path / "source", name)
    consolidation = case.findings.consolidation
    assert consolidation is not None
    found = _read_by_dcmqi(_files(case, tmp_path)["lesions"], tmp_path / "lesions")
    assert list(found) == ["Lung lesion: ground glass opacity", "Lung lesion: consolidation"]
    ground, dense = (_places(image) for image in found.values())
    assert dense == _points(case, case.findings.lesions & consolidation)
    assert ground == _points(case, case.findings.lesions & ~consolidation)
    assert ground | dense == _points(case, case.findings.lesions)
    assert not ground & dense
    assert min(len(ground), len(dense)) > 10


def test_the_segments_of_both_classes_have_their_codes_and_colours(tmp_path: Path) -> None:
    dataset = by_class(tmp_path).segmented()["lesions"]
    coded = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in dataset.SegmentSequence]
    assert [(code.CodeValue, code.CodingSchemeDesignator) for code in coded] == [("112120", "DCM"), ("95436008", "SCT")]
    assert [segment.SegmentNumber for segment in dataset.SegmentSequence] == [1, 2]
    assert len({tuple(segment.RecommendedDisplayCIELabValue) for segment in dataset.SegmentSequence}) == 2
    assert len({segment.TrackingUID for segment in dataset.SegmentSequence}) == 2
    (single,) = build(tmp_path / "b").segmented()["lesions"].SegmentSequence
    assert single.SegmentLabel == "Lung lesion"


@pytest.mark.parametrize(("everywhere", "label"), [(True, "consolidation"), (False, "ground glass opacity")])
def test_a_class_without_a_voxel_has_no_segment(everywhere: bool, label: str, tmp_path: Path) -> None:
    mask = np.full(build(tmp_path / "a").findings.lesions.shape, everywhere)
    dataset = by_class(tmp_path, consolidation=mask).segmented()["lesions"]
    (segment,) = dataset.SegmentSequence
    assert (segment.SegmentNumber, segment.SegmentLabel) == (1, f"Lung lesion: {label}")


def test_without_a_lesion_there_is_no_object_of_classes_either(tmp_path: Path) -> None:
    none = np.zeros_like(build(tmp_path / "a").findings.lesions)
    assert set(by_class(tmp_path, lesions=none).segmented()) == {"lungs"}


def test_a_lesion_in_a_single_slice_is_one_frame(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    lesions = np.zeros_like(judge(built).findings.lesions)
    lesions[6, 5, 4] = True
    dataset = judge(built, lesions=lesions).segmented()["lesions"]
    assert dataset.NumberOfFrames == 1


@pytest.mark.parametrize(("missing", "label"), [(RIGHT_LUNG, "Left lung"), (LEFT_LUNG, "Right lung")])
def test_of_one_lung_there_is_one_segment_with_number_one(missing: int, label: str, tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    lungs = judge(built).findings.lungs.copy()
    lungs[lungs == missing] = 0
    case = judge(built, lungs=lungs)
    (segment,) = case.segmented()["lungs"].SegmentSequence
    assert (segment.SegmentNumber, segment.SegmentLabel) == (1, label)
    side = "right" if missing == RIGHT_LUNG else "left"
    report = case.objects()["report"].dataset
    study = next(item for item in report.ContentSequence[-1].ContentSequence if item.ValueType == "CONTAINER")
    in_study = [words for name, words in results_cases.content(study) if name == "Warning"]
    everywhere = [words for name, words in results_cases.content(report) if name == "Warning"]
    assert in_study == [f"The {side} lung was not found."]
    assert everywhere == in_study * 2  # at the head, too


def test_segments_name_side_colour_and_algorithm(tmp_path: Path) -> None:
    segments = build(tmp_path).segmented()["lungs"].SegmentSequence
    sides = [
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning
        for segment in segments
    ]
    assert sides == ["Right", "Left"]
    assert len({tuple(segment.RecommendedDisplayCIELabValue) for segment in segments}) == 2
    for segment in segments:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("threshold", "1")


def test_spacing_between_slices_is_stated_only_where_it_is_one(tmp_path: Path) -> None:
    def measures(name: str) -> pydicom.Dataset:
        lungs = build(tmp_path / name, name).segmented()["lungs"]
        return lungs.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]

    assert measures("head first supine").SpacingBetweenSlices == 12
    assert measures("gantry tilt").SpacingBetweenSlices == pytest.approx(12 * np.cos(np.radians(15)), abs=1e-4)
    assert "SpacingBetweenSlices" not in measures("varying spacing")


def test_the_cases_are_not_symmetric(tmp_path: Path) -> None:
    """A flipped mask must not pass for the right one."""
    lungs = results_cases.build(tmp_path).findings.lungs
    for axis in range(3):
        assert (lungs != np.flip(lungs, axis)).any()
