"""Results reach their destinations once, in order, and the ledger says what each destination answered."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest
from pynetdicom import evt

from tests import peers, wire
from tests.delivering import KINDS, ORDER, Scripted, Sending, always, scripted
from tests.running import free_port, storescp, until
from triage_node import backoff
from triage_node.journal import outbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# pynetdicom leaves a socket that could not connect, or whose peer was faster, to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.mark.peers
def test_every_object_arrives_at_storescp_once_and_a_study_takes_one_association(
    sending: Callable[..., Sending], tmp_path: Path
) -> None:
    program = peers.require("storescp", package="dcmtk")
    port = free_port()
    with storescp(str(program), tmp_path, port) as received:
        node = sending({"pacs": port})
        sent = {**node.judge("a"), **node.judge("b")}
        node.start()
        until(lambda: node.states() == ["stored"] * 8, 20, "all is stored")
        files = {path.name: path for path in received.iterdir()}
        assert len(files) == 8
        from triage_node import filing

        found = {}
        for path in files.values():
            header, _, offset = filing.read_file(path)
            found[header.sop_instance_uid] = path.read_bytes()[offset:]
        assert found == sent
        log_file = tmp_path / "storescp.log"
        until(lambda: log_file.read_text().count("Association Release") == 2, 10, "both associations are released")
        log = log_file.read_text()
        assert log.count("Association Acknowledged") == 2
        assert log.count("Received Store Request") == 8
    assert node.ledger() == [(kind, "stored", 0) for _ in "ab" for kind in ORDER]


@pytest.mark.peers
def test_a_dead_destination_gets_its_objects_when_it_is_back(sending: Callable[..., Sending], tmp_path: Path) -> None:
    program = peers.require("storescp", package="dcmtk")
    port = free_port()
    node = sending({"pacs": port})
    node.judge()
    node.start()
    until(lambda: len(node.ledger()) >= 8, 20, "two attempts have failed")
    assert {state for _, state, _ in node.ledger()} == {"failed"}
    assert node.states() == ["queued"] * 4
    with storescp(str(program), tmp_path, port) as received:
        until(lambda: node.states() == ["stored"] * 4, 20, "all is stored")
        assert len(list(received.iterdir())) == 4
    of_one = "select at from deliveries where outbox_id = (select min(outbox_id) from deliveries) order by id"
    times = [row["at"] for row in node.journal.rows(of_one)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] >= 0.3 * (1 - backoff.JITTER) - 0.1


def test_a_status_that_refuses_is_final_and_is_not_stored(sending: Callable[..., Sending]) -> None:
    with scripted(always(0xA900)) as peer:
        node = sending({"pacs": peer.port})
        node.judge()
        node.start()
        until(lambda: len(node.ledger()) == 4, 10, "all is answered")
        time.sleep(1.0)
        assert node.states() == ["refused"] * 4
        assert node.ledger() == [(kind, "refused", 0xA900) for kind in ORDER]
        assert len(peer.received) == 4
        assert peer.associations == 1


@pytest.mark.parametrize(
    ("status", "state"), [(0xC000, "refused"), (0x0122, "queued"), (0xB000, "stored"), (0xB007, "stored")]
)
def test_a_status_decides_what_becomes_of_the_object(sending: Callable[..., Sending], status: int, state: str) -> None:
    with scripted(always(status)) as peer:
        node = sending({"pacs": peer.port}, retry_first_s=60.0)
        node.judge(kinds=("report",))
        node.start()
        until(node.ledger, 10, "it is answered")
        assert node.states() == [state]
        assert node.ledger()[0][2] == status


def test_a_destination_out_of_resources_is_asked_again(sending: Callable[..., Sending]) -> None:
    def answer(_: evt.Event, peer: Scripted) -> int:
        return 0xA700 if len(peer.received) < 3 else 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port})
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["stored"], 10, "it is stored")
        assert node.ledger() == [("report", "failed", 0xA700)] * 2 + [("report", "stored", 0x0000)]


def test_one_refused_object_does_not_keep_the_others_back(sending: Callable[..., Sending]) -> None:
    def answer(event: evt.Event, _: Scripted) -> int:
        return 0xA900 if event.request.AffectedSOPClassUID == KINDS["overview"] else 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port})
        node.judge()
        node.start()
        until(lambda: len(node.ledger()) == 4, 10, "all is answered")
        assert node.states() == ["stored", "stored", "refused", "stored"]


def test_a_destination_that_aborts_half_way_gets_only_the_rest_again(sending: Callable[..., Sending]) -> None:
    def answer(event: evt.Event, peer: Scripted) -> int:
        if len(peer.received) == 2:
            event.assoc.abort()
        return 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port})
        node.judge()
        node.start()
        until(lambda: node.states() == ["stored"] * 4, 15, "all is stored")
        assert node.ledger()[0] == ("lungs", "stored", 0)
        assert [entry[:2] for entry in node.ledger()[1:4]] == [(kind, "failed") for kind in ORDER[1:]]
        assert peer.received.count(peer.received[0]) == 1


def test_a_destination_that_never_answers_is_given_up_on_for_now(sending: Callable[..., Sending]) -> None:
    silence = threading.Event()

    def answer(_: evt.Event, __: Scripted) -> int:
        silence.wait(20)
        return 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port}, timeout_s=1.0, retry_first_s=60.0)
        node.judge(kinds=("report",))
        node.start()
        until(node.ledger, 10, "the attempt has ended")
        assert node.ledger() == [("report", "failed", None)]
        assert node.states() == ["queued"]
        silence.set()


def test_a_kind_of_object_that_is_not_accepted_is_refused_and_the_others_are_sent(
    sending: Callable[..., Sending],
) -> None:
    with scripted(always(0x0000), kinds=("overview", "report")) as peer:
        node = sending({"pacs": peer.port})
        node.judge()
        node.start()
        until(lambda: len(node.ledger()) == 4, 10, "all is answered")
        assert node.states() == ["refused", "refused", "stored", "stored"]
        words = node.journal.rows("select words from deliveries order by id limit 1")[0]["words"]
        assert "accepts no such object" in words


def test_a_destination_that_accepts_none_of_the_objects_refuses_them(sending: Callable[..., Sending]) -> None:
    with scripted(always(0x0000), kinds=("overview",)) as peer:
        node = sending({"pacs": peer.port})
        node.judge(kinds=("lungs", "lesions"))
        node.start()
        until(lambda: len(node.ledger()) == 2, 10, "all is answered")
        assert node.states() == ["refused", "refused"]


def test_a_destination_that_takes_the_default_transfer_syntax_alone_is_served(sending: Callable[..., Sending]) -> None:
    with scripted(always(0x0000), syntax=wire.IMPLICIT) as peer:
        node = sending({"pacs": peer.port})
        node.judge()
        node.start()
        until(lambda: node.states() == ["stored"] * 4, 10, "all is stored")


def test_a_destination_that_rejects_the_association_is_asked_again(sending: Callable[..., Sending]) -> None:
    with scripted(always(0x0000)) as peer:
        peer.ae.require_called_aet = True
        node = sending({"wrong": peer.port})
        node.judge(kinds=("report",))
        node.start()
        until(lambda: len(node.ledger("wrong")) == 2, 10, "it was tried twice")
        assert node.states("wrong") == ["queued"]
        words = node.journal.rows("select words from deliveries")[0]["words"]
        assert "rejected the association" in words
        assert "Called AE title not recognised" in words
        peer.ae.require_called_aet = False
        until(lambda: node.states("wrong") == ["stored"], 10, "it is stored")


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_one_dead_destination_does_not_delay_the_other(sending: Callable[..., Sending], host: str) -> None:
    with scripted(always(0x0000)) as peer:
        node = sending({"pacs": peer.port, "dead": free_port()})
        alive, dead = node.settings.destinations
        node.settings = node.settings.model_copy(
            update={"destinations": (alive, dead.model_copy(update={"host": host}))}
        )
        node.judge()
        node.start()
        until(lambda: node.states("pacs") == ["stored"] * 4, 10, "the living one has all")
        until(lambda: node.ledger("dead"), 10, "the dead one was tried")
        assert node.states("dead") == ["queued"] * 4
        assert {state for _, state, _ in node.ledger("dead")} == {"failed"}


def test_a_lost_result_file_does_not_keep_the_others_back(sending: Callable[..., Sending]) -> None:
    with scripted(always(0x0000)) as peer:
        node = sending({"pacs": peer.port}, retry_first_s=60.0)
        node.judge()
        (lost,) = node.archive.results_dir.rglob("lungs.dcm")
        lost.unlink()
        node.start()
        until(lambda: len(node.ledger()) == 4, 10, "all was tried")
        assert node.states() == ["queued", "stored", "stored", "stored"]


def test_a_refused_object_is_sent_again_when_it_is_requeued(sending: Callable[..., Sending]) -> None:
    def answer(_: evt.Event, peer: Scripted) -> int:
        return 0xC000 if len(peer.received) == 1 else 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port})
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["refused"], 10, "it is refused")
        assert outbox.requeue(node.journal, time.time(), destination="pacs") == 1
        for each in node.senders:
            each.wake()
        until(lambda: node.states() == ["stored"], 10, "it is stored")
        assert [entry[1] for entry in node.ledger()] == ["refused", "stored"]


def test_an_object_is_given_up_after_the_configured_time(sending: Callable[..., Sending]) -> None:
    node = sending({"pacs": free_port()}, give_up_after_h=0.0002, retry_first_s=0.2, retry_longest_s=0.2)
    node.judge(kinds=("report",))
    node.start()
    until(lambda: node.states() == ["given up"], 15, "it is given up")
    assert {state for _, state, _ in node.ledger()} == {"failed"}
    assert outbox.next_at(node.journal, "pacs") is None


def test_a_sender_stops_within_seconds_though_its_destination_hangs(sending: Callable[..., Sending]) -> None:
    silence = threading.Event()

    def answer(_: evt.Event, __: Scripted) -> int:
        silence.wait(20)
        return 0x0000

    with scripted(answer) as peer:
        node = sending({"pacs": peer.port}, timeout_s=15.0)
        node.judge()
        node.start()
        until(lambda: peer.received, 10, "the first object is under way")
        started = time.monotonic()
        for each in node.senders:
            each.stop()
            each.join(10)
        assert time.monotonic() - started < 6
        assert node.states() == ["queued"] * 4
        silence.set()
