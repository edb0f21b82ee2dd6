"""Judges other than ourselves: every kind of object made of every kind of source.

One row of a table is one source as scanners, converters and de-identifiers write them. Of each row all objects are
made and handed to dciodvfy and dcentvfy (dicom3tools), dsrdump and dcm2json (DCMTK), segimage2itkimage and
tid1500reader (dcmqi); then the masks that dcmqi read are laid over the source as SimpleITK reads it, voxel by voxel.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGLSLossless

from tests import builders
from tests.builders import Raw
from tests.unit.results_cases import (
    MODEL,
    MULTI_FRAME,
    SETTINGS,
    SHEARED,
    SINGLE_FRAME,
    Case,
    errors_of,
    judge,
    run,
    written,
)
from triage_node import phantom, results, severity, volume
from triage_node.config import AnalysisSection
from triage_node.errors import Refused
from triage_node.phantom import Phantom, PhantomSpec
from triage_node.phantom_dicom import HABITS, VendorHabit, write_series
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, PassedOver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from tests.builders import Built

SMALL = PhantomSpec(seed=3, slices=12, rows=40, columns=48, spacing_zyx_mm=(12.0, 9.0, 8.0), right_fraction=0.3)
TYPE_2 = ("PatientName", "PatientID", "PatientSex", "PatientBirthDate", "StudyID", "AccessionNumber", "StudyTime")


@cache
def _small_phantom() -> Phantom:
    return phantom.make(SMALL)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One row: how the series is written, and what of it a judge cannot say."""

    keywords: dict[str, Any] = field(default_factory=dict)  # of builders.ct_series or, for Enhanced CT, enhanced_ct
    multi_frame: bool = False
    habit: VendorHabit | None = None  # a phantom as this vendor writes it, instead
    classes: bool = True  # lesions as two segments, ground glass and consolidation
    is_a_grid: bool = True  # as dcmqi knows one: equal steps along the normal
    simpleitk_reads: bool = True  # with its geometry: not JPEG-LS, nor frames in any order or in several files
    name: str | None = None  # the patient's, as it must come out
    too_long: tuple[str, ...] = ()  # identifiers as they came: dciodvfy's only error, in every object
    is_kept: bool = True  # dcentvfy can compare with the source: no other character set, nothing mended or deflated

    def build(self, folder: Path) -> Built:
        if self.habit is not None:
            paths = write_series(folder, _small_phantom(), self.habit)
            nothing = np.zeros(0)
            return builders.Built(
                series=builders.series_of(paths), paths=tuple(paths), hounsfield=nothing, positions_mm=nothing
            )
        with warnings.catch_warnings(action="ignore"):  # what is wrong here is meant
            return (builders.enhanced_ct if self.multi_frame else builders.ct_series)(folder, **self.keywords)


def headers(*, too_long: tuple[str, ...] = (), **attributes: Any) -> Source:
    """A series whose files all have these attributes; None leaves one out."""
    wanted = attributes.get("PatientName")
    name = wanted if isinstance(wanted, str) and wanted else None
    mended = {keyword for keyword, value in attributes.items() if isinstance(value, Raw)} - set(too_long)
    same = (name is None or name.isascii()) and not mended
    return Source(keywords={"attributes": attributes}, name=name, is_kept=same, too_long=too_long)


