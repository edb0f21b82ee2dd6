"""A short soak: every object of every answer ends at four archives, delivered and confirmed exactly once."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import soak
import typer
from soaking import arrangement, judging, register
from soaking.arrangement import Node
from typer.testing import CliRunner

PROGRAM = Path(__file__).parents[2] / "tools" / "soak.py"
STUDIES = 2

pytestmark = pytest.mark.timeout(600)  # a busy machine is no fault


@dataclass
class Evidence:
    """What a soak leaves behind, and what it says of it."""

    outcome: dict[str, Any]
    words: str
    node: Node
    reports: dict[str, Any]
    accounts: dict[str, dict[str, register.Account]]

    def judged(self, *, killed: bool = False) -> list[str]:
        return judging.judge(
            self.reports, arrangement.destinations(), self.accounts, self.node.state_dir, killed=killed
        )

    def entry(self, destination: str) -> dict[str, Any]:
        """An object of a current answer at a destination, as the ledger shows it."""
        return next(
            one
            for report in self.reports.values()
            for one in report["objects"]
            if one["current"] and one["destination"] == destination
        )

    def account(self, destination: str) -> register.Account:
        return self.accounts[destination][self.entry(destination)["sop_instance_uid"]]


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    place = tmp_path_factory.mktemp("soak") / "soak"
    done = subprocess.run(
        [
            sys.executable, str(PROGRAM), "--studies", str(STUDIES), "--every-s", "0.5", "--seed", "5",
            "--share", "forget=0.4", "--settle-minutes", "5", "--keep", str(place), "--json", "-",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    node = Node(place / "node", 0)
    uids = [one["study_instance_uid"] for one in node.ask("worklist")]
    return Evidence(
        outcome=json.loads(done.stdout),
        words=done.stderr,
        node=node,
        reports={uid: node.ask("study", uid) for uid in uids},
        accounts={one.name: register.accounts(place / one.name) for one in arrangement.destinations()},
    )


def test_every_object_ends_delivered_and_confirmed_exactly_once(soaked: Evidence) -> None:
    assert soaked.outcome["passed"], soaked.words
    assert soaked.outcome["studies"] == len(soaked.reports) == STUDIES
    assert soaked.judged() == []
    for one in soaked.outcome["destinations"]:
        assert one["objects"] == one["confirmed"] == 4 * STUDIES
    # Which objects are forgotten follows from their UIDs: should it be none any more, take another seed
    assert {one["name"] for one in soaked.outcome["destinations"] if one["sent_again"]} == {"unreliable"}
    assert "PASSED" in soaked.words


def twice(account: register.Account, **changes: Any) -> None:
    account.arrivals.extend([replace(account.arrivals[-1], **changes)] * 5)


FAULTS: dict[str, tuple[Callable[[Evidence], object], str]] = {
    "an archive without the object": (
        lambda found: setattr(found.account("unreliable"), "holds", None),
        "the archive does not have it",
    ),
    "an archive that was never asked": (
        lambda found: found.accounts["late"].clear(),
        "the archive does not have it",
    ),
    "another content": (
        lambda found: setattr(found.account("honest"), "holds", "0" * 64),
        "with another content than the node's",
    ),
    "two contents under one UID": (
        lambda found: twice(found.account("unreliable"), digest="0" * 64),
        "was sent with 2 different contents",
    ),
    "a commitment that nobody gave": (
        lambda found: setattr(found.account("slow"), "committed_at", None),
        "the archive never committed itself",
    ),
    "an object that was sent for nothing": (lambda found: twice(found.account("honest")), "took it at once"),
    "an object that was taken for lost": (
        lambda found: found.entry("honest").update(resends=1),
        "was taken for lost by the node, and was not",
    ),
    "a proof that has not come": (
        lambda found: found.entry("honest").update(state="stored", awaiting=["commitment"]),
        "is stored, awaiting commitment, not confirmed",
    ),
    "an answer without a report": (
        lambda found: [
            report.update(objects=[one for one in report["objects"] if one["kind"] != "report"])
            for report in found.reports.values()
        ],
        "has no report for honest",
    ),
    "a study without an answer": (
        lambda found: next(iter(found.reports.values())).update(state="waiting"),
        "is waiting, not judged",
    ),
    "an object that nobody knows": (
        lambda found: found.accounts["honest"].update({"1.2.3": found.account("honest")}),
        "honest was sent 1.2.3, which is in no study's ledger",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_said(soaked: Evidence, fault: str) -> None:
    plant, words = FAULTS[fault]
    found = copy.deepcopy(soaked)
    plant(found)
    assert any(words in sentence for sentence in found.judged()), found.judged()


def test_a_node_that_was_killed_may_send_twice_but_nothing_else(soaked: Evidence) -> None:
    found = copy.deepcopy(soaked)
    twice(found.account("honest"))
    assert found.judged(killed=True) == []
    twice(found.account("honest"), digest="0" * 64)
    assert found.judged(killed=True)


@pytest.mark.parametrize(
    ("status", "state", "right"),
    [(0xC000, "refused", True), (0xC000, "given up", False), (0xA700, "refused", False), (0x0000, "refused", False)],
)
def test_only_a_refusal_for_good_makes_a_dead_letter(soaked: Evidence, status: int, state: str, *, right: bool) -> None:
    found = copy.deepcopy(soaked)
    account = found.account("unreliable")
    account.arrivals.append(replace(account.arrivals[-1], status=status))
    letter = {**found.entry("unreliable"), "state": state, "words": "no"}
    problem = judging.dead_letter(letter, found.accounts["unreliable"])
    assert (problem is None) == right


def test_what_cannot_be_soaked_is_said_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for options, words in ((["--keep", str(tmp_path)], "not empty"), (["--scale", "9"], "must be 0 to 1")):
        app = typer.Typer()
        app.command()(soak.main)
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 2
        assert words in " ".join(done.output.replace("│", " ").split())
