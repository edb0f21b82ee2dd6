"""The report says in codes what was measured, and what was not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests import builders
from tests.unit.results_cases import MODEL, build, by_class, content, errors_of, judge, run, written
from triage_node import results
from triage_node.config import AnalysisSection, WorklistSection
from triage_node.severity import assess
from triage_node.study import NotAnalysed, OperatingPoint, PassedOver, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.results_cases import Case
    from triage_node.identity import ResultIdentity
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


def test_there_is_one_group_for_the_study_one_for_each_lung_and_one_for_each_segment_of_lesions(tmp_path: Path) -> None:
    case = build(tmp_path)
    report = case.objects()["report"].dataset
    study, right, left, lesion = (dict(content(group)) for group in _groups(report))
    assert lesion["Volume"] == study["Lesion volume"] == f"{case.assessment.lesion_ml:.3f} mL"
    assert lesion["Affected fraction of both lungs"] == study["Affected fraction of both lungs"]
    assert lesion["Finding"] == "Infiltrate"
    assert float(study["Volume of both lungs"].split()[0]) == pytest.approx(case.assessment.volume_ml, abs=1e-3)
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


def test_the_groups_of_lungs_and_lesions_refer_to_their_segments(tmp_path: Path) -> None:
    objects = by_class(tmp_path).objects()
    segments = [(kind, segment) for kind in ("lungs", "lesions") for segment in objects[kind].dataset.SegmentSequence]
    assert len(segments) == 4
    for group, (kind, segment) in zip(_groups(objects["report"].dataset)[1:], segments, strict=True):
        (reference,) = [item for item in group.ContentSequence if item.ValueType == "IMAGE"]
        referenced = reference.ReferencedSOPSequence[0]
        assert referenced.ReferencedSOPInstanceUID == objects[kind].sop_instance_uid
        assert dict(content(group))["Tracking Identifier"] == segment.SegmentLabel
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


NETWORKS = replace(
    MODEL,
    name="multitask",
    parameters=(("Lesion threshold", "0.35"), ("Probability", "sigmoid(1.2 * logit)")),
    operating_point=OperatingPoint(probability_high=0.625, probability_medium=0.25, source="validation patients"),
    trust="Learnt from few patients: it ranks, it is no proof.",
)


def _parameters(group: Dataset) -> list[str]:
    """Algorithm Parameters (111002, DCM) of a group itself, not of its measurements."""
    items = [item for item in group.ContentSequence if item.get("ConceptNameCodeSequence")]
    coded = [(item, item.ConceptNameCodeSequence[0]) for item in items]
    return [str(item.TextValue) for item, code in coded if (code.CodeValue, code.CodingSchemeDesignator) == PARAMETERS]


PARAMETERS = ("111002", "DCM")


def test_thresholds_and_the_models_parameters_are_algorithm_parameters_of_every_group(tmp_path: Path) -> None:
    case = by_class(tmp_path, model=NETWORKS, covid_probability=0.7)
    groups = _groups(case.objects()["report"].dataset)
    assert len(groups) == 5
    for group in groups:
        assert _parameters(group) == [
            f"sha256 of weights or parameters: {MODEL.digest}",
            "Lesion threshold: 0.35",
            "Probability: sigmoid(1.2 * logit)",
            "Probability threshold HIGH: 0.625",
            "Probability threshold MEDIUM: 0.25",
            "Affected fraction threshold HIGH: 0.5",
            "Affected fraction threshold MEDIUM: 0.25",
            "Severity cut-offs of CT-1, CT-2, CT-3: 0.25, 0.5, 0.75",
            "Source of thresholds and cut-offs: validation patients",
            "Consolidation: told apart by the method",
        ]


def test_parameters_are_those_that_were_used_not_those_of_the_card(tmp_path: Path) -> None:
    case = build(tmp_path)
    settings = AnalysisSection(consolidation_hu=300, grades_up_to=(0.01, 0.02, 0.125))
    rules = WorklistSection(fraction_high=0.75)
    case = replace(case, assessment=assess(case.volume, case.findings, generation=1, settings=settings, rules=rules))
    report = case.objects()["report"].dataset
    found = _parameters(_groups(report)[0])
    assert {
        "Affected fraction threshold HIGH: 0.75",
        "Severity cut-offs of CT-1, CT-2, CT-3: 0.01, 0.02, 0.125",
        "Consolidation: lesion from 300 HU on",
    } <= set(found)
    assert any(entry.endswith("from the configuration: fraction_high, grades_up_to") for entry in found)
    assert not any(entry.startswith("Probability") for entry in found)
    grade = dict(content(report))["CT grade (CT-0 to CT-4)"]
    assert grade == f"{case.assessment.ct_grade}: over 12.5 % of the worse lung"


def test_volumes_and_extents_of_both_classes_are_told_for_each_lung_and_for_both(tmp_path: Path) -> None:
    case = by_class(tmp_path)
    study, right, left, ground_glass, dense = (
        dict(content(group)) for group in _groups(case.objects()["report"].dataset)
    )
    assessment = case.assessment
    assert 0 < assessment.consolidation_ml < assessment.lesion_ml

    def number(group: dict[str, str], name: str, unit: str) -> float:
        value, found = group[name].split()
        assert found == unit
        return float(value)

    for group, lung in ((right, assessment.right), (left, assessment.left)):
        assert lung is not None
        assert number(group, "Ground glass volume", "mL") == pytest.approx(lung.ground_glass_ml, abs=1e-3)
        assert number(group, "Consolidation volume", "mL") == pytest.approx(lung.consolidation_ml, abs=1e-3)
        extents = [number(group, name, "%") for name in ("Ground glass extent", "Consolidation extent")]
        wanted = (100 * lung.ground_glass_fraction, 100 * lung.consolidation_fraction)
        assert extents == pytest.approx(wanted, abs=1e-3)
        assert sum(extents) == pytest.approx(number(group, "Affected fraction of lung", "%"), abs=2e-3)
    assert number(ground_glass, "Volume", "mL") == pytest.approx(assessment.ground_glass_ml, abs=1e-3)
    assert number(dense, "Volume", "mL") == pytest.approx(assessment.consolidation_ml, abs=1e-3)
    assert ground_glass["Ground glass extent"] == study["Ground glass extent"]
    assert dense["Consolidation extent"] == study["Consolidation extent"]
    assert number(study, "Consolidation volume", "mL") == pytest.approx(assessment.consolidation_ml, abs=1e-3)
    extent = 100 * assessment.consolidation_ml / assessment.volume_ml
    assert number(study, "Consolidation extent", "%") == pytest.approx(extent, abs=1e-3)


def test_beside_a_probability_stands_how_far_it_can_be_trusted(tmp_path: Path) -> None:
    words = ("Comment", f"How far the probability of COVID-19 can be trusted: {NETWORKS.trust}")
    report = by_class(tmp_path / "a", model=NETWORKS, covid_probability=0.7).objects()["report"].dataset
    assert words in content(_groups(report)[0])
    without = by_class(tmp_path / "b", model=NETWORKS).objects()["report"].dataset
    assert not any("trusted" in value for _, value in content(without))


def test_dciodvfy_finds_no_error_in_the_objects_of_a_method_with_classes_and_a_probability(tmp_path: Path) -> None:
    case = by_class(tmp_path / "source", model=NETWORKS, covid_probability=0.7)
    paths = written(case, tmp_path / "made")
    assert set(paths) == {"lesions", "lungs", "report", "overview"}
    for path in paths.values():
        assert errors_of(path) == []


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
    assert len(set(uids)) == 4


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


def _head(report: Dataset) -> list[tuple[str, str]]:
    """What stands before the image library, after who observed."""
    items = [content_ for content_ in report.ContentSequence if content_.ValueType != "CONTAINER"]
    alone = Dataset()
    alone.ContentSequence = items
    return content(alone)


def test_warnings_stand_before_the_numbers_and_change_the_state_in_code(tmp_path: Path) -> None:
    plain = dict(_head(build(tmp_path / "plain").objects()["report"].dataset))
    assert plain["State of analysis"] == "Analysed"
    assert "Warning" not in plain
    report = build(tmp_path / "tilted", "gantry tilt").objects()["report"].dataset
    for part in (_head(report), content(_groups(report)[0])):
        assert ("Comment", "NOT FOR DIAGNOSTIC USE.") in part
        assert ("State of analysis", "Analysed with warnings") in part
        assert ("Summary of Analyses", "Succeeded") in part
        assert any(name == "Warning" and words.startswith("the gantry was tilted") for name, words in part)


def test_a_lung_that_was_not_found_is_a_partial_success_and_a_warning(tmp_path: Path) -> None:
    case = build(tmp_path)
    lungs = np.where(case.findings.lungs == 1, case.findings.lungs, 0).astype(np.uint8)
    alone = judge(case.built, lungs=lungs, lesions=case.findings.lesions & (lungs > 0))
    report = alone.objects()["report"]
    for part in (_head(report.dataset), content(_groups(report.dataset)[0])):
        assert ("Summary of Analyses", "Partially Succeeded") in part
        assert ("State of analysis", "Analysed with warnings") in part
        assert ("Warning", "The left lung was not found.") in part
    results.encode(report)


def test_the_answer_in_short_stands_before_the_images(tmp_path: Path) -> None:
    case = by_class(tmp_path, model=NETWORKS, covid_probability=0.7)
    assessment = case.assessment
    words = dict(_head(case.objects()["report"].dataset))["Summary"]
    assert words == (
        f"Affected: {100 * assessment.affected_fraction:.1f} % of the worse lung ({assessment.ct_grade}),"
        f" {100 * assessment.affected_fraction_both:.1f} % of both lungs (CT-SS {int(assessment.ct_ss)})."
        " Probability of COVID-19: 70.0 %."
    )


def _later(case: Case, *before: ResultIdentity, **changes: Any) -> ResultObject:
    """The report of the generation after `before`, the newest first."""
    predecessor: ResultIdentity | None = None
    for identity in reversed(before):
        predecessor = replace(identity, predecessor=predecessor)
    generation = before[0].generation + 1
    identity = replace(case.identity, generation=generation, predecessor=predecessor, **changes)
    return replace(case, identity=identity).objects()["report"]


def test_a_later_generation_names_every_object_that_it_supersedes(tmp_path: Path) -> None:
    case = build(tmp_path)
    old = case.objects()
    made = _later(case, replace(case.identity, kinds=("lungs", "report")))
    (study,) = made.dataset.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == old["report"].dataset.SeriesInstanceUID
    (reference,) = series.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == old["report"].sop_instance_uid
    head = _head(made.dataset)
    assert ("Superseded segmentation of lungs", old["lungs"].sop_instance_uid) in head
    assert ("Superseded report", old["report"].sop_instance_uid) in head
    assert sum(name.startswith("Superseded") for name, _ in head) == 2
    assert made.dataset.SeriesDescription == "Report (NOT FOR DIAGNOSTIC USE), threshold, answer 2"
    results.encode(made)


def test_several_earlier_answers_are_named_where_the_last_one_left_no_report(tmp_path: Path) -> None:
    case = build(tmp_path / "source")
    first = replace(case.identity, kinds=("lesions", "report"))
    second = replace(case.identity, generation=2, kinds=("lesions",))
    made = _later(case, second, first)
    assert len(made.dataset.PredecessorDocumentsSequence) == 1
    head = _head(made.dataset)
    assert [value for name, value in head if name == "Superseded segmentation of lesions"] == [
        second.uid("lesions"),
        first.uid("lesions"),
    ]
    assert any(words.startswith("This report (generation 3) supersedes that of generation 2, 1:") for _, words in head)
    results.write(made, tmp_path / "r.dcm")
    assert errors_of(tmp_path / "r.dcm") == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"series_digest": "other"}, "images of the study arrived"),
        ({"model_digest": "other"}, "the same images were judged by another model or configuration"),
        ({}, "the same images were judged once more"),
    ],
)
def test_a_later_generation_says_why_there_is_one(changes: dict[str, str], why: str, tmp_path: Path) -> None:
    case = build(tmp_path)
    made = _later(case, replace(case.identity, kinds=("report",)), **changes)
    assert any(f"supersedes that of generation 1: {why}" in words for _, words in _head(made.dataset))


@pytest.mark.parametrize("reason", list(Reason))
def test_a_study_that_was_not_analysed_says_so_in_codes(reason: Reason, tmp_path: Path) -> None:
    made = _refused(build(tmp_path), reason)
    study, first, second = _groups(made.dataset)
    assert ("State of analysis", "Not analysed") in _head(made.dataset)
    assert any(value == "no series of the study can be judged" for _, value in _head(made.dataset))
    status = "Failed" if reason in ("ANALYSIS_FAILED", "NO_LUNGS", "UNDECODABLE") else "Not Attempted"
    assert dict(content(study))["Summary of Analyses"] == status
    assert "Reason not analysed" in dict(content(study))
    assert any("no series of the study can be judged" in value for _, value in content(study))
    assert dict(content(first)) | {
        "Reason not analysed": "Localizer",
        "Series Instance UID": "1.2.3",
    } == dict(content(first))
    assert dict(content(second))["Reason not analysed"] == "Too few slices"
    assert "Topogram" not in str(made.dataset)
    results.encode(made)


def test_the_title_promises_measurements_only_where_there_are_some(tmp_path: Path) -> None:
    """OHIF looks for places in whatever is called a measurement report, and shows the words of all others."""
    case = build(tmp_path)
    for report, wanted in (
        (case.objects()["report"].dataset, ("126000", "DCM")),
        (_refused(case).dataset, ("18748-4", "LN")),
    ):
        title = report.ConceptNameCodeSequence[0]
        assert (title.CodeValue, title.CodingSchemeDesignator) == wanted
        assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_every_container_asks_for_its_items_to_be_shown_one_by_one(tmp_path: Path) -> None:
    """Where it does not, renderings run all values together without their names (PS3.3 C.18.8)."""
    case = build(tmp_path)
    for report in (case.objects()["report"].dataset, _refused(case).dataset):
        containers = [report, *(item for item in _items(report) if item.ValueType == "CONTAINER")]
        assert len(containers) >= 5
        assert {container.ContinuityOfContent for container in containers} == {"SEPARATE"}


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
def test_dsrdump_reads_every_kind_of_report(tmp_path: Path) -> None:
    case = build(tmp_path / "source")
    networks = by_class(tmp_path / "networks", model=NETWORKS, covid_probability=0.7)
    paths = [
        written(case, tmp_path / "made")["report"],
        tmp_path / "refused.dcm",
        written(networks, tmp_path / "judged by networks")["report"],
    ]
    results.write(_refused(case), paths[1])
    for path, words in zip(paths, ("Lesion volume", "Reason not analysed", "Lesion threshold: 0.35"), strict=True):
        read = run("dsrdump", str(path), package="dcmtk")
        assert read.returncode == 0, read.stderr
        assert words in read.stdout
        assert "E: " not in read.stderr
        assert "W: " not in read.stderr


@pytest.mark.parametrize("name", ["head first supine", "enhanced"])
def test_tid1500reader_of_dcmqi_reads_every_measurement(name: str, tmp_path: Path) -> None:
    case = by_class(tmp_path / "source", name, model=NETWORKS, covid_probability=0.7)
    path = written(case, tmp_path / "made")["report"]
    meta = tmp_path / "meta.json"
    read = run("tid1500reader", "--inputDICOM", str(path), "--outputMetadata", str(meta), package="dcmqi")
    assert read.returncode == 0, read.stderr
    groups = json.loads(meta.read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == [
        *("Study", "Right lung", "Left lung"),
        *("Lung lesion: ground glass opacity", "Lung lesion: consolidation"),
    ]
    for group, lung in zip(groups[1:3], case.assessment.lungs, strict=True):
        items = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
        assert items["Volume"] == pytest.approx(lung.volume_ml, abs=1e-3)
        assert items["Affected fraction of lung"] == pytest.approx(100 * lung.affected_fraction, abs=1e-3)
        assert items["Consolidation extent"] == pytest.approx(100 * lung.consolidation_fraction, abs=1e-3)
    study = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in groups[0]["measurementItems"]}
    assert study["Certainty of Finding"] == pytest.approx(70.0)
