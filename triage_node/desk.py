"""The desk: closes series, delivers results, serves the page, watches the disk and turns the log.

APScheduler only ticks; what is to be done is in the journal.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from apscheduler.schedulers.background import BackgroundScheduler

from triage_node import completion, logbook, messenger, sender
from triage_node.api import Api
from triage_node.archive import Archive
from triage_node.journal import Journal, intake, subscriptions
from triage_node.ups import Worklist, catalogue
from triage_node.web import Page

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from triage_node.config import Settings, UpsSection, WebSection
    from triage_node.doorbell import Doorbell

COMPLETION_TICK_S = 0.5
DISK_WATCH_S = 30.0
LOG_TURN_S = 30.0
CANNOT_LISTEN = 3


def close_complete_series(settings: Settings, journal: Journal, now: float) -> int:
    """Close every open series whose evidence suffices; returns how many."""
    closed = 0
    for series in intake.open_series(journal):
        try:
            verdict = completion.judge(series.evidence, settings.completion, now)
            done = verdict.complete and intake.close_series(journal, series, verdict, now)
        except Exception:  # noqa: BLE001  # the border of completion: one odd series keeps no other open
            logbook.get().exception("series cannot be closed", study=series.key.study_instance_uid)
            continue
        if done:
            closed += 1
            logbook.get().info(
                "series closed",
                study=series.key.study_instance_uid,
                series=series.key.series_instance_uid,
                instances=series.evidence.instances,
                basis=verdict.basis,
                evidence="; ".join(verdict.words),
            )
    return closed


def _listens(start: Callable[[], object], section: WebSection | UpsSection) -> bool:
    """Start to listen; False, and the log says why, where the address cannot be had."""
    try:
        start()
    except OSError as error:
        why = error.strerror or str(error)
        logbook.get().error("cannot listen", host=section.host, port=section.port, why=why)
        return False
    return True


def run(settings: Settings, bell: Doorbell, *, ring_analyst: Callable[[], None], stop: threading.Event) -> int:
    """The desk process; returns the exit status."""
    log = logbook.get()
    catalogue.spare_the_collector()
    journal = Journal(settings.state_dir, "desk")
    known = {one.ae_title for one in settings.ups.subscribers} | set(settings.api.subscriber_ae_titles)
    for ae_title in subscriptions.keep_only(journal, known, time.time()):
        log.warning("subscriptions ended: the subscriber is not in the configuration", ae_title=ae_title)
    api = Api(settings, journal) if settings.api.enabled or settings.api.ups_rs else None
    page = Page(settings, journal, also=api) if settings.web.enabled else None
    if page is not None and not _listens(page.start, settings.web):
        return CANNOT_LISTEN
    if page is not None:
        log.info("page", url=page.url)
    reading = Worklist(settings, journal) if settings.ups.enabled else None
    if reading is not None and not _listens(reading.start, settings.ups):
        return CANNOT_LISTEN
    senders, wake_senders = sender.start_all(settings, journal)
    messengers, wake_messengers = messenger.start_all(settings, journal)
    watch = _DiskWatch(settings)

    def tick() -> None:
        if close_complete_series(settings, journal, time.time()):
            ring_analyst()

    scheduler = BackgroundScheduler(timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1})
    scheduler.add_job(tick, "interval", seconds=COMPLETION_TICK_S, id="completion", misfire_grace_time=None)
    scheduler.add_job(watch.look, "interval", seconds=DISK_WATCH_S, next_run_time=datetime.now(UTC))
    scheduler.add_job(logbook.rotate, "interval", seconds=LOG_TURN_S, args=(settings.state_dir, settings.log))
    scheduler.start()
    log.info("ready")
    while not stop.is_set():
        if bell.wait(1.0):
            scheduler.modify_job("completion", next_run_time=datetime.now(UTC))
            wake_senders()
            if reading is not None:
                reading.wake()
            wake_messengers()
    scheduler.shutdown(wait=True)
    for each in (*senders, *messengers):
        each.stop()
    if reading is not None:
        reading.stop()
    if page is not None:
        page.stop()
    for each in (*senders, *messengers):
        each.join(timeout=3.0)
    log.info("stopped")
    return 0


class _DiskWatch:
    """Says once when room runs short, and once when it is back."""

    def __init__(self, settings: Settings) -> None:
        self._archive = Archive(settings.state_dir)
        self._minimum = settings.intake.minimum_free_bytes
        self._short = False

    def look(self) -> None:
        free = self._archive.free_bytes()
        short = free < self._minimum
        if short and not self._short:
            logbook.get().error("disk nearly full: associations are rejected", free_bytes=free, minimum=self._minimum)
        elif self._short and not short:
            logbook.get().info("disk has room again", free_bytes=free)
        self._short = short
