"""Storage commitment after delivery: the report comes here or there, late, twice, never, or says what was lost."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests import builders
from tests.committing import Archive, Request, archive
from tests.orthanc import orthanc, rest
from tests.running import until
from triage_node import worklist
from triage_node.journal import Journal, outbox
from triage_node.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.delivering import Sending

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def listens() -> Iterator[Callable[[Sending], int]]:
    """Gives the node of a Sending its receiver; returns its port."""
    begun: list[Receiver] = []

    def start(node: Sending) -> int:
        begun.append(Receiver(node.settings, Journal(node.settings.state_dir, "receiver"), ring=lambda: wakes(node)))
        return begun[-1].start()[1]

    yield start
    for receiver in begun:
        receiver.stop()
        receiver.journal.close()


def wakes(node: Sending) -> None:
    for each in node.senders:
        each.wake()


def ledger(node: Sending, study: str = "study") -> list[dict[str, Any]]:
    report = worklist.study_report(node.journal, builders.uid(study))
    assert report is not None
    found = report["objects"]
    assert isinstance(found, list)
    return found


def story(node: Sending, kind: str = "report") -> list[str]:
    """What was asked and answered for one object, in order."""
    (entry,) = [entry for entry in ledger(node) if entry["kind"] == kind]
    return [one["state"] for one in entry["deliveries"]]


def commit(sending: Callable[..., Sending], peer: Archive, **section: Any) -> Sending:
    return sending({"pacs": peer.port}, **{"storage_commitment": True, "commitment_wait_s": 0.0, **section})


def test_a_report_on_the_same_association_commits_a_study_with_one_request(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        peer.on_request = peer.report_here
        node = commit(sending, peer, commitment_wait_s=10.0)
        sent = node.judge()
        node.start()
        until(lambda: node.states() == ["committed"] * 4, 20, "all is committed")
        (request,) = peer.requests
        assert {instance for _, instance in request.objects} == set(sent)
        until(lambda: peer.answers, 10, "the report is answered")
        assert peer.answers == [0x0000]
        assert peer.associations == 2
        for entry in ledger(node):
            assert entry["awaiting"] == ()
            assert entry["stored_at"] <= entry["committed_at"]
        assert story(node) == ["stored", "commitment asked", "committed"]


def test_the_association_of_a_request_is_released_as_soon_as_its_report_has_come(
    sending: Callable[..., Sending],
) -> None:
    with archive() as peer:
        peer.on_request = peer.report_here
        node = commit(sending, peer, commitment_wait_s=60.0)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: peer.requests and peer.requests[0].association.is_released, 20, "the association is released")
        assert node.states() == ["committed"]


@pytest.mark.parametrize("roles", [True, False])
def test_a_report_on_an_association_of_the_archive_commits(
    sending: Callable[..., Sending], listens: Callable[[Sending], int], roles: bool
) -> None:
    with archive() as peer:
        node = commit(sending, peer)
        port = listens(node)
        node.judge()
        node.start()
        until(lambda: peer.requests, 20, "commitment is asked for")
        assert peer.report_to(port, peer.requests[0], roles=roles) == 0x0000
        assert node.states() == ["committed"] * 4


def test_a_late_report_counts_though_commitment_was_asked_for_again(
    sending: Callable[..., Sending], listens: Callable[[Sending], int]
) -> None:
    with archive() as peer:
        node = commit(sending, peer, commitment_timeout_s=0.3)
        port = listens(node)
        node.judge()
        node.start()
        until(lambda: len(peer.requests) >= 2, 20, "it is asked again")
        first, second = peer.requests[:2]
        assert first.transaction_uid != second.transaction_uid
        assert node.states() == ["stored"] * 4
        assert peer.report_to(port, first) == 0x0000
        assert node.states() == ["committed"] * 4
        assert peer.report_to(port, second) == 0x0000
        assert story(node)[:3] == ["stored", "commitment asked", "commitment asked"]
        assert story(node).count("committed") == 1


def test_a_report_that_comes_twice_changes_nothing(
    sending: Callable[..., Sending], listens: Callable[[Sending], int]
) -> None:
    with archive() as peer:
        node = commit(sending, peer)
        port = listens(node)
        node.judge()
        node.start()
        until(lambda: peer.requests, 20, "commitment is asked for")
        peer.report_to(port, peer.requests[0])
        before = ledger(node), node.journal.rows("select * from events")
        peer.forget()  # the second report says the contrary, which is too late
        assert peer.report_to(port, peer.requests[0]) == 0x0000
        after = ledger(node), node.journal.rows("select * from events")
        assert after == before


def test_without_any_report_the_object_stays_stored_and_is_given_up_with_words(
    sending: Callable[..., Sending],
) -> None:
    with archive() as peer:
        node = commit(sending, peer, commitment_timeout_s=0.2, give_up_after_h=1.0 / 3600)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["given up"], 20, "it is given up")
        assert len(peer.requests) >= 2
        assert len(peer.stored) == 1
        (entry,) = ledger(node)
        assert "not proven to be kept" in entry["words"]
        assert entry["awaiting"] == ()
        (letter,) = worklist.dead_letters(node.journal)
        assert (letter["kind"], letter["destination"], letter["words"]) == ("report", "pacs", entry["words"])


def test_an_object_that_was_found_is_not_given_up_for_want_of_a_report(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        node = commit(sending, peer, commitment_timeout_s=0.2, give_up_after_h=1.0 / 3600, read_back=True)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["confirmed"] and ledger(node)[0]["awaiting"] == (), 20, "no report is awaited")
        assert "not proven to be kept" in ledger(node)[0]["words"]
        assert worklist.dead_letters(node.journal) == []


def test_a_report_that_comes_after_an_object_was_given_up_still_commits_it(
    sending: Callable[..., Sending], listens: Callable[[Sending], int]
) -> None:
    with archive() as peer:
        node = commit(sending, peer, commitment_timeout_s=0.2, give_up_after_h=1.0 / 3600)
        port = listens(node)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["given up"], 20, "it is given up")
        assert peer.report_to(port, peer.requests[0]) == 0x0000
        assert node.states() == ["committed"]
        assert worklist.dead_letters(node.journal) == []


def test_what_fails_commitment_is_sent_again_and_nothing_else(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        lost: list[str] = []

        def on_store(instance: str) -> None:
            if len(peer.stored) == 2:
                peer.kept.discard(instance)
                lost.append(instance)

        peer.on_store, peer.on_request = on_store, peer.report_here
        node = commit(sending, peer, commitment_wait_s=5.0)
        node.judge()
        node.start()
        until(lambda: node.states() == ["committed"] * 4, 30, "all is committed")
        assert len(peer.stored) == 5
        assert peer.stored[-1] == lost[0]
        assert [len(request.objects) for request in peer.requests] == [4, 1]
        assert [entry["resends"] for entry in ledger(node)] == [0, 1, 0, 0]
        assert story(node, "lesions") == [
            "stored",
            "commitment asked",
            "not committed",
            "stored",
            "commitment asked",
            "committed",
        ]


def test_what_is_lost_each_time_is_refused_with_words_and_can_be_requeued(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        peer.on_store, peer.on_request = peer.kept.discard, peer.report_here
        node = commit(sending, peer, commitment_wait_s=5.0, resends=2)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["refused"], 30, "it is refused")
        assert len(peer.stored) == 3
        (entry,) = ledger(node)
        assert entry["words"] == ("sent 3 times and lost each time; not committed: 0x0112 no such object instance")
        assert [letter["state"] for letter in worklist.dead_letters(node.journal)] == ["refused"]
        peer.on_store = lambda _: None
        assert outbox.requeue(node.journal, time.time()) == 1
        wakes(node)
        until(lambda: node.states() == ["committed"], 20, "it is committed")


def test_an_archive_that_does_not_commit_is_told_of_and_asked_ever_less_often(sending: Callable[..., Sending]) -> None:
    with archive(commits=False) as peer:
        node = commit(sending, peer)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: story(node).count("commitment failed") == 3, 20, "it was tried three times")
        (entry,) = ledger(node)
        assert entry["state"] == "stored"
        assert "offers no storage commitment" in entry["words"]
        times = [row["at"] for row in node.journal.rows("select at from deliveries order by id")]
        assert times[3] - times[2] > times[2] - times[1] > 0.2
        assert len(peer.stored) == 1


def test_a_request_that_is_refused_is_made_again(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        peer.action_status = 0x0213
        peer.on_request = peer.report_here
        node = commit(sending, peer, commitment_wait_s=5.0)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: "commitment failed" in story(node), 20, "it was refused once")
        assert "0x0213" in ledger(node)[0]["words"]
        peer.action_status = 0x0000
        until(lambda: node.states() == ["committed"], 20, "it is committed")


def test_several_studies_are_asked_for_on_one_association(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        node = commit(sending, peer, commitment_wait_s=10.0)
        held: list[Request] = []
        peer.on_request = held.append
        for number in range(3):
            node.judge(f"study {number}")
        node.start()
        until(lambda: len(held) == 3, 30, "commitment of three studies is asked for")
        for request in held:
            peer.report_here(request)
        until(lambda: node.states() == ["committed"] * 12, 20, "all is committed")
        assert len({id(request.association) for request in held}) == 1


# ---------------------------------------------------------------------- reports that fit nothing


def strange(**elements: object) -> Dataset:
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize(
    ("event_type", "information", "status"),
    [
        (1, strange(TransactionUID=generate_uid()), 0x0115),  # nobody asked
        (2, strange(TransactionUID=generate_uid()), 0x0115),
        (1, strange(RetrieveAETitle="PACS"), 0x0115),
        (1, strange(TransactionUID=""), 0x0115),
        (1, None, 0x0115),
        (1, strange(TransactionUID=generate_uid(), ReferencedSOPSequence=[strange(RetrieveAETitle="PACS")]), 0x0115),
        (3, strange(TransactionUID=generate_uid()), 0x0113),
    ],
)
def test_a_report_that_belongs_to_no_request_is_answered_with_a_failure_and_logged(
    sending: Callable[..., Sending],
    listens: Callable[[Sending], int],
    logs: list[Any],
    event_type: int,
    information: Dataset | None,
    status: int,
) -> None:
    node = sending({"pacs": 1})
    port = listens(node)
    assert Archive().tell(port, event_type, information) == status
    (line,) = [line for line in logs if line["event"] == "commitment report refused"]
    assert line["log_level"] == "warning"
    assert node.journal.rows("select * from commitments") == []


def test_objects_that_nobody_asked_for_are_passed_over_and_those_not_named_are_asked_for_again(
    sending: Callable[..., Sending], listens: Callable[[Sending], int]
) -> None:
    with archive() as peer:
        node = commit(sending, peer, commitment_timeout_s=1.0)
        port = listens(node)
        node.judge(kinds=("lungs", "report"))
        node.start()
        until(lambda: peer.requests, 20, "commitment is asked for")
        request = peer.requests[0]
        named = Request(request.transaction_uid, [request.objects[0], ("1.2", "1.2.3")], request.association)
        peer.kept.add("1.2.3")
        assert peer.report_to(port, named) == 0x0000
        assert node.states() == ["committed", "stored"]
        until(lambda: len(peer.requests) > 1, 20, "the other is asked for again")
        assert peer.requests[1].objects == [request.objects[1]]


def test_a_flood_of_reports_takes_no_threads_of_its_own(
    sending: Callable[..., Sending], listens: Callable[[Sending], int]
) -> None:
    """They are served one after the other on their association, and each is answered."""
    import threading

    from pynetdicom import AE, build_role
    from pynetdicom.dimse_primitives import N_EVENT_REPORT
    from pynetdicom.dsutils import encode

    from triage_node.conformance import STORAGE_COMMITMENT_PUSH_MODEL

    node = sending({"pacs": 1})
    port = listens(node)
    ae = AE(ae_title="PACS")
    ae.add_requested_context(STORAGE_COMMITMENT_PUSH_MODEL)
    role = build_role(STORAGE_COMMITMENT_PUSH_MODEL, scp_role=True)
    association = ae.associate("127.0.0.1", port, ae_title="TRIAGE", ext_neg=[role])
    association._reactor_checkpoint.clear()
    until(lambda: association._is_paused, 5, "nobody else takes the answers")
    (context,) = association.accepted_contexts
    from io import BytesIO

    before, most = threading.active_count(), 0
    for number in range(200):
        request = N_EVENT_REPORT()
        request.MessageID = number + 1
        request.AffectedSOPClassUID = STORAGE_COMMITMENT_PUSH_MODEL
        request.AffectedSOPInstanceUID = "1.2.840.10008.1.20.1.1"
        request.EventTypeID = 1
        information = strange(TransactionUID=generate_uid())
        syntax = context.transfer_syntax[0]
        data = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
        assert data is not None
        request.EventInformation = BytesIO(data)
        association.dimse.send_msg(request, context.context_id)
    statuses = []
    for _ in range(200):
        most = max(most, threading.active_count())
        _, answer = association.dimse.get_msg(block=True)
        assert answer is not None
        statuses.append(answer.Status)
    assert statuses == [0x0115] * 200
    assert most <= before + 3
    association._reactor_checkpoint.set()
    association.release()


# ---------------------------------------------------------------------- Orthanc


@pytest.mark.peers
def test_orthanc_commits_on_an_association_of_its_own_and_finds_what_it_committed(
    sending: Callable[..., Sending], listens: Callable[[Sending], int], tmp_path: Path
) -> None:
    with orthanc(tmp_path / "orthanc") as (port, address):
        node = commit(sending, Archive(port=port), ae_title="ORTHANC", read_back=True, timeout_s=20.0)
        introduce(address, listens(node))
        node.judge()
        node.start()

        def proven() -> bool:
            return all(entry["committed_at"] and entry["confirmed_at"] for entry in ledger(node))

        until(proven, 40, "all is committed and confirmed")
        assert node.states() == ["confirmed"] * 4
        (entry, *_) = ledger(node)
        assert [one["state"] for one in entry["deliveries"]].count("commitment asked") == 1


@pytest.mark.peers
def test_what_orthanc_has_lost_is_sent_to_it_again(
    sending: Callable[..., Sending], listens: Callable[[Sending], int], tmp_path: Path
) -> None:
    with orthanc(tmp_path / "orthanc") as (port, address):
        node = commit(sending, Archive(port=port), ae_title="ORTHANC", timeout_s=20.0)
        node.judge(kinds=("lungs", "report"))
        _lose(node, address)
        introduce(address, listens(node))
        node.start()
        until(lambda: story(node).count("stored") == 2, 40, "the report is sent again")
        until(lambda: node.states() == ["committed"] * 2, 40, "both are committed")
        assert [entry["resends"] for entry in ledger(node)] == [1, 1]


def _lose(node: Sending, address: str) -> None:
    """The journal says that both are stored, Orthanc has never had them."""
    assert rest(f"{address}/instances") == []
    for outgoing in outbox.due(node.journal, "pacs", time.time()):
        outbox.record(node.journal, outgoing, "stored", status=0, words="", now=time.time(), retry_at=None, commit=True)


def introduce(address: str, port: int) -> None:
    """Orthanc reports to, and is queried by, nobody whom it does not know."""
    peer = json.dumps({"AET": "TRIAGE", "Host": "127.0.0.1", "Port": port}).encode()
    request = urllib.request.Request(f"{address}/modalities/triage", data=peer, method="PUT")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200
