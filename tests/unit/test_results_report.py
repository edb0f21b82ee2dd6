"""The report says in codes what was measured, and what was not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests import builders
from tests.unit.results_cases import MODEL, build, content, errors_of, judge, run, written
from triage_node import results
from triage_node.study import NotAnalysed, PassedOver, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

    from tests.unit.results_cases import Case
    from triage_node.results import ResultObject


def _groups(report: Dataset) -> list[Dataset]:
    return [item for item in _items(report) if _name(item) == "Measurement Group"]


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning) if item.get("ConceptNameCodeSequence") else ""


def _refused(case: Case, reason: Reason = Reason.NO_SUITABLE_SERIES) -> ResultObject:
    passed_over = (
        PassedOver(
            series_instance_uid="1.2.3",
            description="Topogram",
            not_analysed=NotAnalysed(reason=Reason.LOCALIZER, words="the images are localizers"),
        ),
        PassedOver(
            series_instance_uid="1.2.4",
            description="",
            not_analysed=NotAnalysed(reason=Reason.TOO_FEW_SLICES, words="3 slices are too few"),
        ),
    )
    refusal = NotAnalysed(reason=reason, words="no series of the study can be judged")
    (made,) = results.not_analysed(case.built.series.instances, refusal, passed_over, MODEL, case.identity)
    return made


def test_there_is_one_group_for_the_study_and_one_for_each_lung(tmp_path: Path) -> None:
    case = build(tmp_path)
    report = case.objects()["report"].dataset
    study, right, left = (dict(content(group)) for group in _groups(report))
    for group, lung in ((right, case.assessment.right), (left, case.assessment.left)):
        assert lung is not None
        assert float(group["Volume"].split()[0]) == pytest.approx(lung.volume_ml, abs=1e-3)
        assert float(group["Lesion volume"].split()[0]) == pytest.approx(lung.lesion_ml, abs=1e-3)
        assert float(group["Ground glass volume"].split()[0]) == pytest.approx(lung.ground_glass_ml, abs=1e-3)
        assert float(group["Consolidation volume"].split()[0]) == pytest.approx(lung.consolidation_ml, abs=1e-3)
        fraction = float(group["Affected fraction of lung"].split()[0])
        assert fraction == pytest.approx(100 * lung.affected_fraction, abs=1e-3)
    assert (right["Laterality"], left["Laterality"]) == ("Right", "Left")
    worse = float(study["Affected fraction of worse lung"].split()[0])
    assert worse == pytest.approx(100 * case.assessment.affected_fraction, abs=1e-3)
    assert study["CT grade (CT-0 to CT-4)"].startswith(case.assessment.ct_grade)
    assert study["CT-SS (LungQuant, 1 to 5)"].startswith(f"CT-SS {case.assessment.ct_ss}")
    assert study["Summary of Analyses"] == "Succeeded"


def test_the_groups_of_the_lungs_refer_to_their_segments(tmp_path: Path) -> None:
    objects = build(tmp_path).objects()
    segments = objects["lungs"].dataset.SegmentSequence
    for group, segment in zip(_groups(objects["report"].dataset)[1:], segments, strict=True):
        (reference,) = [item for item in _items(group) if item.ValueType == "IMAGE"]
        referenced = reference.ReferencedSOPSequence[0]
        assert referenced.ReferencedSOPInstanceUID == objects["lungs"].sop_instance_uid
        assert referenced.ReferencedSegmentNumber == segment.SegmentNumber
        assert dict(content(group))["Tracking Unique Identifier"] == segment.TrackingUID


def test_a_method_without_probability_gives_a_code_and_no_number(tmp_path: Path) -> None:
    found = content(build(tmp_path).objects()["report"].dataset)
    assert ("Probability of COVID-19", "Not provided by this method") in found
    assert "Certainty of Finding" not in dict(found)


def test_a_probability_is_a_certainty_in_percent_of_suspected_covid(tmp_path: Path) -> None:
    case = build(tmp_path)
    case = replace(case, assessment=replace(case.assessment, covid_probability=0.125))
    study = dict(content(_groups(case.objects()["report"].dataset)[0]))
    assert study["Certainty of Finding"] == "12.5 %"
    assert study["Finding"] == "Suspected disease caused by SARS-CoV-2"
    assert "Probability of COVID-19" not in study


def test_without_a_lesion_the_report_says_zero_and_in_words(tmp_path: Path) -> None:
    built = builders.ct_series(tmp_path)
    healthy = judge(built, lesions=np.zeros_like(judge(built).findings.lesions))
    found = content(healthy.objects()["report"].dataset)
    assert ("Affected fraction of worse lung", "0 %") in found
    assert ("Severity", "None") in found
    assert any("No lesion voxel was found" in value for _, value in found)
    assert "Consolidation share of lesion" not in dict(found)


def test_every_number_names_its_algorithm_and_every_group_is_tracked(tmp_path: Path) -> None:
    """OHIF's reader of TID 1500 stops at a number without children."""
    report = build(tmp_path).objects()["report"].dataset
    numbers = [item for group in _groups(report) for item in _items(group) if item.ValueType == "NUM"]
    assert len(numbers) > 15
    for number in numbers:
        assert dict(content(number))["Algorithm Name"] == "threshold"
    uids = [dict(content(group))["Tracking Unique Identifier"] for group in _groups(report)]
    assert len(set(uids)) == 3


