"""Drains the outbox: a thread and a queue for each destination, so that a dead one holds up no other.

Storage SCU (PS3.4 annex B). All due objects of a study travel on one association. What a status means is the table
below; everything that is not the destination's final word is tried again with growing pauses. A destination that is not
reached at all pauses for all its studies together: one probe at a time, of the objects of one study or by C-ECHO where
nothing is queued, until it answers (`circuit`). What was stored is proven by the `proof` thread beside.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from triage_node import backoff, circuit, conformance, courier, requestor
from triage_node.courier import AT_ONCE, Courier
from triage_node.errors import DeliveryFailed
from triage_node.journal import outbox, proofs
from triage_node.proof import Prover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pynetdicom.association import Association
    from structlog.typing import FilteringBoundLogger

    from triage_node.config import DestinationSection, Settings
    from triage_node.journal import Journal
    from triage_node.journal.outbox import Outgoing

STOP_GRACE_S = 2.0
# A destination that opens associations and answers nothing to the objects of so many studies in a row is not reached.
SILENT_STUDIES = 3
# PS3.4 table B.2-1 and PS3.7 annex C: which answers mean that a later attempt can succeed
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_TRY_AGAIN = (
    0x0110,
    0x0122,
    0x0124,
    0x0213,
)  # processing failure, not supported now, not authorised, resource limitation


def outcome_of(status: int) -> outbox.Outcome:
    """What a C-STORE status says about the object."""
    if status == 0x0000 or status & 0xF000 == 0xB000:
        return "stored"
    if status in _OUT_OF_RESOURCES or status in _TRY_AGAIN:
        return "failed"
    return "refused"


class Sender(Courier):
    """Delivers to one destination until it is stopped."""

    def __init__(
        self,
        settings: Settings,
        destination: DestinationSection,
        journal: Journal,
        *,
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a thread; `start` starts it. `delivered` is called when a study has been sent, or can be again."""
        super().__init__("sender", destination.name, grace_s=STOP_GRACE_S)
        self._settings = settings
        self._destination = destination
        self._journal = journal
        self._association: Association | None = None
        self._jitter = 0.0
        self._delivered = delivered
        self._silent: set[str] = set()  # studies of which no object was answered, since the last answer

    def _cut(self) -> None:
        association = self._association
        if association is not None:
            requestor.cut(association)

    def _next(self) -> float | None:
        """Send the objects of the study that is due; returns when there may be more to do (None: when woken)."""
        now, name = time.time(), self._destination.name
        probe_at = circuit.probe_at(self._journal, self._destination)
        if probe_at is not None and now < probe_at:
            return probe_at
        batch = outbox.any_study(self._journal, name) if probe_at is not None else outbox.due(self._journal, name, now)
        if batch:
            self._deliver(batch, probing=probe_at is not None)
        elif probe_at is not None:
            self._echo()
        else:
            return outbox.next_at(self._journal, name)
        return AT_ONCE

    def _deliver(self, batch: Sequence[Outgoing], *, probing: bool) -> None:
        log = self._log.bind(study=batch[0].study_instance_uid)
        self._jitter = random.uniform(-1, 1)  # one for all, so that a study's objects stay together
        readable: dict[Outgoing, str] = {}
        for outgoing in batch:
            try:
                readable[outgoing] = transfer_syntax_of(outgoing)
            except DeliveryFailed as failure:
                self._record(outgoing, failure)
                log.warning("object not stored", outcome="failed", kind=outgoing.kind, answer=str(failure))
        if not readable:
            if probing:
                self._echo()
            return
        try:
            association = associate(self._settings.node.ae_title, self._destination, readable)
        except DeliveryFailed as failure:
            for outgoing in readable:
                self._record(outgoing, failure)
            if failure.retry:
                self._not_reached(str(failure))
            else:
                log.warning("objects not stored", outcome="refused", answer=str(failure))
                self._reached()
            return
        self._association = association
        asked = answered = False
        try:
            for outgoing in readable:
                if self._stopped:
                    return
                if not outbox.begin(self._journal, outgoing, time.time()):
                    continue
                asked = True
                answered = self._send(association, outgoing, log) or answered
        finally:
            self._association = None
            if association.is_established:
                association.release()
        if asked:
            self._heard(batch[0].study_instance_uid, answered=answered, probing=probing)

    def _heard(self, study: str, *, answered: bool, probing: bool) -> None:
        """What the objects of a study say about the way to the destination."""
        if answered:
            self._reached()
            return
        self._silent.add(study)
        if not self._stopped and (probing or len(self._silent) >= SILENT_STUDIES):
            self._not_reached("associations are accepted, but nothing that is sent on them is answered")

    def _reached(self) -> None:
        self._silent.clear()
        circuit.answered(self._journal, self._destination, time.time())
        self._delivered()

    def _not_reached(self, words: str) -> None:
        now, limit_h = time.time(), self._destination.give_up_after_h
        circuit.failed(self._journal, self._destination, words, now)
        late = f"not delivered within {limit_h:g} h: {words}"
        number = outbox.expire(self._journal, self._destination.name, now - limit_h * 3600, late, now)
        if number:
            self._log.error("objects given up", objects=number, why=late)

    def _echo(self) -> None:
        """Probe with nothing but a C-ECHO; an answer of any kind will do."""
        section = self._destination
        peer = requestor.Peer(ae_title=section.ae_title, host=section.host, port=section.port)
        offer = conformance.offer(conformance.Purpose.ECHO, conformance.VERIFICATION)
        try:
            association = requestor.associate(self._settings.node.ae_title, peer, [offer], timeout_s=section.timeout_s)
        except DeliveryFailed as failure:
            if failure.retry:
                self._not_reached(str(failure))
                return
        else:
            self._association = association
            try:
                answered = "Status" in association.send_c_echo()
            except (RuntimeError, ValueError, OSError):  # gone before it could be asked
                answered = False
            finally:
                self._association = None
            if association.is_established:
                association.release()
            if not answered:
                self._not_reached("no answer to the C-ECHO request: timed out or aborted")
                return
        self._reached()

    def _send(self, association: Association, outgoing: Outgoing, log: FilteringBoundLogger) -> bool:
        """Send one object; whether the destination said anything to it."""
        started = time.monotonic()
        try:
            answer: tuple[int, str] | DeliveryFailed = store(association, outgoing)
        except DeliveryFailed as failure:
            answer = failure
        outcome = self._record(outgoing, answer)
        words = str(answer) if isinstance(answer, DeliveryFailed) else answer[1]
        line = {"kind": outgoing.kind, "seconds": round(time.monotonic() - started, 3), "answer": words}
        if outcome == "stored":
            log.info("object stored", **line)
        else:
            log.warning("object not stored", outcome=outcome, **line)
        return not isinstance(answer, DeliveryFailed) or not answer.retry

    def _record(self, outgoing: Outgoing, answer: tuple[int, str] | DeliveryFailed) -> outbox.Outcome:
        outcome: outbox.Outcome
        status: int | None
        if isinstance(answer, DeliveryFailed):
            outcome, status, words = "failed" if answer.retry else "refused", answer.status, str(answer)
        else:
            outcome, (status, words) = outcome_of(answer[0]), answer
        now = time.time()
        retry_at = None
        if outcome == "failed" and now - outgoing.queued_at < self._destination.give_up_after_h * 3600:
            retry_at = now + backoff.pause_s(self._destination, outgoing.attempts + 1, jitter=self._jitter)
        outbox.record(
            self._journal,
            outgoing,
            outcome,
            status=status,
            words=words,
            now=now,
            retry_at=retry_at,
            commit=self._destination.storage_commitment,
            read_back=self._destination.read_back,
        )
        return outcome


