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
from triage_node.ups.catalogue import AGES_S
from triage_node.ups.procedure_step import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triage_node.journal import Journal
    from triage_node.ups.catalogue import Catalogue

POLL_S: Final = 1.0
HEADERS_AT_ONCE: Final = 25
AGEING_S: Final = AGES_S / 2  # so often priorities are looked at while nothing happens
REGISTER_S: Final = 60.0  # so often all studies are gone through, in case one was overlooked
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
        self._told: dict[str, str] | None = None  # priorities as they were last noted
        self._newest = -1
        self._more_to_describe = False
        self._looked_at = self._forgot_at = self._registered_at = float("-inf")

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
        newest = orders.newest(self._journal)
        if newest != self._newest or self._more_to_describe or now - self._registered_at >= REGISTER_S:
            orders.register(self._journal, now)
            self._more_to_describe = self._describe() >= HEADERS_AT_ONCE
            self._newest, self._registered_at = newest, now
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
        return self._more_to_describe or dispatched >= subscriptions.BATCH

    def _describe(self) -> int:
        """Look at the headers of new studies; returns of how many."""
        new = orders.undescribed(self._journal, HEADERS_AT_ONCE)
        if new:
            orders.describe(self._journal, {one.study_instance_uid: header_of(one.path) for one in new})
        return len(new)

    def _notice_priorities(self, now: float) -> None:
        if self._told is None:
            self._told = subscriptions.told_priorities(self._journal)
        changed: dict[str, tuple[str, str | None]] = {}
        for uid, priority in self._catalogue.priorities(now).items():
            told = self._told.get(uid)
            if told != priority:
                entry = None if told is None else self._catalogue.entry(uid)  # the first one is no change
                changed[uid] = (priority.value, None if entry is None else entry.explanation)
        if changed:
            subscriptions.tell_priorities(self._journal, changed, now)
            self._told.update({uid: priority for uid, (priority, _) in changed.items()})

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