SOURCES: dict[str, Source] = {
    # ------------------------------------------------------------------ where the slices lie
    **{name: Source(keywords=keywords) for name, keywords in SINGLE_FRAME.items()},
    "flipped rows": Source(keywords={"orientation": (1, 0, 0, 0, -1, 0)}),
    "flipped rows and columns, feet first": Source(
        keywords={"orientation": (-1, 0, 0, 0, -1, 0), "attributes": {"PatientPosition": "FFP"}}
    ),
    **{name: Source(keywords=keywords, is_a_grid=False) for name, keywords in SHEARED.items()},
    "one segment of lesions": Source(classes=False),
    # ------------------------------------------------------------------ multi-frame
    **{
        name: Source(keywords=keywords, multi_frame=True, simpleitk_reads=name == "legacy converted")
        for name, keywords in MULTI_FRAME.items()
    },
    "enhanced, rescale of each frame": Source(keywords={"rescale_per_frame": True}, multi_frame=True, classes=False),
    "enhanced, feet first": Source(keywords={"orientation": (-1, 0, 0, 0, 1, 0)}, multi_frame=True),
    # ------------------------------------------------------------------ vendors
    **{habit.name: Source(habit=habit) for habit in HABITS},
    "signed, 12 bits stored": Source(
        keywords={"signed": True, "bits_stored": 12, "intercept": 0.0, "pixels": builders.texture}
    ),
    "Implicit VR": Source(keywords={"transfer_syntax": ImplicitVRLittleEndian}),
    "Big Endian": Source(keywords={"transfer_syntax": ExplicitVRBigEndian}),
    "deflated": Source(keywords={"transfer_syntax": DeflatedExplicitVRLittleEndian}, is_kept=False),
    "JPEG-LS": Source(keywords={"transfer_syntax": JPEGLSLossless}, simpleitk_reads=False),
    # ------------------------------------------------------------------ headers
    "no slice thickness": headers(SliceThickness=None),
    "slice thickness empty": headers(SliceThickness=""),
    "type 2 attributes missing": headers(**dict.fromkeys([*TYPE_2, "SpecificCharacterSet", "SliceThickness"])),
    "type 2 attributes empty": headers(**dict.fromkeys(TYPE_2, "")),
    "no position reference indicator, no patient position": headers(
        PositionReferenceIndicator=None, PatientPosition=None
    ),
    "everything optional missing": headers(
        **dict.fromkeys(["StudyDescription", "SeriesDescription", "Manufacturer", "KVP", "ConvolutionKernel",
                         "BodyPartExamined", "AcquisitionNumber", "SeriesNumber", "ContentDate", "ContentTime",
                         "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"])
    ),
    "values that are none": headers(
        PatientBirthDate=Raw(value=b"1960-01-"),
        PatientSex=Raw(value=b"female"),
        StudyTime=Raw(value=b"10:15:00"),
        TimezoneOffsetFromUTC=Raw(value=b"CEST"),
        StudyDate=Raw(value=b"01.04.20"),
    ),
    "a description that is too long": headers(StudyDescription=Raw(value=b"x" * 120)),
    # An archive files by these: cut to what the standard allows they could be another patient's or another study's
    "identifiers that are too long": headers(
        PatientID=Raw(value=b"p" * 80), AccessionNumber=Raw(value=b"a" * 40), StudyID=Raw(value=b"s" * 30),
        too_long=("AccessionNumber", "PatientID", "StudyID"),
    ),
    # ------------------------------------------------------------------ scripts and odd characters
    "Japanese, ISO 2022": headers(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046",
    ),
    "Japanese, half-width": headers(
        SpecificCharacterSet=["ISO 2022 IR 13", "ISO 2022 IR 87"],
        PatientName="\uff94\uff8f\uff80\uff9e^\uff80\uff9b\uff73=\u5c71\u7530^\u592a\u90ce",
    ),
    "Korean, ISO 2022": headers(
        SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName="Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9"
    ),
    "Chinese, GB18030": headers(SpecificCharacterSet="GB18030", PatientName="Wang^XiaoDong=\u738b^\u5c0f\u4e1c"),
    "Cyrillic": headers(
        SpecificCharacterSet="ISO_IR 144",
        PatientName="\u0418\u0432\u0430\u043d\u043e\u0432^\u041f\u0451\u0442\u0440",
        StudyDescription="\u041a\u0422 \u0433\u0440\u0443\u0434\u0438",
    ),
    "Greek": headers(
        SpecificCharacterSet="ISO_IR 126",
        PatientName="\u0394\u03b9\u03bf\u03bd\u03c5\u03c3\u03b9\u03bf\u03c2^\u039d\u03af\u03ba\u03bf\u03c2",
    ),
    "Arabic": headers(
        SpecificCharacterSet="ISO_IR 127",
        PatientName="\u0642\u0628\u0627\u0646\u064a^\u0644\u0646\u0632\u0627\u0631",
    ),
    "UTF-8": headers(SpecificCharacterSet="ISO_IR 192", PatientName="Wang^XiaoDong=\u738b^\u5c0f\u6771"),
    "Latin-1 bytes without a character set": headers(
        SpecificCharacterSet=None, PatientName=Raw(value=b"M\xfcller^J\xf6rg ")
    ),
    "odd characters": headers(
        PatientName="O'Neil-<b>&\"Smith\"^A.~B`C%D$E",
        PatientID="ID/#;:*?[]{}|<>",
        StudyDescription="50% \"dose\" <CT> & 'more'; --",
        AccessionNumber="A-1_2.3/4",
    ),
    "control characters": headers(
        PatientName=Raw(value=b"Doe^Jo\x07hn "), StudyDescription=Raw(value=b"a\tb\r\nc ")
    ),
    "de-identified": headers(PatientName="ANON-000123", PatientIdentityRemoved="YES", PatientBirthDate=""),
    # ------------------------------------------------------------------ how many
    "as few slices as are judged": Source(keywords={"slices": AnalysisSection().minimum_slices, "spacing_mm": 12.5}),
    "1,000 slices": Source(
        keywords={"slices": 1000, "rows": 16, "columns": 20, "spacing_mm": 0.3, "pixel_spacing_mm": (9.0, 9.0)}
    ),
}  # fmt: skip


