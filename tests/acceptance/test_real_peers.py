"""DCMTK's storescu sends every real series; the results reach DCMTK's storescp and, in another test, Orthanc."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pydicom
import pytest

from tests import peers, running
from tests.acceptance.test_straight_line import SERIES, require_shared
from tests.orthanc import orthanc, rest
from triage_node import conformance, filing

# storescu proposes what its flag says, and nothing that fits a file compressed otherwise
PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.4.70": "-xs",
}
KINDS = {
    conformance.SEGMENTATION_STORAGE,
    conformance.COMPREHENSIVE_3D_SR_STORAGE,
    conformance.SECONDARY_CAPTURE_IMAGE_STORAGE,
}


def send(storescu: Path, folder: Path, port: int) -> str:
    """Send a series; its Study Instance UID."""
    header, syntax, _ = filing.read_file(next(folder.glob("*.dcm")))
    done = subprocess.run(
        [str(storescu), PROPOSE[syntax], "+sd", "-aec", "TRIAGE", "127.0.0.1", str(port), str(folder)],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return header.study_instance_uid


def judged(node: running.Node, studies: int) -> bool:
    states = [item["state"] for item in node.worklist()]
    return len(states) == studies and all(state == "judged" for state in states)


@pytest.mark.peers
@pytest.mark.timeout(300)
def test_storescu_sends_each_real_series_and_storescp_gets_all_kinds_of_result(tmp_path: Path) -> None:
    require_shared()
    storescu = peers.require("storescu", package="dcmtk")
    port = running.free_port()
    folders = [folder for folder in sorted(SERIES.iterdir()) if folder.is_dir() and folder.name != "transfer-syntaxes"]
    with (
        running.storescp(str(peers.require("storescp", package="dcmtk")), tmp_path / "pacs", port) as received,
        running.node(tmp_path / "node", pacs={"PACS": port}) as node,
    ):
        studies = {send(storescu, folder, node.intake) for folder in folders}
        running.until(lambda: judged(node, len(studies)), 120, "every study is judged")

        def kinds() -> dict[str, set[str]]:
            found: dict[str, set[str]] = {}
            for path in received.iterdir():
                dataset = pydicom.dcmread(path, stop_before_pixels=True)
                found.setdefault(dataset.StudyInstanceUID, set()).add(str(dataset.SOPClassUID))
            return found

        running.until(lambda: kinds() == dict.fromkeys(studies, KINDS), 60, "SEG, SR and overview of every study")


@pytest.mark.peers
@pytest.mark.timeout(300)
def test_orthanc_as_the_pacs_gets_segmentations_report_and_overview(tmp_path: Path) -> None:
    require_shared()
    storescu = peers.require("storescu", package="dcmtk")
    with (
        orthanc(tmp_path / "orthanc") as (port, address),
        running.node(tmp_path / "node", pacs={"ORTHANC": port}) as node,
    ):
        study = send(storescu, SERIES / "ct-md-cap-001", node.intake)

        def kinds() -> set[str]:
            found = set()
            for identifier in rest(f"{address}/instances") or ():
                tags = rest(f"{address}/instances/{identifier}/simplified-tags")
                assert tags["StudyInstanceUID"] == study
                found.add(tags["SOPClassUID"])
            return found

        running.until(lambda: kinds() == KINDS, 90, "SEG, SR and overview are in Orthanc")
        ledger = node.ask("study", study)["objects"]
        running.until(
            lambda: {entry["state"] for entry in node.ask("study", study)["objects"]} == {"stored"}, 10, "all stored"
        )
        assert {entry["kind"] for entry in ledger} == {"lesions", "lungs", "report", "overview"}
