"""Every group of a report points at a voxel of what it measures, on the slice that shows most of it."""

from __future__ import annotations

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
    judge,
)
from triage_node import results
from triage_node.study import NotAnalysed, Reason

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from pydicom.dataset import Dataset

    from tests.unit.results_cases import Case


GROUPS = 5  # of a study with both lungs and two classes of lesion


def _groups(report: Dataset) -> dict[str, Dataset]:
    groups = report.ContentSequence[-1].ContentSequence
    return {dict(content(group))["Tracking Identifier"]: group for group in groups}


def _points(group: Dataset) -> list[Dataset]:
    return [item for item in group.ContentSequence if item.ValueType.startswith("SCOORD")]


def _voxel(case: Case, point: Dataset) -> tuple[int, int, int]:
    """Slice, row and column that a point lies on, from the files themselves rather than from what the node read."""
    (selected,) = point.ContentSequence
    assert (selected.RelationshipType, selected.ValueType) == ("SELECTED FROM", "IMAGE")
    (reference,) = selected.ReferencedSOPSequence
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in case.built.paths]
    (image,) = [header for header in headers if header.SOPInstanceUID == reference.ReferencedSOPInstanceUID]
    assert image.SOPClassUID == reference.ReferencedSOPClassUID
    if "PerFrameFunctionalGroupsSequence" in image:
        frame = image.PerFrameFunctionalGroupsSequence[int(reference.ReferencedFrameNumber) - 1]
        image = frame.PlanePositionSequence[0]
    else:
        assert "ReferencedFrameNumber" not in reference
    off = np.linalg.norm(case.built.positions_mm - np.array(image.ImagePositionPatient, float), axis=1)
    assert off.min() < 1e-3
    truth = case.built.hounsfield[off.argmin()]
    (z,) = [z for z, plane in enumerate(case.volume.hounsfield) if (plane == truth).all()]
    column, row = (value - 0.5 for value in point.GraphicData)  # PS3.3 C.18.6: the first pixel begins at 0
    assert row == int(row)
    assert column == int(column)
    return z, int(row), int(column)


def _is_central(case: Case, mask: npt.NDArray[np.bool_], voxel: tuple[int, int, int]) -> None:
    """No voxel of the mask's slice is nearer to the centroid there, and few slices show more of the mask."""
    z, y, x = voxel
    assert mask[voxel]
    counts = np.count_nonzero(mask, axis=(1, 2))
    assert np.count_nonzero(counts > counts[z]) < GROUPS
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
    groups = _groups(case.objects()["report"].dataset)
    assert set(groups) == set(masks)
    slices = []
    for label, group in groups.items():
        (point,) = _points(group)
        code = point.ConceptNameCodeSequence[0]
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("111010", "DCM")
        assert (point.RelationshipType, point.ValueType, point.GraphicType) == ("CONTAINS", "SCOORD", "POINT")
        voxel = _voxel(case, point)
        _is_central(case, masks[label], voxel)
        slices.append(voxel[0])
        words = "of the lesions" if label == "Study" else "of this structure"
        assert any(value.startswith(f"The center is a voxel {words}") for _, value in content(group))
    counts = np.count_nonzero(found.lesions, axis=(1, 2))
    assert counts[slices[0]] == counts.max()
    assert len(set(slices)) == GROUPS, "viewers write the numbers of two groups over each other"


def _pointed_at(case: Case, group: str) -> tuple[int, int, int]:
    (point,) = _points(_groups(case.objects()["report"].dataset)[group])
    return _voxel(case, point)


def test_the_point_of_a_structure_with_a_hollow_lies_in_it_and_not_in_the_hollow(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    plain = judge(built).findings
    lesions = np.zeros_like(plain.lesions)
    z, first = 5, np.argwhere(plain.lungs[5] == 1)[0]
    ring = lesions[z, first[0] : first[0] + 5, first[1] : first[1] + 5]
    ring[:] = True
    ring[1:4, 1:4] = False
    case = judge(built, lesions=lesions)
    found = _pointed_at(case, "Study")
    assert lesions[found]
    assert _pointed_at(case, "Lung lesion") == found  # there is no other slice


def test_the_slice_is_the_one_with_most_and_of_slices_with_as_much_the_middle_one(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    lungs = judge(built).findings.lungs
    y, x = (int(value) for value in np.argwhere(lungs[5] == 1)[0])
    lesions = np.zeros(lungs.shape, dtype=bool)
    lesions[3:8, y : y + 2, x] = True
    assert _pointed_at(judge(built, lesions=lesions), "Study")[0] == 5
    lesions[7, y, x + 1] = True
    assert _pointed_at(judge(built, lesions=lesions), "Study")[0] == 7


def test_without_a_lesion_the_study_points_into_the_lungs_and_says_so(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    lungs = judge(built).findings.lungs
    case = judge(built, lesions=np.zeros(lungs.shape, dtype=bool))
    study = _groups(case.objects()["report"].dataset)["Study"]
    voxel = _pointed_at(case, "Study")
    _is_central(case, lungs > 0, voxel)
    counts = np.count_nonzero(lungs, axis=(1, 2))
    assert counts[voxel[0]] == counts.max()
    assert any("a voxel of the lungs" in value for _, value in content(study))
    assert not any("a voxel of the lesions" in value for _, value in content(study))


def test_the_report_of_a_study_that_was_not_analysed_points_nowhere(tmp_path: Path) -> None:
    case = build(tmp_path)
    refusal = NotAnalysed(reason=Reason.NO_LUNGS, words="no lungs were found")
    (made,) = results.not_analysed(case.built.series.instances, refusal, (), MODEL, case.identity)
    assert [point for group in _groups(made.dataset).values() for point in _points(group)] == []
    results.encode(made)
