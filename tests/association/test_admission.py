"""Who gets an association, how many there are at a time, and what a bare connection costs."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from tests import wire
from tests.association.conftest import associate, store, threads
from tests.running import until
from triage_node import transport
from triage_node.config import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association


def rejection(association: Association) -> tuple[int, int, int]:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def lines(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


def test_another_called_ae_title_is_rejected_and_logged(receive: Callable[..., Any], logs: list[Any]) -> None:
    with receive() as node:
        assert rejection(associate(node.port, called="NOBODY")) == (1, 1, 7)
        assert "'NOBODY'" in lines(logs, "association rejected")[0]["why"]
        assert node.echoes()


def test_a_calling_ae_title_that_is_no_peer_is_rejected_and_logged(
    receive: Callable[..., Any], logs: list[Any]
) -> None:
    with receive(peers=(Peer(ae_title="PACS", address="127.0.0.1"),)) as node:
        assert rejection(associate(node.port, calling="STRANGER")) == (1, 1, 3)
        (line,) = lines(logs, "association rejected")
        assert (line["peer"], line["address"]) == ("STRANGER", "127.0.0.1")
        association = associate(node.port, calling="PACS")
        assert store(association, wire.ct()) == 0x0000
        association.release()


def test_an_address_that_is_no_peer_is_rejected(receive: Callable[..., Any]) -> None:
    with receive(peers=(Peer(ae_title="*", address="10.0.0.0/8"),)) as node:
        assert rejection(associate(node.port)) == (1, 1, 3)


def test_one_association_too_many_is_rejected_for_now_and_welcome_later(
    receive: Callable[..., Any], logs: list[Any]
) -> None:
    with receive(maximum_associations=3) as node:
        associations = [associate(node.port) for _ in range(3)]
        assert all(association.is_established for association in associations)
        assert rejection(associate(node.port)) == (2, 3, 2)
        assert "maximum_associations" in lines(logs, "association rejected")[0]["why"]
        associations.pop().release()
        assert node.echoes()
        assert store(associations[0], wire.ct()) == 0x0000
        associations.pop().abort()
        assert until(node.echoes, 5, "the slot of an aborted association is free")
        associations.pop().release()


def test_a_sender_that_comes_back_at_once_finds_its_slot_free(receive: Callable[..., Any]) -> None:
    with receive(maximum_associations=1) as node:
        for number in range(20):
            association = associate(node.port)
            assert association.is_established
            assert store(association, wire.ct(number)) == 0x0000
            association.release()
        assert node.endings() == ["released"] * 20


def test_connections_that_only_knock_leave_nothing_behind(receive: Callable[..., Any]) -> None:
    """Load balancers look whether the port answers, every second, for years."""
    with receive(maximum_associations=2) as node:
        before = threads()
        for number in range(200):
            connection = wire.connected(node.port)
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closes by reset
            connection.close()
            if number % 20 == 0:
                assert node.echoes()
        until(lambda: threads() <= before, 10, "all threads have ended")
        assert node.echoes()


def test_a_flood_of_connections_is_bounded_and_passes(receive: Callable[..., Any], logs: list[Any]) -> None:
    with receive(maximum_associations=2) as node:
        before = threads()
        flood = [wire.connected(node.port) for _ in range(150)]
        time.sleep(1.0)
        limit = 2 + transport.SPARE_CONNECTIONS
        assert threads() - before <= 2 * limit  # pynetdicom has two for each
        assert lines(logs, "connections refused")
        for connection in flood:
            connection.close()
        until(node.echoes, 10, "an echo is answered again")
        until(lambda: threads() <= before + 2, 10, "all threads have ended")


def test_bare_connections_do_not_take_the_place_of_associations(receive: Callable[..., Any]) -> None:
    with receive(maximum_associations=1) as node:
        idle = [wire.connected(node.port) for _ in range(10)]
        assert node.echoes()
        for connection in idle:
            connection.close()
