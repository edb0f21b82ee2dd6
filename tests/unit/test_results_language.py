"""A report in another language: the same codes and numbers, other words, and what stays English is marked."""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING, get_args

import numpy as np
import pydicom
import pytest
from pydicom.sr.coding import Code

from tests.unit.results_cases import MODEL, build, by_class, errors_of, judge, run
from tests.unit.test_results_report import NETWORKS
from triage_node import codes, results
from triage_node.config import ResultsSection
from triage_node.results.report import WORDINGS
from triage_node.results.wording import ENGLISH, Sentence
from triage_node.study import NO_CARD, CtGrade, NotAnalysed, PassedOver, Reason

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom.dataset import Dataset

    from tests.unit.results_cases import Case
    from triage_node.results import ResultObject
    from triage_node.results.wording import Wording

    Pairs = dict[str, tuple[ResultObject, ResultObject]]

OTHERS = {name: wording for name, wording in WORDINGS.items() if wording is not ENGLISH}
SINGLE = [value for value in vars(codes).values() if isinstance(value, Code)]
TABLES = (codes.CT_SS, codes.SEVERITIES, codes.REASONS, codes.LATERALITY, codes.SUPERSEDED)
UNITS = (codes.MILLILITRE, codes.MILLIMETRE, codes.PERCENT)
EVERY = [code for code in [*SINGLE, *(c for table in TABLES for c in table.values())] if code not in UNITS]

other = pytest.mark.parametrize("wording", OTHERS.values(), ids=OTHERS)


def test_the_configuration_offers_every_language_that_there_is() -> None:
    assert set(get_args(ResultsSection.model_fields["language"].annotation)) == set(WORDINGS)
    assert {wording.language.value for wording in WORDINGS.values()} == set(WORDINGS)


@other
def test_every_code_has_a_meaning_of_at_most_64_characters(wording: Wording) -> None:
    for code in EVERY:
        assert (code.scheme_designator, code.value) in wording.meanings, code
        assert 0 < len(wording.meaning(code)) <= 64
    graded = [wording.ct_grade(grade, (0.12345, 0.23456, 0.34567)) for grade in CtGrade]
    assert all(len(code.meaning) <= 64 for code in graded)


@other
def test_every_sentence_is_there_with_the_same_fields(wording: Wording) -> None:
    def fields(words: str) -> set[str | None]:
        return {field for _, field, _, _ in Formatter().parse(words)} - {None}

    assert set(wording.sentences) == set(ENGLISH.sentences) == set(Sentence)
    for which, words in wording.sentences.items():
        assert fields(words) == fields(ENGLISH.sentences[which])
        assert words != ENGLISH.sentences[which]


@other
def test_a_grade_has_the_same_code_and_the_same_cut_offs(wording: Wording) -> None:
    for grade in CtGrade:
        ours, english = (w.ct_grade(grade, (0.1, 0.125, 0.5)) for w in (wording, ENGLISH))
        assert ours.value == english.value
        numbers = re.findall(r"\d+(?:[.,]\d+)?", ours.meaning)
        assert [number.replace(",", ".") for number in numbers] == re.findall(r"\d+(?:\.\d+)?", english.meaning)


def _report(case: Case, language: str) -> ResultObject:
    made = results.judged(case.volume, case.findings, case.assessment, case.identity, language=language)
    return next(entry for entry in made if entry.kind == "report")


def _refused(case: Case, language: str) -> ResultObject:
    refusal = NotAnalysed(reason=Reason.NO_SUITABLE_SERIES, words="no series can be judged")
    gap = NotAnalysed(reason=Reason.GAP, words="slices are missing")
    passed_over = (PassedOver(series_instance_uid="1.2.3", description="Thorax", not_analysed=gap),)
    instances = case.built.series.instances
    (made,) = results.not_analysed(instances, refusal, passed_over, MODEL, case.identity, language=language)
    return made


def _without_words(dataset: Dataset) -> list[object]:
    """Every value at any depth that is no word: codes, numbers, references, structure."""
    found: list[object] = []
    for element in dataset:
        if element.VR == "SQ":
            children = [_without_words(item) for item in element.value if not _of_language(item)]
            found.append((element.tag, [child for child in children if child]))
        elif element.keyword not in {"CodeMeaning", "TextValue", "SpecificCharacterSet"}:
            found.append((element.tag, str(element.value)))
    return found


