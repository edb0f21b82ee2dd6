"""The table of services is what is negotiated on the wire and what the statement says, in both directions."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, build_role, evt, sop_class
from pynetdicom.presentation import AllStoragePresentationContexts

from tests import builders, delivering, filed, reading, wire
from tests.association.conftest import associate, listening, settings_in
from tests.running import until
from triage_node import conformance, folder, sender
from triage_node.config import DestinationSection
from triage_node.conformance import Opener, Purpose, Role
from triage_node.errors import DeliveryFailed
from triage_node.journal import outbox
from triage_node.requestor import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from triage_node.config import Settings

STORAGE = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
# Every SOP class that the library knows, storage or not: what is not in the table must not be accepted either
KNOWN = sorted({
    str(uid)
    for name, group in vars(sop_class).items()
    if name.endswith("_CLASSES") and isinstance(group, dict)
    for uid in group.values()
    if str(uid).startswith("1.2.")
})  # fmt: skip
SYNTAXES = [str(syntax) for syntax in ALL_TRANSFER_SYNTAXES]
OF_OTHERS = (STORAGE[0], STORAGE[-1])  # what stands for every storage class without a row of its own


def rows(opened_by: Opener, *, worklist: bool = False) -> list[conformance.Service]:
    """Rows of the associations of the receiver and the senders, or of those of the worklist."""
    return [
        service
        for service in conformance.SERVICES
        if service.opened_by is opened_by and (service.purpose is Purpose.WORKLIST) is worklist
    ]


def listed(opened_by: Opener, others: tuple[str, ...] = (), *, worklist: bool = False) -> dict[str, set[str]]:
    """SOP class -> transfer syntaxes of the table's rows; the rows of every storage class stand for `others`."""
    found: dict[str, set[str]] = {}
    for service in rows(opened_by, worklist=worklist):
        each = others if service.sop_class_uid == conformance.EVERY_STORAGE else (service.sop_class_uid,)
        for uid in each:
            found.setdefault(uid, set()).update(service.transfer_syntaxes)
    return found


# ------------------------------------------------------------------------------- what the node accepts


@pytest.mark.parametrize("keep_other", [False, True])
def test_what_is_accepted_is_what_the_table_says(tmp_path: Path, keep_other: bool) -> None:
    """Each class is proposed with one syntax a context, which tells exactly which are accepted."""
    wanted = listed(Opener.PEER, OF_OTHERS if keep_other else ())
    tested = sorted({*wanted, *OF_OTHERS, conformance.SEGMENTATION_STORAGE} - ({*STORAGE} - {*wanted, *OF_OTHERS}))
    offers = [(uid, syntax) for uid in tested for syntax in SYNTAXES]
    negotiated: dict[str, set[str]] = {}
    with listening(tmp_path, keep_other_sop_classes=keep_other) as node:
        for first in range(0, len(offers), 128):  # contexts of an association at most (PS3.8 section 9.3.2.2)
            association = associate(node.port, contexts=offers[first : first + 128])
            for context in association.accepted_contexts:
                negotiated.setdefault(str(context.abstract_syntax), set()).add(str(context.transfer_syntax[0]))
            association.release()
    assert negotiated == wanted


def accepted_roles(port: int) -> dict[str, set[str]]:
    """A peer that wants both roles for everything (PS3.7 section D.3.3.4): which it gets, by SOP class."""
    roles: dict[str, set[str]] = {}
    for first in range(0, len(KNOWN), 100):
        ae = AE(ae_title="MODALITY")
        chosen = KNOWN[first : first + 100]
        for uid in chosen:
            ae.add_requested_context(uid, wire.EXPLICIT)
        wants = [build_role(uid, scu_role=True, scp_role=True) for uid in chosen]
        association = ae.associate("127.0.0.1", port, ae_title="TRIAGE", ext_neg=wants)
        for context in association.accepted_contexts:
            taken = {"SCU"} if context.as_scu else set()
            roles[str(context.abstract_syntax)] = taken | ({"SCP"} if context.as_scp else set())
        if association.is_established:
            association.release()
    return roles


@pytest.mark.parametrize("keep_other", [False, True])
def test_of_all_sop_classes_those_of_the_table_are_accepted_in_the_roles_of_the_table(
    tmp_path: Path, keep_other: bool
) -> None:
    with listening(tmp_path, keep_other_sop_classes=keep_other) as node:
        roles = accepted_roles(node.port)
    others = tuple(STORAGE) if keep_other else ()
    wanted: dict[str, set[str]] = {}
    for service in rows(Opener.PEER):
        every = service.sop_class_uid == conformance.EVERY_STORAGE
        for uid in others if every else (service.sop_class_uid,):
            wanted.setdefault(uid, set()).add("SCU" if service.role is Role.SCP else "SCP")
    assert roles == wanted
    assert len(KNOWN) > 200


