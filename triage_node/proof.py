"""Seeks proof of what was delivered: a thread for each destination that commits or can be queried.

It stands beside the sender, so that a destination that takes its time over a report holds up no delivery. What is to
be asked, and when again, is in the journal; here it is only asked.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from triage_node import backoff, circuit, commitment, conformance, read_back, requestor
from triage_node.courier import AT_ONCE, Courier
from triage_node.errors import DeliveryFailed
from triage_node.journal import proofs

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.dimse_primitives import N_EVENT_REPORT

    from triage_node.config import DestinationSection, Settings
    from triage_node.journal import Journal
    from triage_node.journal.proofs import Unproven

REPORT_POLL_S = 0.25
STOP_GRACE_S = 1.0
REQUESTS_AT_A_TIME = 100  # on one association
# A destination may need a while to index what it has stored: only then the object counts as lost.
MISSES = 5


class Prover(Courier):
    """Asks one destination for commitment, and looks for the objects there, until it is stopped."""

    def __init__(
        self, settings: Settings, destination: DestinationSection, journal: Journal, *, hand_over: Callable[[], None]
    ) -> None:
        """Prepare a thread; `start` starts it. `hand_over` is called when the sender has to do something."""
        super().__init__("prover", destination.name, grace_s=STOP_GRACE_S)
        self._ae_title = settings.node.ae_title
        self._destination = destination
        self._journal = journal
        self._association: Association | None = None
        self._reports = commitment.Reports(settings, journal, ring=self._reported)
        self._hand_over = hand_over

    def _reported(self) -> None:
        self.wake()
        self._hand_over()

    def _cut(self) -> None:
        association = self._association
        if association is not None:
            requestor.cut(association)

    def _next(self) -> float | None:
        if circuit.probe_at(self._journal, self._destination) is not None:
            return None
        return AT_ONCE if self._prove() else proofs.next_at(self._journal, self._destination.name)

    def _prove(self) -> bool:
        """Do what is due; False when nothing is."""
        name, now = self._destination.name, time.time()
        batch = proofs.unfound(self._journal, name, now)
        if batch:
            self._look_for(self._in_time(batch))
            return True
        if proofs.uncommitted(self._journal, name, now):
            self._commit()
            return True
        return False

    def _in_time(self, batch: list[Unproven]) -> list[Unproven]:
        """Those that a proof may still be waited for; the others are given up."""
        limit_s, now = self._destination.give_up_after_h * 3600, time.time()
        late = [each for each in batch if now - each.stored_at >= limit_s]
        for each in late:
            words = f"not proven to be kept within {self._destination.give_up_after_h:g} h, as it was asked for above"
            proofs.give_up(self._journal, each, words, now)
            self._log.error("proof of delivery given up", study=each.study_instance_uid, kind=each.kind, why=words)
        return [each for each in batch if each not in late]

    def _open(self, purpose: conformance.Purpose, sop_class_uid: str) -> Association:
        peer = requestor.Peer(
            ae_title=self._destination.ae_title, host=self._destination.host, port=self._destination.port
        )
        association = requestor.associate(
            self._ae_title,
            peer,
            [conformance.offer(purpose, sop_class_uid)],
            timeout_s=self._destination.timeout_s,
            idle_s=self._destination.commitment_wait_s + REPORT_POLL_S,
            on_report=self._on_report,
        )
        self._association = association
        return association

    def _close(self, association: Association) -> None:
        self._association = None
        requestor.release(association)

    def _on_report(self, report: N_EVENT_REPORT, transfer_syntax: str) -> int:
        return self._reports.receive(report, transfer_syntax, self._destination.ae_title)

    def _failed(self, failure: DeliveryFailed, objects: list[Unproven]) -> None:
        """No association: a destination that is not there at all is left to the sender's probes."""
        self._log.warning("no proof of delivery", study=objects[0].study_instance_uid, why=str(failure))
        if failure.retry:
            circuit.failed(self._journal, self._destination, str(failure), time.time())
            self._hand_over()

    def _again_at(self, attempts: int) -> float:
        return time.time() + backoff.pause_s(self._destination, attempts + 1, jitter=random.uniform(-1, 1))

    # ------------------------------------------------------------------ commitment

    def _commit(self) -> None:
        """Ask for all studies that are due, on one association, and wait a while for reports on it."""
        batch = self._in_time(proofs.uncommitted(self._journal, self._destination.name, time.time()))
        if not batch:
            return
        try:
            association = self._open(conformance.Purpose.COMMITMENT, conformance.STORAGE_COMMITMENT_PUSH_MODEL)
        except DeliveryFailed as failure:
            self._failed(failure, batch)
            self._not_asked(batch, failure.status, str(failure) if failure.retry else commitment.NOT_OFFERED)
            return
        asked: list[str] = []
        deadline = 0.0
        try:
            while not self._stopped and association.is_established:
                if batch:
                    asked += self._ask(association, batch)
                    deadline = time.monotonic() + self._destination.commitment_wait_s
                elif not asked or time.monotonic() >= deadline or not proofs.awaited(self._journal, asked):
                    return
                else:
                    self._woken.wait(min(REPORT_POLL_S, max(0.0, deadline - time.monotonic())))
                    self._woken.clear()
                if len(asked) < REQUESTS_AT_A_TIME:
                    batch = self._in_time(proofs.uncommitted(self._journal, self._destination.name, time.time()))
                else:
                    batch = []
        finally:
            self._close(association)

    def _ask(self, association: Association, batch: list[Unproven]) -> list[str]:
        """Ask for the objects of one study; returns the Transaction UID, nothing where the request was not taken."""
        transaction, now = commitment.new_transaction(), time.time()
        attempts = max(each.attempts for each in batch)
        pause_s = backoff.report_pause_s(self._destination, attempts + 1, jitter=random.uniform(-1, 1))
        proofs.ask(self._journal, transaction, self._destination.name, batch, now, now + pause_s)
        status: int | None = None
        try:
            status, words = commitment.request(association, transaction, batch)
        except DeliveryFailed as failure:
            words = str(failure)
        if status != commitment.SUCCESS:
            self._log.warning("commitment not asked for", study=batch[0].study_instance_uid, answer=words)
            self._not_asked(batch, status, words)
            return []
        proofs.accepted(self._journal, transaction, batch, time.time())
        self._log.info(
            "commitment asked for", study=batch[0].study_instance_uid, objects=len(batch), transaction=transaction
        )
        return [transaction]

    def _not_asked(self, batch: list[Unproven], status: int | None, words: str) -> None:
        again_at = self._again_at(max(each.attempts for each in batch))
        proofs.not_asked(self._journal, batch, status, words, time.time(), again_at)

    # ------------------------------------------------------------------ read-back

    def _look_for(self, batch: list[Unproven]) -> None:
        """Ask for each object of one study, on one association."""
        if not batch:
            return
        try:
            association = self._open(conformance.Purpose.READ_BACK, conformance.STUDY_ROOT_FIND)
        except DeliveryFailed as failure:
            self._failed(failure, batch)
            words = str(failure) if failure.retry else read_back.NOT_OFFERED
            for each in batch:
                self._not_looked_for(each, words)
            return
        try:
            for each in batch:
                if self._stopped:
                    return
                self._look_for_one(association, each)
        finally:
            self._close(association)

    def _look_for_one(self, association: Association, one: Unproven) -> None:
        log = self._log.bind(study=one.study_instance_uid, kind=one.kind)
        try:
            there = read_back.is_there(association, read_back.identifier_of(one.path, one.sop_instance_uid))
        except DeliveryFailed as failure:
            log.warning("read-back failed", why=str(failure))
            self._not_looked_for(one, str(failure), failure.status)
            return
        if there:
            proofs.found(self._journal, one, time.time())
            log.info("object confirmed")
            return
        again_at = self._again_at(one.attempts) if one.attempts + 1 < MISSES else None
        proofs.not_found(self._journal, one, self._destination, time.time(), again_at=again_at)
        log.warning("object not found", times=one.attempts + 1, lost=again_at is None)
        if again_at is None:
            self._hand_over()

    def _not_looked_for(self, one: Unproven, words: str, status: int | None = None) -> None:
        proofs.not_looked_for(self._journal, one, status, words, time.time(), self._again_at(one.attempts))
