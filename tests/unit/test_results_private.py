"""Nothing of a source gets into a result but what ties it to its patient and study, and where its slices lie."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests import builders
from tests.unit.results_cases import MODEL, SETTINGS, errors_of, judge, run, written
from triage_node import results, volume
from triage_node.errors import Refused
from triage_node.results.source import OPTIONAL, TYPE_2
from triage_node.study import NotAnalysed, PassedOver, Reason

if TYPE_CHECKING:
    from pathlib import Path

    from tests.builders import Built

# Which attributes a reader needs to make a volume of the images; they say nothing about anybody
TECHNICAL = {
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "StudyInstanceUID"),
    *("SeriesInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "InstanceNumber", "AcquisitionNumber"),
    *("PatientPosition", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "PhotometricInterpretation", "LossyImageCompression"),
    *("ConversionType", "PresentationLUTShape"),
}
KEPT = {*TYPE_2, *OPTIONAL, *TECHNICAL}
LONGEST = {"CS": 16, "SH": 16, "AE": 16, "LO": 64, "PN": 64}
DATE, TIME, AGE, NUMBER = "19110203", "031415.926", "098Y", "87654321"
UNIQUE = "1.2.840.99999.8765"
IDENTITY = {
    "PatientName": "Kept^Name",
    "PatientID": "KEPT-ID",
    "PatientBirthDate": "19600101",
    "PatientSex": "F",
    "StudyDate": "20200401",
    "StudyTime": "101500",
    "ReferringPhysicianName": "Kept^Referrer",
    "StudyID": "KEPT-STUDY",
    "AccessionNumber": "KEPT-ACC",
    "IssuerOfPatientID": "KEPT-ISSUER",
    "TimezoneOffsetFromUTC": "+0200",
}
MARKS = (b"SECRET", b"Secret", DATE.encode(), TIME.encode(), AGE.encode(), NUMBER.encode(), UNIQUE.encode())


def _secret(vr: str, number: int) -> Any:
    """A value that can be recognised wherever it turns up."""
    text = f"SECRET{number}"
    values = {
        "DA": DATE, "TM": TIME, "DT": f"{DATE}{TIME}", "AS": AGE, "IS": NUMBER, "DS": NUMBER,
        "UI": f"{UNIQUE}.{number}", "PN": f"Secret^{number}", "UR": f"http://SECRET/{number}",
        "OB": text.encode().ljust(16, b"!"), "UN": text.encode().ljust(16, b"!"),
    }  # fmt: skip
    return values.get(vr, text) if vr in {"LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE"} or vr in values else None


def _everything() -> dict[int, tuple[str, Any]]:
    """Tag -> representation and secret of every attribute that a source may have besides what is kept."""
    found = {}
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        geometry_or_pixels = group in {0x0000, 0x0002, 0x0004, 0x0028, 0x5200, 0x7FE0, 0xFFFA, 0xFFFC, 0xFFFE}
        if not keyword or retired or geometry_or_pixels or keyword in KEPT or tag & 0xFFFF == 0:
            continue
        secret = _secret(vr, tag)
        if secret is not None:
            found[tag] = (vr, secret)
    return found


SEQUENCES = (
    *("RequestAttributesSequence", "OtherPatientIDsSequence", "ReferencedStudySequence", "ProcedureCodeSequence"),
    *("ReferringPhysicianIdentificationSequence", "PatientBreedCodeSequence", "AdmittingDiagnosesCodeSequence"),
    *("IssuerOfPatientIDQualifiersSequence", "DeidentificationMethodCodeSequence", "ContributingEquipmentSequence"),
    "OriginalAttributesSequence",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A series with a secret in every attribute of the dictionary, in private ones, overlays and behind the pixels."""
    built = builders.ct_series(tmp_path_factory.mktemp("source"))
    secrets = _everything()
    for path in built.paths:
        dataset = pydicom.dcmread(path)
        for tag, (vr, value) in secrets.items():
            dataset.add_new(tag, vr, value)
        for keyword, value in IDENTITY.items():
            setattr(dataset, keyword, value)
        for keyword in SEQUENCES:
            item = Dataset()
            item.CodeValue, item.CodeMeaning, item.PatientID = "SECRETCODE", "SECRET meaning", "SECRET-INNER"
            setattr(dataset, keyword, Sequence([item]))
        for group, creator in ((0x0009, "SECRET MAKER"), (0x0029, "SECRET TOOL"), (0x0033, "SECRET SITE")):
            block = dataset.private_block(group, creator, create=True)
            block.add_new(0x01, "LO", "SECRET private")
            block.add_new(0x02, "OB", b"SECRET private bytes")
        dataset.add_new(0x60000010, "US", 8)
        dataset.add_new(0x60000011, "US", 8)
        dataset.add_new(0x60003000, "OW", b"SECRET8!")
        dataset.add_new(0xFFFCFFFC, "OB", b"SECRET trailing padding!")
        dataset.save_as(path, enforce_file_format=True)
    assert len(secrets) > 1000
    return replace(built, series=builders.series_of(built.paths))


