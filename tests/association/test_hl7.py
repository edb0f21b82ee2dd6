"""Answers to a RIS over MLLP: what is delivered, and what becomes of it when the RIS misbehaves."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hl7
import pytest
from hl7apy.mllp import AbstractHandler, MLLPServer
from structlog.testing import capture_logs

from tests import builders, filed, wire
from tests.ris import Ris, accepting, acknowledged, ris, saying
from tests.running import free_port, until
from triage_node import config, messenger, worklist
from triage_node.errors import DeliveryFailed
from triage_node.hl7 import mllp
from triage_node.journal import Journal, circuits, correspondence, outbox, queue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hl7.mllp import HL7StreamWriter

    from triage_node.config import Settings
    from triage_node.messenger import Messenger

PATIENT = {"PatientName": "Secret^Person", "PatientID": "SECRET-7", "AccessionNumber": "ACC-3"}


@dataclass
class Node:
    """A journal with answers in it, and the messengers that drain it."""

    settings: Settings
    journal: Journal
    messengers: list[Messenger] = field(default_factory=list)

    def judge(self, study: str = "study", *, refusal: str | None = None, images: bool = True) -> str:
        """A study with its images on disk and an answer; again: one more image and a newer answer."""
        uid, now = builders.uid(study), time.time()
        number = len(self.journal.rows("select 1 from instances where study_instance_uid = ?", uid))
        header = filed.header(uid, f"{uid}.1", number)
        assert filed.arrive(self.journal, header, now=now)
        (row,) = self.journal.rows("select path from instances where sop_instance_uid = ?", header.sop_instance_uid)
        path = self.settings.state_dir / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if images:
            builders.write(path, wire.ct(study=study, number=number, **PATIENT))
        filed.close_all(self.journal, now)
        job = queue.claim(self.journal, "test", now)
        assert job is not None
        result = filed.result(job, refusal=refusal, probability=0.97)
        systems = tuple(section.name for section in self.settings.hl7)
        assert queue.finish(self.journal, job, "test", result, (), time.time(), systems=systems)
        for each in self.messengers:
            each.wake()
        return uid

    def start(self) -> None:
        self.messengers, _ = messenger.start_all(self.settings, self.journal)

    def stop(self) -> None:
        for each in self.messengers:
            each.stop()
        for each in self.messengers:
            each.join(10)
            assert not each.is_alive()
        self.messengers = []

    def states(self, name: str = "ris") -> list[str]:
        return [row["state"] for row in self.journal.rows("select state from messages where destination = ?", name)]

    def said(self, study: str = "study") -> list[tuple[str, str | None, str]]:
        rows = correspondence.ledger(self.journal, builders.uid(study))
        return [(one.state, one.code, one.words) for row in rows for one in row.deliveries]


@contextmanager
def node(folder: Path, *ports: int, **section: Any) -> Iterator[Node]:
    names = ["ris", "second"]
    keys = {"timeout_s": 5.0, "retry_first_s": 0.2, "probe_longest_s": 0.4, **section}
    lines = "".join(f"{key} = {value!r}\n" for key, value in keys.items())
    text = "".join(
        f'[[hl7]]\nname = "{name}"\nhost = "127.0.0.1"\nport = {port}\n{lines}'
        for name, port in zip(names, ports, strict=False)
    )
    settings = config.parse(text, folder=folder)
    made = Node(settings, Journal(settings.state_dir, "test"))
    try:
        yield made
    finally:
        made.stop()
        made.journal.close()


def test_an_answer_arrives_once_with_patient_order_and_numbers_and_is_acknowledged(tmp_path: Path) -> None:
    with ris() as peer, node(tmp_path, peer.port) as made:
        uid = made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged")
        time.sleep(0.3)
        (message,) = peer.messages
        assert str(message.segment("PID")[3]) == "SECRET-7"
        assert str(message.segment("PID")[5][0][0]) == "Secret"
        assert str(message.segment("OBR")[3]) == "ACC-3"
        values = peer.values()
        assert (float(values["covid-prob"]), float(values["affected-worse"])) == (97.0, 30.0)
        assert values["113014"] == uid
        assert str(message.segments("NTE")[0][3]) == "NOT FOR DIAGNOSTIC USE"
        assert made.said() == [("acknowledged", "AA", "AA")]


def test_a_study_that_was_not_analysed_is_told_of_too(tmp_path: Path) -> None:
    with ris() as peer, node(tmp_path, peer.port) as made:
        made.judge(refusal="no image lies at 112.5 mm")
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged")
        assert peer.values()["analysis-state"] == "not-analysed"
        assert peer.statuses()["covid-prob"] == "X"


def test_a_newer_answer_comes_as_a_correction_after_the_first(tmp_path: Path) -> None:
    with ris() as peer, node(tmp_path, peer.port) as made:
        made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the first answer is acknowledged")
        made.judge()
        until(lambda: made.states() == ["acknowledged"] * 2, 20, "the second one is, too")
        assert [peer.statuses(number)["covid-prob"] for number in (0, 1)] == ["P", "C"]
        assert [str(message.segment("OBR")[25]) for message in peer.messages] == ["P", "C"]
        assert len(set(peer.control_ids())) == 2


def test_every_due_message_travels_on_one_connection(tmp_path: Path) -> None:
    with ris() as peer, node(tmp_path, peer.port) as made:
        for number in range(5):
            made.judge(f"study {number}")
        made.start()
        until(lambda: made.states() == ["acknowledged"] * 5, 20, "all are acknowledged")
        assert (len(peer.messages), peer.connections) == (5, 1)


class _Accepting(AbstractHandler):
    """hl7apy's own server answers here: another framing than that of the other tests."""

    def reply(self) -> str:
        message = hl7.parse(self.incoming_message)
        return f"\x0b{message.create_ack('AA')}\x1c\r"


