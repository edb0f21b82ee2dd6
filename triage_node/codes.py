"""Coded concepts that results are written in: one table, with the source of each.

SCT is SNOMED CT, DCM is PS3.16 annex D, UCUM the units. What no public scheme has stands under the private designator
`99TRIAGE` (PS3.16 section 8.2: private designators start with 99), each with its definition.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pydicom.sr.coding import Code

from triage_node.study import NO_CARD, CtGrade, CtSeverityScore, Laterality, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triage_node.identity import ResultKind

PRIVATE_SCHEME: Final = "99TRIAGE"
PRIVATE_SCHEME_NAME: Final = "triage-node private codes"


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _private(value: str, meaning: str) -> Code:
    # At most 16 characters, so that a value is a Code Value (PS3.3 section 8.1), which every reader knows
    return Code(value, PRIVATE_SCHEME, meaning)


# ---------------------------------------------------------------- what was looked at
LUNG = _sct("39607008", "Lung")
RIGHT = _sct("24028007", "Right")
LEFT = _sct("7771000", "Left")
BILATERAL = _sct("51440002", "Bilateral")
CT_OF_CHEST = _sct("169069000", "CT of chest")
ANATOMICAL_STRUCTURE = _sct("91723000", "Anatomical Structure")  # CID 7150
MORPHOLOGICALLY_ABNORMAL_STRUCTURE = _sct("49755003", "Morphologically Abnormal Structure")  # CID 7150
INFILTRATE = _sct("47351003", "Infiltrate")
GROUND_GLASS_OPACITY = _dcm("112120", "Ground glass opacity")
LUNG_CONSOLIDATION = _sct("95436008", "Lung consolidation")
SUSPECTED_COVID_19 = _sct("840544004", "Suspected disease caused by SARS-CoV-2")  # what a program may say at most

# ---------------------------------------------------------------- how a report is built (PS3.16 TID 1500 and below)
LANGUAGE_OF_CONTENT = _dcm("121049", "Language of Content Item and Descendants")
OBSERVER_TYPE = _dcm("121005", "Observer Type")
DEVICE_UID = _dcm("121012", "Device Observer UID")
DEVICE_NAME = _dcm("121013", "Device Observer Name")
DEVICE_MANUFACTURER = _dcm("121014", "Device Observer Manufacturer")
DEVICE_MODEL_NAME = _dcm("121015", "Device Observer Model Name")
DEVICE_SERIAL_NUMBER = _dcm("121016", "Device Observer Serial Number")
PROCEDURE_REPORTED = _dcm("121058", "Procedure reported")
IMAGE_LIBRARY = _dcm("111028", "Image Library")
IMAGE_LIBRARY_GROUP = _dcm("126200", "Image Library Group")
MODALITY = _dcm("121139", "Modality")
COMPUTED_TOMOGRAPHY = _dcm("CT", "Computed Tomography")
FRAME_OF_REFERENCE_UID = _dcm("112227", "Frame of Reference UID")
VERTICAL_PIXEL_SPACING = _dcm("111066", "Vertical Pixel Spacing")
HORIZONTAL_PIXEL_SPACING = _dcm("111026", "Horizontal Pixel Spacing")
SOURCE = _sct("260753009", "Source")
IMAGING_MEASUREMENTS = _dcm("126010", "Imaging Measurements")
MEASUREMENT_GROUP = _dcm("125007", "Measurement Group")
TRACKING_IDENTIFIER = _dcm("112039", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER = _dcm("112040", "Tracking Unique Identifier")
FINDING_CATEGORY = _sct("276214006", "Finding category")
FINDING = _dcm("121071", "Finding")
FINDING_SITE = _sct("363698007", "Finding Site")
SIDE = _sct("272741003", "Laterality")
ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
ALGORITHM_MANUFACTURER = _dcm("122405", "Algorithm Manufacturer")
ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters")
ALGORITHM_FAMILY = _dcm("111000", "Algorithm Family")
REFERENCED_SEGMENT = _dcm("121191", "Referenced Segment")
SOURCE_SERIES = _dcm("121232", "Source series for segmentation")
SUMMARY = _dcm("121111", "Summary")

LATERALITY: Mapping[Laterality, Code] = MappingProxyType({Laterality.RIGHT: RIGHT, Laterality.LEFT: LEFT})

# ---------------------------------------------------------------- what was measured
VOLUME = _sct("118565006", "Volume")
SEVERITY = _sct("246112005", "Severity")
CERTAINTY_OF_FINDING = _dcm("111012", "Certainty of Finding")  # percent, of the group's finding, as a device sees it
SUMMARY_OF_ANALYSES = _dcm("111065", "Summary of Analyses")  # values from CID 6042
SUCCEEDED = _dcm("111222", "Succeeded")
PARTIALLY_SUCCEEDED = _dcm("111223", "Partially Succeeded")  # a part of what was tried failed: one lung was not found
FAILED = _dcm("111224", "Failed")
NOT_ATTEMPTED = _dcm("111225", "Not Attempted")
COMMENT = _dcm("121106", "Comment")
SERIES_INSTANCE_UID = _dcm("112002", "Series Instance UID")
DEVICE = _dcm("121007", "Device")
INTERPRETATION = _dcm("110005", "Interpretation")  # CID 9231: what a reading task asks for
IMAGING_MEASUREMENT_REPORT = _dcm("126000", "Imaging Measurement Report")  # CID 7021
DIAGNOSTIC_IMAGING_STUDY = Code("18748-4", "LN", "Diagnostic imaging study")  # CID 7000; the meaning is LOINC's
CENTER = _dcm("111010", "Center")
ENGLISH = Code("en", "RFC5646", "English")
GERMAN = Code("de", "RFC5646", "German")

STATE_OF_ANALYSIS = _private("analysis-state", "State of analysis")
ANALYSED = _private("analysed", "Analysed")
ANALYSED_WITH_WARNINGS = _private("analysed-warn", "Analysed with warnings")
NOT_ANALYSED = _private("not-analysed", "Not analysed")
WARNING = _private("warning", "Warning")
LUNGS_VOLUME = _private("lungs-volume", "Volume of both lungs")
LESION_VOLUME = _private("lesion-volume", "Lesion volume")
GROUND_GLASS_VOLUME = _private("ggo-volume", "Ground glass volume")
CONSOLIDATION_VOLUME = _private("consol-volume", "Consolidation volume")
GROUND_GLASS_EXTENT = _private("ggo-extent", "Ground glass extent")
CONSOLIDATION_EXTENT = _private("consol-extent", "Consolidation extent")
CONSOLIDATION_SHARE = _private("consol-share", "Consolidation share of lesion")
AFFECTED_FRACTION = _private("affected-lung", "Affected fraction of lung")
AFFECTED_FRACTION_WORSE = _private("affected-worse", "Affected fraction of worse lung")
AFFECTED_FRACTION_BOTH = _private("affected-both", "Affected fraction of both lungs")
PROBABILITY_OF_COVID_19 = _private("covid-prob", "Probability of COVID-19")
NOT_PROVIDED = _private("not-provided", "Not provided by this method")
CT_GRADE_SCALE = _private("ct-grade", "CT grade (CT-0 to CT-4)")
CT_SS_SCALE = _private("ct-ss", "CT-SS (LungQuant, 1 to 5)")
REASON_NOT_ANALYSED = _private("reason", "Reason not analysed")

MILLIMETRE = Code("mm", "UCUM", "mm")
MILLILITRE = Code("mL", "UCUM", "mL")
PERCENT = Code("%", "UCUM", "%")

# ---------------------------------------------------------------- algorithms (CID 7162)
MORPHOLOGICAL_OPERATIONS = _dcm("123104", "Morphological Operations")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence")
WITHOUT_WEIGHTS: Final = frozenset({"threshold"})  # methods that learnt nothing


def algorithm_family(method: str) -> Code:
    """Family of a method by its name in the configuration."""
    return MORPHOLOGICAL_OPERATIONS if method in WITHOUT_WEIGHTS else ARTIFICIAL_INTELLIGENCE


# ---------------------------------------------------------------- scales
def ct_grade(grade: CtGrade, grades_up_to: tuple[float, float, float] = NO_CARD.grades_up_to) -> Code:
    """The code of a CT grade; its meaning names the cut-offs by which it was given, as fractions of the worse lung."""
    cuts = [f"{100 * cut:g}" for cut in grades_up_to]
    limits = {
        CtGrade.CT_0: "no lesion",
        CtGrade.CT_1: f"up to {cuts[0]} % of the worse lung",
        CtGrade.CT_2: f"{cuts[0]} to {cuts[1]} % of the worse lung",
        CtGrade.CT_3: f"{cuts[1]} to {cuts[2]} % of the worse lung",
        CtGrade.CT_4: f"over {cuts[2]} % of the worse lung",
    }
    return _private(grade.lower(), f"{grade}: {limits[grade]}")


CT_GRADES: Mapping[CtGrade, Code] = MappingProxyType({grade: ct_grade(grade) for grade in CtGrade})

SEVERITIES: Mapping[CtGrade, Code] = MappingProxyType({
    CtGrade.CT_0: _sct("260413007", "None"),
    CtGrade.CT_1: _sct("255604002", "Mild"),
    CtGrade.CT_2: _sct("6736007", "Moderate"),
    CtGrade.CT_3: _sct("371924009", "Moderate to severe"),
    CtGrade.CT_4: _sct("24484000", "Severe"),
})  # fmt: skip

CT_SS: Mapping[CtSeverityScore, Code] = MappingProxyType({
    CtSeverityScore.UNDER_5: _private("ct-ss-1", "CT-SS 1: under 5 % of both lungs"),
    CtSeverityScore.FROM_5_TO_25: _private("ct-ss-2", "CT-SS 2: 5 to under 25 % of both lungs"),
    CtSeverityScore.FROM_25_TO_50: _private("ct-ss-3", "CT-SS 3: 25 to under 50 % of both lungs"),
    CtSeverityScore.FROM_50_TO_75: _private("ct-ss-4", "CT-SS 4: 50 to under 75 % of both lungs"),
    CtSeverityScore.FROM_75: _private("ct-ss-5", "CT-SS 5: 75 % of both lungs or more"),
})  # fmt: skip

# ---------------------------------------------------------------- what an answer puts out of date
SUPERSEDED: Mapping[ResultKind, Code] = MappingProxyType({
    "lesions": _private("old-lesions", "Superseded segmentation of lesions"),
    "lungs": _private("old-lungs", "Superseded segmentation of lungs"),
    "overview": _private("old-overview", "Superseded overview image"),
    "report": _private("old-report", "Superseded report"),
    "lesion map": _private("old-lesion-map", "Superseded label map of lesions"),
    "lung map": _private("old-lung-map", "Superseded label map of lungs"),
})  # fmt: skip

# ---------------------------------------------------------------- why something was not analysed
REASONS: Mapping[Reason, Code] = MappingProxyType({
    reason: _private(value, meaning)
    for reason, value, meaning in (
        (Reason.NOT_CT, "NOT_CT", "Not CT images"),
        (Reason.LOCALIZER, "LOCALIZER", "Localizer"),
        (Reason.NOT_PRIMARY, "NOT_PRIMARY", "Derived or secondary images"),
        (Reason.NOT_HOUNSFIELD, "NOT_HOUNSFIELD", "Values are not Hounsfield units"),
        (Reason.NOT_AXIAL, "NOT_AXIAL", "Not axial"),
        (Reason.TOO_FEW_SLICES, "TOO_FEW_SLICES", "Too few slices"),
        (Reason.TOO_MANY_SLICES, "TOO_MANY_SLICES", "Too many slices"),
        (Reason.COVERAGE_TOO_SHORT, "COVERAGE_SHORT", "Coverage too short"),
        (Reason.SPACING_TOO_LARGE, "SPACING_LARGE", "Slice spacing too large"),
        (Reason.GAP, "GAP", "Slices are missing"),
        (Reason.DUPLICATE_POSITIONS, "DUPLICATE_POS", "Several images at one position"),
        (Reason.MIXED_ORIENTATION, "MIXED_ORIENT", "Mixed orientations"),
        (Reason.MIXED_FRAME_OF_REFERENCE, "MIXED_FRAME_REF", "Mixed frames of reference"),
        (Reason.MIXED_MATRIX, "MIXED_MATRIX", "Mixed matrix sizes"),
        (Reason.MISSING_ATTRIBUTE, "MISSING_ATTR", "Attribute missing or unusable"),
        (Reason.UNDECODABLE, "UNDECODABLE", "Cannot be decoded"),
        (Reason.NO_LUNGS, "NO_LUNGS", "No lungs found"),
        (Reason.NOT_PREFERRED, "NOT_PREFERRED", "Another series was judged"),
        (Reason.NO_SUITABLE_SERIES, "NO_SERIES", "No suitable series"),
        (Reason.ANALYSIS_FAILED, "ANALYSIS_FAILED", "Analysis failed"),
    )
})  # fmt: skip

# Reasons that are a failure of what was tried; all others mean that nothing was tried.
FAILURES: Final = frozenset({Reason.ANALYSIS_FAILED, Reason.NO_LUNGS, Reason.UNDECODABLE})


def status_of(reason: Reason) -> Code:
    """Processing status of CID 6042 that belongs to a refusal."""
    return FAILED if reason in FAILURES else NOT_ATTEMPTED


# What a private code means, for whoever meets one in a report.
DEFINITIONS: Mapping[str, str] = MappingProxyType({
    "analysis-state": "Whether a study was analysed, analysed with warnings, or not analysed.",
    "analysed": "All was measured that the method measures, and nothing spoke against the numbers.",
    "analysed-warn": "There are numbers, and sentences that must be read before the numbers are used.",
    "not-analysed": "There are no numbers. This says nothing about the patient.",
    "warning": "A sentence that must be read before the numbers are used.",
    "lungs-volume": "Volume of the lung or lungs that were found.",
    "lesion-volume": "Volume of the voxels inside the lungs that the method marks as lesion.",
    "ggo-volume": "The part of the lesion volume that the method, or else a low attenuation, makes ground glass.",
    "consol-volume": "The part of the lesion volume that the method, or else a high attenuation, makes consolidation.",
    "ggo-extent": "Ground glass volume over the volume of the lung or lungs, in percent (Bartoli 2022).",
    "consol-extent": "Consolidation volume over the volume of the lung or lungs, in percent (Bartoli 2022).",
    "consol-share": "Consolidation volume over lesion volume, in percent.",
    "affected-lung": "Lesion volume of one lung over that lung's volume, in percent (Goncharov 2021, section 2.1).",
    "affected-worse": "The larger of the two lungs' affected fractions (Goncharov 2021, section 2.1).",
    "affected-both": "Lesion volume of both lungs over the volume of both lungs, in percent.",
    "covid-prob": "Probability of COVID-19 as given by a method's identification head.",
    "not-provided": "The method has no output for this: neither low nor zero.",
    "ct-grade": "CT-0 to CT-4 by the affected fraction of the worse lung (Goncharov 2021, section 3.1), cut where the"
    " report's algorithm parameters say.",
    "ct-ss": "Severity score 1 to 5 by the affected fraction of both lungs (Lizzi 2021, LungQuant).",
    "reason": "Why a study or a series was not analysed.",
    **{code.value: f"{code.meaning}, by its SOP Instance UID." for code in SUPERSEDED.values()},
    **{code.value: code.meaning for table in (CT_GRADES, CT_SS, REASONS) for code in table.values()},
})  # fmt: skip
