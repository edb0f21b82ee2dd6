"""The simulated room: its patients, what the model says of them, and what becomes of their waiting."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import simulate_reading
import typer
from click.testing import Result
from reading_room import judge, outcome, patients, policies, tables
from reading_room.patients import Group, Room, Shares
from typer.testing import CliRunner

from triage_node.config import WorklistSection
from triage_node.study import OrderPriority, StudyState

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "simulate_reading.py"
README = ROOT / "README.md"
CARD = ROOT / "nets" / "weights" / "multitask.json"
SMALL = Room(studies_a_day=60, readers=(1,) * 24, reading_min=18.0, days=2, shares=Shares(not_analysed=0.1, stat=0.05))


def run(*options: str) -> Result:
    app = typer.Typer()
    app.command()(simulate_reading.main)
    return CliRunner().invoke(app, options)


def areas_under_the_curve(probability: np.ndarray, kinds: np.ndarray, against: tuple[int, ...]) -> float:
    sick, rest = probability[kinds == patients.COVID], probability[np.isin(kinds, against)]
    return float(np.mean(sick[:, None] > rest[None, :]) + np.mean(sick[:, None] == rest[None, :]) / 2)


def many(seed: int = 3) -> patients.Patients:
    return patients.draw(replace(SMALL, days=60), np.random.default_rng(seed))


def test_as_many_patients_come_as_the_room_says_when_it_says_and_with_what_it_says() -> None:
    came = many()
    assert len(came.arrived_at) == pytest.approx(61 * 60, rel=0.05)
    assert (np.diff(came.arrived_at) >= 0).all()
    by_hour = np.bincount((came.arrived_at // 3600 % 24).astype(int), minlength=24) / len(came.arrived_at)
    assert by_hour == pytest.approx(np.array(SMALL.by_hour) / sum(SMALL.by_hour), abs=0.02)
    assert np.mean(came.kinds == patients.COVID) == pytest.approx(0.33, abs=0.03)
    severe = came.fractions[came.kinds == patients.COVID] >= patients.SEVERE_FROM
    assert np.mean(severe) == pytest.approx(47 / 856, abs=0.025)
    assert (came.fractions[came.kinds == patients.HEALTHY] == 0).all()
    assert np.mean(came.reading_s) / 60 == pytest.approx(18.0, rel=0.05)
    assert np.std(came.reading_s) / np.mean(came.reading_s) == pytest.approx(0.5, rel=0.1)
    assert np.mean(~came.analysed) == pytest.approx(0.1, abs=0.02)


def test_the_published_separation_gives_the_published_areas_under_the_curve() -> None:
    came = many()
    probability, _ = judge.published(README).judge(came, SMALL.shares, np.random.default_rng(0))
    assert areas_under_the_curve(probability, came.kinds, (patients.HEALTHY,)) == pytest.approx(0.978, abs=0.01)
    assert areas_under_the_curve(probability, came.kinds, (patients.OTHER,)) == pytest.approx(0.927, abs=0.02)
    calibrated = probability[(probability > 0.4) & (probability < 0.6)]
    of_them = came.kinds[(probability > 0.4) & (probability < 0.6)] == patients.COVID
    assert np.mean(of_them) == pytest.approx(float(np.mean(calibrated)), abs=0.12)


def test_the_measured_probabilities_are_those_of_the_cards_test_stacks() -> None:
    stacks = json.loads(CARD.read_text(encoding="utf-8"))["metrics"]["identification_test"]["by_stack"]
    found = judge.measured(CARD, README)
    assert sorted((*found.covid, *found.other, *found.healthy)) == sorted(stacks.values())
    came = many()
    probability, fractions = found.judge(came, SMALL.shares, np.random.default_rng(0))
    assert set(probability[came.kinds == patients.OTHER]) == set(found.other)
    error = (fractions - came.fractions)[(came.fractions > 0.2) & (came.fractions < 0.8)]
    assert np.mean(error) == pytest.approx(found.agreement.bias, abs=0.004)
    assert np.std(error) == pytest.approx(found.agreement.deviation, rel=0.15)


def test_the_error_of_the_fraction_is_that_of_the_evaluation_in_the_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "|  | threshold | multitask | papers |\n| --- | --- | --- | --- |\n"
        "| affected fraction: bias (found minus expert) | -4.1% (6) | -1.0% [-2%, +1%] (6) | |\n"
        "| affected fraction: lower limit of agreement | -9.8% (6) | -4.92% (6) | |\n"
        "| affected fraction: upper limit of agreement | +1.6% (6) | +2.92% (6) | |\n"
    )
    found = judge.agreement(readme, "multitask")
    assert (found.bias, found.deviation) == pytest.approx((-0.01, 0.02), abs=1e-4)
    with pytest.raises(judge.NotEvaluated, match="no evaluation of 'other'"):
        judge.agreement(readme, "other")
    readme.write_text("|  | multitask |\n")
    with pytest.raises(judge.NotEvaluated, match="does not give the affected fraction's bias"):
        judge.agreement(readme, "multitask")
    with pytest.raises(judge.NotEvaluated, match="by_stack"):
        judge.measured(readme, readme)


def test_the_node_knows_of_the_patients_what_the_judge_says_and_when_it_says_it() -> None:
    came = patients.draw(SMALL, np.random.default_rng(1))
    cases = patients.cases(came, SMALL, judge.coin(README), np.random.default_rng(2))
    assert [case.facts.arrived_at for case in cases] == came.arrived_at.tolist()
    assert [case.facts.state is StudyState.JUDGED for case in cases] == came.analysed.tolist()
    assert [case.facts.order_priority is OrderPriority.STAT for case in cases] == came.stat.tolist()
    answered = [case.answered_at or 0.0 for case in cases]
    assert all(later - earlier >= SMALL.answer_s for earlier, later in pairwise(answered))
    assert all(case.answered_at >= case.facts.arrived_at + SMALL.answer_s for case in cases if case.answered_at)


@pytest.fixture(scope="module")
def report() -> dict[str, dict]:
    judges = (judge.measured(CARD, README), judge.published(README), judge.coin(README))
    compared = policies.every(SMALL, judges, WorklistSection(max_wait_min=600))
    told: list[str] = []
    weeks = outcome.simulate(compared, range(4), lambda policy: told.append(policy.name))
    assert len(told) == 4 * len(compared)
    return outcome.summary(compared, weeks)


def mean_of(policy: dict, group: str) -> float:
    return policy["groups"][group]["mean"]["mean"]


def test_the_sick_are_read_sooner_the_others_pay_and_a_coin_helps_nobody(report) -> None:
    strategies = report["strategies"]
    arrival = strategies[policies.ARRIVAL]
    for name in policies.STRATEGIES:
        assert mean_of(strategies[name], Group.SEVERE) < mean_of(arrival, Group.SEVERE) / 1.5
        assert strategies[name]["groups"][Group.OTHERS]["difference"]["mean"] > 0
    models = report["models"]
    assert mean_of(models["as measured"], Group.POSITIVE) < 0.7 * mean_of(models["a coin"], Group.POSITIVE)
    assert mean_of(models["a coin"], Group.POSITIVE) > 0.8 * mean_of(arrival, Group.POSITIVE)


def test_what_was_not_analysed_is_read_no_later_than_in_order_of_arrival_but_for_who_reads_before(report) -> None:
    """The places are the same; readings of other lengths before them make some minutes' difference."""
    for policy in report["strategies"].values():
        difference = policy["groups"][outcome.NOT_ANALYSED]["difference"]
        assert difference["mean"] <= SMALL.reading_min / 2


