"""Another program finds and claims a study of a whole node by HTTP, and hears of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx

from tests import builders, running, wire
from tests.association.conftest import associate, store
from triage_node.ups.service import GLOBAL

if TYPE_CHECKING:
    from pathlib import Path

API = """
[api]
enabled = true
ups_rs = true
subscriber_ae_titles = ["STATION"]
"""


def test_a_program_subscribes_finds_and_claims_what_came_by_dicom(tmp_path: Path) -> None:
    node = running.Node(tmp_path, long_quiet_s=0.5)
    node.config.write_text(node.config.read_text() + API)
    node.start()
    try:
        running.until(lambda: running.listens(node.web), 30, "the page is there")
        with httpx.Client(base_url=f"http://127.0.0.1:{node.web}", timeout=20.0) as program:
            assert program.post(f"/ups-rs/workitems/{GLOBAL}/subscribers/STATION").status_code == 201
            association = associate(node.intake)
            assert store(association, wire.ct(study="few slices", PatientID="P-7")) == 0x0000
            association.release()
            uid = builders.uid("few slices")
            with program.stream("GET", "/ups-rs/subscribers/STATION") as stream:
                said = next(json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
            running.until(
                lambda: [one["state"] for one in program.get("/api/v1/worklist").json()["studies"]] == ["not_analysed"],
                40,
                "the study is answered",
            )
            (found,) = program.get("/ups-rs/workitems", params={"StudyInstanceUID": uid}).json()
            assert found["00080018"] == {"vr": "UI", "Value": said["00001000"]["Value"]}
            assert found["00100020"]["Value"] == ["P-7"]
            body = {"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}, "00081195": {"vr": "UI", "Value": ["2.25.1"]}}
            address = f"/ups-rs/workitems/{found['00080018']['Value'][0]}/state"
            assert program.put(address, json=body).status_code == 200
            (claim,) = program.get("/api/v1/claims").json()
            assert (claim["study_instance_uid"], claim["performer"]) == (uid, "local")
        assert node.ask("study", uid)["state"] == "reading"
    finally:
        assert node.stop() == 0
