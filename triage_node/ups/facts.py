"""What the images show, as content items of the Scheduled Processing Parameters Sequence (0074,1210).

Each is a Content Item Macro (PS3.3 table 10-2) with the codes of the structured report; the side of a lung is a
modifier of its item. A study that was not analysed says so and why, and so does a number that an answer does not have:
silence would look like a negative answer, and an empty number like a zero. Before there is an answer nothing is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triage_node import codes
from triage_node.study import CtGrade, CtSeverityScore, Laterality
from triage_node.ups import values

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

    from triage_node.ups.values import Values
    from triage_node.worklist import WorklistItem

LONGEST_TEXT = 1024  # of a text that is read in a list


def content(study: WorklistItem | None) -> tuple[Values, ...]:
    """The facts of a study; none before there is an answer, whoever reads it already."""
    if study is None or study.generation is None:
        return ()
    judged = study.affected_fraction is not None or study.covid_probability is not None
    found = _judged(study) if judged else (_code(codes.STATE_OF_ANALYSIS, codes.NOT_ANALYSED),)
    return (*found, _text(codes.COMMENT, "; ".join(study.reasons)))


def _judged(study: WorklistItem) -> tuple[Values, ...]:
    sides = (
        (Laterality.RIGHT, study.affected_fraction_right),
        (Laterality.LEFT, study.affected_fraction_left),
    )
    share = study.consolidation_share  # None where there is no lesion to have a share in
    return (
        _code(codes.STATE_OF_ANALYSIS, codes.ANALYSED),
        *(() if study.method is None else (_text(codes.ALGORITHM_NAME, study.method),)),
        _percent(codes.PROBABILITY_OF_COVID_19, study.covid_probability),
        _percent(codes.AFFECTED_FRACTION_WORSE, study.affected_fraction),
        *(
            {
                **_percent(codes.AFFECTED_FRACTION, fraction),
                **values.of(ContentItemModifierSequence=(_code(codes.SIDE, codes.LATERALITY[side]),)),
            }
            for side, fraction in sides
        ),
        *(() if share is None else (_percent(codes.CONSOLIDATION_SHARE, share),)),
        *(() if study.ct_grade is None else (_code(codes.CT_GRADE_SCALE, codes.CT_GRADES[CtGrade(study.ct_grade)]),)),
        *(() if study.ct_ss is None else (_code(codes.CT_SS_SCALE, codes.CT_SS[CtSeverityScore(study.ct_ss)]),)),
    )


def _percent(concept: Code, fraction: float | None) -> Values:
    """A number in percent; a code, as in the report, where there is none: a lung not found, a method without it."""
    if fraction is None:
        return _code(concept, codes.NOT_PROVIDED)
    return values.of(
        ValueType="NUMERIC",
        ConceptNameCodeSequence=(values.code(concept),),
        NumericValue=f"{100 * fraction:.6g}",
        MeasurementUnitsCodeSequence=(values.code(codes.PERCENT),),
    )


def _code(concept: Code, value: Code) -> Values:
    return values.of(
        ValueType="CODE",
        ConceptNameCodeSequence=(values.code(concept),),
        ConceptCodeSequence=(values.code(value),),
    )


def _text(concept: Code, text: str) -> Values:
    return values.of(
        ValueType="TEXT", ConceptNameCodeSequence=(values.code(concept),), TextValue=text[:LONGEST_TEXT] or "-"
    )
