from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests import filed
from triage_node import config, terminal, worklist
from triage_node.journal import Journal, outbox, queue
from triage_node.study import NotAnalysed, PassedOver, Reason

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

NOW = 1_700_000_000.0
PACS = config.DestinationSection(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
SETTINGS = config.Settings()
DESCRIPTIONS = ("CT CHEST WITHOUT CONTRAST", "Thorax HR", "", "[b]CHEST[/b] \x1b[2J LOW-DOSE [/x]")
ROOT = f"1.2.826.0.1.3680043.8.498.{'4' * 28}"
REFUSAL = "3 images are missing between 112.5 mm and 120.0 mm"


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


def fill(journal: Journal, studies: int) -> None:
    """Judged, not analysed (study 3, 9) and waiting (study 4, 9, 14) ones of 64-character UIDs."""
    for number in range(studies):
        uid, at = f"{ROOT}.{number:02d}", NOW - number * 500
        for part in range(3):
            header = filed.header(
                uid,
                f"{uid}.1",
                part,
                accession_number="" if number % 4 == 3 else f"ACC20200331{number:05d}",
                study_description=DESCRIPTIONS[number % 4],
            )
            filed.arrive(journal, header, now=at)
        if number % 5 == 4:
            continue
        filed.close_all(journal, at + 30)
        job = queue.claim(journal, "analyst", at + 31)
        assert job is not None
        result = filed.result(
            job,
            right=(number * 37 % 101) / 100,
            left=(number * 13 % 101) / 100,
            probability=None if number % 2 else 0.42,
            refusal=REFUSAL if number % 6 == 3 else None,
            passed_over=(
                PassedOver(
                    series_instance_uid=f"{uid}.1",
                    description="LUNG 1.0",
                    not_analysed=NotAnalysed(reason=Reason.GAP, words=REFUSAL),
                ),
            )
            if number % 6 == 3
            else (),
        )
        assert queue.finish(journal, job, "analyst", result, (PACS,), at + 60)


def rendered(what: RenderableType, width: int) -> list[str]:
    screen = Console(width=width, file=io.StringIO(), highlight=False, markup=False, emoji=False)
    screen.print(what)
    assert isinstance(screen.file, io.StringIO)
    lines = screen.file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "\x1b" not in screen.file.getvalue()
    return lines


def listed(journal: Journal, width: int) -> list[str]:
    return rendered(terminal.reading_list(worklist.reading_list(journal, SETTINGS, NOW), "Reading list"), width)


WIDTHS = (80, 100, 120, 149, 150, 200)


@pytest.mark.parametrize("width", WIDTHS)
def test_an_empty_list_says_so_and_draws_no_empty_table(journal: Journal, width: int) -> None:
    assert listed(journal, width) == ["Reading list", "0 studies.  NOT FOR DIAGNOSTIC USE"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("studies", [1, 3, 15])
def test_a_list_of_any_length_breaks_no_short_value_in_two(journal: Journal, studies: int, width: int) -> None:
    fill(journal, studies)
    lines = listed(journal, width)
    items = worklist.reading_list(journal, SETTINGS, NOW)
    for item in items:
        (line,) = [line for line in lines[3:-1] if line.split()[:1] == [str(item.rank)]]
        assert item.reading_priority in line
        assert terminal.minutes(item.waiting_s) in line
        assert item.accession_number in line
        if item.affected_fraction is not None:
            assert f"{item.affected_fraction_right:.0%}" in line
            assert f"{item.affected_fraction_left:.0%}" in line
            assert "CT-2" in line
    counts = " ".join(lines[-1].split())
    assert counts.startswith("1 study: 1 judged." if studies == 1 else f"{studies} studies: ")
    assert counts.endswith("NOT FOR DIAGNOSTIC USE")


@pytest.mark.parametrize("width", WIDTHS)
def test_fifteen_studies_fit_on_a_screen_and_the_refusal_is_told_in_full(journal: Journal, width: int) -> None:
    fill(journal, 15)
    lines = listed(journal, width)
    assert len(lines) <= 48
    words = " ".join(" ".join(lines).split())
    if width < 150:
        assert f"not analysed: {REFUSAL}" in words
    else:
        assert all(word in words for word in f"not analysed: {REFUSAL}".split())


def test_square_brackets_and_control_characters_of_a_description_are_shown_not_obeyed(journal: Journal) -> None:
    fill(journal, 4)
    text = "\n".join(listed(journal, 120))
    assert "[b]CHEST[/b] ?[2J LOW-DOSE [/x]" in text
    report = worklist.study_report(journal, f"{ROOT}.03")
    assert report is not None
    assert "[b]CHEST[/b] ?[2J LOW-DOSE [/x]" in "\n".join(rendered(terminal.study(report), 120))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_judged_study_shows_measurements_evidence_ledger_and_history(journal: Journal, width: int) -> None:
    fill(journal, 3)
    (first, *_) = outbox.due(journal, "pacs", NOW)
    outbox.record(journal, first, "failed", status=None, words="cannot be reached", now=NOW, retry_at=NOW + 60)
    report = worklist.study_report(journal, f"{ROOT}.02")
    assert report is not None
    words = " ".join(" ".join(rendered(terminal.study(report), width)).split())
    for expected in (
        f"study instance uid {ROOT}.02",
        "right lung 2500 ml 1850 ml 1388 ml, 55.5% 462 ml, 18.5% 74.0%",
        "left lung 2500 ml 650 ml 488 ml, 19.5% 162 ml, 6.5% 26.0%",
        "both lungs 5000 ml 2500 ml 1875 ml, 37.5% 625 ml, 12.5% 50.0%",
        "HIGH and MEDIUM from P(COVID-19) 0.5, 0.2; affected fraction 0.5, 0.25; CT-1, CT-2 and CT-3 up to 0.25, 0.5,",
        "grade CT-2 (worse lung 74.0%)",
        "P(COVID-19) 0.42",
        "method threshold 1, generation 1",
        "CT LUNG 1.0 3 closed (1) nothing new judged",
        "lungs 1 pacs queued 1 cannot be reached",
        "study judged",
        "NOT FOR DIAGNOSTIC USE",
    ):
        assert expected in words


def test_a_probability_stands_beside_how_far_it_can_be_trusted(journal: Journal) -> None:
    fill(journal, 1)
    report = worklist.study_report(journal, f"{ROOT}.00")
    assert report is not None
    measured = report["measurements"]
    assert isinstance(measured, dict)
    model = {**measured["model"], "trust": "Learnt from few patients.", "parameters": [["Lesion threshold", "0.3"]]}

    def words(**changes: object) -> str:
        shown = {**report, "measurements": {**measured, "model": model, **changes}}
        return " ".join(" ".join(rendered(terminal.study(shown), 120)).split())

    assert "P(COVID-19) 0.42 how far it can be trusted: Learnt from few patients." in words()
    assert "Lesion threshold: 0.3" in words()
    assert "consolidation: lesion from" not in words()
    assert "consolidation: lesion from -200 HU on" in words(consolidation_from_hu=-200)
    assert "trusted" not in words(covid_probability=None)


def test_a_study_that_was_not_analysed_says_why(journal: Journal) -> None:
    fill(journal, 4)
    report = worklist.study_report(journal, f"{ROOT}.03")
    assert report is not None
    words = " ".join(" ".join(rendered(terminal.study(report), 150)).split())
    assert f"Not analysed, because {REFUSAL} (GAP)" in words
    assert f"GAP: {REFUSAL}" in words
    assert "state not analysed" in words


def test_a_study_that_has_just_begun_to_arrive_can_be_shown(journal: Journal) -> None:
    filed.arrive(journal, filed.header("1.2", "1.2.1", 0, accession_number=""), now=NOW)
    report = worklist.study_report(journal, "1.2")
    assert report is not None
    words = " ".join(" ".join(rendered(terminal.study(report), 80)).split())
    assert "accession number -" in words
    assert "CT LUNG 1.0 1 open (0) - -" in words


def test_the_status_has_a_line_for_each_destination(journal: Journal) -> None:
    fill(journal, 5)
    lines = rendered(terminal.status({**worklist.status(journal), "running": False}), 80)
    found = {line[:19].strip(): line[19:].strip() for line in lines}
    assert found["studies"] == "5"
    assert found["instances"] == "15"
    assert found["open series"] == "1"
    assert found["jobs"] == "4 done"
    assert found["to pacs"] == "16 queued"
    assert found["node"] == "not running"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 00 min"), (90_061, "25 h 01 min")],
)
def test_waiting_times_are_told_in_the_largest_units(seconds: float, words: str) -> None:
    assert terminal.minutes(seconds) == words


def test_what_is_not_known_is_not_shown_as_zero() -> None:
    assert terminal.percent(None) == "-"
    assert terminal.percent(0.0) == "0%"
    assert [terminal.bar(fraction) for fraction in (None, 0.0, 0.34, 1.0)] == [
        "··········",
        "··········",
        "███·······",
        "██████████",
    ]