def test_the_server_of_another_library_takes_the_message_too(tmp_path: Path) -> None:
    port = free_port()
    with MLLPServer("127.0.0.1", port, {"ORU^R01^ORU_R01": (_Accepting,)}) as server, node(tmp_path, port) as made:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged")
        made.stop()
        server.shutdown()
        thread.join(5)


# ---------------------------------------------------------------------- the other modes


def test_in_enhanced_mode_an_accept_acknowledgement_is_enough(tmp_path: Path) -> None:
    with ris(saying("CA")) as peer, node(tmp_path, peer.port, acknowledgement="enhanced") as made:
        made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is committed")
        assert str(peer.messages[0].segment("MSH")[15]) == "AL"
        assert made.said()[0][1] == "CA"


def test_in_original_mode_an_accept_acknowledgement_is_waited_past(tmp_path: Path) -> None:
    async def both(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
        writer.writeblock(acknowledged(message, "CA"))
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.writeblock(acknowledged(message, "AA"))

    with ris(both) as peer, node(tmp_path, peer.port) as made:
        made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged")
        assert made.said() == [("acknowledged", "AA", "AA")]


def test_an_accept_acknowledgement_alone_is_tried_again_and_the_ledger_says_what_to_set(tmp_path: Path) -> None:
    with ris(saying("CA")) as peer, node(tmp_path, peer.port, timeout_s=0.3) as made:
        made.judge()
        made.start()
        until(lambda: len(made.said()) > 1, 20, "it is tried again")
        assert made.said()[0][2].endswith("set hl7.acknowledgement to enhanced, if that is all it says")
        assert set(peer.control_ids()) == {peer.control_ids()[0]}


# ---------------------------------------------------------------------- refusals


def test_an_error_in_the_message_is_a_dead_letter_until_it_is_requeued_under_a_new_control_id(tmp_path: Path) -> None:
    error = "ERR|||103^Table value not found^HL70357|E||||unknown universal service for SECRET-7"
    with ris(saying("AE", error=error)) as peer, node(tmp_path, peer.port) as made:
        uid = made.judge()
        with capture_logs() as logs:
            made.start()
            until(lambda: made.states() == ["refused"], 20, "the answer is refused")
        (letter,) = worklist.dead_letters(made.journal)
        assert letter["words"] == "AE (condition 103): unknown universal service for SECRET-7"
        assert not [line for line in logs if "SECRET" in str(line)], "what a RIS says may name the patient"
        assert ("AE", "103") in [(line.get("code"), line.get("condition")) for line in logs]
        peer.script = accepting
        assert outbox.requeue(made.journal, time.time(), study=uid) == 1
        made.messengers[0].wake()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged")
        assert len(set(peer.control_ids())) == len(peer.messages) == 2


@pytest.mark.parametrize("code", ["AE", "AR"])
def test_an_internal_error_of_the_ris_is_tried_again_with_the_same_message(tmp_path: Path, code: str) -> None:
    async def later(message: hl7.Message, writer: HL7StreamWriter, peer: Ris) -> None:
        busy = acknowledged(message, code, "ERR|||206^Application record locked^HL70357|E")
        writer.writeblock(busy if len(peer.messages) < 3 else acknowledged(message, "AA"))

    with ris(later) as peer, node(tmp_path, peer.port) as made:
        made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged in the end")
        assert [state for state, _, _ in made.said()] == ["failed", "failed", "acknowledged"]
        assert len({str(message) for message in peer.messages}) == 1, "to the last sign"
        assert circuits.look(made.journal, "ris").state == "answers"  # type: ignore[union-attr]


# ---------------------------------------------------------------------- misbehaviour


async def silent(_: hl7.Message, __: HL7StreamWriter, ___: Ris) -> None:
    return


async def closing(_: hl7.Message, writer: HL7StreamWriter, __: Ris) -> None:
    writer.close()


async def half_a_frame(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
    writer.write(b"\x0b" + acknowledged(message, "AA")[:40])
    await writer.drain()
    writer.close()


async def a_frame_without_an_end(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
    writer.write(b"\x0b" + acknowledged(message, "AA"))


async def no_frame(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
    writer.write(acknowledged(message, "AA") + b"\x1c\r")


async def another_messages_acknowledgement(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
    writer.writeblock(acknowledged(message, "AA", control_id="4711"))


async def the_message_itself(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
    writer.writemessage(message)


async def noise(_: hl7.Message, writer: HL7StreamWriter, __: Ris) -> None:
    writer.write(b"\x0bHTTP/1.1 400 Bad Request\x1c\r")


MISBEHAVIOURS = {
    silent: "no acknowledgement within 0.5 s",
    closing: "the receiver closed the connection without an answer",
    half_a_frame: "the receiver closed the connection in the middle of an answer",
    a_frame_without_an_end: "no whole acknowledgement within 0.5 s",
    no_frame: "an answer came that is no MLLP block: it has no start",
    another_messages_acknowledgement: "what came acknowledges another message, or nothing",
    the_message_itself: "what came acknowledges another message, or nothing",
    noise: "what came acknowledges another message, or nothing",
}


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS, ids=lambda script: script.__name__)
def test_nothing_but_its_own_acknowledgement_counts_and_the_message_is_tried_again(
    tmp_path: Path, misbehaviour: Any
) -> None:
    async def once(message: hl7.Message, writer: HL7StreamWriter, peer: Ris) -> None:
        await (misbehaviour if len(peer.messages) == 1 else accepting)(message, writer, peer)

    with ris(once) as peer, node(tmp_path, peer.port, timeout_s=0.5) as made:
        made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged in the end")
        (first, _, words), (second, code, _) = made.said()
        assert (first, second, code) == ("failed", "acknowledged", "AA")
        assert MISBEHAVIOURS[misbehaviour] in words
        assert peer.connections == 2, "what a broken exchange left behind is not read as the next answer"


def test_an_acknowledgement_in_many_pieces_after_that_of_another_message_is_read(tmp_path: Path) -> None:
    async def slowly(message: hl7.Message, writer: HL7StreamWriter, _: Ris) -> None:
        stale = acknowledged(message, "AE", control_id="4711")
        data = b"\r\n\x0b" + stale + b"\x1c\r\x0b" + acknowledged(message, "AA") + b"\x1c\r"
        for place in range(0, len(data), 7):
            writer.write(data[place : place + 7])
            await writer.drain()
            await asyncio.sleep(0.005)

    with ris(slowly) as peer, node(tmp_path, peer.port) as made:
        made.judge()
        made.start()
        until(lambda: made.states() == ["acknowledged"], 20, "the answer is acknowledged")
        assert [code for _, code, _ in made.said()] == ["AA"]


def test_a_peer_that_sends_a_byte_now_and_then_does_not_hold_the_queue(tmp_path: Path) -> None:
    async def drip(_: hl7.Message, writer: HL7StreamWriter, __: Ris) -> None:
        while not writer.is_closing():
            writer.write(b"\x0b")
            await asyncio.sleep(0.05)

    with ris(drip) as peer, node(tmp_path, peer.port, timeout_s=0.5) as made:
        made.judge()
        begun = time.monotonic()
        made.start()
        until(lambda: len(made.said()) > 1, 20, "it gives up and tries again")
        assert made.said()[0][2].startswith("no whole acknowledgement within 0.5 s")
        assert time.monotonic() - begun < 15


# ---------------------------------------------------------------------- the way to a RIS


def test_a_ris_that_is_away_is_probed_and_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    with node(tmp_path, port) as made:
        for number in range(3):
            made.judge(f"study {number}")
        made.start()
        until(lambda: (way := circuits.look(made.journal, "ris")) and way.failures >= 2, 20, "it is probed again")
        (known,) = worklist.status(made.journal, ("ris",))["destinations"]  # type: ignore[misc]
        assert (known["state"], known["queued"]) == ("not reached", 3)
        assert known["words"] == f"no connection to 127.0.0.1:{port}: Connection refused"
        with ris(port=port) as peer:
            until(lambda: made.states() == ["acknowledged"] * 3, 20, "all are acknowledged")
            assert len(set(peer.control_ids())) == len(peer.messages) == 3
        assert circuits.look(made.journal, "ris").state == "answers"  # type: ignore[union-attr]


def test_a_restart_forgets_neither_messages_nor_the_way(tmp_path: Path) -> None:
    port = free_port()
    with node(tmp_path, port, retry_longest_s=3600.0, probe_longest_s=3600.0) as made:
        made.judge()
        made.start()
        until(lambda: circuits.look(made.journal, "ris"), 20, "it is not reached")
        made.stop()
        circuits.not_reached(made.journal, "ris", "still not", time.time(), time.time() + 3000)
        with ris(port=port) as peer:
            made.start()
            until(lambda: made.states() == ["acknowledged"], 20, "a probe comes soon after a restart")
            assert len(peer.messages) == 1


def test_a_dead_ris_holds_up_no_other(tmp_path: Path) -> None:
    with ris(silent) as dead, ris() as peer, node(tmp_path, dead.port, peer.port) as made:
        made.judge()
        made.start()
        until(lambda: made.states("second") == ["acknowledged"], 20, "the other one has its answer")
        assert made.states("ris") == ["queued"]


def test_a_ris_that_acknowledges_nothing_of_several_messages_counts_as_not_reached(tmp_path: Path) -> None:
    with ris(silent) as peer, node(tmp_path, peer.port, timeout_s=0.2) as made:
        for number in range(3):
            made.judge(f"study {number}")
        made.start()
        until(lambda: circuits.look(made.journal, "ris"), 20, "the way is closed")
        assert circuits.look(made.journal, "ris").words.startswith("connections are accepted, but nothing")  # type: ignore[union-attr]
        peer.script = accepting
        until(lambda: made.states() == ["acknowledged"] * 3, 20, "all are acknowledged")


def test_a_message_that_nobody_takes_in_time_is_given_up_and_said_to_be(tmp_path: Path) -> None:
    with node(tmp_path, free_port(), give_up_after_h=0.0001) as made:
        made.judge()
        made.start()
        until(lambda: made.states() == ["given up"], 20, "it is given up")
        (letter,) = worklist.dead_letters(made.journal)
        assert letter["state"] == "given up"
        assert "Connection refused" in str(letter["words"])


def test_a_study_whose_images_cannot_be_read_is_no_message_without_a_patient(tmp_path: Path) -> None:
    with ris() as peer, node(tmp_path, peer.port) as made:
        made.judge("lost", images=False)
        made.judge("kept")
        made.start()
        until(lambda: sorted(made.states()) == ["acknowledged", "queued"], 20, "the other study's answer arrives")
        until(lambda: made.said("lost"), 20, "an attempt is on record")
        assert made.said("lost")[0] == ("failed", None, "no image of the study can be read from disk")
        assert len(peer.messages) == 1


def test_a_stop_in_the_middle_of_an_exchange_is_quick_and_the_message_stays(tmp_path: Path) -> None:
    with ris(silent) as peer, node(tmp_path, peer.port, timeout_s=60.0) as made:
        made.judge()
        made.start()
        until(lambda: peer.messages, 20, "the message has arrived")
        begun = time.monotonic()
        made.stop()
        assert time.monotonic() - begun < 8
        assert made.states() == ["queued"]


# ---------------------------------------------------------------------- framing


def test_a_message_that_would_end_its_own_block_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with mllp.Connection("127.0.0.1", port, timeout_s=1.0) as connection:
            for data in (b"MSH\x1c\rrest", b"MSH\x0brest"):
                with pytest.raises(DeliveryFailed, match="end the block") as caught:
                    connection.send(data)
                assert not caught.value.retry


def test_an_answer_without_an_end_is_read_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "LONGEST_BLOCK_BYTES", 10_000)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        mllp.Connection("127.0.0.1", server.getsockname()[1], timeout_s=5.0) as connection,
    ):
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"\x0b" + b"x" * 50_000)
            with pytest.raises(DeliveryFailed, match="no end of a block"):
                connection.receive(time.monotonic() + 5)
