"""`triage-node mark` goes through the same claims as everybody else."""

from __future__ import annotations

import getpass
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import filed
from triage_node import config
from triage_node.journal import Journal, views, workitems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUDY = "1.2.826.7"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    (tmp_path / "node.toml").write_text('[analysis]\nmethod = "threshold"\n')
    opened = Journal(config.load(tmp_path / "node.toml").state_dir, "test")
    filed.queued(opened, STUDY, now=100.0)
    yield opened
    opened.close()


def mark(folder: Path, state: str, *options: str, study: str = STUDY) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triage_node", "mark", study, state, "--config", str(folder / "node.toml")]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def state_of(journal: Journal) -> str:
    row = views.study(journal, STUDY)
    assert row is not None
    return row.state


def test_a_study_is_claimed_finished_put_back_and_called_off(journal: Journal, tmp_path: Path) -> None:
    for word in ("reading", "read", "waiting", "cancelled", "waiting"):
        done = mark(tmp_path, word)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{STUDY}: {word}\n", "")
        assert state_of(journal) == word
    assert {one.detail["by"] for one in views.events(journal, STUDY) if "by" in one.detail} == {getpass.getuser()}


def test_what_somebody_else_reads_is_taken_over_by_force_alone(journal: Journal, tmp_path: Path) -> None:
    assert mark(tmp_path, "reading", "--by", "ada").returncode == 0
    refused = mark(tmp_path, "reading", "--by", "bob")
    assert refused.returncode == 1
    assert "being read by ada" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert mark(tmp_path, "reading", "--by", "bob", "--force").returncode == 0
    assert workitems.claims(journal)[STUDY].performer == "bob"


def test_an_unknown_study_is_named(journal: Journal, tmp_path: Path) -> None:
    refused = mark(tmp_path, "read", study="1.2.3")
    assert refused.returncode == 1
    assert "no study 1.2.3" in refused.stderr
    assert state_of(journal) == "waiting"
