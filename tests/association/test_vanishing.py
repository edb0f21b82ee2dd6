"""Peers that fall silent or vanish: what they had acknowledged stays, what they held is given back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests import wire
from tests.association.conftest import associate, store, threads
from tests.running import until
from triage_node.journal import Journal

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

DATASET = wire.ct(1)
DATA = wire.encoded(DATASET)


def store_one(connection: socket.socket) -> None:
    """Store image 0 on a raw association and read its 0x0000."""
    connection.sendall(wire.p_data(wire.store_rq(wire.ct().SOPInstanceUID), command=True, last=True))
    connection.sendall(wire.p_data(wire.encoded(wire.ct()), command=False, last=True))
    answer = wire.read_pdu(connection)
    assert answer[0] == 0x04
    # (0000,0900) Status, the value of which is 0
    assert b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00" in answer


HALVES = {
    "between requests": b"",
    "in a PDU's head": b"\x04\x00\x00",
    "in a PDU": wire.p_data(wire.store_rq(DATASET.SOPInstanceUID), command=True, last=True)[:40],
    "after the command": wire.p_data(wire.store_rq(DATASET.SOPInstanceUID), command=True, last=True),
    "in a data set": wire.p_data(wire.store_rq(DATASET.SOPInstanceUID), command=True, last=True)
    + wire.p_data(DATA[:100], command=False, last=False),
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
@pytest.mark.parametrize("how", ["closes", "resets", "aborts"])
def test_a_peer_that_vanishes_is_noted_and_its_acknowledged_images_stay(
    receive: Callable[..., Any], half: bytes, how: str
) -> None:
    import socket

    with receive() as node:
        before = threads()
        connection = wire.associated(node.port)
        store_one(connection)
        connection.sendall(half)
        if how == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if how == "aborts":
            connection.sendall(wire.pdu(0x07, bytes(4)))
        connection.close()
        until(lambda: node.endings() == ["aborted"], 5, "the association is noted as aborted")
        assert node.kept() == {wire.ct().SOPInstanceUID: wire.encoded(wire.ct())}
        until(lambda: threads() <= before, 5, "its threads have ended")
        assert node.echoes()


def test_a_peer_that_releases_is_released_though_it_slams_the_door(receive: Callable[..., Any]) -> None:
    """Some close right behind the request; the release was asked for, so nothing is missing."""
    with receive() as node:
        connection = wire.associated(node.port)
        store_one(connection)
        connection.sendall(wire.RELEASE_RQ)
        assert wire.read_pdu(connection)[0] == 0x06
        assert node.endings() == ["released"]
        connection.close()
        time.sleep(0.2)
        assert node.endings() == ["released"]


def test_an_idle_association_is_timed_out(receive: Callable[..., Any]) -> None:
    with receive(network_timeout_s=1.0) as node:
        connection = wire.associated(node.port)
        store_one(connection)
        assert wire.read_pdu(connection)[:1] == b"\x07"  # A-ABORT
        until(lambda: node.endings() == ["aborted"], 5, "it is noted")
        connection.close()
        assert node.echoes()


@pytest.mark.parametrize("half", [HALVES["in a PDU's head"], HALVES["in a PDU"], HALVES["in a data set"]])
def test_a_peer_that_stops_half_way_is_timed_out(receive: Callable[..., Any], half: bytes) -> None:
    with receive(network_timeout_s=1.0) as node:
        before = threads()
        connection = wire.associated(node.port)
        connection.sendall(half)
        until(lambda: node.endings() == ["aborted"], 6, "it is noted")
        until(lambda: threads() <= before, 5, "its threads have ended")
        connection.close()


def test_a_peer_that_drips_a_pdu_byte_by_byte_is_timed_out(receive: Callable[..., Any]) -> None:
    with receive(network_timeout_s=1.0) as node:
        connection = wire.associated(node.port)
        connection.sendall(wire.pdu(0x04, b"", 1000))
        started = time.monotonic()
        try:
            while time.monotonic() - started < 10:
                connection.sendall(b"\0")
                time.sleep(0.1)
                if node.endings() == ["aborted"]:
                    break
        except OSError:
            pass
        assert time.monotonic() - started < 6
        until(lambda: node.endings() == ["aborted"], 2, "it is noted")
        connection.close()


def test_one_slow_peer_does_not_delay_another(receive: Callable[..., Any]) -> None:
    with receive() as node:
        slow = wire.associated(node.port)
        slow.sendall(HALVES["in a data set"])
        association = associate(node.port)
        for number in range(2, 12):
            assert store(association, wire.ct(number)) == 0x0000
        association.release()
        slow.sendall(wire.p_data(DATA[100:], command=False, last=True))
        assert wire.read_pdu(slow)[0] == 0x04
        slow.sendall(wire.RELEASE_RQ)
        assert wire.read_pdu(slow)[0] == 0x06
        slow.close()
        assert len(node.kept()) == 11
        assert node.endings() == ["released"] * 2


def test_a_receiver_stops_within_seconds_though_peers_hang(receive: Callable[..., Any]) -> None:
    with receive() as node:
        before = threads()
        hanging = [wire.associated(node.port) for _ in range(4)]
        for connection in hanging:
            connection.sendall(HALVES["in a PDU"])
        started = time.monotonic()
    assert time.monotonic() - started < 8
    assert threads() < before + 4
    for connection in hanging:
        connection.close()
    assert node.endings() == ["aborted"] * 4


def test_requests_that_do_not_wait_for_answers_are_held_back_and_all_answered(receive: Callable[..., Any]) -> None:
    """No asynchronous operations were agreed, but a peer that does not wait must not fill the memory."""
    with receive() as node:
        connection = wire.associated(node.port)
        for number in range(30):
            dataset = wire.ct(number)
            request = wire.store_rq(dataset.SOPInstanceUID, message=number + 1)
            connection.sendall(wire.p_data(request, command=True, last=True))
            connection.sendall(wire.p_data(wire.encoded(dataset), command=False, last=True))
        for _ in range(30):
            assert wire.read_pdu(connection)[0] == 0x04
        connection.sendall(wire.RELEASE_RQ)
        assert wire.read_pdu(connection)[0] == 0x06
        connection.close()
        assert len(node.kept()) == 30


def test_a_peer_that_does_not_wait_is_not_read_from_while_its_request_is_served(receive: Callable[..., Any]) -> None:
    """The journal is locked, so that the first image takes its time; TCP holds the sender back."""
    with receive() as node:
        connection = wire.associated(node.port)
        connection.settimeout(1.0)
        journal = Journal(node.state_dir, "test")
        sent = 0
        with journal.writing():
            try:
                for number in range(100):
                    dataset = wire.ct(number, PixelData=bytes(1 << 20))
                    request = wire.store_rq(dataset.SOPInstanceUID, message=number + 1)
                    connection.sendall(wire.p_data(request, command=True, last=True))
                    data = wire.encoded(dataset)
                    pieces = [data[first : first + 100_000] for first in range(0, len(data), 100_000)]
                    for piece in pieces:
                        connection.sendall(wire.p_data(piece, command=False, last=piece is pieces[-1]))
                    sent += 1
            except TimeoutError:
                pass
        assert sent < 40  # what the buffers of both ends take
        connection.close()
        journal.close()
        until(lambda: node.endings() == ["aborted"], 5, "the association is noted as aborted")