def test_the_image_library_lists_the_source(tmp_path: Path) -> None:
    case = build(tmp_path)
    (library,) = [item for item in _items(case.objects()["report"].dataset) if _name(item) == "Image Library"]
    listed = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in _items(library) if item.ValueType == "IMAGE"
    }
    assert listed == {instance.sop_instance_uid for instance in case.built.series.instances}


def test_the_report_is_complete_unverified_and_preliminary(tmp_path: Path) -> None:
    report = build(tmp_path).objects()["report"].dataset
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )


def test_warnings_are_comments(tmp_path: Path) -> None:
    report = build(tmp_path, "gantry tilt").objects()["report"].dataset
    comments = [value for name, value in content(report) if name == "Comment"]
    assert any(value.startswith("Warning: the gantry was tilted") for value in comments)
    assert "NOT FOR DIAGNOSTIC USE." in comments


def test_a_later_generation_names_the_report_that_it_supersedes(tmp_path: Path) -> None:
    case = build(tmp_path)
    later = replace(case, identity=replace(case.identity, generation=2, predecessor=case.identity))
    report = later.objects()["report"].dataset
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == case.objects()["report"].dataset.SeriesInstanceUID
    (reference,) = series.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == case.objects()["report"].sop_instance_uid
    assert any("supersedes that of generation 1" in value for _, value in content(report))
    results.encode(later.objects()["report"])


@pytest.mark.parametrize("reason", list(Reason))
def test_a_study_that_was_not_analysed_says_so_in_codes(reason: Reason, tmp_path: Path) -> None:
    made = _refused(build(tmp_path), reason)
    study, first, second = _groups(made.dataset)
    status = "Failed" if reason in ("ANALYSIS_FAILED", "NO_LUNGS", "UNDECODABLE") else "Not Attempted"
    assert dict(content(study))["Summary of Analyses"] == status
    assert "Reason not analysed" in dict(content(study))
    assert any("no series of the study can be judged" in value for _, value in content(study))
    assert dict(content(first)) | {
        "Reason not analysed": "Localizer",
        "Series Instance UID": "1.2.3",
        "Series Description": "Topogram",
    } == dict(content(first))
    assert dict(content(second))["Reason not analysed"] == "Too few slices"
    results.encode(made)


def test_dciodvfy_finds_no_error_in_the_report_of_a_refused_study(tmp_path: Path) -> None:
    results.write(_refused(build(tmp_path / "source")), tmp_path / "r.dcm")
    assert errors_of(tmp_path / "r.dcm") == []


def test_a_study_without_a_readable_instance_is_reported_too(tmp_path: Path) -> None:
    case = build(tmp_path / "source")
    for path in case.built.paths:
        path.write_bytes(b"garbage" * 100)
    results.write(_refused(case, Reason.UNDECODABLE), tmp_path / "r.dcm")
    assert errors_of(tmp_path / "r.dcm") == []


def test_a_report_needs_an_instance(tmp_path: Path) -> None:
    case = build(tmp_path)
    refusal = NotAnalysed(reason=Reason.NOT_CT, words="nothing")
    with pytest.raises(ValueError, match="at least one source instance"):
        results.not_analysed((), refusal, (), MODEL, case.identity)


@pytest.mark.peers
def test_dsrdump_reads_both_kinds_of_report(tmp_path: Path) -> None:
    case = build(tmp_path / "source")
    paths = [written(case, tmp_path / "made")["report"], tmp_path / "refused.dcm"]
    results.write(_refused(case), paths[1])
    for path, words in zip(paths, ("Lesion volume", "Reason not analysed"), strict=True):
        read = run("dsrdump", str(path), package="dcmtk")
        assert read.returncode == 0, read.stderr
        assert words in read.stdout
        assert "E: " not in read.stderr
        assert "W: " not in read.stderr


@pytest.mark.parametrize("name", ["head first supine", "enhanced"])
def test_tid1500reader_of_dcmqi_reads_every_measurement(name: str, tmp_path: Path) -> None:
    case = build(tmp_path / "source", name)
    path = written(case, tmp_path / "made")["report"]
    meta = tmp_path / "meta.json"
    read = run("tid1500reader", "--inputDICOM", str(path), "--outputMetadata", str(meta), package="dcmqi")
    assert read.returncode == 0, read.stderr
    groups = json.loads(meta.read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == ["Study", "Right lung", "Left lung"]
    for group, lung in zip(groups[1:], case.assessment.lungs, strict=True):
        items = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        assert items["Volume"] == pytest.approx(lung.volume_ml, abs=1e-3)
        assert items["Affected fraction of lung"] == pytest.approx(100 * lung.affected_fraction, abs=1e-3)