def _of_language(item: Dataset) -> bool:
    return "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == "121049"


def _same(item: object) -> object:
    """An item's Content Sequence that only said its language is as good as none."""
    if isinstance(item, list):
        return [part for part in (_same(part) for part in item) if part is not None]
    if isinstance(item, tuple) and item[0] == 0x0040A730:
        children = _same(item[1])
        return (item[0], children) if children else None
    return (item[0], _same(item[1])) if isinstance(item, tuple) else item


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """(English, German) reports of every kind."""
    folder = tmp_path_factory.mktemp("sources")
    plain, tilted = build(folder / "plain"), build(folder / "tilted", "gantry tilt")
    classes = by_class(folder / "classes", model=NETWORKS, covid_probability=0.7)
    healthy = judge(plain.built, lesions=np.zeros_like(plain.findings.lesions))
    made = {
        name: (_report(case, "en"), _report(case, "de"))
        for name, case in {"plain": plain, "tilted": tilted, "classes": classes, "healthy": healthy}.items()
    }
    return made | {"refused": (_refused(plain, "en"), _refused(plain, "de"))}


def test_only_words_differ_between_languages(pairs: Pairs) -> None:
    for english, german in pairs.values():
        assert _same(_without_words(english.dataset)) == _same(_without_words(german.dataset))


def test_no_english_word_is_left_that_is_not_marked_as_english(pairs: Pairs) -> None:
    untranslated = {code.meaning for code in EVERY} - {
        OTHERS["de"].meaning(code) for code in EVERY
    }  # fmt: skip
    sentences = {words for words in ENGLISH.sentences.values() if "{" not in words}
    identifiers = {
        "112039",
        "111001",
        "111002",
        "111003",
        "121013",
        "121014",
        "121015",
        "121016",
        "122405",
    }

    def look(dataset: Dataset) -> int:
        texts = 0
        for item in dataset.get("ContentSequence", ()):
            for sequence in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
                assert not any(code.CodeMeaning in untranslated for code in item.get(sequence, ()))
            marked = any(_of_language(child) for child in item.get("ContentSequence", ()))
            if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue not in identifiers:
                texts += 1
                assert item.TextValue not in sentences
                assert marked or re.search(r"\b(der|die|das|nicht|NICHT|mit|wurde|sagt|ist)\b", item.TextValue)
            texts += look(item)
        return texts

    for _, german in pairs.values():
        assert german.dataset.ContentSequence[0].ConceptCodeSequence[0].CodeValue == "de"
        assert look(german.dataset) > 3


def test_a_warning_in_a_german_report_is_marked_as_english(tmp_path: Path) -> None:
    report = _report(build(tmp_path, "gantry tilt"), "de").dataset
    (warning,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == "Warnung"]
    (language,) = warning.ContentSequence
    assert language.ConceptCodeSequence[0].CodeValue == "en"


def test_numbers_in_sentences_are_written_as_in_the_language(tmp_path: Path) -> None:
    report = _report(by_class(tmp_path, model=NETWORKS, covid_probability=0.125), "de").dataset
    texts = [str(item.TextValue) for item in report.ContentSequence if item.ValueType == "TEXT"]
    assert any("Wahrscheinlichkeit von COVID-19: 12,5 %." in text for text in texts)


def test_a_grade_says_its_default_cut_offs_in_german() -> None:
    grades = [OTHERS["de"].ct_grade(grade, NO_CARD.grades_up_to).meaning for grade in CtGrade]
    assert grades[2] == "CT-2: 25 bis 50 % der stärker befallenen Lunge"
    assert grades[4] == "CT-4: über 75 % der stärker befallenen Lunge"


@pytest.mark.peers
def test_dciodvfy_and_dsrdump_read_a_german_report(pairs: Pairs, tmp_path: Path) -> None:
    for name, (_, german) in pairs.items():
        path = tmp_path / f"{name}.dcm"
        results.write(german, path)
        assert errors_of(path) == []
        assert pydicom.dcmread(path).SpecificCharacterSet == "ISO_IR 192"
        read = run("dsrdump", str(path), package="dcmtk")
        assert read.returncode == 0, read.stderr
        assert "Gerät" in read.stdout
        assert "E: " not in read.stderr
