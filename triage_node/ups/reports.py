"""Tells subscribers what happened to workitems: N-EVENT-REPORTs, each subscriber with a queue and a thread of its own.

What is still to be told is in the journal, in the order in which it happened; a subscriber that does not answer gets it
when it answers again, and one that is gone for longer than ups.give_up_after_h hears of what happened since.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from triage_node import backoff, conformance, logbook, requestor
from triage_node.courier import AT_ONCE, Courier
from triage_node.errors import DeliveryFailed
from triage_node.journal import subscriptions
from triage_node.ups import procedure_step, values
from triage_node.ups.procedure_step import AE_PREFIX
from triage_node.workitem import EventKind, StepState

if TYPE_CHECKING:
    from pynetdicom.association import Association

    from triage_node.config import Settings
    from triage_node.config.ups import SubscriberSection
    from triage_node.journal import Journal
    from triage_node.journal.subscriptions import Event, Report
    from triage_node.ups.catalogue import Catalogue
    from triage_node.ups.values import Values

STOP_GRACE_S: Final = 2.0
# PS3.7 annex C: answers after which a later attempt can succeed
_TRY_AGAIN: Final = (0x0110, 0x0122, 0x0124, 0x0213)


def information(event: Event, state: StepState | None, readiness: str) -> Values:
    """Event information of PS3.4 table CC.2.4-1; `state` and `readiness` are those of the workitem now."""
    said = event.detail
    match event.kind:
        case EventKind.CANCEL_REQUESTED:
            return {
                **values.from_json(said.get("codes")),
                **values.of(
                    RequestingAE=said.get("by", "").removeprefix(AE_PREFIX) or None,
                    ReasonForCancellation=said.get("words") or None,
                    ContactDisplayName=said.get("contact") or None,
                    ContactURI=said.get("uri") or None,
                ),
            }
        case EventKind.PROGRESS:
            item = values.of(
                ProcedureStepProgress=said.get("progress") or None,
                ProcedureStepProgressDescription=said.get("words", "")[:1024] or None,
            )
            changed = {"ScheduledProcedureStepPriority": said["priority"]} if "priority" in said else {}
            return values.of(ProcedureStepProgressInformationSequence=(item,), **changed)
        case EventKind.SCP_STATUS:
            return values.of(
                SCPStatus=said["status"],
                SubscriptionListStatus="WARM START",  # nothing was forgotten
                UnifiedProcedureStepListStatus="WARM START",
            )
        case EventKind.ASSIGNED:
            to = said.get("to")
            person = procedure_step.humans(to)
            return values.of(
                ScheduledStationNameCodeSequence=procedure_step.stations(to),
                HumanPerformerCodeSequence=person[0][values.tag("HumanPerformerCodeSequence")] if person else (),
                HumanPerformerOrganization=(),
            )
        case _:
            reached = said.get("state") or state or StepState.SCHEDULED
            why = {"ReasonForCancellation": said.get("words")} if said.get("words") else {}
            return values.of(ProcedureStepState=str(reached), InputReadinessState=readiness, **why)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pauses:
    """How long a subscriber is left alone, as `backoff` wants it."""

    name: str
    retry_first_s: float
    retry_longest_s: float
    probe_longest_s: float


class Reporter(Courier):
    """Reports to one subscriber until it is stopped."""

    def __init__(
        self, settings: Settings, subscriber: SubscriberSection, journal: Journal, catalogue: Catalogue
    ) -> None:
        """Prepare a thread; `start` starts it."""
        super().__init__("reports", subscriber.ae_title, grace_s=STOP_GRACE_S)
        self._settings = settings
        self._subscriber = subscriber
        self._journal = journal
        self._catalogue = catalogue
        self._failures = 0
        self._association: Association | None = None
        self._log = logbook.get().bind(subscriber=subscriber.ae_title)

    def _cut(self) -> None:
        association = self._association
        if association is not None:
            requestor.cut(association)

    def _next(self) -> float | None:
        """Send what is due; returns when there may be more to do (None: when woken)."""
        batch = subscriptions.due(self._journal, self._subscriber.ae_title, time.time())
        if not batch:
            return subscriptions.next_at(self._journal, self._subscriber.ae_title)
        report = batch[0]
        try:
            self._association = self._associate()
            for report in batch:
                if self._stopped:
                    break
                self._send(self._association, report)
        except DeliveryFailed as failure:
            if not self._stopped:
                self._put_off(report, str(failure))
        finally:
            association, self._association = self._association, None
            if association is not None and association.is_established:
                association.release()
        return AT_ONCE

    def _put_off(self, report: Report, words: str) -> None:
        """The report that was not taken is tried again first; what lies behind it waits, and what is too old ends."""
        now, section = time.time(), self._settings.ups
        self._failures += 1
        pauses = _Pauses(
            name=report.ae_title,
            retry_first_s=section.retry_first_s,
            retry_longest_s=section.retry_longest_s,
            probe_longest_s=section.retry_longest_s,
        )
        retry_at = now + backoff.pause_s(pauses, self._failures, jitter=random.uniform(-1, 1))
        subscriptions.record(self._journal, report, "failed", words, now, retry_at=retry_at)
        late = f"not reported within {section.give_up_after_h:g} h: {words}"
        given_up = subscriptions.expire(self._journal, report.ae_title, now - section.give_up_after_h * 3600, late, now)
        if self._failures == 1:
            self._log.warning("subscriber not reached", why=words)
        if given_up:
            self._log.error("reports given up", reports=given_up, why=late)

    def _associate(self) -> Association:
        subscriber = self._subscriber
        return requestor.associate(
            self._settings.node.ae_title,
            requestor.Peer(ae_title=subscriber.ae_title, host=subscriber.host, port=subscriber.port),
            [conformance.offer(conformance.Purpose.SUBSCRIBERS, conformance.UPS_EVENT)],
            timeout_s=self._settings.ups.timeout_s,
            as_scp=True,
        )

    def _send(self, association: Association, report: Report) -> None:
        """Send one report. Raises DeliveryFailed when the subscriber did not answer, or wants it later."""
        event = report.event
        entry = self._catalogue.entry(event.workitem_uid)
        said = information(event, report.state, "READY" if entry is None else entry.readiness)
        try:
            answer, _ = association.send_n_event_report(
                values.to_dataset(said),
                int(event.kind),
                conformance.UPS_PUSH,
                event.workitem_uid,
                meta_uid=conformance.UPS_EVENT,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise DeliveryFailed(f"the association was lost: {error}", retry=True) from error
        if "Status" not in answer:
            raise DeliveryFailed("no answer to the N-EVENT-REPORT: timed out or aborted", retry=True)
        status = int(answer.Status)
        words = f"0x{status:04X} {answer.get('ErrorComment', '')}".strip()
        if status in _TRY_AGAIN:
            raise DeliveryFailed(words, retry=True)
        self._failures = 0
        outcome: subscriptions.Outcome = "delivered" if status == 0 or status & 0xF000 == 0xB000 else "refused"
        subscriptions.record(self._journal, report, outcome, words, time.time())
        write = self._log.info if outcome == "delivered" else self._log.warning
        write(f"report {outcome}", kind=event.kind.name, workitem=event.workitem_uid, answer=words)
