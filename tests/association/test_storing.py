"""C-ECHO and C-STORE as they should be: what is answered 0x0000 is filed, journalled and byte-identical."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES

from tests import builders, wire
from tests.association.conftest import alone, associate, store, store_bytes
from tests.running import until
from triage_node import conformance, folder
from triage_node.errors import TriageError
from triage_node.requestor import Peer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MR = "1.2.840.10008.5.1.4.1.1.4"


def test_an_echo_is_answered(receive: Callable[..., Any]) -> None:
    with receive() as node:
        assert node.echoes()


def test_an_instance_is_filed_and_journalled_before_it_is_acknowledged(receive: Callable[..., Any]) -> None:
    dataset = wire.ct()
    with receive() as node:
        association = associate(node.port)
        assert store(association, dataset) == 0x0000
        assert node.kept() == {dataset.SOPInstanceUID: wire.encoded(dataset)}
        (row,) = node.rows("select * from instances")
        assert row["transfer_syntax_uid"] == wire.EXPLICIT
        assert row["size_bytes"] == (node.state_dir / row["path"]).stat().st_size
        assert not list((node.state_dir / "incoming").iterdir())
        assert node.endings() == [None]
        association.release()
        assert node.endings() == ["released"]


@pytest.mark.parametrize("sop_class", sorted(conformance.CT_SOP_CLASSES))
def test_every_transfer_syntax_is_negotiated_and_kept_byte_by_byte(receive: Callable[..., Any], sop_class: str) -> None:
    sent = {}
    with receive() as node:
        syntaxes = [str(syntax) for syntax in ALL_TRANSFER_SYNTAXES]
        association = associate(node.port, contexts=[(sop_class, syntax) for syntax in syntaxes])
        assert {str(c.transfer_syntax[0]) for c in association.accepted_contexts} == set(syntaxes)
        for number, syntax in enumerate(syntaxes):
            dataset = wire.ct(number, SOPClassUID=sop_class)
            if UID(syntax).is_encapsulated:  # no codec is at work here: any fragment will do
                dataset["PixelData"].value = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\4\0\0\0\xff\xd8\xff\xd9"
            data = wire.encoded(dataset, syntax)
            uid = str(dataset.SOPInstanceUID)
            assert store_bytes(association, data, uid, sop_class, syntax) == 0x0000, UID(syntax).name
            sent[uid] = (syntax, data)
        association.release()
        assert node.kept() == {uid: data for uid, (_, data) in sent.items()}
        rows = node.rows("select sop_instance_uid, transfer_syntax_uid, sop_class_uid from instances")
        assert {row["sop_instance_uid"]: row["transfer_syntax_uid"] for row in rows} == {
            uid: syntax for uid, (syntax, _) in sent.items()
        }
        assert {row["sop_class_uid"] for row in rows} == {sop_class}


def test_another_sop_class_is_refused_at_negotiation(receive: Callable[..., Any]) -> None:
    with receive() as node:
        association = associate(node.port, contexts=[(MR, wire.EXPLICIT), (wire.CT, wire.EXPLICIT)])
        assert [c.abstract_syntax for c in association.accepted_contexts] == [wire.CT]
        # PS3.8 table 9-18: 3 is "abstract-syntax-not-supported"
        assert [(c.abstract_syntax, c.result) for c in association.rejected_contexts] == [(MR, 3)]
        association.release()


def test_another_sop_class_is_kept_where_the_configuration_says_so(receive: Callable[..., Any]) -> None:
    dataset = wire.ct(SOPClassUID=MR, Modality="MR")
    with receive(keep_other_sop_classes=True) as node:
        association = associate(node.port, contexts=[(MR, wire.EXPLICIT)])
        assert store(association, dataset) == 0x0000
        association.release()
        assert list(node.kept()) == [dataset.SOPInstanceUID]
        assert node.rows("select volumetric from instances") == [{"volumetric": 0}]


def test_another_sop_class_cannot_hide_in_the_context_of_ct(receive: Callable[..., Any]) -> None:
    dataset = wire.ct(SOPClassUID=MR)
    with receive() as node:
        association = associate(node.port)
        association.accepted_contexts[0].abstract_syntax = UID(MR)
        assert store(association, dataset) == 0xA900
        assert node.files() == []
        association.abort()


def test_a_killed_receiver_has_everything_it_acknowledged(tmp_path: Path) -> None:
    """SIGKILL while three associations store; a second receiver on the same state finds every 0x0000."""
    acknowledged: dict[str, bytes] = {}

    with alone(tmp_path) as node:
        assert node.process is not None

        def send(sender: int) -> None:
            association = associate(node.port)
            for number in range(10_000):
                dataset = wire.ct(number, series=f"series {sender}")
                if not association.is_established or store(association, dataset) != 0x0000:
                    return
                acknowledged[str(dataset.SOPInstanceUID)] = wire.encoded(dataset)

        senders = [threading.Thread(target=send, args=(sender,)) for sender in range(3)]
        for sender in senders:
            sender.start()
        until(lambda: len(acknowledged) > 40, 20, "images flow")
        node.process.kill()
        for sender in senders:
            sender.join(30)
    with alone(tmp_path, log="second.log") as node:
        kept = node.kept()
        assert acknowledged.items() <= kept.items()
        assert len(node.files()) == len(kept)
        assert not list((node.state_dir / "incoming").glob("*.part"))
        assert node.endings() == ["cut off"] * 3
        dataset = builders.header(study="study", series="series 0", instance=0, series_number=1)
        assert str(dataset.SOPInstanceUID) in kept


def test_a_file_in_a_syntax_that_nobody_negotiates_keeps_no_other_from_being_sent(
    receive: Callable[..., Any], tmp_path: Path
) -> None:
    """1.2.840.10008.1.2.4.55 was retired with PS3.5 of 2004, and old archives still hold such files."""
    retired = "1.2.840.10008.1.2.4.55"
    good, old = tmp_path / "files" / "a.dcm", tmp_path / "files" / "b.dcm"
    good.parent.mkdir()
    builders.write(good, wire.ct(1))
    builders.write(old, wire.ct(2))
    old.write_bytes(builders.named(old.read_bytes(), retired))
    with receive() as node:
        to = Peer(ae_title=node.settings.node.ae_title, host="127.0.0.1", port=node.port)
        answer = folder.send(good.parent, to, node.settings, show=False)
        (refused,) = answer["refused"]
        assert answer["sent"] == len(node.kept()) == 1
        assert refused["file"] == str(old)
        assert retired in refused["why"]
        good.unlink()
        with pytest.raises(TriageError, match=retired):
            folder.send(old.parent, to, node.settings, show=False)
