"""Label maps say what the BINARY objects say, in one frame for each slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from pydicom.encaps import encapsulate, generate_frames

from tests.unit import results_cases
from tests.unit.results_cases import MULTI_FRAME, SHEARED, SINGLE_FRAME, build, by_class, run
from triage_node import results
from triage_node.errors import InvalidResult
from triage_node.identity import LABEL_MAPS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.results_cases import Case


def _made(case: Case) -> dict[str, results.ResultObject]:
    made = results.judged(case.volume, case.findings, case.assessment, case.identity, label_maps=True)
    return {one.kind: one for one in made}


def _voxels(dataset: pydicom.Dataset) -> dict[tuple[str, int | None], np.ndarray]:
    """Source image and frame -> [y, x] segment numbers, as another library decodes them."""
    pixels = dataset.pixel_array
    found: dict[tuple[str, int | None], np.ndarray] = {}
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        key = (image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber"))
        number = 1
        if "SegmentIdentificationSequence" in group:
            number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[key] = np.maximum(found.get(key, 0), frame * number)
    return found


@pytest.mark.parametrize("name", [*SINGLE_FRAME, *MULTI_FRAME, *SHEARED])
def test_a_label_map_holds_what_the_binary_object_holds(name: str, tmp_path: Path) -> None:
    made = _made(build(tmp_path / "source", name))
    for label_map, binary in LABEL_MAPS.items():
        paths = {kind: tmp_path / f"{kind}.dcm" for kind in (label_map, binary)}
        for kind, path in paths.items():
            results.write(made[kind], path)
        one, other = (_voxels(pydicom.dcmread(path)) for path in paths.values())
        assert one.keys() == other.keys()
        for key, frame in one.items():
            np.testing.assert_array_equal(frame, other[key])


def test_classes_of_lesions_are_labels_of_one_map(tmp_path: Path) -> None:
    case = by_class(tmp_path)
    path = tmp_path / "map.dcm"
    results.write(_made(case)["lesion map"], path)
    read = segread(path)
    labels = [segment.SegmentLabel for segment in read.SegmentSequence]
    assert labels == ["Background", "Lung lesion: ground glass opacity", "Lung lesion: consolidation"]
    assert case.findings.consolidation is not None
    truth = case.findings.lesions.astype(np.uint8) + (case.findings.lesions & case.findings.consolidation)
    slices = np.flatnonzero(truth.any(axis=(1, 2)))[::-1]
    np.testing.assert_array_equal(read.pixel_array, truth[slices])


@pytest.mark.peers
@pytest.mark.parametrize("name", ["head first supine", "enhanced", "gantry tilt"])
def test_dciodvfy_finds_no_error_in_a_label_map(name: str, tmp_path: Path) -> None:
    made = _made(build(tmp_path / "source", name))
    for kind in LABEL_MAPS:
        path = tmp_path / "map.dcm"
        results.write(made[kind], path)
        judged = run("dciodvfy", str(path), package="dicom3tools")
        assert "Segmentation" in judged.stderr
        assert "Error" not in judged.stderr


def test_a_label_map_with_an_image_too_few_does_not_leave(tmp_path: Path) -> None:
    made = _made(build(tmp_path))["lung map"]
    images = list(generate_frames(made.dataset.PixelData, number_of_frames=made.dataset.NumberOfFrames))
    made.dataset.PixelData = encapsulate(images[:-1])
    with pytest.raises(InvalidResult, match=f"Pixel Data has {len(images) - 1} images for {len(images)} frames"):
        results.encode(made)


def test_label_maps_are_made_where_they_are_asked_for_alone(tmp_path: Path) -> None:
    case = build(tmp_path)
    assert set(_made(case)) - set(case.objects()) == set(LABEL_MAPS)
    without = results_cases.judge(case.built, lesions=np.zeros_like(case.findings.lesions))
    assert "lesion map" not in _made(without)
