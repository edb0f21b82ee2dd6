"""Delivers answers to a RIS: a thread and a queue for each, with the habits of the sender.

Each message is put together when it is sent, from the journal and the images, and kept nowhere. A message waits for
its own acknowledgement; one that comes for another message is no answer to it. What is not the receiver's final word
is tried again with growing pauses; a receiver that is not reached at all pauses for all its messages together, one
probe at a time (`circuit`), a message where one is queued and a mere connection where none is.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from triage_node import backoff, circuit, courier, priority, worklist
from triage_node.courier import AT_ONCE, Courier
from triage_node.errors import DeliveryFailed, InvalidResult
from triage_node.hl7 import acknowledgement, mllp, oru, subject
from triage_node.hl7.observations import Answer
from triage_node.journal import intake, messages, views

if TYPE_CHECKING:
    from collections.abc import Callable

    from triage_node.config import Hl7Section, Settings
    from triage_node.hl7.acknowledgement import Acknowledgement
    from triage_node.journal import Journal
    from triage_node.journal.messages import Message

STOP_GRACE_S = 2.0
# A receiver that takes connections and acknowledges nothing of so many messages in a row is not reached.
SILENT_MESSAGES = 3


class Messenger(Courier):
    """Delivers to one RIS until it is stopped."""

    def __init__(self, settings: Settings, section: Hl7Section, journal: Journal) -> None:
        """Prepare a thread; `start` starts it."""
        super().__init__("messenger", section.name, grace_s=STOP_GRACE_S)
        self._settings = settings
        self._section = section
        self._journal = journal
        self._connection: mllp.Connection | None = None
        self._silent = 0  # messages in a row

    def _cut(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.cut()

    def _next(self) -> float | None:
        """Send what is due; returns when there may be more to do (None: when woken)."""
        now, name = time.time(), self._section.name
        probe_at = circuit.probe_at(self._journal, self._section)
        if probe_at is not None and now < probe_at:
            return probe_at
        probing = probe_at is not None
        batch = messages.any_one(self._journal, name) if probing else messages.due(self._journal, name, now)
        if not batch and not probing:
            return messages.next_at(self._journal, name)
        made = [(message, data) for message in batch if (data := self._made(message)) is not None]
        if made or probing:
            self._deliver(made, probing=probing)
        return AT_ONCE

    def _made(self, message: Message) -> tuple[str, bytes] | None:
        """Control ID and bytes of a message; None, with the reason on record, when it cannot be made."""
        try:
            return compose(self._settings, self._section, self._journal, message)
        except InvalidResult as error:
            self._failed(message, DeliveryFailed(str(error), retry=False))
        except DeliveryFailed as error:
            self._failed(message, error)
        return None

    def _deliver(self, batch: list[tuple[Message, tuple[str, bytes]]], *, probing: bool) -> None:
        section = self._section
        try:
            connection = mllp.Connection(section.host, section.port, timeout_s=section.timeout_s)
        except DeliveryFailed as failure:
            for message, _ in batch:
                self._failed(message, failure)
            self._not_reached(str(failure))
            return
        self._connection = connection
        with connection:
            if not batch:  # a probe where nothing is queued: MLLP knows no echo, so a connection must do
                self._reached()
            for message, (control_id, data) in batch:
                if self._stopped:
                    break
                if not messages.begin(self._journal, message, time.time()):
                    continue
                try:
                    answer = exchange(connection, control_id, data, section)
                except DeliveryFailed as failure:
                    self._failed(message, failure)
                    self._silent += 1
                    if not self._stopped and (probing or self._silent >= SILENT_MESSAGES):
                        self._not_reached(f"connections are accepted, but nothing is acknowledged: {failure}")
                    break  # whatever still comes on this connection could be taken for the answer to the next one
                self._answered(message, answer)
                self._reached()
        self._connection = None

    def _answered(self, message: Message, answer: Acknowledgement) -> None:
        outcome = answer.outcome
        log = self._log.bind(study=message.study_instance_uid)
        line = {"code": answer.code, "condition": answer.condition or None}  # the words may name the patient
        if outcome == "acknowledged":
            log.info("message acknowledged", **line)
        else:
            log.warning("message not acknowledged", outcome=outcome, **line)
        self._record(message, outcome, code=answer.code, words=answer.sentence)

    def _failed(self, message: Message, failure: DeliveryFailed) -> None:
        outcome: messages.Outcome = "failed" if failure.retry else "refused"
        self._log.warning(
            "message not acknowledged", study=message.study_instance_uid, outcome=outcome, answer=str(failure)
        )
        self._record(message, outcome, code=None, words=str(failure))

    def _record(self, message: Message, outcome: messages.Outcome, *, code: str | None, words: str) -> None:
        now = time.time()
        retry_at = None
        if outcome == "failed" and now - message.queued_at < self._section.give_up_after_h * 3600:
            jitter = random.uniform(-1, 1)
            retry_at = now + backoff.pause_s(self._section, message.attempts + 1, jitter=jitter)
        messages.record(self._journal, message, outcome, code=code, words=words, now=now, retry_at=retry_at)

    def _reached(self) -> None:
        self._silent = 0
        circuit.answered(self._journal, self._section, time.time())

    def _not_reached(self, words: str) -> None:
        now, limit_h = time.time(), self._section.give_up_after_h
        circuit.failed(self._journal, self._section, words, now)
        late = f"not delivered within {limit_h:g} h: {words}"
        number = messages.expire(self._journal, self._section.name, now - limit_h * 3600, late, now)
        if number:
            self._log.error("messages given up", messages=number, why=late)


def compose(settings: Settings, section: Hl7Section, journal: Journal, message: Message) -> tuple[str, bytes]:
    """Control ID and bytes of the message that tells a RIS of the current answer.

    Raises DeliveryFailed, worth another try, when no image of the study can be read; InvalidResult when no valid
    message can be made.
    """
    study = message.study_instance_uid
    row, based_on = views.study(journal, study), views.answer(journal, study)
    if row is None or based_on is None or row.result_id != message.result_id:
        raise DeliveryFailed("a newer answer has taken its place", retry=True)
    images = intake.study(
        journal, study, last_instance_id=based_on.last_instance_id, state_dir=settings.state_dir
    ).series
    judged_first = sorted(images, key=lambda series: series.key.series_instance_uid != based_on.series_instance_uid)
    whose = subject.of_instances(instance for series in judged_first for instance in series.instances)
    if whose is None:
        raise DeliveryFailed("no image of the study can be read from disk", retry=True)
    answer = Answer(
        study_instance_uid=study,
        generation=based_on.generation,
        created_at=row.judged_at or message.queued_at,
        assessment=row.assessment,
        not_analysed=row.not_analysed,
        reading_priority=priority.level(worklist.facts_of(row), settings.worklist),
        report_uid=views.report_uid(journal, message.result_id),
    )
    envelope = oru.Envelope(
        section=section,
        ae_title=settings.node.ae_title,
        queued_at=message.queued_at,
        correction=messages.corrects(journal, message),
    )
    return envelope.control_id(answer), oru.build(answer, whose, envelope)


def exchange(connection: mllp.Connection, control_id: str, data: bytes, section: Hl7Section) -> Acknowledgement:
    """Send a message and wait for its acknowledgement.

    Raises DeliveryFailed, worth another try, when none comes in time.
    """
    connection.send(data)
    deadline = time.monotonic() + section.timeout_s
    strange = committed = False
    while True:
        try:
            block = connection.receive(deadline)
        except DeliveryFailed as failure:
            remarks = [
                *(["what came acknowledges another message, or nothing"] if strange else []),
                *(["only CA came: set hl7.acknowledgement to enhanced, if that is all it says"] if committed else []),
            ]
            raise DeliveryFailed("; ".join([str(failure), *remarks]), retry=failure.retry) from None
        answer = acknowledgement.read(block)
        if answer is None or answer.control_id != control_id:
            strange = True
        elif answer.is_final(section.acknowledgement):
            return answer
        else:
            committed = True


def start_all(settings: Settings, journal: Journal) -> tuple[list[Messenger], Callable[[], None]]:
    """Start a messenger for each RIS; the second value wakes them all."""
    threads = [Messenger(settings, section, journal) for section in settings.hl7]
    for section in settings.hl7:
        circuit.begin(journal, section, time.time())
    return threads, courier.start_all(threads)
