"""Phantom studies through a running node: late slices, gaps, several associations, broken files, no lungs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from tests import peers, running
from triage_node import config, folder
from triage_node.phantom import Body, PhantomSpec
from triage_node.phantom_dicom import Person, write_study
from triage_node.requestor import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = PhantomSpec(seed=1, slices=30, rows=128, columns=128, spacing_zyx_mm=(9.0, 3.0, 3.0), right_fraction=0.3)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[running.Node, Path]]:
    """A node that delivers to storescp."""
    place = tmp_path_factory.mktemp("line")
    port = running.free_port()
    storescp = peers.require("storescp", package="dcmtk")
    with (
        running.storescp(str(storescp), place / "pacs", port) as received,
        running.node(place / "node", pacs={"PACS": port}, quiet_s=0.5, long_quiet_s=6.0) as node,
    ):
        yield node, received


def send(node: running.Node, place: Path) -> None:
    peer = Peer(ae_title="TRIAGE", host="127.0.0.1", port=node.intake)
    sent = folder.send(place, peer, config.load(node.config), show=False)
    assert not sent["refused"], sent


def answered(node: running.Node, study: str, generation: int = 1) -> dict[str, Any]:
    """The study once it has an answer of this generation."""

    def look() -> Any:
        if not any(item["study_instance_uid"] == study for item in node.worklist()):
            return None
        report = node.ask("study", study)
        return report if report["generation"] == generation else None

    found: dict[str, Any] = running.until(look, 60, f"generation {generation} of {study}")
    return found


def write(place: Path, number: int, spec: PhantomSpec = SPEC) -> tuple[list[Path], str]:
    person = Person(number=number)
    return write_study(place, spec, person=person), person.study_uid()


@pytest.mark.peers
@pytest.mark.timeout(180)
def test_a_late_slice_reopens_the_series_and_the_new_answer_names_the_one_it_supersedes(
    line: tuple[running.Node, Path], tmp_path: Path
) -> None:
    node, received = line
    files, study = write(tmp_path / "all", 1)
    (tmp_path / "late").mkdir()
    late = tmp_path / "late" / files[-1].name
    files[-1].rename(late)
    send(node, tmp_path / "all")
    first = answered(node, study)
    assert first["state"] == "judged"
    assert first["series"][0]["basis"] == "RELEASED_WITHOUT_GAP"
    send(node, tmp_path / "late")
    second = answered(node, study, generation=2)
    assert second["series"][0]["generation"] == 2
    assert second["series"][0]["instances"] == len(files)
    current = {entry["kind"]: entry["sop_instance_uid"] for entry in second["objects"] if entry["current"]}
    old = {entry["kind"]: entry["sop_instance_uid"] for entry in second["objects"] if not entry["current"]}
    assert set(current.values()).isdisjoint(old.values())
    report = Path(
        node.state_dir / next(e["path"] for e in second["objects"] if e["sop_instance_uid"] == current["report"])
    )
    predecessors = pydicom.dcmread(report).PredecessorDocumentsSequence
    named = predecessors[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert named == old["report"]
    running.until(
        lambda: any(str(current["report"]) in path.name for path in received.iterdir()), 20, "it is delivered"
    )


@pytest.mark.peers
@pytest.mark.timeout(180)
def test_a_gap_waits_for_the_long_quiet_time_and_is_then_reported_to_the_pacs(
    line: tuple[running.Node, Path], tmp_path: Path
) -> None:
    node, received = line
    files, study = write(tmp_path / "gap", 2)
    for path in files[12:14]:
        path.unlink()
    send(node, tmp_path / "gap")
    report = answered(node, study)
    assert report["state"] == "not_analysed"
    assert report["not_analysed"]["reason"] == "GAP"
    assert report["series"][0]["basis"] == "LONG_QUIET"
    assert [entry["kind"] for entry in report["objects"]] == ["report"]
    uid = report["objects"][0]["sop_instance_uid"]
    running.until(lambda: any(uid in path.name for path in received.iterdir()), 20, "the report is delivered")


@pytest.mark.peers
@pytest.mark.timeout(180)
def test_a_sender_that_opens_an_association_for_each_image_is_judged_once(
    line: tuple[running.Node, Path], tmp_path: Path
) -> None:
    node, _ = line
    files, study = write(tmp_path / "single", 3)
    storescu = peers.require("storescu", package="dcmtk")
    for path in files:
        subprocess.run(
            [str(storescu), "-xe", "-aec", "TRIAGE", "127.0.0.1", str(node.intake), str(path)],
            env={**os.environ, "TCP_NODELAY": "1"},
            check=True,
            capture_output=True,
        )
    report = answered(node, study)
    assert report["state"] == "judged"
    assert report["series"][0]["instances"] == len(files)


@pytest.mark.peers
@pytest.mark.timeout(180)
def test_a_study_without_lungs_is_answered_and_one_with_a_lost_file_stops_no_other(
    line: tuple[running.Node, Path], tmp_path: Path
) -> None:
    node, _ = line
    abdomen = PhantomSpec(seed=4, body=Body.ABDOMEN, slices=30, rows=128, columns=128, spacing_zyx_mm=(9.0, 3.0, 3.0))
    _, without_lungs = write(tmp_path / "abdomen", 4, abdomen)
    _, broken = write(tmp_path / "broken", 5)
    _, sound = write(tmp_path / "sound", 6)
    send(node, tmp_path / "broken")
    # The disk loses what was received, before the series is closed.
    shutil.rmtree(node.state_dir / "archive" / broken)
    send(node, tmp_path / "abdomen")
    send(node, tmp_path / "sound")
    assert answered(node, without_lungs)["not_analysed"]["reason"] == "NO_LUNGS"
    assert answered(node, sound)["state"] == "judged"
    report = answered(node, broken)
    assert report["state"] == "not_analysed"
    assert report["not_analysed"]["reason"] in ("ANALYSIS_FAILED", "UNDECODABLE", "MISSING_ATTRIBUTE")


@pytest.mark.timeout(180)
def test_the_demonstration_shows_nine_studies_and_leaves_objects_that_a_viewer_opens(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triage_node", "demo", "--out", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("sent ") == 9
    assert done.stdout.index("Before: in order of arrival") < done.stdout.index("After: in reading order")
    critical = tmp_path / "demo" / "archive" / "PH0008"
    assert {path.name for path in critical.iterdir()} == {
        "seg-lungs.dcm",
        "seg-lesions.dcm",
        "sr.dcm",
        "ot.dcm",
        "overview.png",
    }
    assert {path.name for path in (tmp_path / "demo" / "archive" / "PH0005").iterdir()} == {"sr.dcm"}


@pytest.mark.peers
@pytest.mark.timeout(180)
def test_the_latency_measurement_still_works(tmp_path: Path) -> None:
    peers.require("dcmsend", package="dcmtk")
    tool = Path(__file__).parents[2] / "tools" / "bench_latency.py"
    figures = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, str(tool), "--slices", "20", "--matrix", "128", "--repetitions", "1", "--json", str(figures)],
        check=True,
        capture_output=True,
    )
    assert "release_to_list_s" in figures.read_text()
