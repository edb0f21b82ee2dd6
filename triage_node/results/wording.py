"""The words of a report in one language: the meanings beside its codes, and its sentences.

Codes are the same in every language. What other rooms and a model's card say (warnings, why a series was refused,
how far a probability can be trusted) stays English, and a report in another language marks it as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from triage_node import codes
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, CtGrade

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.sr.coding import Code


class Sentence(StrEnum):
    """What a report says in words; the fields in braces are filled in."""

    CAUTION = "caution"  # {caution}
    NO_PROBABILITY = "no probability"
    TRUST = "trust"
    NO_LESION = "no lesion"
    NO_RIGHT_LUNG = "no right lung"
    NO_LEFT_LUNG = "no left lung"
    REFUSED = "refused"
    FRACTIONS = "fractions"  # {worse} {both} in percent, {ct_grade} {ct_ss}
    PROBABILITY = "probability"  # {percent}
    NEW_IMAGES = "new images"  # {generation} {before}
    NEW_JUDGE = "new judge"  # {generation} {before}
    SAME_AGAIN = "same again"  # {generation} {before}
    CENTER = "center"
    CENTER_OF_LESIONS = "center of lesions"
    CENTER_OF_LUNGS = "center of lungs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """One language; a code that is not in `meanings` keeps its English meaning."""

    language: Code  # RFC 5646
    meanings: Mapping[tuple[str, str], str]  # by coding scheme designator and code value
    sentences: Mapping[Sentence, str]
    decimal_point: str = "."
    # CT-0, CT-1 with {0}, CT-2 and CT-3 with {0} and {1}, CT-4 with {0}: percent; empty: as in `codes.ct_grade`
    grade_limits: tuple[str, ...] = ()

    def meaning(self, code: Code) -> str:
        """Code Meaning, at most 64 characters (PS3.3 section 8.3)."""
        return self.meanings.get((code.scheme_designator, code.value), code.meaning)

    def sentence(self, which: Sentence, **fields: object) -> str:
        """The sentence with its fields filled in; a float has one decimal."""
        return self.sentences[which].format_map({name: self._written(value) for name, value in fields.items()})

    def ct_grade(self, grade: CtGrade, grades_up_to: tuple[float, float, float]) -> Code:
        """The code of a CT grade with the cut-offs by which it was given in its meaning."""
        code = codes.ct_grade(grade, grades_up_to)
        if not self.grade_limits:
            return code
        number = tuple(CtGrade).index(grade)
        cuts = [f"{100 * cut:g}".replace(".", self.decimal_point) for cut in grades_up_to]
        between = cuts[max(0, number - 2) : number] if number < len(cuts) + 1 else cuts[-1:]
        return code._replace(meaning=f"{grade}: {self.grade_limits[number].format(*between)}")

    def _written(self, value: object) -> object:
        return f"{value:.1f}".replace(".", self.decimal_point) if isinstance(value, float) else value


ENGLISH = Wording(
    language=codes.ENGLISH,
    meanings=MappingProxyType({}),
    sentences=MappingProxyType({
        Sentence.CAUTION: f"{NOT_FOR_DIAGNOSTIC_USE}.",
        Sentence.NO_PROBABILITY: "Probability of COVID-19 is not provided by this method: neither low nor zero.",
        Sentence.TRUST: "How far the probability of COVID-19 can be trusted",
        Sentence.NO_LESION: "No lesion voxel was found inside the lungs: there is no lesion segmentation.",
        Sentence.NO_RIGHT_LUNG: "The right lung was not found.",
        Sentence.NO_LEFT_LUNG: "The left lung was not found.",
        Sentence.REFUSED: "This study was not analysed. This says nothing about the patient.",
        Sentence.FRACTIONS: "Affected: {worse} % of the worse lung ({ct_grade}), {both} % of both lungs"
        " (CT-SS {ct_ss}).",
        Sentence.PROBABILITY: "Probability of COVID-19: {percent} %.",
        Sentence.NEW_IMAGES: "This report (generation {generation}) supersedes that of generation {before}:"
        " images of the study arrived after it was made, or another series of it was judged.",
        Sentence.NEW_JUDGE: "This report (generation {generation}) supersedes that of generation {before}:"
        " the same images were judged by another model or configuration.",
        Sentence.SAME_AGAIN: "This report (generation {generation}) supersedes that of generation {before}:"
        " the same images were judged once more.",
        Sentence.CENTER: "The center is a voxel of this structure, on one of the slices that show most of it: a place"
        " to look at, no finding of its own.",
        Sentence.CENTER_OF_LESIONS: "The center is a voxel of the lesions, on the slice that shows most of them: a"
        " place to look at, no finding of its own.",
        Sentence.CENTER_OF_LUNGS: "The center is a voxel of the lungs, on the slice that shows most of them: a place"
        " to look at, no finding.",
    }),
)  # fmt: skip
