"""A destination that is not reached pauses as a whole, is probed, and gets everything at once when it is back."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pynetdicom import AE, evt

from tests.committing import archive
from tests.delivering import Scripted, Sending, scripted
from tests.running import free_port, until
from triage_node import conformance, worklist
from triage_node.journal import circuits, outbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def way(node: Sending, name: str = "pacs") -> circuits.Circuit:
    found = circuits.look(node.journal, name)
    assert found is not None
    return found


def failures(node: Sending, name: str = "pacs") -> int:
    found = circuits.look(node.journal, name)
    return found.failures if found is not None else 0


def shown(node: Sending) -> dict[str, dict[str, Any]]:
    """What `triage-node status` says of each destination."""
    listed = worklist.status(node.journal, node.settings.destination_names)["destinations"]
    assert isinstance(listed, list)
    return {entry["name"]: entry for entry in listed}


def test_each_probe_is_one_study_and_when_the_destination_answers_all_go_out_at_once(
    sending: Callable[..., Sending],
) -> None:
    port = free_port()
    node = sending({"pacs": port}, probe_longest_s=0.3)
    for number in range(6):
        node.judge(f"study {number}", kinds=("report",))
    node.start()
    until(lambda: failures(node) >= 4, 20, "four probes have failed")
    probes = [
        row["number"] for row in node.journal.rows("select count(*) as number from deliveries group by outbox_id")
    ]
    assert sum(probes) <= failures(node) + 1  # the next may be under way
    assert shown(node)["pacs"]["state"] == "not reached"
    assert "does not answer" in shown(node)["pacs"]["words"]
    with node.journal.writing() as database:  # whatever pause each study would have had for itself
        database.conn.execute("update outbox set next_at = next_at + 3600 where state = 'queued'")
    with archive(port) as peer:
        until(lambda: node.states() == ["stored"] * 6, 20, "all is stored")
        assert len(peer.stored) == len(set(peer.stored)) == 6
    assert way(node).state == "answers"
    ends = [state for _, state, _ in node.ledger()]
    assert ends[-6:] == ["stored"] * 6
    events = [row["event"] for row in node.journal.rows("select event from events where event like 'destination %'")]
    assert events == ["destination not reached", "destination answers again"]


def test_a_restart_forgets_nothing_and_probes_soon(sending: Callable[..., Sending]) -> None:
    port = free_port()
    node = sending({"pacs": port})
    node.judge(kinds=("report",))
    node.start()
    until(lambda: failures(node) >= 2, 20, "two probes have failed")
    for each in node.senders:
        each.stop()
        each.join(10)
    with node.journal.writing() as database:
        database.conn.execute("update circuits set probe_at = probe_at + 3600")
        database.conn.execute("update outbox set next_at = next_at + 3600")
    before = way(node)
    with archive(port):
        node.start()
        assert way(node).since == before.since
        assert way(node).failures == before.failures
        until(lambda: node.states() == ["stored"], 20, "it is stored")


def test_without_anything_to_send_an_echo_probes_and_the_proofs_go_on(sending: Callable[..., Sending]) -> None:
    port = free_port()
    node = sending({"pacs": port}, read_back=True, probe_longest_s=0.3)
    with archive(port) as peer:
        peer.on_store = peer.kept.discard
        node.judge(kinds=("report",))
        node.start()
        until(lambda: peer.queries, 20, "it was stored and looked for")
    until(lambda: failures(node) >= 2, 20, "the destination is gone")
    assert node.states() == ["stored"]
    with archive(port) as peer:
        peer.kept.update(row["sop_instance_uid"] for row in node.journal.rows("select sop_instance_uid from outbox"))
        until(lambda: node.states() == ["confirmed"], 20, "it is confirmed")
        assert peer.stored == []


def test_a_destination_that_hangs_up_before_the_echo_is_not_reached(sending: Callable[..., Sending]) -> None:
    """Such a peer accepts the association of the probe and is gone before it can be asked anything."""
    ae = AE(ae_title="PACS")
    ae.add_supported_context(conformance.VERIFICATION)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_ACCEPTED, lambda event: event.assoc.abort())]
    )
    try:
        node = sending({"pacs": server.server_address[1]}, probe_longest_s=0.3)
        circuits.not_reached(node.journal, "pacs", "gone", time.time(), time.time())
        node.start()
        until(lambda: failures(node) >= 3, 20, "two echoes have failed")
        assert way(node).state == "not reached"
        assert "C-ECHO" in way(node).words
    finally:
        server.shutdown()


def test_a_probe_with_files_that_are_gone_is_an_echo(sending: Callable[..., Sending]) -> None:
    port = free_port()
    node = sending({"pacs": port}, probe_longest_s=0.3)
    node.judge(kinds=("report",))
    (lost,) = node.archive.results_dir.rglob("*.dcm")
    lost.unlink()
    circuits.not_reached(node.journal, "pacs", "gone", time.time(), time.time())
    node.start()
    until(lambda: failures(node) >= 3, 20, "two probes have failed")
    assert len(node.ledger()) <= 3
    with archive(port):
        until(lambda: way(node).state == "answers", 20, "it answers again")


def test_requeue_probes_a_dead_destination_at_once(sending: Callable[..., Sending]) -> None:
    port = free_port()
    node = sending({"pacs": port})
    node.judge(kinds=("report",))
    node.start()
    until(lambda: failures(node) == 1, 20, "it was tried")
    with node.journal.writing() as database:
        database.conn.execute("update circuits set probe_at = probe_at + 3600")
    with archive(port):
        assert outbox.requeue(node.journal, time.time()) == 1
        for each in node.senders:
            each.wake()
        until(lambda: node.states() == ["stored"], 20, "it is stored")


def test_a_destination_that_accepts_slowly_holds_up_no_other(sending: Callable[..., Sending]) -> None:
    gate = threading.Event()

    def slowly(_: evt.Event, __: Scripted) -> int:
        gate.wait(20)
        return 0x0000

    with scripted(slowly) as slow, archive() as peer:
        node = sending({"pacs": peer.port, "slow": slow.port}, timeout_s=30.0)
        for number in range(3):
            node.judge(f"study {number}")
        node.start()
        until(lambda: node.states("pacs") == ["stored"] * 12, 20, "the quick one has all")
        assert len(slow.received) == 1
        assert node.states("slow") == ["queued"] * 12
        assert shown(node)["slow"]["state"] == "untried"
        gate.set()
        until(lambda: node.states("slow") == ["stored"] * 12, 20, "the slow one has all")


def test_a_destination_that_answers_nothing_is_not_waited_for_by_every_study(sending: Callable[..., Sending]) -> None:
    silence = threading.Event()

    def answer(_: evt.Event, __: Scripted) -> int:
        silence.wait(20)
        return 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port}, timeout_s=0.3, retry_first_s=60.0)
        for number in range(6):
            node.judge(f"study {number}", kinds=("report",))
        node.start()
        until(lambda: failures(node) == 1, 20, "it counts as not reached")
        assert len(node.ledger()) == 3
        assert "nothing that is sent on them is answered" in way(node).words
        silence.set()
        assert outbox.requeue(node.journal, time.time()) == 6
        for each in node.senders:
            each.wake()
        until(lambda: node.states() == ["stored"] * 6, 20, "all is stored")


def test_one_study_that_a_destination_chokes_on_does_not_stop_the_others(sending: Callable[..., Sending]) -> None:
    poison: list[str] = []

    def answer(event: evt.Event, _: Scripted) -> int:
        if str(event.request.AffectedSOPInstanceUID) in poison:
            event.assoc.abort()
        return 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port}, retry_first_s=0.1, retry_longest_s=0.1)
        poison.extend(node.judge("bad", kinds=("report",)))
        node.start()
        until(lambda: len(node.ledger()) >= 5, 20, "it was tried five times")
        node.judge("good", kinds=("report",))
        until(lambda: node.states()[1] == "stored", 20, "the other is stored")
        assert failures(node) == 0


def test_what_waited_too_long_for_a_dead_destination_is_given_up_and_listed(sending: Callable[..., Sending]) -> None:
    node = sending({"pacs": free_port()}, retry_longest_s=0.3, give_up_after_h=0.0003)
    for number in range(4):
        node.judge(f"study {number}", kinds=("report",))
    node.start()
    until(lambda: node.states() == ["given up"] * 4, 20, "all is given up")
    letters = worklist.dead_letters(node.journal)
    assert [letter["state"] for letter in letters] == ["given up"] * 4
    assert all("does not answer" in str(letter["words"]) for letter in letters)
    assert shown(node)["pacs"]["dead_letters"] == 4


ALONE = """
import signal, sys, threading
from pathlib import Path
from triage_node import config, logbook, sender
from triage_node.journal import Journal
settings = config.load(Path(sys.argv[1]))
logbook.configure("desk", None, settings.log)
sender.start_all(settings, Journal(settings.state_dir, "desk"))
threading.Event().wait()
"""


def test_senders_that_are_killed_between_stored_and_committed_end_in_committed(
    sending: Callable[..., Sending], tmp_path: Path
) -> None:
    with archive() as peer:
        node = sending({"pacs": peer.port}, storage_commitment=True)
        file = tmp_path / "node.toml"
        file.write_text(
            f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {peer.port}\n'
            "storage_commitment = true\ncommitment_timeout_s = 2.0\n"
        )
        node.judge()

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", ALONE, str(file)])

        process = start()
        try:
            until(lambda: peer.requests, 30, "commitment is asked for")
            assert node.states() == ["stored"] * 4
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            peer.on_request = peer.report_here
            process = start()
            until(lambda: node.states() == ["committed"] * 4, 30, "all is committed")
        finally:
            process.kill()
            process.wait(10)
        assert len(peer.stored) == 4