def judged(source: Source, folder: Path) -> Case:
    """Lungs as in every case, a lesion as a pattern that no flip, shift or swap of axes leaves as it is."""
    case = judge(source.build(folder))  # its lungs
    z, y, x = np.indices(case.volume.hounsfield.shape)
    lesions = (case.findings.lungs > 0) & ((x * 7 + y * 13 + z * 29) % 11 < 4) & (z % 5 > 0)
    consolidation = (x * 5 + y * 3 + z) % 7 < 3
    if source.habit is None and "slices" in source.keywords and source.keywords["slices"] > 100:
        lesions &= z % 7 == 0  # frames enough, and quicker
    findings = replace(case.findings, lesions=lesions, consolidation=consolidation if source.classes else None)
    assessment = severity.assess(case.volume, findings, generation=1, settings=SETTINGS)
    return replace(case, findings=findings, assessment=assessment)


@pytest.mark.peers
@pytest.mark.parametrize("name", SOURCES)
def test_every_judge_takes_every_object(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    case = judged(source, tmp_path / "source")
    paths = written(case, tmp_path / "made")
    assert set(paths) == {"lesions", "lungs", "report", "overview"}
    for path in paths.values():
        _dciodvfy(path, source)
        _dcm2json(path, source.name)
    _dcentvfy(list(paths.values()), case.built.paths if source.is_kept else ())
    said = _dsrdump(paths["report"])
    assert "Affected fraction of worse lung" in said
    groups = _tid1500reader(paths["report"], tmp_path)
    assert [group["TrackingIdentifier"] for group in groups[:3]] == ["Study", "Right lung", "Left lung"]
    if not source.is_a_grid:
        return
    masks = _dcmqi(paths["lungs"], tmp_path / "lungs") | _dcmqi(paths["lesions"], tmp_path / "lesions")
    assert set(masks) == set(_truth(case))
    if source.simpleitk_reads:
        _lies_on_the_source(case, masks)


def _truth(case: Case) -> dict[str, npt.NDArray[np.bool_]]:
    """Segment label -> [z, y, x] mask on the volume."""
    found = case.findings
    truth = {"Right lung": found.lungs == RIGHT_LUNG, "Left lung": found.lungs == LEFT_LUNG}
    if found.consolidation is None:
        return truth | {"Lung lesion": found.lesions}
    return truth | {
        "Lung lesion: ground glass opacity": found.lesions & ~found.consolidation,
        "Lung lesion: consolidation": found.lesions & found.consolidation,
    }


def _lies_on_the_source(case: Case, masks: dict[str, SimpleITK.Image]) -> None:
    """Each voxel of a mask falls on one voxel's centre of the source, which has the attenuation the node saw there."""
    source = _source(case)
    values = SimpleITK.GetArrayViewFromImage(source)
    truth = _truth(case)
    for label, mask in masks.items():
        found = np.argwhere(SimpleITK.GetArrayViewFromImage(mask))[:, ::-1]
        places = _affine(mask.TransformIndexToPhysicalPoint, found)
        exact = _affine(source.TransformPhysicalPointToContinuousIndex, places)
        index = np.rint(exact).astype(int)
        assert np.abs(exact - index).max() < 0.01, f"{label} lies beside the source's voxels"
        assert len(np.unique(index, axis=0)) == int(truth[label].sum()) > 20
        # what lies outside a round field of view is air to the node, whatever the scanner fills it with
        seen = np.sort(np.maximum(values[index[:, 2], index[:, 1], index[:, 0]], -1024))
        np.testing.assert_allclose(seen, np.sort(case.volume.hounsfield[truth[label]]), atol=0.51, err_msg=label)


def _affine(transform: Callable[[list[int]], Sequence[float]], points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """[n, 3] points as SimpleITK's `transform` has them, which is called for the four that say all of it."""
    first, *others = (np.array(transform(corner)) for corner in ([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]))
    return points @ np.stack([other - first for other in others]) + first


def _source(case: Case) -> SimpleITK.Image:
    """The series as SimpleITK reads it, by itself."""
    if len(case.built.paths) == 1:
        return SimpleITK.ReadImage(str(case.built.paths[0]))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(case.built.paths[0].parent)))
    return reader.Execute()


