"""An answer as coded observations: one for each number and grade, the same ones in every message.

A RIS maps results by the identifier in OBX-3, so each measurement has one of its own, for the right and the left lung
too. All of them are in every message: what an answer does not have is said to be unobtainable (status X), never left
out, and never zero. So a newer answer replaces each earlier value, and silence cannot be taken for a negative finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from pydicom.sr.coding import Code

from triage_node import codes
from triage_node.hl7 import er7
from triage_node.study import NO_CARD, ReadingPriority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from triage_node.study import Assessment, NotAnalysed


def _private(value: str, meaning: str) -> Code:
    return Code(value, codes.PRIVATE_SCHEME, meaning)


# Beside those of `codes`: what the report says of a lung in its place in the tree needs a name of its own here.
AFFECTED_RIGHT: Final = _private("affected-right", "Affected fraction of right lung")
AFFECTED_LEFT: Final = _private("affected-left", "Affected fraction of left lung")
READING_PRIORITY: Final = _private("reading-prio", "Reading priority")
PRIORITIES: Mapping[ReadingPriority, Code] = MappingProxyType(
    {level: _private(level.value, f"{level.value.capitalize()} reading priority") for level in ReadingPriority}
)
# As IHE names the study in OBX-3 (RAD TF-2, procedure update); DCM itself calls the concept "Study".
STUDY: Final = Code("113014", "DCM", "DICOM Study")
REPORT: Final = _private("report-uid", "SOP Instance UID of the report")
PERCENT: Final = Code("%", "UCUM", "percent")

# Status of a single observation, where it is not that of the whole answer (HL7 table 0085)
Status = Literal["X", "O"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to one study, as a RIS should know it."""

    study_instance_uid: str
    generation: int
    created_at: float
    assessment: Assessment | None
    not_analysed: NotAnalysed | None
    reading_priority: ReadingPriority
    report_uid: str | None  # SOP Instance UID of the structured report, where one was made


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One OBX segment: what, of which type, its value in the signs of the message, and what is remarked on it."""

    identifier: str  # OBX-3
    value_type: Literal["NM", "CWE", "ST"]
    value: str
    unit: str = ""  # OBX-6
    status: Status | None = None  # None: that of the answer
    remarks: tuple[str, ...] = ()


def of(answer: Answer) -> tuple[Observation, ...]:
    """The observations of an answer, in their order."""
    return tuple(_observations(answer))


def _observations(answer: Answer) -> Iterator[Observation]:
    assessment = answer.assessment
    yield _coded(codes.STATE_OF_ANALYSIS, _state(answer))
    yield _coded(
        codes.REASON_NOT_ANALYSED,
        codes.REASONS[answer.not_analysed.reason] if answer.not_analysed else None,
        remarks=(answer.not_analysed.words,) if answer.not_analysed else (),
    )
    yield _percentage(
        codes.PROBABILITY_OF_COVID_19,
        assessment.covid_probability if assessment else None,
        alternate=codes.CERTAINTY_OF_FINDING,
        remarks=_on_probability(assessment),
    )
    right, left = (assessment.right, assessment.left) if assessment else (None, None)
    for code, lung in ((AFFECTED_RIGHT, right), (AFFECTED_LEFT, left)):
        lost = (f"{'right' if code is AFFECTED_RIGHT else 'left'} lung not found",) if assessment and not lung else ()
        yield _percentage(code, lung.affected_fraction if lung else None, remarks=lost)
    for code, name in (
        (codes.AFFECTED_FRACTION_WORSE, "affected_fraction"),
        (codes.AFFECTED_FRACTION_BOTH, "affected_fraction_both"),
        (codes.GROUND_GLASS_EXTENT, "ground_glass_fraction_both"),
        (codes.CONSOLIDATION_EXTENT, "consolidation_fraction_both"),
    ):
        yield _percentage(code, getattr(assessment, name) if assessment else None)
    grade = assessment.ct_grade if assessment else None
    cuts = assessment.operating_point.grades_up_to if assessment else NO_CARD.grades_up_to
    yield _coded(codes.CT_GRADE_SCALE, codes.ct_grade(grade, cuts) if grade else None)
    yield _coded(codes.CT_SS_SCALE, codes.CT_SS[assessment.ct_ss] if assessment else None)
    yield _coded(codes.SEVERITY, codes.SEVERITIES[grade] if grade else None)
    yield _coded(READING_PRIORITY, PRIORITIES[answer.reading_priority])
    # A name of what was observed, no result of it: status O, as IHE does it
    yield Observation(identifier=er7.coded(STUDY), value_type="ST", value=answer.study_instance_uid, status="O")
    if answer.report_uid is not None:
        yield Observation(identifier=er7.coded(REPORT), value_type="ST", value=answer.report_uid, status="O")


def _state(answer: Answer) -> Code:
    if answer.assessment is None:
        return codes.NOT_ANALYSED
    return codes.ANALYSED_WITH_WARNINGS if answer.assessment.warnings else codes.ANALYSED


def _on_probability(assessment: Assessment | None) -> tuple[str, ...]:
    if assessment is None:
        return ()
    if assessment.covid_probability is None:
        return (codes.NOT_PROVIDED.meaning,)
    return (assessment.model.trust,) if assessment.model.trust else ()


def _percentage(
    code: Code, fraction: float | None, *, alternate: Code | None = None, remarks: tuple[str, ...] = ()
) -> Observation:
    return Observation(
        identifier=er7.coded(code, alternate),
        value_type="NM",
        value="" if fraction is None else er7.number(100 * fraction),
        unit=er7.coded(PERCENT),
        status="X" if fraction is None else None,
        remarks=remarks,
    )


def _coded(code: Code, value: Code | None, *, remarks: tuple[str, ...] = ()) -> Observation:
    return Observation(
        identifier=er7.coded(code),
        value_type="CWE",
        value="" if value is None else er7.coded(value),
        status="X" if value is None else None,
        remarks=remarks,
    )