def associate(ae_title: str, destination: DestinationSection, objects: Mapping[Outgoing, str]) -> Association:
    """Open an association that offers what `objects` (each with its transfer syntax) need.

    Raises DeliveryFailed when the destination cannot be reached, does not want to talk, or takes none of them.
    """
    contexts = []
    for sop_class_uid, syntax in sorted({(outgoing.sop_class_uid, syntax) for outgoing, syntax in objects.items()}):
        contexts.append(conformance.offer(conformance.Purpose.DELIVERY, sop_class_uid, syntax))
        if destination.deflated and sop_class_uid == conformance.SEGMENTATION_STORAGE:
            contexts.append(conformance.offer(conformance.Purpose.DELIVERY, sop_class_uid, conformance.DEFLATED))
    peer = requestor.Peer(ae_title=destination.ae_title, host=destination.host, port=destination.port)
    return requestor.associate(ae_title, peer, contexts, timeout_s=destination.timeout_s)


def transfer_syntax_of(outgoing: Outgoing) -> str:
    """Transfer syntax in which the object lies on disk. Raises DeliveryFailed when the file is gone or broken."""
    try:
        return str(read_file_meta_info(outgoing.path).TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError, EOFError) as error:
        raise DeliveryFailed(f"the {outgoing.kind} object cannot be read from disk: {error}", retry=True) from error


def store(association: Association, outgoing: Outgoing) -> tuple[int, str]:
    """Send one object; returns the status and its meaning.

    Raises DeliveryFailed when no status came, or when the destination takes no such object.
    """
    return requestor.store(association, outgoing.path, outgoing.sop_class_uid, outgoing.kind)


def start_all(settings: Settings, journal: Journal) -> tuple[list[Sender | Prover], Callable[[], None]]:
    """Start a sender for each destination, and a prover where proof is asked for; the second value wakes them all."""
    threads: list[Sender | Prover] = []
    for destination in settings.destinations:
        circuit.begin(journal, destination, time.time())
        proofs.begin(journal, destination, time.time())
        threads += _pair(settings, destination, journal)
    return threads, courier.start_all(threads)


def _pair(settings: Settings, destination: DestinationSection, journal: Journal) -> list[Sender | Prover]:
    """The sender of a destination and, where proof is asked for, the prover beside it; they wake each other."""
    if not (destination.storage_commitment or destination.read_back):
        return [Sender(settings, destination, journal)]
    sender = Sender(settings, destination, journal, delivered=lambda: prover.wake())  # noqa: PLW0108  # made below
    prover = Prover(settings, destination, journal, hand_over=sender.wake)
    return [sender, prover]
