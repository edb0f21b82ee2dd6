"""The whole node tells a RIS, whichever of its processes is killed, and nothing of the patient stays behind."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests import builders, running, wire
from tests.association.conftest import associate, store
from tests.ris import Ris, accepting, ris
from triage_node import codes
from triage_node.study import Reason

if TYPE_CHECKING:
    from pathlib import Path

    import hl7
    from hl7.mllp import HL7StreamWriter

SECTION = """
[[hl7]]
name = "ris"
host = "127.0.0.1"
port = {port}
timeout_s = 30.0
retry_first_s = 0.5
"""


async def silent(_: hl7.Message, __: HL7StreamWriter, ___: Ris) -> None:
    return


def test_a_desk_killed_while_it_waits_for_an_acknowledgement_asks_again_with_the_same_message(tmp_path: Path) -> None:
    with ris(silent) as peer:
        node = running.Node(tmp_path, long_quiet_s=0.5)
        node.config.write_text(node.config.read_text() + SECTION.format(port=peer.port))
        node.start()
        try:
            association = associate(node.intake)
            dataset = wire.ct(study="few slices", PatientID="SECRET-7", PatientName="Secret^Person")
            assert store(association, dataset) == 0x0000
            association.release()
            running.until(lambda: peer.messages, 40, "a message has arrived")
            peer.script = accepting
            desk = node.children()["desk"]
            os.kill(desk, signal.SIGKILL)
            uid = builders.uid("few slices")
            running.until(
                lambda: [one["state"] for one in node.ask("study", uid)["messages"]] == ["acknowledged"],
                40,
                "the answer is acknowledged",
            )
            first, second = map(str, peer.messages)
            assert first == second, "the same message, so that a RIS that has it already can tell"
            assert "|SECRET-7|" in first
            reason = Reason(node.ask("study", uid)["not_analysed"]["reason"])
            assert peer.values()["reason"] == codes.REASONS[reason].value
            (known,) = node.ask("status")["destinations"]
            assert (known["name"], known["state"], known["deliveries"]) == ("ris", "answers", {"acknowledged": 1})
        finally:
            node.stop()
        left = [path for path in node.state_dir.rglob("*") if path.is_file() and "archive" not in path.parts]
        assert {"journal.sqlite", "node.log"} <= {path.name for path in left}
        for path in left:
            if path.suffix == ".dcm":  # a result names its patient, as the images do
                continue
            data = path.read_bytes()
            assert b"SECRET-7" not in data, path
            assert b"PID|1" not in data, path
