"""Keeps the workitems in step with what happens in the node, and makes reports of it.

New studies get a workitem, their headers are looked at, changed priorities are noticed, and each event becomes a report
for each subscriber. All of it is found in the journal, so that nothing is lost when this thread or its process dies.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import pydicom
from pydicom.errors import InvalidDicomError

from triage_node import logbook
from triage_node.journal import orders, subscriptions
from triage_node.ups import matching, values
from triage_node.ups.procedure_step import HEADER
from triage_node.workitem import StepState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triage_node.journal import Journal
    from triage_node.ups.catalogue import Catalogue

POLL_S: Final = 1.0
HEADERS_AT_ONCE: Final = 25
AGEING_S: Final = 5.0  # so often priorities are looked at while nothing happens
FORGET_S: Final = 3600.0


class Registrar(threading.Thread):
    """Works whenever it is woken, and every second."""

    def __init__(self, journal: Journal, catalogue: Catalogue, *, ring: Callable[[], None]) -> None:
        """Prepare a thread; `start` starts it. `ring` wakes who sends reports."""
        super().__init__(name="registrar", daemon=True)
        self._journal = journal
        self._catalogue = catalogue
        self._ring = ring
        self._woken = threading.Event()
        self._stopped = False
        self._version = -1
        self._looked_at = self._forgot_at = float("-inf")

    def wake(self) -> None:
        """Something may have happened."""
        self._woken.set()

    def stop(self) -> None:
        """End after what is under way."""
        self._stopped = True
        self._woken.set()

    def run(self) -> None:
        """Work until `stop`."""
        while not self._stopped:
            try:
                more = self.work(time.time())
            except Exception:  # noqa: BLE001  # the border of the registrar: one odd study must not end it
                logbook.get().exception("worklist not brought up to date")
                more = False
            if not more:
                self._woken.wait(POLL_S)
                self._woken.clear()

    def work(self, now: float) -> bool:
        """Bring everything up to date; True when there is more to do at once."""
        version = self._journal.version()
        described = 0
        if version != self._version:
            orders.register(self._journal, now)
            described = self._describe()
        if version != self._version or now - self._looked_at >= AGEING_S:
            self._notice_priorities(now)
            self._looked_at = now
        self._version = version
        dispatched = subscriptions.dispatch(self._journal, self._filter(), now)
        if dispatched:
            self._ring()
        if now - self._forgot_at >= FORGET_S:
            subscriptions.forget(self._journal, now)
            self._forgot_at = now
        return described >= HEADERS_AT_ONCE or dispatched >= subscriptions.BATCH

    def _describe(self) -> int:
        """Look at the headers of new studies; returns of how many."""
        new = orders.undescribed(self._journal, HEADERS_AT_ONCE)
        if new:
            orders.describe(self._journal, {one.study_instance_uid: header_of(one.path) for one in new})
        return len(new)

    def _notice_priorities(self, now: float) -> None:
        scheduled = {
            entry.item.workitem_uid: entry
            for entry in self._catalogue.entries(now)
            if entry.item.state is StepState.SCHEDULED
        }
        priorities = {uid: entry.priority.value for uid, entry in scheduled.items()}
        subscriptions.tell_priorities(self._journal, priorities, lambda uid: scheduled[uid].explanation, now)

    def _filter(self) -> Callable[[str, str], bool]:
        """Whether a workitem matches a filter, each filter read once."""
        keys: dict[str, tuple[matching.Key, ...]] = {}

        def matches(filter_json: str, workitem_uid: str) -> bool:
            if filter_json not in keys:
                keys[filter_json] = matching.keys_of(pydicom.Dataset.from_json(filter_json))
            entry = self._catalogue.entry(workitem_uid)
            return entry is not None and matching.matches(keys[filter_json], entry.get)

        return matches


def header_of(path: Path) -> str:
    """What of an image's header describes its study, as DICOM JSON; empty where the file cannot be read."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(HEADER))
        return values.to_json(dataset)
    except (OSError, InvalidDicomError, ValueError, KeyError, NotImplementedError) as error:
        logbook.get().warning("header not read", path=str(path), why=str(error))
        return "{}"
