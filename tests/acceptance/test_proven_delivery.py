"""The whole node proves its deliveries, whichever of its processes is killed meanwhile."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests import builders, running, wire
from tests.association.conftest import associate, store
from tests.committing import archive
from triage_node.journal import views

if TYPE_CHECKING:
    from pathlib import Path


def test_a_desk_killed_between_stored_and_committed_learns_of_the_report_that_came_meanwhile(tmp_path: Path) -> None:
    keys = "storage_commitment = true\nread_back = true\ncommitment_wait_s = 0.0"
    with archive() as peer, running.node(tmp_path, pacs={"PACS": peer.port}, keys=keys, long_quiet_s=0.5) as node:
        association = associate(node.intake)
        assert store(association, wire.ct(study="few slices")) == 0x0000
        association.release()

        journal = node.journal()

        def objects() -> list[views.ObjectRow]:
            return views.objects(journal, builders.uid("few slices"))

        running.until(lambda: peer.requests, 40, "commitment is asked for")
        desk = node.children()["desk"]
        os.kill(desk, signal.SIGKILL)
        assert peer.report_to(node.intake, peer.requests[0]) == 0x0000
        (row,) = objects()
        assert row.committed_at is not None
        running.until(lambda: node.children().get("desk", desk) != desk, 20, "the desk is back")
        running.until(lambda: objects()[0].state == "confirmed", 20, "the object is confirmed as well")
        journal.close()
        (entry,) = node.ask("study", builders.uid("few slices"))["objects"]
        assert (entry["kind"], entry["awaiting"], entry["resends"]) == ("report", [], 0)
        assert entry["committed_at"] is not None
        assert len(peer.stored) == len(peer.requests) == 1
        (destination,) = node.ask("status")["destinations"]
        assert (destination["state"], destination["awaiting"], destination["dead_letters"]) == ("answers", 0, 0)
