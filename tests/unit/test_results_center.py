"""Every group of a report points at a voxel of what it measures, on the slice that shows most of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest

from tests import builders
from tests.unit.results_cases import (
    MODEL,
    MULTI_FRAME,
    SHEARED,
    SINGLE_FRAME,
    build,
    by_class,
    content,
    errors_of,
    judge,
)
from triage_node import results, volume
from triage_node.config import AnalysisSection
from triage_node.errors import Refused
from triage_node.study import PassedOver, Reason

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from pydicom.dataset import Dataset

    from tests.unit.results_cases import Case


def _groups(report: Dataset) -> dict[str, Dataset]:
    groups = report.ContentSequence[-1].ContentSequence
    return {dict(content(group))["Tracking Identifier"]: group for group in groups}


def _points(group: Dataset) -> list[Dataset]:
    return [item for item in group.ContentSequence if item.ValueType.startswith("SCOORD")]


def _voxel(case: Case, place: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """z, y, x of the voxel whose centre is at `place`, from what the builder wrote rather than what the node read."""
    header = pydicom.dcmread(case.built.paths[0], stop_before_pixels=True)
    if "SharedFunctionalGroupsSequence" in header:
        shared = header.SharedFunctionalGroupsSequence[0]
        orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        rows_mm, columns_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    else:
        orientation = np.array(header.ImageOrientationPatient, float)
        rows_mm, columns_mm = map(float, header.PixelSpacing)
    across, down = orientation[:3], orientation[3:]
    offsets = place - case.built.positions_mm
    built = int(np.abs(offsets @ np.cross(across, down)).argmin())
    x, y = offsets[built] @ across / columns_mm, offsets[built] @ down / rows_mm
    exact = case.built.positions_mm[built] + round(x) * columns_mm * across + round(y) * rows_mm * down
    assert np.abs(exact - place).max() < 1e-3, "the point lies between voxels"
    slices = [z for z, plane in enumerate(case.volume.hounsfield) if (plane == case.built.hounsfield[built]).all()]
    return slices[0], round(y), round(x)


def _is_the_center(case: Case, mask: npt.NDArray[np.bool_], place: npt.NDArray[np.float64]) -> None:
    z, y, x = _voxel(case, place)
    assert mask[z, y, x]
    counts = np.count_nonzero(mask, axis=(1, 2))
    assert counts[z] == counts.max()
    _, rows_mm, columns_mm = case.volume.spacing_zyx_mm
    found = np.argwhere(mask[z]) * (rows_mm, columns_mm)
    off = np.linalg.norm(found - found.mean(axis=0), axis=1)
    assert np.linalg.norm((y * rows_mm, x * columns_mm) - found.mean(axis=0)) == pytest.approx(off.min())


@pytest.mark.parametrize("name", [*SINGLE_FRAME, *MULTI_FRAME, *SHEARED])
def test_the_point_of_each_group_is_a_voxel_of_its_structure_whatever_the_geometry(name: str, tmp_path: Path) -> None:
    case = by_class(tmp_path, name)
    found, dense = case.findings, case.findings.consolidation
    assert dense is not None
    masks = {
        "Study": found.lesions,
        "Right lung": found.lungs == 1,
        "Left lung": found.lungs == 2,
        "Lung lesion: ground glass opacity": found.lesions & ~dense,
        "Lung lesion: consolidation": found.lesions & dense,
    }
    report = case.objects()["report"].dataset
    groups = _groups(report)
    assert set(groups) == set(masks)
    for label, group in groups.items():
        (point,) = _points(group)
        code = point.ConceptNameCodeSequence[0]
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("111010", "DCM")
        assert (point.RelationshipType, point.ValueType, point.GraphicType) == ("CONTAINS", "SCOORD3D", "POINT")
        assert point.ReferencedFrameOfReferenceUID == case.volume.frame_of_reference_uid
        _is_the_center(case, masks[label], np.array(point.GraphicData))
        words = "of the lesions" if label == "Study" else "of this structure"
        assert any(value.startswith(f"The center is a voxel {words}") for _, value in content(group))


def _pointed_at(case: Case, group: str) -> tuple[int, int, int]:
    (point,) = _points(_groups(case.objects()["report"].dataset)[group])
    return _voxel(case, np.array(point.GraphicData))


def test_the_point_of_a_structure_with_a_hollow_lies_in_it_and_not_in_the_hollow(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    plain = judge(built).findings
    lesions = np.zeros_like(plain.lesions)
    z, first = 5, np.argwhere(plain.lungs[5] == 1)[0]
    ring = lesions[z, first[0] : first[0] + 5, first[1] : first[1] + 5]
    ring[:] = True
    ring[1:4, 1:4] = False
    case = judge(built, lesions=lesions)
    found = _pointed_at(case, "Lung lesion")
    assert lesions[found]
    assert _pointed_at(case, "Study") == found


def test_the_slice_is_the_one_with_most_and_of_slices_with_as_much_the_middle_one(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    lungs = judge(built).findings.lungs
    y, x = (int(value) for value in np.argwhere(lungs[5] == 1)[0])
    lesions = np.zeros(lungs.shape, dtype=bool)
    lesions[3:8, y : y + 2, x] = True
    assert _pointed_at(judge(built, lesions=lesions), "Lung lesion")[0] == 5
    lesions[7, y, x + 1] = True
    assert _pointed_at(judge(built, lesions=lesions), "Lung lesion")[0] == 7


def test_without_a_lesion_the_study_points_into_the_lungs_and_says_so(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    lungs = judge(built).findings.lungs
    case = judge(built, lesions=np.zeros(lungs.shape, dtype=bool))
    study = _groups(case.objects()["report"].dataset)["Study"]
    (point,) = _points(study)
    _is_the_center(case, lungs > 0, np.array(point.GraphicData))
    assert any("a voxel of the lungs" in value for _, value in content(study))
    assert not any("a voxel of the lesions" in value for _, value in content(study))


def test_a_series_without_a_frame_of_reference_is_not_analysed_and_its_report_has_no_point(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path / "source", attributes={"FrameOfReferenceUID": None})
    with pytest.raises(Refused, match="Frame of Reference UID") as refused:
        volume.read(built.series, AnalysisSection())
    refusal = refused.value.not_analysed
    assert refusal.reason is Reason.MISSING_ATTRIBUTE
    uid = built.series.key.series_instance_uid
    passed_over = PassedOver(series_instance_uid=uid, description="", not_analysed=refusal)
    identity = build(tmp_path / "other").identity
    (made,) = results.not_analysed(built.series.instances, refusal, [passed_over], MODEL, identity)
    assert [point for group in _groups(made.dataset).values() for point in _points(group)] == []
    results.write(made, tmp_path / "report.dcm")
    assert errors_of(tmp_path / "report.dcm") == []


def test_points_that_no_frame_of_reference_gives_a_meaning_are_left_out(tmp_path: Path) -> None:
    """The node reads no such volume; what makes one otherwise gets a conforming report all the same."""
    case = build(tmp_path / "source")
    case = replace(case, volume=replace(case.volume, frame_of_reference_uid=""))
    made = case.objects()["report"]
    for group in _groups(made.dataset).values():
        assert _points(group) == []
        assert not any("center" in value for _, value in content(group))
    results.write(made, tmp_path / "report.dcm")
    assert errors_of(tmp_path / "report.dcm") == []
