"""Drains the outbox: a thread and a queue for each destination, so that a dead one holds up no other.

Storage SCU (PS3.4 annex B). All due objects of a study travel on one association. What a status means is the table
below; everything that is not the destination's final word is tried again with growing pauses.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from triage_node import conformance, logbook, requestor
from triage_node.errors import DeliveryFailed
from triage_node.journal import outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pynetdicom.association import Association
    from structlog.typing import FilteringBoundLogger

    from triage_node.config import DestinationSection, Settings
    from triage_node.journal import Journal
    from triage_node.journal.outbox import Outgoing

JITTER = 0.2  # share by which a pause is shortened or lengthened, so that many nodes do not call in step
IDLE_POLL_S = 5.0
STOP_GRACE_S = 2.0
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


def pause_s(destination: DestinationSection, attempts: int, *, jitter: float) -> float:
    """Pause after the `attempts`-th failed attempt; `jitter` is -1..1."""
    pause = min(destination.retry_first_s * 2.0 ** min(attempts - 1, 40), destination.retry_longest_s)
    return float(pause * (1.0 + JITTER * jitter))


class Sender(threading.Thread):
    """Delivers to one destination until it is stopped."""

    def __init__(self, settings: Settings, destination: DestinationSection, journal: Journal) -> None:
        """Prepare a thread; `start` starts it."""
        super().__init__(name=f"sender-{destination.name}", daemon=True)
        self._settings = settings
        self._destination = destination
        self._journal = journal
        self._woken = threading.Event()
        self._stopped = False
        self._association: Association | None = None
        self._jitter = 0.0
        self._log = logbook.get().bind(destination=destination.name)

    def wake(self) -> None:
        """There may be something new to send."""
        self._woken.set()

    def stop(self) -> None:
        """Finish the object that is under way and end; a destination that takes its time is cut off."""
        self._stopped = True
        self._woken.set()
        cut = threading.Timer(STOP_GRACE_S, self._cut)
        cut.daemon = True
        cut.start()

    def _cut(self) -> None:
        association = self._association
        if association is not None and association.is_established:
            association.abort()
            association.dimse.msg_queue.put((None, None))  # who waits for an answer learns that there will be none

    def run(self) -> None:
        """Send what is due, sleep until the next is."""
        while not self._stopped:
            try:
                batch = outbox.due(self._journal, self._destination.name, time.time())
                if batch:
                    self._deliver(batch)
                    continue
                at = outbox.next_at(self._journal, self._destination.name)
            except Exception:  # noqa: BLE001  # the border of delivery: a fault with one object must not end the queue
                self._log.exception("delivery failed")
                at = None
            wait_s = IDLE_POLL_S if at is None else min(IDLE_POLL_S, at - time.time())
            self._woken.wait(max(0.05, wait_s))
            self._woken.clear()

    def _deliver(self, batch: Sequence[Outgoing]) -> None:
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
            return
        try:
            association = associate(self._settings.node.ae_title, self._destination, readable)
        except DeliveryFailed as failure:
            for outgoing in readable:
                self._record(outgoing, failure)
            log.warning("destination not reached", why=str(failure), attempts=batch[0].attempts + 1)
            return
        self._association = association
        try:
            for outgoing in readable:
                if self._stopped:
                    return
                self._send(association, outgoing, log)
        finally:
            self._association = None
            if association.is_established:
                association.release()

    def _send(self, association: Association, outgoing: Outgoing, log: FilteringBoundLogger) -> None:
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
            retry_at = now + pause_s(self._destination, outgoing.attempts + 1, jitter=self._jitter)
        outbox.record(self._journal, outgoing, outcome, status=status, words=words, now=now, retry_at=retry_at)
        return outcome


def associate(ae_title: str, destination: DestinationSection, objects: Mapping[Outgoing, str]) -> Association:
    """Open an association that offers what `objects` (each with its transfer syntax) need.

    Raises DeliveryFailed when the destination cannot be reached, does not want to talk, or takes none of them.
    """
    contexts = []
    for sop_class_uid, syntax in sorted({(outgoing.sop_class_uid, syntax) for outgoing, syntax in objects.items()}):
        contexts.append(conformance.offer(conformance.Purpose.DELIVERY, sop_class_uid, syntax))
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


def start_all(settings: Settings, journal: Journal) -> tuple[list[Sender], Callable[[], None]]:
    """Start a sender for each destination; the second value wakes them all."""
    senders = [Sender(settings, destination, journal) for destination in settings.destinations]
    for sender in senders:
        sender.start()

    def wake() -> None:
        for sender in senders:
            sender.wake()

    return senders, wake
