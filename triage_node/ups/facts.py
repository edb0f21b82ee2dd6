"""What the images show, as content items of the Scheduled Processing Parameters Sequence (0074,1210).

Each is a Content Item Macro (PS3.3 table 10-2) with the codes of the structured report; the side of a lung is a
modifier of its item. A study that was not analysed says so and why: silence would look like a negative answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from triage_node import codes
from triage_node.study import CtGrade, CtSeverityScore, Laterality, StudyState
from triage_node.ups import values

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

    from triage_node.ups.values import Values
    from triage_node.worklist import WorklistItem

LONGEST_TEXT = 1024  # of a text that is read in a list


def content(study: WorklistItem | None) -> tuple[Values, ...]:
    """The facts of a study; none before there are images."""
    if study is None:
        return ()
    return (*_state(study), *_numbers(study), _text(codes.COMMENT, "; ".join(study.reasons)))


def _state(study: WorklistItem) -> tuple[Values, ...]:
    judged = study.affected_fraction is not None or study.covid_probability is not None
    if judged:
        method = () if study.method is None else (_text(codes.ALGORITHM_NAME, study.method),)
        return (_code(codes.STATE_OF_ANALYSIS, codes.ANALYSED), *method)
    if study.state is StudyState.WAITING:
        return ()  # nothing is known yet
    return (_code(codes.STATE_OF_ANALYSIS, codes.NOT_ANALYSED),)


def _numbers(study: WorklistItem) -> tuple[Values, ...]:
    sides = (
        (Laterality.RIGHT, study.affected_fraction_right),
        (Laterality.LEFT, study.affected_fraction_left),
    )
    return (
        *_percent(codes.PROBABILITY_OF_COVID_19, study.covid_probability),
        *_percent(codes.AFFECTED_FRACTION_WORSE, study.affected_fraction),
        *(
            {**one, **values.of(ContentItemModifierSequence=(_code(codes.SIDE, codes.LATERALITY[side]),))}
            for side, fraction in sides
            for one in _percent(codes.AFFECTED_FRACTION, fraction)
        ),
        *_percent(codes.CONSOLIDATION_SHARE, study.consolidation_share),
        *(() if study.ct_grade is None else (_code(codes.CT_GRADE_SCALE, codes.CT_GRADES[CtGrade(study.ct_grade)]),)),
        *(() if study.ct_ss is None else (_code(codes.CT_SS_SCALE, codes.CT_SS[CtSeverityScore(study.ct_ss)]),)),
    )


def _percent(concept: Code, fraction: float | None) -> tuple[Values, ...]:
    if fraction is None:
        return ()
    return (
        values.of(
            ValueType="NUMERIC",
            ConceptNameCodeSequence=(values.code(concept),),
            NumericValue=f"{100 * fraction:.6g}",
            MeasurementUnitsCodeSequence=(values.code(codes.PERCENT),),
        ),
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