def test_the_smaller_the_maximum_the_shorter_the_longest_wait_and_the_less_triage(report) -> None:
    by_maximum = report["maximum wait"]
    names = [f"{minutes:.0f} min" for minutes in policies.MAXIMA_MIN[:-1]] + ["no maximum"]
    severe = [mean_of(by_maximum[name], Group.SEVERE) for name in names]
    longest = [by_maximum[name]["groups"]["everybody"]["longest"]["mean"] for name in names]
    assert severe[0] > severe[-1]
    assert longest[0] < longest[-1]
    assert longest[0] < by_maximum[policies.ARRIVAL]["groups"]["everybody"]["longest"]["mean"] + 60


def test_an_interval_covers_its_mean_and_a_single_week_has_none() -> None:
    found = outcome.estimate([1.0, 2.0, 3.0, float("nan")])
    assert found is not None
    assert (found.mean, found.high) == (2.0, pytest.approx(2.0 + 4.302653 * 1.0 / 3**0.5))
    assert outcome.estimate([5.0]) == outcome.Estimate(mean=5.0, low=5.0, high=5.0)
    assert outcome.estimate([float("nan")]) is None


def test_the_command_writes_json_markdown_picture_and_readme(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- reading room: x -->\nold\n<!-- end of reading room -->\nafter\n", encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, str(TOOL), "--studies-a-day", "40", "--readers", "1", "--days", "1"),
            *("--replications", "2", "--max-wait-min", "90"),
            *("--json", str(tmp_path / "room.json"), "--plot", str(tmp_path / "room.png")),
            *("--markdown", str(tmp_path / "room.md"), "--readme", str(readme)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "triage: combined" in done.stdout
    report = json.loads((tmp_path / "room.json").read_text())
    assert (report["replications"], report["worklist"]["max_wait_min"]) == (2, 90)
    assert report["room"]["readers"] == [1] * 24
    assert (tmp_path / "room.png").read_bytes().startswith(b"\x89PNG")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- reading room")
    assert text.endswith("<!-- end of reading room -->\nafter\n")
    assert tables.markdown(report) in text
    assert (tmp_path / "room.md").read_text() == tables.markdown(report) + "\n"


def test_the_same_seed_gives_the_same_answer() -> None:
    options = ("--studies-a-day", "30", "--readers", "1", "--days", "1", "--replications", "1", "--json", "-", "--seed")
    first, second, other = (json.loads(run(*options, seed).stdout)["tables"] for seed in ("7", "7", "8"))
    assert first == second != other


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--readers", "0"), "somebody must read"),
        (("--readers", "1,2"), "readers 24"),
        (("--by-hour", "1,2,3"), "24 numbers"),
        (("--covid", "0.9", "--other", "0.5"), "must not exceed 1"),
        (("--max-wait-min", "0"), "max_wait_min"),
        (("--plot", "room.txt"), ".png, .pdf or .svg"),
        (("--evaluation", "pyproject.toml"), "no evaluation"),
    ],
)
def test_a_room_that_cannot_be_is_refused_with_words(options: tuple[str, ...], words: str) -> None:
    done = run(*options, "--replications", "1")
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())


def test_the_readme_has_the_table_that_the_tool_writes() -> None:
    text = README.read_text(encoding="utf-8")
    section = text[text.index(f"<!-- {tables.MARKER}:") : text.index(f"<!-- end of {tables.MARKER} -->")]
    for words in (policies.ARRIVAL, *(f"triage: {name}" for name in policies.STRATEGIES), "no maximum", "a coin"):
        assert f"| {words} |" in section
