"""Segmentations as label maps, or deflated, to destinations that are set up for it and take them; else as BINARY."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pydicom
import pytest
from pynetdicom import AE, evt

from tests import delivering, peers
from tests.running import free_port, storescp, until
from triage_node import conformance
from triage_node.identity import LABEL_MAPS
from triage_node.journal import outbox, views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.delivering import Sending

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

BINARY = {"lungs", "lesions"}
OTHERS = {"overview", "report"}


def lines(node: Sending) -> dict[str, str]:
    """Kind -> state of all that is, or was, for the destination."""
    rows = node.journal.rows("select kind, state from outbox join objects using (sop_instance_uid)")
    return {row["kind"]: row["state"] for row in rows}


@contextmanager
def taker_of_label_maps() -> Iterator[tuple[int, dict[str, str]]]:
    """A storage SCP that takes label maps beside the rest: its port, and transfer syntaxes by SOP Instance UID."""
    ae = AE(ae_title="PACS")
    for service in conformance.services(conformance.Role.SCU, conformance.Purpose.DELIVERY):
        ae.add_supported_context(service.sop_class_uid, list(service.transfer_syntaxes))
    received: dict[str, str] = {}

    def keep(event: evt.Event) -> int:
        received[str(event.request.AffectedSOPInstanceUID)] = str(event.context.transfer_syntax)
        return 0x0000

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("segmentations", "kinds"),
    [
        ("binary", BINARY | OTHERS),
        ("label map", set(LABEL_MAPS) | OTHERS),
        ("both", set(LABEL_MAPS) | BINARY | OTHERS),
    ],
)
def test_a_destination_gets_segmentations_as_it_is_set_up(
    segmentations: str, kinds: set[str], sending: Callable[..., Sending], tmp_path: Path
) -> None:
    with taker_of_label_maps() as (port, received):
        node = sending({"pacs": port}, segmentations=segmentations)
        names = delivering.judged_for_real(node, tmp_path / "source")
        node.start()
        until(lambda: set(lines(node).values()) == {"stored"}, 20, "all is stored")
        assert {names[uid] for uid in received} == kinds


@pytest.mark.peers
def test_a_destination_that_takes_no_label_maps_gets_binary(sending: Callable[..., Sending], tmp_path: Path) -> None:
    program = peers.require("storescp", package="dcmtk")
    port = free_port()
    with storescp(str(program), tmp_path, port) as received:
        node = sending({"pacs": port}, segmentations="label map")
        delivering.judged_for_real(node, tmp_path / "source")
        node.start()
        until(lambda: lines(node).get("lesions") == lines(node).get("lungs") == "stored", 20, "BINARY is stored")
        classes = sorted(str(pydicom.dcmread(path).SOPClassUID) for path in received.iterdir())
    assert classes.count(conformance.SEGMENTATION_STORAGE) == 2
    assert lines(node) == {
        "lesions": "stored",
        "lungs": "stored",
        "overview": "stored",
        "report": "stored",
        "lesion map": "superseded",
        "lung map": "superseded",
    }
    words = [row["words"] for row in node.journal.rows("select words from deliveries where state = 'refused'")]
    assert len(words) == 2
    assert all(words_.endswith("sent as BINARY instead") for words_ in words)
    assert not views.dead_letters(node.journal)


@pytest.mark.peers
@pytest.mark.parametrize(("accept", "syntax"), [("+xa", "1.2.840.10008.1.2.1.99"), ("+x=", "1.2.840.10008.1.2.1")])
def test_segmentations_are_deflated_for_who_takes_them_so(
    accept: str, syntax: str, sending: Callable[..., Sending], tmp_path: Path
) -> None:
    program = peers.require("storescp", package="dcmtk")
    port = free_port()
    with storescp(str(program), tmp_path, port, accept=accept) as received:
        node = sending({"pacs": port}, deflated=True)
        delivering.judged_for_real(node, tmp_path / "source")
        node.start()
        until(lambda: set(lines(node).values()) == {"stored"}, 20, "all is stored")
        found = [pydicom.dcmread(path) for path in received.iterdir()]
    segmentations = [one for one in found if one.SOPClassUID == conformance.SEGMENTATION_STORAGE]
    assert [one.file_meta.TransferSyntaxUID for one in segmentations] == [syntax] * 2
    for one in segmentations:
        row = node.journal.row("select path from objects where sop_instance_uid = ?", one.SOPInstanceUID)
        assert row is not None
        assert one == pydicom.dcmread(node.settings.state_dir / row["path"])


def test_a_label_map_that_is_refused_after_its_answer_was_withdrawn_brings_no_binary_of_it(
    sending: Callable[..., Sending], tmp_path: Path
) -> None:
    node = sending({"pacs": free_port()}, segmentations="label map")
    delivering.judged_for_real(node, tmp_path / "source")
    under_way = next(one for one in outbox.due(node.journal, "pacs", time.time()) if one.kind in LABEL_MAPS)
    assert outbox.begin(node.journal, under_way, time.time())
    with node.journal.writing() as database:
        database.conn.execute("update outbox set state = 'superseded'")
    outbox.record(
        node.journal, under_way, "refused", status=0x0122, words="not supported", now=time.time(), retry_at=None
    )
    assert set(lines(node).values()) == {"superseded"}
    assert not BINARY & set(lines(node))
