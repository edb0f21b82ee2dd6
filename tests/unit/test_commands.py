from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
import typer

from tests import filed
from tests.running import free_port
from triage_node import __main__ as command_line
from triage_node import analyst, config, inference, logbook, node, threshold
from triage_node.journal import Journal, circuits, outbox, queue, succession
from triage_node.phantom import PhantomSpec
from triage_node.phantom_dicom import write_study
from triage_node.study import Model, OperatingPoint

if TYPE_CHECKING:
    from pathlib import Path

    from triage_node.inference import Progress
    from triage_node.study import Findings, Volume

GROUP = typer.main.get_command(command_line.app)
COMMANDS: dict[str, Any] = GROUP.commands
READING = ("worklist", "status", "study", "logs", "requeue", "echo", "check-config")
STUDY = "1.2.826.1"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(
        f'[analysis]\nmethod = "threshold"\n[intake]\nport = {free_port()}\n[web]\nport = {free_port()}\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    )
    return file


@pytest.fixture
def filled(config_file: Path) -> Path:
    """The configuration of a node that has judged a study and given up one of its objects."""
    settings = config.load(config_file)
    journal = Journal(settings.state_dir, "analyst")
    filed.queued(journal, STUDY, now=time.time() - 100)
    job = queue.claim(journal, "analyst", time.time())
    assert job is not None
    assert queue.finish(journal, job, "analyst", filed.result(job), settings.destinations, time.time())
    first = outbox.due(journal, "pacs", time.time())[0]
    outbox.record(journal, first, "failed", status=None, words="dead", now=time.time(), retry_at=None)
    journal.close()
    logbook.configure("analyst", settings.state_dir, settings.log, console=False)
    logbook.get().info("study judged", study=STUDY)
    logbook.get().info("another", study="9.9")
    return config_file


class Answer:
    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status, self.output, self.errors = status, output, errors

    @property
    def json(self) -> Any:
        return json.loads(self.output)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command line as `triage-node ARGUMENTS`, in this process."""

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["triage-node", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        written = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        assert "Traceback" not in written.err
        return Answer(code or 0, written.out, written.err)

    return call


# ---------------------------------------------------------------------- help


def test_the_commands_are_those_of_the_design_and_mark() -> None:
    named = "serve demo analyze send worklist status study logs requeue reanalyze mark echo check-config conformance"
    named += " hash-password sessions audit what-if"
    assert {name for name, command in COMMANDS.items() if not command.hidden} == set(named.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_has_a_help_text(name: str, run) -> None:
    command = COMMANDS[name]
    assert re.fullmatch(r"[A-Z].{20,}\.", command.get_short_help_str(200))
    for parameter in command.params:
        if not command.hidden:
            assert getattr(parameter, "help", ""), f"{name} {parameter.name}"
    answer = run(name, "--help")
    assert answer.status == 0
    assert "Usage: triage-node" in answer.output


@pytest.mark.parametrize("name", READING)
def test_every_reading_command_takes_config_and_json(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {"--config", "--json"} <= options


def test_without_arguments_the_help_is_shown_with_the_notice(run) -> None:
    answer = run("--help")
    assert answer.status == 0
    assert "NOT FOR DIAGNOSTIC USE" in answer.output
    assert run("--version").output == f"triage-node {command_line.__version__}\n"


def test_the_exit_status_of_each_error_is_documented_where_the_constants_are() -> None:
    documented = {int(number) for number in re.findall(r"(?:^|[;:] )(\d) ", command_line.__doc__.replace("\n", " "))}
    assert documented == {0, 1, 2, 3, 4, 5}
    assert (command_line.FAILED, command_line.USAGE, node.CANNOT_LISTEN, command_line.IN_USE) == (1, 2, 3, 4)


# ---------------------------------------------------------------------- errors are one clear line


@pytest.mark.parametrize("arguments", [("no-such-command",), ("study",), ("worklist", "--no-such-option")])
def test_wrong_usage_is_status_2(arguments: tuple[str, ...], run) -> None:
    answer = run(*arguments)
    assert answer.status == 2
    assert "Usage: triage-node" in answer.errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("worklist",),
        ("status",),
        ("study", STUDY),
        ("logs",),
        ("requeue",),
        ("echo",),
        ("check-config",),
        ("send", "."),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_configuration_that_is_not_there_is_status_2_for_every_command(arguments, run, tmp_path: Path) -> None:
    answer = run(*arguments, "--config", tmp_path / "none.toml")
    assert answer.status == 2
    assert answer.errors == f"cannot read the configuration {tmp_path}/none.toml: No such file or directory\n"
    assert answer.output == ""


@pytest.mark.parametrize(
    "arguments", [("worklist",), ("status",), ("study", STUDY), ("requeue",)], ids=lambda arguments: arguments[0]
)
def test_before_the_node_was_started_there_is_nothing_to_read(arguments, run, config_file: Path) -> None:
    answer = run(*arguments, "--config", config_file)
    assert answer.status == 1
    assert re.fullmatch(
        r"no journal in .*/state: the node has not been started with this configuration\n", answer.errors
    )
    assert not (config_file.parent / "state").exists()


def test_there_is_no_log_before_the_node_was_started(run, config_file: Path) -> None:
    answer = run("logs", "--config", config_file)
    assert (answer.status, answer.errors.startswith("no log in ")) == (1, True)


def test_a_study_is_judged_again_where_model_or_configuration_are_others(run, filled: Path) -> None:
    arguments = ("--config", filled, "--json")
    assert run("reanalyze", "9.9", *arguments).json["unknown"] == ["9.9"]
    assert run("reanalyze", "9.9", *arguments).status == 1
    assert run("reanalyze", STUDY, *arguments).json["queued"] == [STUDY]  # it was judged by a model without a name
    assert run("reanalyze", STUDY, *arguments).json["pending"] == [STUDY]
    assert run("reanalyze", "--config", filled).status == 2
    assert run("reanalyze", STUDY, "--all", "--config", filled).status == 2


def test_what_would_judge_the_same_way_is_left_alone_unless_it_is_forced(run, filled: Path) -> None:
    settings = config.load(filled)
    journal = Journal(settings.state_dir, "analyst")
    judge = analyst.judge_digest(inference.load(settings.analysis).model, settings)
    with journal.writing() as database:
        database.conn.execute(
            "update results set identity_json = json_set(identity_json, '$.model_digest', ?)", (judge,)
        )
    journal.close()
    answer = run("reanalyze", "--all", "--config", filled)
    assert (answer.status, "1 unchanged: judged by this very model" in answer.output) == (0, True)
    assert run("reanalyze", "--all", "--force", "--config", filled, "--json").json["queued"] == [STUDY]


def test_a_node_that_runs_with_another_model_must_be_restarted_first(run, filled: Path) -> None:
    settings = config.load(filled)
    journal = Journal(settings.state_dir, "analyst")
    succession.note_judge(journal, "another", time.time())
    journal.close()
    assert run("reanalyze", STUDY, "--config", filled).status == 0
    lock = node.StateLock(settings.state_dir)
    answer = run("reanalyze", "--all", "--config", filled)
    assert answer.status == 1
    assert "restart the node" in answer.errors
    os.close(lock.fd)


def test_what_was_given_up_is_listed_and_stays_until_it_is_requeued(run, filled: Path) -> None:
    (letter,) = run("requeue", "--list", "--config", filled, "--json").json
    assert (letter["study_instance_uid"], letter["destination"], letter["state"]) == (STUDY, "pacs", "given up")
    assert (letter["kind"], letter["status"], letter["words"]) == ("lungs", None, "dead")
    words = " ".join(run("requeue", "--list", "--config", filled).output.split())
    assert f"{STUDY} lungs pacs given up dead" in words
    assert run("requeue", "--list", "--study", "9.9", "--config", filled, "--json").json == []
    assert run("requeue", "--config", filled, "--json").json == {"requeued": 4}
    assert "Nothing was refused or given up" in run("requeue", "--list", "--config", filled).output


def test_the_status_says_which_destination_is_not_reached(run, filled: Path) -> None:
    (entry,) = run("status", "--config", filled, "--json").json["destinations"]
    assert (entry["name"], entry["state"], entry["dead_letters"]) == ("pacs", "untried", 1)
    settings = config.load(filled)
    journal = Journal(settings.state_dir, "desk")
    circuits.not_reached(journal, "pacs", "no route to host", 1_600_000_000.0, 1_600_000_300.0)
    journal.close()
    (entry,) = run("status", "--config", filled, "--json").json["destinations"]
    assert (entry["state"], entry["since"]) == ("not reached", "2020-09-13T12:26:40.000+00:00")
    words = " ".join(run("status", "--config", filled).output.split())
    assert "NOT REACHED since 2020-09-13 12:26:40, tried again at 2020-09-13 12:31:40 (UTC): no route to host" in words
    assert "1 refused or given up: `triage-node requeue --list`" in words


def test_an_unknown_study_is_status_1(run, filled: Path) -> None:
    answer = run("study", "9.9.9", "--config", filled)
    assert (answer.status, answer.output) == (1, "")
    assert re.fullmatch(r"no study 9\.9\.9 in .*/state\n", answer.errors)


def test_a_journal_that_is_none_is_one_clear_line(run, filled: Path) -> None:
    (filled.parent / "state" / "journal.sqlite").write_bytes(b"no database" * 100)
    for path in (filled.parent / "state").glob("journal.sqlite-*"):
        path.unlink()
    answer = run("worklist", "--config", filled)
    assert answer.status == 1
    assert re.fullmatch(r"the journal .*journal\.sqlite cannot be used: file is not a database\n", answer.errors)


# ---------------------------------------------------------------------- check-config


def test_check_config_says_what_it_has_read(run, config_file: Path) -> None:
    answer = run("check-config", "--config", config_file)
    assert answer.status == 0
    assert answer.output == f"{config_file} is valid; state directory {config_file.parent / 'state'}\n"


def test_check_config_prints_every_key_as_json(run, config_file: Path) -> None:
    printed = run("check-config", "--config", config_file, "--json").json
    assert printed == config.load(config_file).model_dump(mode="json")
    assert set(printed) == set(config.Settings.model_fields) - {"folder"}


def test_check_config_holds_thresholds_against_the_model_card(run, config_file: Path) -> None:
    text = config_file.read_text()
    config_file.write_text(f"{text}[worklist]\nprobability_high = 0.1\n")
    answer = run("check-config", "--config", config_file)
    assert answer.status == 2
    assert answer.errors == (
        "worklist.probability_high: found 0.1; allowed: 0.2 or more, the probability_medium of the card of threshold 1,"
        " unless worklist.probability_medium is given, too\n"
    )
    config_file.write_text(f"{text}[worklist]\nprobability_high = 0.1\nprobability_medium = 0.05\n")
    assert run("check-config", "--config", config_file).status == 0


def test_check_config_lists_every_problem_and_is_status_2(run, config_file: Path) -> None:
    config_file.write_text("[node]\ncolour = 1\n[web]\nport = 0\n")
    answer = run("check-config", "--config", config_file, "--json")
    assert (answer.status, answer.output) == (2, "")
    assert answer.errors.splitlines() == [
        f"{config_file}:",
        "  node.colour: unknown key; allowed here: ae_title, state_dir",
        "  web.port: found 0; allowed: greater than or equal to 1",
    ]


# ---------------------------------------------------------------------- reading commands


def test_the_worklist_is_a_table_or_a_list_of_json_objects(run, filled: Path) -> None:
    shown = run("worklist", "--config", filled)
    assert shown.status == 0
    assert "NOT FOR DIAGNOSTIC USE" in shown.output
    (row,) = run("worklist", "--config", filled, "--json").json
    assert (row["rank"], row["study_instance_uid"], row["state"]) == (1, STUDY, "judged")
    assert row["affected_fraction"] == pytest.approx(0.3)


def test_the_status_has_counts_and_is_1_while_the_node_does_not_run(run, filled: Path) -> None:
    answer = run("status", "--config", filled, "--json")
    assert answer.status == 1
    found = answer.json
    (destination,) = found.pop("destinations")
    assert (destination["name"], destination["state"], destination["dead_letters"]) == ("pacs", "untried", 1)
    assert found == {
        "version": command_line.__version__,
        "running": False,
        "instances": 3,
        "open_series": 0,
        "studies": 1,
        "open_associations": 0,
        "quarantined": 0,
        "jobs": {"done": 1},
        "deliveries": {"pacs": {"given up": 1, "queued": 3}},
    }
    lock = node.StateLock(filled.parent / "state")
    assert run("status", "--config", filled).status == 0
    lock.release()


def test_a_study_is_shown_and_printed(run, filled: Path) -> None:
    assert "Measurements" in run("study", STUDY, "--config", filled).output
    report = run("study", STUDY, "--config", filled, "--json").json
    assert set(report) >= {"state", "series", "measurements", "not_analysed", "objects", "events", "notice"}


def test_logs_are_sentences_or_json_lines_of_one_study_or_all(run, filled: Path) -> None:
    assert [line.split("  ")[-1] for line in run("logs", "--config", filled).output.splitlines()] == [
        f"study={STUDY}",
        "study=9.9",
    ]
    (line,) = run("logs", "--config", filled, "--study", STUDY, "--json").output.splitlines()
    assert json.loads(line)["event"] == "study judged"


def test_what_was_given_up_is_requeued_by_name(run, filled: Path) -> None:
    assert run("requeue", "--config", filled, "--study", "9.9", "--json").json == {"requeued": 0}
    assert run("requeue", "--config", filled, "--destination", "pacs", "--json").json == {"requeued": 4}
    answer = run("requeue", "--config", filled, "--destination", "other")
    assert (answer.status, answer.errors) == (1, "no destination 'other'; configured are: pacs\n")


def test_echo_names_each_that_does_not_answer_and_is_status_1(config_file: Path) -> None:
    """In its own process: pynetdicom leaves the socket of a refused connection to the garbage collector."""
    program = [sys.executable, "-m", "triage_node", "echo", "--config", str(config_file), "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    answers = json.loads(done.stdout)
    assert [(entry["name"], entry["ok"]) for entry in answers] == [("this node", False), ("pacs", False)]
    assert all("does not answer" in entry["answer"] for entry in answers)


def test_the_conformance_statement_is_printed(run) -> None:
    answer = run("conformance")
    assert answer.status == 0
    assert "1.2.840.10008.5.1.4.1.1.2" in answer.output
    listed = run("conformance", "--json").json
    assert "1.2.840.10008.5.1.4.1.1.2" in {entry["sop_class_uid"] for entry in listed}
    assert all(entry["transfer_syntaxes"] for entry in listed)


# ---------------------------------------------------------------------- folders


def test_sending_a_folder_without_dicom_or_to_nobody_is_one_clear_line(run, config_file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "note.txt").write_text("no DICOM")
    answer = run("send", empty, "--config", config_file)
    assert (answer.status, answer.errors.strip()) == (1, f"no DICOM file in {empty}")
    answer = run("send", empty, "--config", config_file, "--to", "PACS")
    assert (answer.status, answer.errors) == (1, "'PACS' is not AE@HOST:PORT, for example PACS@127.0.0.1:11113\n")


def test_analysing_a_folder_without_dicom_is_one_clear_line(run, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    answer = run("analyze", empty, "--out", tmp_path / "out", "--json")
    assert (answer.status, answer.json) == (1, [])
    assert answer.errors == f"no DICOM study in {empty}\n"
    answer = run("analyze", empty, "--out", tmp_path / "out", "--method", "magic")
    assert answer.status == 2
    assert "method: found \"magic\"; allowed: 'threshold' or 'multitask'" in answer.errors


@dataclass(frozen=True, kw_only=True)
class Surmising:
    """The threshold method with classes of lesion and a probability: what networks give, without their weights."""

    model: Model
    covid_probability: float | None

    def __call__(self, ct: Volume, progress: Progress | None = None) -> Findings:
        found = threshold.judge(ct, self.model, progress)
        dense = ct.hounsfield > -100
        return replace(found, consolidation=dense, covid_probability=self.covid_probability)


TRUST = "Learnt from few patients."


@pytest.mark.parametrize("probability", [0.875, None])
def test_analyze_tells_volumes_extents_probability_and_how_far_it_can_be_trusted(
    probability: float | None, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PhantomSpec(seed=2, slices=30, rows=128, columns=128, spacing_zyx_mm=(9.0, 3.0, 3.0), right_fraction=0.3)
    write_study(tmp_path / "study", spec)
    card = OperatingPoint(probability_high=0.75, probability_medium=0.5, source="validation patients")
    model = replace(threshold.model(), operating_point=card, trust=TRUST)
    method = Surmising(model=model, covid_probability=probability)
    monkeypatch.setitem(inference.METHODS, "multitask", lambda *_: method)
    words = run("analyze", tmp_path / "study", "--out", tmp_path / "out").output
    answer = run("analyze", tmp_path / "study", "--out", tmp_path / "again", "--json").json[0]["measurements"]
    both = answer["both"]
    assert 0 < both["consolidation_ml"] < both["lesion_ml"]
    assert both["consolidation_fraction"] == pytest.approx(both["consolidation_ml"] / both["volume_ml"], rel=0.01)
    assert both["lesion_ml"] == pytest.approx(answer["right"]["lesion_ml"] + answer["left"]["lesion_ml"], abs=0.2)
    assert answer["operating_point"]["probability_high"] == 0.75
    assert answer["consolidation_from_hu"] is None
    extent = f"{both['consolidation_ml']:.0f} ml ({both['consolidation_fraction']:.1%})"
    assert f"both lungs: ground glass {both['ground_glass_ml']:.0f} ml" in words
    assert f"consolidation {extent}" in words
    if probability is None:
        assert "P(COVID-19): not provided by this method" in words
        assert TRUST not in words
    else:
        assert f"P(COVID-19): 0.88\n  how far it can be trusted: {TRUST}" in words
    lesions = pydicom.dcmread(tmp_path / "out" / "lesions.dcm", stop_before_pixels=True)
    assert [segment.SegmentLabel.split(": ")[1] for segment in lesions.SegmentSequence] == [
        "ground glass opacity",
        "consolidation",
    ]


def test_the_program_runs_as_a_module_and_a_reader_that_goes_away_is_no_error(filled: Path) -> None:
    program = [sys.executable, "-m", "triage_node", "logs", "--config", str(filled)]
    whole = subprocess.run(program, capture_output=True, text=True, check=True)
    assert len(whole.stdout.splitlines()) == 2
    with logbook.file_of(filled.parent / "state").open("a") as file:
        file.write(json.dumps({"event": "x" * 100}) * 1 + "\n")
        file.write((json.dumps({"event": "x" * 100}) + "\n") * 5000)
    head = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert head.stdout
    assert head.stderr
    head.stdout.readline()
    head.stdout.close()
    assert "Traceback" not in head.stderr.read()
    head.stderr.close()
    head.wait(10)
