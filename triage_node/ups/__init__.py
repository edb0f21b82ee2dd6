"""The reading worklist as Unified Procedure Steps (PS3.4 annex CC): Push, Pull, Watch, Query and Event.

listener.py has the port, service.py what each message does, procedure_step.py the attributes of a reading task,
facts.py what its images show, requests.py what others may say of it, matching.py and values.py the queries,
catalogue.py the order, modality_worklist.py the same list for who knows no UPS, registrar.py what keeps all of it in
step with the node, reports.py what subscribers hear.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from triage_node.journal import subscriptions
from triage_node.ups.catalogue import Catalogue
from triage_node.ups.listener import Listener
from triage_node.ups.registrar import Registrar
from triage_node.ups.reports import Reporter
from triage_node.ups.service import GLOBAL, Service

if TYPE_CHECKING:
    from triage_node.config import Settings
    from triage_node.journal import Journal

__all__ = ["Worklist"]


class Worklist:
    """The port, the registrar and a reporter for each subscriber."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._journal = journal
        catalogue = Catalogue(settings, journal)
        self._reporters = [Reporter(settings, one, journal, catalogue) for one in settings.ups.subscribers]
        self._registrar = Registrar(journal, catalogue, ring=self._ring_reporters)
        self._listener = Listener(settings, Service(settings, journal, catalogue, ring=self._registrar.wake))

    def start(self) -> tuple[str, int]:
        """Listen and work; returns the address. Raises OSError if it is in use."""
        self._registrar.work(time.time())
        address = self._listener.start()
        subscriptions.restarted(self._journal, GLOBAL, time.time())
        self._registrar.start()
        for reporter in self._reporters:
            reporter.start()
        return address

    def wake(self) -> None:
        """Something has happened in the node."""
        self._registrar.wake()

    def stop(self) -> None:
        """Close the port and end; what was not reported is reported after the next start."""
        self._listener.stop()
        threads: tuple[Registrar | Reporter, ...] = (self._registrar, *self._reporters)
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join(timeout=3.0)

    def _ring_reporters(self) -> None:
        for reporter in self._reporters:
            reporter.wake()
