"""A page with the API beside it, and programs that ask it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tests import builders, filed, wire, worklists
from tests.guarded import AUTHORITIES, PASSWORDS, USERS
from tests.worklists import TWELVE
from triage_node.api import Api
from triage_node.config import DestinationSection, Settings
from triage_node.journal import Journal, messages, outbox, queue
from triage_node.web import Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DELIVERED = "1.2.3.4"  # a study that was delivered to an archive and refused by a RIS
PACS = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
RIS = {"name": "ris", "host": "127.0.0.1", "port": 2575}


def fill(folder: Path) -> None:
    """A journal in which everything has happened that the API tells of."""
    journal = Journal(folder, "test")
    now = time.time()
    worklists.fill(journal, TWELVE, now)
    filed.queued(journal, DELIVERED, now=now)
    while (job := queue.claim(journal, "test", now)) is not None:
        if job.study_instance_uid == DELIVERED:
            break
    assert job is not None
    answer = filed.result(job, probability=0.5)
    assert queue.finish(journal, job, "test", answer, (DestinationSection(**PACS),), now, systems=("ris",))  # type: ignore[arg-type]
    for outgoing in outbox.due(journal, "pacs", now):
        outbox.begin(journal, outgoing, now)
        outbox.record(journal, outgoing, "stored", status=0, words="Success", now=now, retry_at=None)
    for message in messages.due(journal, "ris", now):
        messages.begin(journal, message, now)
        messages.record(journal, message, "refused", code="AE", words="AE: no such order", now=now, retry_at=None)
    (image,) = journal.rows("select path from instances where study_instance_uid = ? limit 1", DELIVERED)
    path = folder / image["path"]
    path.parent.mkdir(parents=True)
    builders.write(path, wire.ct(StudyInstanceUID=DELIVERED, PatientID="P-1", PatientName="Doe^Jane"))
    journal.close()


def settings(folder: Path, *, users: bool = True, **sections: Any) -> Settings:
    """Both kinds of API, with the users of `guarded`."""
    return Settings.model_validate(
        {
            "folder": folder,
            "web": {"users": USERS if users else ()},
            "api": {"enabled": True, "ups_rs": True, "subscriber_ae_titles": ("STATION",)},
            "destinations": (PACS,),
            "hl7": (RIS,),
            **sections,
        }
    )


@contextmanager
def served(chosen: Settings, folder: Path) -> Iterator[Page]:
    """A page with the API, as the desk makes it."""
    journal = Journal(folder, "desk")
    page = Page(chosen, journal, port=0, also=Api(chosen, journal))
    page.start()
    try:
        yield page
    finally:
        page.stop()
        journal.close()


def program(page: Page, name: str | None = "reader", **options: Any) -> httpx.Client:
    """Something that is no browser: it sends its password with every request."""
    who = None if name is None else (name, PASSWORDS[name])
    return httpx.Client(base_url=page.url, auth=who, verify=AUTHORITIES, timeout=20.0, **options)
