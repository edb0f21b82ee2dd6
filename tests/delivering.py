"""Deliveries in this process: a journal with results in it, the senders that drain it, and a peer that does as told."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pynetdicom import AE, evt

from tests import builders, filed, wire
from tests.unit import results_cases
from triage_node import conformance, results, sender
from triage_node.archive import Archive
from triage_node.config import DestinationSection
from triage_node.journal import Journal, queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from triage_node.config import Settings
    from triage_node.proof import Prover


KINDS = {
    "lungs": conformance.SEGMENTATION_STORAGE,
    "lesions": conformance.SEGMENTATION_STORAGE,
    "overview": conformance.SECONDARY_CAPTURE_IMAGE_STORAGE,
    "report": conformance.COMPREHENSIVE_3D_SR_STORAGE,
}
ORDER = ("lungs", "lesions", "overview", "report")


@dataclass
class Sending:
    """A journal with results in it, and the senders that drain it."""

    settings: Settings
    journal: Journal
    archive: Archive
    now: float = 1_600_000_000.0
    senders: list[sender.Sender | Prover] = field(default_factory=list)

    def judge(self, study: str = "study", kinds: tuple[str, ...] = ORDER) -> dict[str, bytes]:
        """A study whose result has these objects; their data sets by SOP Instance UID."""
        filed.queued(self.journal, builders.uid(study), now=self.now)
        job = queue.claim(self.journal, "test", self.now)
        assert job is not None
        objects, sent = [], {}
        for kind in kinds:
            dataset = wire.ct(study=study, series=kind, SOPClassUID=KINDS[kind])
            path = self.archive.keep_result(job.study_instance_uid, f"{kind}.dcm", b"")
            builders.write(path, dataset)
            objects.append(
                queue.FiledObject(
                    kind=kind,  # type: ignore[arg-type]
                    sop_class_uid=KINDS[kind],
                    sop_instance_uid=dataset.SOPInstanceUID,
                    path=self.archive.relative(path),
                    size_bytes=path.stat().st_size,
                )
            )
            sent[str(dataset.SOPInstanceUID)] = wire.encoded(dataset)
        result = replace(filed.result(job), objects=tuple(objects))
        assert queue.finish(self.journal, job, "test", result, self.settings.destinations, time.time())
        return sent

    def start(self) -> None:
        self.senders, _ = sender.start_all(self.settings, self.journal)

    def states(self, destination: str = "pacs") -> list[str]:
        rows = self.journal.rows("select state from outbox where destination = ? order by id", destination)
        return [row["state"] for row in rows]

    def ledger(self, destination: str = "pacs") -> list[tuple[str, str, int | None]]:
        """(kind, state, status) of every attempt, in order."""
        rows = self.journal.rows(
            "select kind, deliveries.state, status from deliveries join outbox on outbox.id = outbox_id"
            " join objects using (sop_instance_uid) where destination = ? order by deliveries.id",
            destination,
        )
        return [(row["kind"], row["state"], row["status"]) for row in rows]


def destination(name: str, port: int, **section: Any) -> DestinationSection:
    """A destination on loopback with pauses that a test can wait for."""
    return DestinationSection(
        **{
            "name": name,
            "ae_title": name.upper(),
            "host": "127.0.0.1",
            "port": port,
            "timeout_s": 5.0,
            "retry_first_s": 0.3,
            **section,
        }
    )


def made(settings: Settings) -> Sending:
    """A journal without results, and senders that have not begun."""
    archive = Archive(settings.state_dir)
    archive.prepare()
    return Sending(settings, Journal(settings.state_dir, "test"), archive)


def judged_for_real(node: Sending, folder: Path) -> dict[str, str]:
    """A judged study with real objects, label maps among them; kind by SOP Instance UID."""
    case = results_cases.build(folder)
    filed.queued(node.journal, case.identity.study_instance_uid, now=node.now)
    job = queue.claim(node.journal, "test", node.now)
    assert job is not None
    made = results.judged(case.volume, case.findings, case.assessment, case.identity, label_maps=True)
    objects = []
    for one in made:
        data = results.encode(one)
        path = node.archive.keep_result(job.study_instance_uid, f"{one.kind}.dcm", data)
        objects.append(
            queue.FiledObject(
                kind=one.kind,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                path=node.archive.relative(path),
                size_bytes=len(data),
            )
        )
    result = replace(filed.result(job), objects=tuple(objects))
    assert queue.finish(node.journal, job, "test", result, node.settings.destinations, time.time())
    return {one.sop_instance_uid: one.kind for one in made}


def end(sending: Sending) -> None:
    """Stop the senders; each must end."""
    for each in sending.senders:
        each.stop()
    for each in sending.senders:
        each.join(10)
        assert not each.is_alive()
    sending.journal.close()


@dataclass
class Scripted:
    """A storage SCP that answers as it is told."""

    ae: AE
    port: int = 0
    associations: int = 0
    received: list[str] = field(default_factory=list)


@contextmanager
def scripted(
    answer: Callable[[evt.Event, Scripted], int],
    *,
    kinds: tuple[str, ...] = ORDER,
    syntax: str | None = None,
) -> Iterator[Scripted]:
    ae = AE(ae_title="PACS")
    for sop_class in {KINDS[kind] for kind in kinds}:
        ae.add_supported_context(sop_class, syntax or list(conformance.UNCOMPRESSED))
    peer = Scripted(ae)

    def on_store(event: evt.Event) -> int:
        peer.received.append(str(event.request.AffectedSOPInstanceUID))
        return answer(event, peer)

    def on_accepted(_: evt.Event) -> None:
        peer.associations += 1

    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, on_store), (evt.EVT_ACCEPTED, on_accepted)],
    )
    peer.port = server.server_address[1]
    try:
        yield peer
    finally:
        server.shutdown()


def always(status: int) -> Callable[[evt.Event, Scripted], int]:
    return lambda _, __: status
