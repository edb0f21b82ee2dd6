"""What other rules would do to a node's own list, now and in the days that are over."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tests import filed
from triage_node import what_if
from triage_node.__main__ import app
from triage_node.config import WorklistSection
from triage_node.journal import Journal, queue, workitems

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000.0
HOUR = 3600.0
CONFIGURED = WorklistSection()


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal(tmp_path / "state", "test")
    yield opened
    opened.close()


def judge(
    journal: Journal, study: str, at: float, fraction: float, *, answer_after: float = 10.0, refusal: str | None = None
) -> None:
    filed.queued(journal, study, now=at, slices=1, accession_number=f"A{study}")
    job = queue.claim(journal, "analyst", at)
    assert job is not None
    assert queue.finish(
        journal, job, "analyst", filed.result(job, right=fraction, left=0.0, refusal=refusal), (), at + answer_after
    )


def read(journal: Journal, study: str, begun: float, ended: float) -> None:
    workitems.claim(journal, study, "reader", begun)
    workitems.finish(journal, study, "reader", ended)


def a_day(journal: Journal, end: float = NOW) -> None:
    """Twenty mild and five moderate studies came within minutes; one reader read them in this order, 10 min each."""
    begin = end - 6 * HOUR
    for number in range(25):
        judge(journal, f"1.{number:02d}", begin + number, 0.3 if number % 5 == 4 else 0.05)
        read(journal, f"1.{number:02d}", begin + 100 + 600 * number, begin + 100 + 600 * number + 500)


def test_the_list_now_is_told_with_who_would_stand_elsewhere_and_why(journal: Journal) -> None:
    judge(journal, "2.1", NOW - 3000, 0.1)
    judge(journal, "2.2", NOW - 2000, 0.3)
    judge(journal, "2.3", NOW - 1000, 0.0, refusal="a gap")
    judge(journal, "2.4", NOW - 500, 0.6)
    same = what_if.now(journal, CONFIGURED, CONFIGURED, NOW)
    assert (same.studies, same.levels, same.moves) == (4, {"HIGH": 1, "MEDIUM": 1, "LOW": 1}, ())
    other = what_if.now(journal, CONFIGURED, WorklistSection(fraction_high=0.25), NOW)
    assert other.levels_as_tried == {"HIGH": 2, "MEDIUM": 0, "LOW": 1}
    (move,) = other.moves
    assert (move.accession_number, move.reading_priority, move.reading_priority_as_tried) == ("A2.2", "MEDIUM", "HIGH")
    assert (move.rank, move.rank_as_tried) == (2, 2)
    hurried = what_if.now(journal, CONFIGURED, WorklistSection(max_wait_min=40), NOW)
    assert [(one.study_instance_uid, one.rank, one.rank_as_tried) for one in hurried.moves] == [
        ("2.1", 4, 1),
        ("2.4", 1, 2),
        ("2.2", 2, 4),
    ]
    assert "has waited longer than 40 min" in hurried.moves[0].explanation


def test_the_past_is_read_again_at_the_moments_at_which_readers_really_took_a_study(journal: Journal) -> None:
    a_day(journal)
    past = what_if.past(journal, WorklistSection(max_wait_min=1e6), WorklistSection(fraction_high=0.3), NOW, days=1)
    assert (past.studies, past.readings) == (25, 25)
    assert "each of the 25 moments" in past.how
    assert list(past.groups) == ["MEDIUM -> HIGH", "LOW -> LOW"]
    moderate, mild = past.groups["MEDIUM -> HIGH"], past.groups["LOW -> LOW"]
    by_arrival = moderate["in order of arrival"]
    assert (by_arrival.read, by_arrival.left) == (5, 0)
    # every fifth of 25: the readings number 4, 9, 14, 19 and 24, ten minutes each
    assert by_arrival.mean_min == pytest.approx(10 * 14 + (100 - 14) / 60, abs=0.2)
    assert by_arrival.longest_min == pytest.approx(10 * 24 + (100 - 24) / 60, abs=0.2)
    assert moderate["as configured"].mean_min == pytest.approx(10 * 2 + (100 - 14) / 60, abs=0.2)
    assert mild["as configured"].mean_min > mild["in order of arrival"].mean_min
    # 120 min are over for those who still wait then: they go first
    assert mild["as tried"].longest_min == pytest.approx(10 * 24 + (100 - 23) / 60, abs=0.5)


def test_studies_that_nobody_got_to_are_counted_as_left(journal: Journal) -> None:
    a_day(journal)
    judge(journal, "3.1", NOW - 1800, 0.0)
    judge(journal, "3.2", NOW - 1700, 0.0, refusal="a gap")
    past = what_if.past(journal, CONFIGURED, CONFIGURED, NOW, days=1)
    assert past.groups["LOW -> LOW"]["as configured"].left == 1
    assert past.groups[what_if.NOT_JUDGED]["as tried"].left == 1
    assert past.groups[what_if.NOT_JUDGED]["as tried"].mean_min is None


def test_without_readings_readers_are_assumed_and_said_to_be(journal: Journal) -> None:
    for number in range(4):
        judge(journal, f"1.{number}", NOW - 7200 + number, 0.9 if number == 3 else 0.0, answer_after=0.0)
    past = what_if.past(journal, CONFIGURED, CONFIGURED, NOW, days=1)
    assert past.how == "1 reader all day and night, 8.0 min a study (assumed: the journal knows of too few readings)"
    assert past.groups["HIGH -> HIGH"]["in order of arrival"].mean_min == pytest.approx(24.0, abs=0.2)
    assert past.groups["HIGH -> HIGH"]["as configured"].mean_min == pytest.approx(8.0, abs=0.2)
    given = what_if.past(journal, CONFIGURED, CONFIGURED, NOW, days=1, readers=2, reading_min=5.0)
    assert given.how == "2 readers all day and night, 5.0 min a study (as you say)"
    assert given.groups["HIGH -> HIGH"]["in order of arrival"].mean_min == pytest.approx(5.0, abs=0.2)


def test_minutes_a_study_are_measured_where_only_the_readers_are_assumed(journal: Journal) -> None:
    a_day(journal)
    past = what_if.past(journal, CONFIGURED, CONFIGURED, NOW, days=1, readers=3)
    assert past.how == "3 readers all day and night, 8.3 min a study (median of 25 readings)"


def test_only_the_days_that_are_asked_for_are_looked_at(journal: Journal) -> None:
    a_day(journal)
    assert what_if.past(journal, CONFIGURED, CONFIGURED, NOW, days=0.1).studies == 0
    assert what_if.past(journal, CONFIGURED, CONFIGURED, NOW, days=0.1).groups == {}


@pytest.fixture
def config_file(tmp_path: Path, journal: Journal) -> Path:
    a_day(journal, time.time())
    judge(journal, "2.1", time.time() - 3000, 0.1)
    judge(journal, "2.2", time.time() - 2000, 0.3)
    path = tmp_path / "node.toml"
    path.write_text('[node]\nstate_dir = "state"\n', encoding="utf-8")
    return path


def ask(*options: object):
    return CliRunner().invoke(app, ["what-if", *map(str, options)])


def test_the_command_answers_in_words_and_as_json(config_file: Path) -> None:
    shown = ask("--config", config_file, "--fraction-high", "0.3")
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.output.split())
    assert "Tried: fraction_high = 0.3" in words
    assert "2 studies in the queue; of the judged 1 HIGH (as configured 0), 0 MEDIUM (as configured 1), 1 LOW" in words
    assert "MEDIUM -> HIGH" in words
    assert "NOT FOR DIAGNOSTIC USE" in words
    answer = json.loads(ask("--config", config_file, "--fraction-high", "0.3", "--json").output)
    assert answer["tried"] == {"fraction_high": 0.3}
    assert answer["now"]["levels_as_tried"] == {"HIGH": 1, "MEDIUM": 0, "LOW": 1}
    assert answer["past"]["groups"]["MEDIUM -> HIGH"]["as tried"]["read"] == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--fraction-high", "0.2", "--fraction-medium", "0.4"), "must not be over fraction_high"),
        (("--max-wait-min", "0"), "greater than 0"),
        (("--strategy", "luck"), "identification"),
    ],
)
def test_rules_that_cannot_be_are_refused_with_words(config_file: Path, options: tuple[str, ...], words: str) -> None:
    refused = ask("--config", config_file, *options)
    assert refused.exit_code == 2
    assert words in " ".join(refused.output.replace("│", " ").split())


def test_a_node_without_studies_is_no_error(tmp_path: Path) -> None:
    Journal(tmp_path / "state", "test").close()
    path = tmp_path / "node.toml"
    path.write_text('[node]\nstate_dir = "state"\n', encoding="utf-8")
    shown = ask("--config", path)
    assert shown.exit_code == 0
    assert "0 studies in the queue" in shown.output
