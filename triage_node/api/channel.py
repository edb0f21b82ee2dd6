"""Event reports of UPS-RS: a stream for each AE title that has subscribed (PS3.18 sections 11.10 to 11.14).

The standard has them on a web socket; here they come as server-sent events, the same data sets one a message, since
the page's access control knows no web sockets. What waits for a subscriber is in the journal, so that nothing is lost
while nobody listens; what is written to a connection that breaks at that moment may be.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from triage_node import conformance
from triage_node.api import dicom_json
from triage_node.journal import subscriptions
from triage_node.ups import reports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from triage_node.journal import Journal
    from triage_node.journal.subscriptions import Report

POLL_S: Final = 0.25


class Channels:
    """One open stream at most for each subscriber: a newer one takes the place of the older."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._newest: dict[str, object] = {}
        self._closed = False

    def close(self) -> None:
        """End all streams."""
        self._closed = True

    async def messages(
        self, ae_title: str, readiness: Callable[[str], str], may_hear: Callable[[], bool]
    ) -> AsyncIterator[ServerSentEvent]:
        """What a subscriber is to hear, in its order, for as long as it listens; `readiness` is that of a workitem.

        The stream ends when somebody else has taken the title who may not be listened to (`may_hear`).
        """
        mine = self._newest[ae_title] = object()
        try:
            while not self._closed and self._newest.get(ae_title) is mine:
                batch = await run_in_threadpool(subscriptions.due, self._journal, ae_title, time.time())
                if batch and not await run_in_threadpool(may_hear):
                    return
                for report in batch:
                    said = await run_in_threadpool(event_report, report, readiness)
                    yield ServerSentEvent(json.dumps(said), event="report", id=str(report.id))
                    await run_in_threadpool(_delivered, self._journal, report)
                if not batch:
                    await asyncio.sleep(POLL_S)
        finally:
            if self._newest.get(ae_title) is mine:
                del self._newest[ae_title]


def _delivered(journal: Journal, report: Report) -> None:
    subscriptions.record(journal, report, "delivered", "written to the event stream", time.time())


def event_report(report: Report, readiness: Callable[[str], str]) -> dict[str, Any]:
    """One report as a data set in JSON: what a message of DIMSE would say of itself, and its event information."""
    event = report.event
    said = reports.information(event, report.state, readiness(event.workitem_uid))
    return {
        # PS3.18 section 11.14.1: Affected SOP Class UID, Message ID, Affected SOP Instance UID and Event Type ID
        "00000002": {"vr": "UI", "Value": [conformance.UPS_PUSH]},
        "00000110": {"vr": "US", "Value": [report.id % 65_536]},
        "00001000": {"vr": "UI", "Value": [event.workitem_uid]},
        "00001002": {"vr": "US", "Value": [int(event.kind)]},
        **dicom_json.written(said),
    }
