"""Read-back by C-FIND: what was stored is looked for, and sent again where the archive has lost it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from tests import builders
from tests.committing import archive
from tests.running import until
from triage_node import worklist

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.delivering import Sending

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def ledger(node: Sending) -> list[dict[str, Any]]:
    report = worklist.study_report(node.journal, builders.uid("study"))
    assert report is not None
    found = report["objects"]
    assert isinstance(found, list)
    return found


def story(node: Sending) -> list[str]:
    (entry,) = ledger(node)
    return [one["state"] for one in entry["deliveries"]]


def test_what_the_archive_finds_is_confirmed(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        node = sending({"pacs": peer.port}, read_back=True)
        sent = node.judge()
        node.start()
        until(lambda: node.states() == ["confirmed"] * 4, 20, "all is confirmed")
        assert {str(query.SOPInstanceUID) for query in peer.queries} == set(sent)
        assert {query.QueryRetrieveLevel for query in peer.queries} == {"IMAGE"}
        assert {str(query.StudyInstanceUID) for query in peer.queries} == {builders.uid("study")}
        kept = [pydicom.dcmread(path) for path in node.archive.results_dir.rglob("*.dcm")]
        asked = {(str(query.SeriesInstanceUID), str(query.SOPInstanceUID)) for query in peer.queries}
        assert asked == {(str(one.SeriesInstanceUID), str(one.SOPInstanceUID)) for one in kept}
        assert all(entry["confirmed_at"] and entry["awaiting"] == () for entry in ledger(node))
        assert peer.associations == 2
        assert peer.requests == []


def test_commitment_and_read_back_stand_beside_each_other(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        peer.on_request = peer.report_here
        node = sending({"pacs": peer.port}, read_back=True, storage_commitment=True)
        node.judge()
        node.start()

        def done() -> bool:
            return all(entry["confirmed_at"] and entry["committed_at"] for entry in ledger(node))

        until(done, 20, "all is committed and confirmed")
        assert node.states() == ["confirmed"] * 4
        assert all(entry["awaiting"] == () for entry in ledger(node))


def test_an_archive_that_lists_late_is_asked_again_and_gets_nothing_twice(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        hidden: list[str] = []
        peer.on_store = lambda instance: (peer.kept.discard(instance), hidden.append(instance))[0]
        node = sending({"pacs": peer.port}, read_back=True)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: len(peer.queries) == 2, 20, "it was looked for twice")
        assert node.states() == ["stored"]
        peer.kept.update(hidden)
        until(lambda: node.states() == ["confirmed"], 20, "it is confirmed")
        assert len(peer.stored) == 1
        assert story(node) == ["stored", "not found", "not found", "confirmed"]


def test_what_the_archive_has_lost_is_sent_again(sending: Callable[..., Sending]) -> None:
    with archive() as peer:

        def on_store(instance: str) -> None:
            if len(peer.stored) == 1:
                peer.kept.discard(instance)

        peer.on_store = on_store
        node = sending({"pacs": peer.port}, read_back=True, retry_first_s=0.05)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["confirmed"], 20, "it is confirmed")
        assert len(peer.stored) == 2
        assert [entry["resends"] for entry in ledger(node)] == [1]
        assert story(node) == ["stored", *["not found"] * 5, "stored", "confirmed"]


def test_what_is_lost_each_time_is_refused_with_words(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        peer.on_store = peer.kept.discard
        node = sending({"pacs": peer.port}, read_back=True, retry_first_s=0.02, resends=1)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: node.states() == ["refused"], 20, "it is refused")
        assert len(peer.stored) == 2
        assert ledger(node)[0]["words"] == "sent 2 times and lost each time; not found by its SOP Instance UID"


def test_an_archive_that_cannot_be_queried_leaves_the_object_stored_and_says_what_to_do(
    sending: Callable[..., Sending],
) -> None:
    with archive(finds=False) as peer:
        node = sending({"pacs": peer.port}, read_back=True)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: story(node).count("read-back failed") == 3, 20, "it was tried three times")
        assert node.states() == ["stored"]
        assert "set read_back = false" in ledger(node)[0]["words"]
        times = [row["at"] for row in node.journal.rows("select at from deliveries order by id")]
        assert times[3] - times[2] > times[2] - times[1] > 0.2
        assert len(peer.stored) == 1


def test_a_query_that_fails_says_nothing_about_the_object(sending: Callable[..., Sending]) -> None:
    with archive() as peer:
        peer.find_status = 0xA700
        node = sending({"pacs": peer.port}, read_back=True)
        node.judge(kinds=("report",))
        node.start()
        until(lambda: "read-back failed" in story(node), 20, "it failed once")
        assert "0xA700" in ledger(node)[0]["words"]
        peer.find_status = 0x0000
        until(lambda: node.states() == ["confirmed"], 20, "it is confirmed")
        assert len(peer.stored) == 1