def test_the_worklist_accepts_what_the_table_says_and_nothing_else(tmp_path: Path) -> None:
    negotiated: dict[str, set[str]] = {}
    wanted = listed(Opener.PEER, worklist=True)
    offers = [(uid, syntax) for uid in wanted for syntax in SYNTAXES]
    with reading.listening(reading.settings_in(tmp_path)) as node:
        for first in range(0, len(offers), 128):
            association = associate(node.port, contexts=offers[first : first + 128])
            for context in association.accepted_contexts:
                negotiated.setdefault(str(context.abstract_syntax), set()).add(str(context.transfer_syntax[0]))
            association.release()
        roles = accepted_roles(node.port)
    assert negotiated == wanted
    assert roles == {uid: {"SCU"} for uid in wanted}


def test_of_several_syntaxes_in_one_context_explicit_vr_is_taken(tmp_path: Path) -> None:
    """Implicit VR loses the VRs of private elements."""
    ae = AE()
    ae.add_requested_context(conformance.CT_IMAGE_STORAGE, SYNTAXES)
    with listening(tmp_path) as node:
        association = ae.associate("127.0.0.1", node.port, ae_title="TRIAGE")
        assert [c.transfer_syntax for c in association.accepted_contexts] == [[conformance.UNCOMPRESSED[0]]]
        association.release()


# ------------------------------------------------------------------------------- what the node proposes


@dataclass
class Seen:
    """What a peer was asked for: SOP class -> transfer syntaxes."""

    port: int = 0
    hangs_up: bool = False  # aborts at the first object
    proposed: dict[str, set[str]] = field(default_factory=dict)


