"""What all objects have in common: whose they are, who made them, and that nothing wrong leaves."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from tests import builders
from tests.unit.results_cases import MODEL, MULTI_FRAME, SHEARED, SINGLE_FRAME, build, errors_of, judge, run, written
from triage_node import results
from triage_node.errors import InvalidResult
from triage_node.results.envelope import KINDS, description

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from tests.unit.results_cases import Case

EVERY = [*SINGLE_FRAME, *MULTI_FRAME, *SHEARED]

TYPE_2 = (
    *("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "StudyID", "AccessionNumber"),
    *("StudyDate", "StudyTime", "Manufacturer", "StudyDescription"),
)

# Headers as they come: name of the case -> attributes of every file (None deletes)
HEADERS: dict[str, dict[str, Any]] = {
    "type 2 attributes missing": dict.fromkeys([*TYPE_2, "SliceThickness", "SpecificCharacterSet"]),
    "type 2 attributes empty": dict.fromkeys(TYPE_2, ""),
    "Japanese name": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046",
    },
    "Cyrillic name": {
        "SpecificCharacterSet": "ISO_IR 144",
        "PatientName": "\u0418\u0432\u0430\u043d\u043e\u0432^\u041f\u0451\u0442\u0440",
        "StudyDescription": "\u041a\u0422 \u0433\u0440\u0443\u0434\u0438",
    },
    "UTF-8 name": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Wang^XiaoDong=\u738b^\u5c0f\u6771"},
    "Latin-1 bytes without a character set": {
        "SpecificCharacterSet": None, "PatientName": builders.Raw(value=b"M\xfcller^J\xf6rg "),
    },
    "anonymous name without a caret": {"PatientName": "ANON-000123", "PatientIdentityRemoved": "YES"},
    "values that are none": {
        "PatientBirthDate": builders.Raw(value=b"1960-01-"),
        "PatientSex": builders.Raw(value=b"female"),
        "StudyTime": builders.Raw(value=b"10:15:00"),
        "TimezoneOffsetFromUTC": builders.Raw(value=b"CEST"),
    },
}  # fmt: skip


def _with(folder: Path, attributes: dict[str, Any]) -> Case:
    return judge(builders.ct_series(folder, attributes=attributes))


@pytest.mark.parametrize("name", EVERY)
def test_dciodvfy_finds_no_error_whatever_the_geometry(name: str, tmp_path: Path) -> None:
    paths = written(build(tmp_path / "source", name), tmp_path / "made")
    assert set(paths) == {"lesions", "lungs", "report", "overview"}
    for path in paths.values():
        assert errors_of(path) == []


@pytest.mark.parametrize("name", HEADERS)
def test_dciodvfy_finds_no_error_whatever_the_header(name: str, tmp_path: Path) -> None:
    for path in written(_with(tmp_path / "source", HEADERS[name]), tmp_path / "made").values():
        assert errors_of(path) == []


def test_a_name_in_bytes_without_a_character_set_is_read_as_latin_1(tmp_path: Path) -> None:
    for made in _with(tmp_path, HEADERS["Latin-1 bytes without a character set"]).objects().values():
        assert made.dataset.PatientName == "M\u00fcller^J\u00f6rg"


@pytest.mark.parametrize("name", ["Japanese name", "Cyrillic name", "UTF-8 name"])
def test_names_of_every_script_come_through(name: str, tmp_path: Path) -> None:
    wanted = HEADERS[name]["PatientName"]
    for path in written(_with(tmp_path / "source", HEADERS[name]), tmp_path / "made").values():
        dataset = pydicom.dcmread(path)
        assert dataset.PatientName == wanted
        assert dataset.SpecificCharacterSet == "ISO_IR 192"


def test_plain_names_stay_readable_for_archives_without_utf_8(tmp_path: Path) -> None:
    for made in build(tmp_path).objects().values():
        assert made.dataset.SpecificCharacterSet == "ISO_IR 100"


def test_dcentvfy_finds_patient_study_and_series_consistent(tmp_path: Path) -> None:
    case = build(tmp_path / "source")
    paths = [*case.built.paths, *written(case, tmp_path / "made").values()]
    judged = run("dcentvfy", *map(str, paths), package="dicom3tools")
    assert "Error" not in judged.stdout + judged.stderr


@pytest.mark.peers
def test_dcm2json_reads_every_object(tmp_path: Path) -> None:
    for path in written(_with(tmp_path / "source", HEADERS["Japanese name"]), tmp_path / "made").values():
        read = run("dcm2json", str(path), package="dcmtk")
        assert read.returncode == 0, read.stderr


@pytest.mark.parametrize("name", ["head first supine", "enhanced"])
def test_a_second_run_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    case = build(tmp_path, name)
    first = {kind: results.encode(made) for kind, made in case.objects().items()}
    assert first == {kind: results.encode(made) for kind, made in build(tmp_path / "b", name).objects().items()}


def test_every_uid_follows_from_the_identity(tmp_path: Path) -> None:
    case = build(tmp_path)
    later = replace(case, identity=replace(case.identity, generation=2))
    for kind, made in case.objects().items():
        assert made.sop_instance_uid == case.identity.uid(kind)
        other = later.objects()[kind].dataset
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
            assert made.dataset[keyword].value != other[keyword].value
        own = {e.value for e in made.dataset.iterall() if e.keyword in ("TrackingUID", "DimensionOrganizationUID")}
        theirs = {e.value for e in other.iterall() if e.keyword in ("TrackingUID", "DimensionOrganizationUID")}
        assert own.isdisjoint(theirs)


def test_each_object_has_a_series_of_its_own_in_the_study_of_its_source(tmp_path: Path) -> None:
    case = build(tmp_path)
    datasets = [made.dataset for made in case.objects().values()]
    assert len({dataset.SeriesInstanceUID for dataset in datasets}) == 4
    assert len({dataset.SeriesNumber for dataset in datasets}) == 4
    assert {dataset.StudyInstanceUID for dataset in datasets} == {case.built.series.key.study_instance_uid}


def test_objects_say_who_made_them_when_and_that_they_are_not_for_diagnostic_use(tmp_path: Path) -> None:
    for made in build(tmp_path).objects().values():
        dataset = made.dataset
        assert "NOT FOR DIAGNOSTIC USE" in dataset.SeriesDescription
        assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("triage-node", "threshold")
        assert dataset.DeviceSerialNumber == "TRIAGE"
        local = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC).astimezone()
        assert f"{dataset.ContentDate}{dataset.ContentTime}" == local.strftime("%Y%m%d%H%M%S.%f")
        assert dataset.AccessionNumber == "A0001"


SHOWN = 22  # characters of a Series Description that OHIF shows in its list


def test_what_a_series_is_can_be_read_in_the_beginning_of_its_description() -> None:
    described = [description(kind, MODEL) for kind in KINDS]
    assert "Lung lesions (NOT FOR DIAGNOSTIC USE), threshold" in described
    assert len({text[:SHOWN] for text in described}) == len(described)
    for kind in KINDS:
        longest = description(kind, replace(MODEL, name="n" * 80), generation=123)
        assert longest.endswith("n, answer 123")
        assert "(NOT FOR DIAGNOSTIC USE), n" in longest
        assert len(longest) == 64


def test_content_time_is_told_in_the_time_zone_of_the_source(tmp_path: Path) -> None:
    for made in _with(tmp_path, {"TimezoneOffsetFromUTC": "+0900"}).objects().values():
        assert made.dataset.TimezoneOffsetFromUTC == "+0900"
        assert (made.dataset.ContentDate, made.dataset.ContentTime) == ("20260102", "120405.000678")


def test_nothing_of_the_patient_is_copied_beyond_what_identifies_the_study(tmp_path: Path) -> None:
    more = {"PatientComments": "secret", "PatientAddress": "secret", "InstitutionName": "secret", "PatientAge": "061Y"}
    for made in _with(tmp_path, more).objects().values():
        assert not set(more) & {element.keyword for element in made.dataset}
        assert b"secret" not in results.encode(made)


# ---------------------------------------------------------------------------------- nothing wrong leaves


def _spoilt(case: Case, kind: str, spoil: Any) -> results.ResultObject:
    made = case.objects()[kind]
    spoil(made.dataset)
    return made


def _foreign_reference(dataset: Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def _shorter(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-2]


def _childless(dataset: Dataset) -> None:
    measurements = dataset.ContentSequence[-1].ContentSequence[0]
    for item in measurements.ContentSequence:
        if item.ValueType == "NUM":
            del item.ContentSequence


def _pointless(dataset: Dataset) -> None:
    measurements = dataset.ContentSequence[-1]
    for group in measurements.ContentSequence:
        group.ContentSequence = [item for item in group.ContentSequence if item.ValueType != "SCOORD"]


def _setter(keyword: str, value: object) -> Any:
    return lambda dataset: setattr(dataset, keyword, value)


def _remover(keyword: str) -> Any:
    return lambda dataset: delattr(dataset, keyword)


@pytest.mark.parametrize(
    ("kind", "spoil", "words"),
    [
        ("lungs", _remover("SegmentSequence"), "SegmentSequence (type 1) is absent"),
        ("lungs", _setter("ContentLabel", ""), "ContentLabel (type 1) is empty"),
        ("lungs", _remover("PatientName"), "PatientName (type 2) is absent"),
        ("lungs", _setter("SeriesDescription", "lungs"), "Series Description does not say NOT FOR DIAGNOSTIC USE"),
        ("lungs", _shorter, "Pixel Data has"),
        ("lungs", _foreign_reference, "1.2.3 is referenced but is neither of the source"),
        ("lungs", _setter("SOPInstanceUID", "1.2.4"), "its SOP Instance UID must be 2.25."),
        ("overview", _setter("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "is none of ours"),
        ("overview", _remover("ConversionType"), "ConversionType (type 1) is absent"),
        ("report", _remover("CompletionFlag"), "CompletionFlag (type 1) is absent"),
        ("report", _childless, "does not name its algorithm"),
        ("report", _pointless, "points at no image"),
    ],
)
def test_a_spoilt_object_does_not_leave(kind: str, spoil: Any, words: str, tmp_path: Path) -> None:
    made = _spoilt(build(tmp_path), kind, spoil)
    with pytest.raises(InvalidResult, match=re.escape(words)):
        results.write(made, tmp_path / "spoilt.dcm")
    assert not (tmp_path / "spoilt.dcm").exists()


def test_a_file_under_another_uid_than_it_says_does_not_leave(tmp_path: Path) -> None:
    data = results.encode(build(tmp_path).objects()["overview"])
    uid = pydicom.dcmread(BytesIO(data)).SOPInstanceUID.encode()
    with pytest.raises(InvalidResult, match="MediaStorageSOPInstanceUID and SOPInstanceUID differ"):
        results.check(data.replace(uid, b"9" * len(uid), 1).replace(b"9" * len(uid), b"1." + b"9" * (len(uid) - 2), 1))


def test_bytes_that_are_no_dicom_do_not_leave() -> None:
    with pytest.raises(InvalidResult, match="cannot be read back"):
        results.check(b"no DICOM at all")


def test_a_truncated_file_does_not_leave(tmp_path: Path) -> None:
    data = results.encode(build(tmp_path).objects()["lungs"])
    with pytest.raises(InvalidResult):
        results.check(data[: len(data) // 2])