def _leaks(data: bytes) -> list[bytes]:
    return [mark for mark in MARKS if mark in data]


def test_the_source_is_full_of_secrets(source: Built) -> None:
    for path in source.paths:
        assert set(_leaks(path.read_bytes())) == set(MARKS)


def test_nothing_secret_is_in_the_bytes_of_any_result(source: Built, tmp_path: Path) -> None:
    paths = written(judge(source), tmp_path)
    assert set(paths) == {"lesions", "lungs", "report", "overview"}
    for path in paths.values():
        assert _leaks(path.read_bytes()) == []
        dataset = pydicom.dcmread(path)
        for keyword, value in IDENTITY.items():
            assert str(dataset[keyword].value) == value
        assert errors_of(path) == []
    assert pydicom.dcmread(paths["overview"]).BurnedInAnnotation == "NO"


def test_what_is_common_to_result_and_source_is_on_the_list(source: Built, tmp_path: Path) -> None:
    """Whatever attribute has the same value on both sides is either kept by design or says nothing about anybody."""
    images = pydicom.dcmread(source.paths[0], stop_before_pixels=True)
    ours = {"RescaleType", "PhotometricInterpretation", "BitsAllocated", "SamplesPerPixel", "PixelRepresentation"}
    for path in written(judge(source), tmp_path).values():
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        same = {
            e.keyword for e in dataset if e.VR != "SQ" and e.keyword in images and images[e.keyword].value == e.value
        }
        allowed = {*TYPE_2, *OPTIONAL, "StudyInstanceUID", "FrameOfReferenceUID", "SpecificCharacterSet"}
        assert same - allowed <= {"InstanceNumber", "Rows", "Columns", *ours}


def test_nothing_secret_is_in_the_report_of_a_study_that_was_not_analysed(source: Built) -> None:
    case = judge(source)
    refusal = NotAnalysed(reason=Reason.NO_SUITABLE_SERIES, words="no series can be judged")
    over = PassedOver(series_instance_uid="1.2.3", description="SECRET description", not_analysed=refusal)
    (made,) = results.not_analysed(source.series.instances, refusal, (over,), MODEL, case.identity)
    assert _leaks(results.encode(made)) == []


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleType": "Secret^Unit"},
        {"Modality": builders.Raw(value=b"Secret^Name ")},
        {"ImageType": ["DERIVED", "SECONDARY", "SECRET WORDS"]},
        {"RescaleSlope": builders.Raw(value=b"Secret")},
        {"ImagePositionPatient": builders.Raw(value=b"Secret\\Secret\\Secret ")},
        {"PatientPosition": "SECRET"},
    ],
    ids=lambda attributes: next(iter(attributes)),
)
def test_what_is_unfit_to_be_shown_is_not_quoted_in_refusals_and_warnings(
    attributes: dict[str, Any], tmp_path: Path
) -> None:
    built = builders.ct_series(tmp_path, attributes=attributes)
    try:
        words = " ".join(volume.read(built.series, SETTINGS).warnings)
    except Refused as refused:
        words = refused.not_analysed.words
    assert "secret" not in words.lower()


def test_viewers_find_patient_and_study_the_same_in_results_and_source(source: Built, tmp_path: Path) -> None:
    paths = [*source.paths, *written(judge(source), tmp_path).values()]
    judged = run("dcentvfy", *map(str, paths), package="dicom3tools")
    lines = (judged.stdout + judged.stderr).splitlines()
    assert any("IE=<Patient>" in line for line in lines)  # what only the source has is mentioned
    assert not [line for line in lines if line.startswith("Error") and "IE=<" in line]