# ------------------------------------------------------------------------------ studies that are not analysed


REFUSED = ("no slice thickness", "Japanese, ISO 2022", "odd characters", "type 2 attributes missing", "enhanced")


@pytest.mark.peers
@pytest.mark.parametrize("name", REFUSED)
def test_every_judge_takes_the_report_of_a_single_slice(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    keywords = {key: value for key, value in source.keywords.items() if key != "frame_order"}
    source = replace(source, keywords={**keywords, "slices": 1})
    built = source.build(tmp_path / "source")
    with pytest.raises(Refused) as refused:
        volume.read(built.series, AnalysisSection())
    refusal = refused.value.not_analysed
    case = judge(builders.ct_series(tmp_path / "other"))  # for its identity
    passed_over = PassedOver(
        series_instance_uid=built.series.key.series_instance_uid, description="Thorax", not_analysed=refusal
    )
    (made,) = results.not_analysed(built.series.instances, refusal, [passed_over], MODEL, case.identity)
    path = tmp_path / "report.dcm"
    results.write(made, path)
    assert errors_of(path) == []
    _dcm2json(path, source.name)
    _dcentvfy([path], built.paths if source.is_kept else ())
    assert "Too few slices" in _dsrdump(path)
    _tid1500reader(path, tmp_path)


# ------------------------------------------------------------------------------ the judges


def _dciodvfy(path: Path, source: Source) -> None:
    """No error but that an identifier is too long, where it is so in the source; it is kept to the letter."""
    errors = errors_of(path)
    assert len(errors) == len(source.too_long)
    for keyword, error in zip(source.too_long, errors, strict=True):
        value = source.keywords["attributes"][keyword].value.decode()
        longest = 64 if keyword == "PatientID" else 16
        assert error.startswith(f"Error - </{keyword}(")
        assert error.endswith(f"<{value}> - Length invalid for this VR = <{len(value)}> - expected <= {longest}")
        with warnings.catch_warnings(action="ignore"):  # that it is too long
            assert pydicom.dcmread(path, specific_tags=[keyword])[keyword].value == value


def _dcentvfy(paths: list[Path], source: Sequence[Path]) -> None:
    """Patient, study, series and references agree, among the results and with their source where it is given."""
    said = run("dcentvfy", *map(str, [*source, *paths]), package="dicom3tools")
    absent = "Missing SOPInstanceUID that was referenced"
    lines = [line for line in (said.stdout + said.stderr).splitlines() if "Error" in line]
    assert [line for line in lines if source or absent not in line] == []


def _dcm2json(path: Path, patient: str | None) -> None:
    """DCMTK reads the object whole, and the patient's name in whatever script."""
    read = run("dcm2json", str(path), package="dcmtk")
    assert read.returncode == 0, read.stderr
    if patient is not None:
        groups = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), patient.split("="), strict=False))
        assert json.loads(read.stdout)["00100010"]["Value"] == [groups]


def _dsrdump(path: Path) -> str:
    read = run("dsrdump", str(path), package="dcmtk")
    assert read.returncode == 0, read.stderr
    # DCMTK 3.6.7 checks the letters of some character sets only, and says so
    said = [line for line in read.stderr.splitlines() if "does not support this Specific Character Set" not in line]
    assert [line for line in said if line.startswith(("E: ", "W: "))] == []
    return read.stdout


def _tid1500reader(path: Path, folder: Path) -> list[dict[str, Any]]:
    meta = folder / "report.json"
    read = run("tid1500reader", "--inputDICOM", str(path), "--outputMetadata", str(meta), package="dcmqi")
    assert read.returncode == 0, read.stderr
    groups: list[dict[str, Any]] = json.loads(meta.read_text(encoding="utf-8"))["Measurements"]
    return groups


def _dcmqi(path: Path, folder: Path) -> dict[str, SimpleITK.Image]:
    """Label -> mask, as dcmqi reads the object."""
    folder.mkdir()
    options = ("-t", "nrrd", "-p", "s", "--outputDirectory", str(folder))
    read = run("segimage2itkimage", *options, "--inputDICOM", str(path), package="dcmqi")
    assert read.returncode == 0, read.stderr
    meta = json.loads((folder / "s-meta.json").read_text(encoding="utf-8"))
    labels = [group[0]["SegmentLabel"] for group in meta["segmentAttributes"]]
    return {
        label: SimpleITK.ReadImage(str(folder / f"s-{number}.nrrd")) for number, label in enumerate(labels, start=1)
    }
