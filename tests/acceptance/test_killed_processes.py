"""Receiver, analyst and desk are killed at random moments while studies flow; nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from pynetdicom import AE, evt

from tests import running
from triage_node import conformance, filing, requestor
from triage_node.errors import DeliveryFailed
from triage_node.phantom import PhantomSpec
from triage_node.phantom_dicom import Person, write_study

KILLS = 15
STUDIES = 6


class Pacs:
    """A storage SCP that counts what it is sent."""

    def __init__(self) -> None:
        self.received: dict[str, set[str]] = {}  # SOP Instance UID -> digests of what came under it
        ae = AE(ae_title="PACS")
        for service in conformance.services(
            conformance.Role.SCU, conformance.Purpose.DELIVERY, conformance.Purpose.ECHO
        ):
            ae.add_supported_context(service.sop_class_uid, list(service.transfer_syntaxes))
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        assert self._server is not None
        self.port = int(self._server.server_address[1])

    def _keep(self, event: evt.Event) -> int:
        data = event.encoded_dataset(include_meta=False)
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
        self.received.setdefault(uid, set()).add(hashlib.sha256(data).hexdigest())
        return 0

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()


def send_until_acknowledged(port: int, files: list[Path], acknowledged: set[str]) -> None:
    """Send every file again and again until it is answered 0x0000, as a PACS does."""
    left = list(files)
    deadline = time.monotonic() + 120
    while left and time.monotonic() < deadline:
        try:
            association = requestor.associate(
                "MODALITY",
                requestor.Peer(ae_title="TRIAGE", host="127.0.0.1", port=port),
                [(conformance.CT_IMAGE_STORAGE, conformance.UNCOMPRESSED)],
                timeout_s=5,
            )
        except DeliveryFailed:
            time.sleep(0.1)
            continue
        for path in list(left):
            answer = None
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                answer = association.send_c_store(path)
            if answer is None or "Status" not in answer:
                break
            assert answer.Status in (0x0000, 0xA700), f"0x{answer.Status:04X}"
            if answer.Status == 0:
                acknowledged.add(str(path))
                left.remove(path)
        if association.is_established:
            association.release()
        else:
            association.abort()
    assert not left


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_and_every_result_comes_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("KILL_SEED", "20"))
    dice = random.Random(seed)
    folders = []
    for number in range(STUDIES):
        spec = PhantomSpec(
            seed=number + 1,
            slices=24,
            rows=128,
            columns=128,
            spacing_zyx_mm=(10.0, 3.0, 3.0),
            right_fraction=0.1 * number,
        )
        folder = tmp_path / f"study-{number}"
        write_study(folder, spec, person=Person(number=number + 1))
        folders.append(sorted(folder.rglob("*.dcm")))
    files = {path: filing.read_file(path) for study in folders for path in study}
    pacs = Pacs()
    acknowledged: set[str] = set()
    with running.node(tmp_path / "node", pacs={"PACS": pacs.port}, quiet_s=0.5, long_quiet_s=3.0, attempts=10) as node:

        def feed() -> None:
            for study in folders:
                send_until_acknowledged(node.intake, study, acknowledged)

        feeder = threading.Thread(target=feed)
        feeder.start()
        killed: dict[str, int] = {}
        while sum(killed.values()) < KILLS:
            time.sleep(dice.uniform(0.05, 1.5))
            role, pid = dice.choice(sorted(node.children().items()) or [("", 0)])
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed[role] = killed.get(role, 0) + 1
        feeder.join(150)
        assert not feeder.is_alive()
        assert set(killed) == {"receiver", "analyst", "desk"}, killed
        uids = {header.study_instance_uid for header, _, _ in files.values()}
        journal = node.journal()

        def settled() -> bool:
            states = {row["state"] for row in journal.rows("select state from jobs")}
            unsent = journal.row("select count(*) as n from outbox where state = 'queued'")
            still_open = journal.row("select count(*) as n from series where state = 'open'")
            assert unsent is not None
            assert still_open is not None
            return states <= {"done", "superseded"} and not unsent["n"] and not still_open["n"]

        running.until(settled, 90, "every job done, every object delivered")

        kept = {row["sop_instance_uid"]: row for row in journal.rows("select * from instances")}
        assert len(acknowledged) == len(files)
        for header, _, _ in files.values():
            place = node.state_dir / kept[header.sop_instance_uid]["path"]
            assert filing.read_file(place)[0] == header
        for path, (header, _, offset) in files.items():
            digest = hashlib.sha256(path.read_bytes()[offset:]).hexdigest()
            assert kept[header.sop_instance_uid]["digest"] == digest

        results = journal.rows("select study_instance_uid, generation from results")
        assert {row["study_instance_uid"] for row in results} == uids
        assert len({tuple(row.values()) for row in results}) == len(results)
        for row in journal.rows(
            "select study_instance_uid, max(last_instance_id) as last from jobs where state = 'done' group by 1"
        ):
            newest = max(
                entry["id"] for entry in kept.values() if entry["study_instance_uid"] == row["study_instance_uid"]
            )
            assert row["last"] == newest, "the current answer is about all instances"

        stored = journal.rows("select sop_instance_uid, state from outbox")
        assert {row["state"] for row in stored} <= {"stored", "superseded"}
        expected = {row["sop_instance_uid"] for row in stored if row["state"] == "stored"}
        assert expected <= set(pacs.received)
        assert all(len(digests) == 1 for digests in pacs.received.values()), "one answer under each UID"
        # An answer in the middle of the killing may be about half a study; the last one is about all of it.
        assert [item["state"] for item in node.worklist()] == ["judged"] * STUDIES
        current = journal.rows(
            "select sop_instance_uid from objects join studies on studies.result_id = objects.result_id"
        )
        assert len(current) >= 3 * STUDIES
        assert {row["sop_instance_uid"] for row in current} <= set(pacs.received)
        journal.close()
    pacs.stop()