@contextmanager
def recording() -> Iterator[Seen]:
    """A peer that accepts all there is and remembers what was proposed."""
    seen = Seen()
    ae = AE(ae_title="PACS")
    for uid in KNOWN:
        ae.add_supported_context(uid, SYNTAXES)

    def on_accepted(event: evt.Event) -> None:
        for context in event.assoc.requestor.requested_contexts:
            syntaxes = seen.proposed.setdefault(str(context.abstract_syntax), set())
            syntaxes.update(str(syntax) for syntax in context.transfer_syntax)

    def on_store(event: evt.Event) -> int:
        if seen.hangs_up:
            event.assoc.abort()
        return 0

    handlers = [(evt.EVT_ACCEPTED, on_accepted), (evt.EVT_C_STORE, on_store)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    seen.port = int(server.server_address[1])
    yield seen
    server.shutdown()


def _settings(folder: Path, port: int) -> Settings:
    destination = DestinationSection(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, retry_first_s=0.3)
    return settings_in(folder).model_copy(update={"destinations": (destination,)})


def _delivers(place: Path, seen: Seen) -> None:
    """A result of every kind goes through the outbox, to a destination that is set up for all that there is."""
    settings = _settings(place, seen.port)
    every = settings.destinations[0].model_copy(update={"segmentations": "both", "deflated": True})
    sending = delivering.made(settings.model_copy(update={"destinations": (every,)}))
    delivering.judged_for_real(sending, place / "images")
    sending.start()
    until(lambda: not {"queued"} & set(sending.states()), 20, "everything is delivered")
    delivering.end(sending)


def _proves(place: Path, seen: Seen, **proof: bool) -> None:
    """What was delivered is proven; nothing is left to deliver."""
    settings = _settings(place, seen.port)
    destination = settings.destinations[0].model_copy(update=proof)
    settings = settings.model_copy(update={"destinations": (destination,)})
    sending = delivering.made(settings)
    sending.judge()
    for outgoing in outbox.due(sending.journal, "pacs", time.time()):
        commit, read_back = proof.get("storage_commitment", False), proof.get("read_back", False)
        outbox.record(
            sending.journal,
            outgoing,
            "stored",
            status=0,
            words="",
            now=time.time(),
            retry_at=None,
            commit=commit,
            read_back=read_back,
        )
    sending.start()
    until(lambda: seen.proposed, 20, "the peer is asked")
    delivering.end(sending)


def _asks_for_commitment(place: Path, seen: Seen) -> None:
    _proves(place, seen, storage_commitment=True)


def _reads_back(place: Path, seen: Seen) -> None:
    _proves(place, seen, read_back=True)


def _echoes(place: Path, seen: Seen) -> None:
    answers = folder.echo_all(_settings(place, seen.port))
    assert answers[-1]["ok"]


def _sends(place: Path, seen: Seen) -> None:
    """A file of each transfer syntax, as far as its name goes, and of classes that the node does not take."""
    files = place / "files"
    files.mkdir(parents=True)
    for number, syntax in enumerate(SYNTAXES):
        plain = UID(syntax) if not UID(syntax).is_encapsulated else UID(wire.EXPLICIT)
        for other in OF_OTHERS:
            path = files / f"{number}-{OF_OTHERS.index(other)}.dcm"
            builders.write(path, wire.ct(series=f"{number} {other}", SOPClassUID=other), plain)
            if plain != syntax:
                path.write_bytes(builders.named(path.read_bytes(), syntax))
    settings = _settings(place, seen.port)
    seen.hangs_up = True  # what is proposed is told; 90 files take their time
    folder.send(files, Peer(ae_title="PACS", host="127.0.0.1", port=seen.port), settings, show=False)


def _reports(place: Path, seen: Seen) -> None:
    """Somebody has subscribed to everything."""
    settings = reading.settings_in(place, {"PACS": seen.port})
    with reading.listening(settings) as node:
        assert reading.act(node.port, reading.GLOBAL, 3, reading.WATCH, ae_title="PACS", DeletionLock="FALSE") == 0
        filed.queued(node.journal, "1.2.3", now=time.time())
        until(lambda: seen.proposed, 20, "the subscriber is called")


# How a row of the table is brought about: every purpose for which the node opens one has its entry
USES: dict[Purpose, Callable[[Path, Seen], None]] = {
    Purpose.DELIVERY: _delivers,
    Purpose.COMMITMENT: _asks_for_commitment,
    Purpose.READ_BACK: _reads_back,
    Purpose.ECHO: _echoes,
    Purpose.SEND: _sends,
    Purpose.SUBSCRIBERS: _reports,
}


@pytest.mark.parametrize("purpose", USES)
def test_what_a_peer_is_asked_for_is_what_the_table_says(purpose: Purpose, tmp_path: Path) -> None:
    with recording() as seen:
        USES[purpose](tmp_path, seen)
    wanted: dict[str, set[str]] = {}
    for service in (one for one in rows(Opener.NODE) if one.purpose is purpose):
        every = service.sop_class_uid == conformance.EVERY_STORAGE
        for uid in OF_OTHERS if every else (service.sop_class_uid,):
            wanted.setdefault(uid, set()).update(service.transfer_syntaxes)
    assert seen.proposed == wanted


def test_every_row_of_an_association_that_the_node_opens_is_brought_about() -> None:
    assert {service.purpose for service in rows(Opener.NODE)} == set(USES)


@pytest.mark.parametrize(
    ("sop_class_uid", "syntax"),
    [(conformance.CT_IMAGE_STORAGE, None), (conformance.SEGMENTATION_STORAGE, "1.2.840.10008.1.2.4.70")],
)
def test_what_is_not_in_the_table_is_not_proposed(sop_class_uid: str, syntax: str | None) -> None:
    with pytest.raises(DeliveryFailed, match="triage-node conformance") as failure:
        conformance.offer(Purpose.DELIVERY, sop_class_uid, syntax)
    assert not failure.value.retry


def test_no_other_module_puts_presentation_contexts_together() -> None:
    """A context that somebody writes down by hand is in no statement."""
    from pathlib import Path

    for path in Path(sender.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "add_requested_context" not in text or path.name == "requestor.py", path
        assert "add_supported_context" not in text or path.name in ("receiver.py", "listener.py", "demo.py"), path


# ------------------------------------------------------------------------------- what the statement says


def test_the_statement_has_a_row_for_every_service() -> None:
    lines = conformance.statement().splitlines()[2:]
    assert len(lines) == len(conformance.SERVICES)
    for line, service in zip(lines, conformance.SERVICES, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        uid = "" if service.sop_class_uid == conformance.EVERY_STORAGE else service.sop_class_uid
        assert cells[:4] == [service.name, uid, service.role, service.opened_by]
        assert service.when in cells[5]


def test_the_listing_for_programs_names_every_transfer_syntax() -> None:
    for entry, service in zip(conformance.listing(), conformance.SERVICES, strict=True):
        assert tuple(syntax["uid"] for syntax in entry["transfer_syntaxes"]) == service.transfer_syntaxes
        assert entry["roles_reversed"] == ((entry["role"] == "SCP") != (entry["association_opened_by"] == "peer"))


def test_no_two_rows_say_the_same() -> None:
    keys = [(row.sop_class_uid, row.role, row.opened_by, row.purpose, row.when) for row in conformance.SERVICES]
    assert len(set(keys)) == len(keys)
