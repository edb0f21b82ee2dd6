"""All reading tasks in the order of the list, kept in memory and brought up to date when somebody asks.

What is open comes first, exactly as the node's own list has it: an unjudged study is never worse off here than in order
of arrival, and nobody waits longer than on the page. The priority of each is the most urgent at or behind its place,
so that who sorts by priority and keeps the order otherwise gets the same list. What was ordered and has no images yet
stands behind, with the priority of its order; what has ended follows, the latest first. Only workitems that changed are
read again.
"""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from triage_node import logbook, worklist
from triage_node.journal import transitions
from triage_node.study import ReadingPriority
from triage_node.ups import procedure_step, values
from triage_node.ups.procedure_step import Entry, Known
from triage_node.workitem import OPEN, StepState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.journal.views import StudyRow
    from triage_node.priority import Turn
    from triage_node.ups.values import Values

AGES_S = 10.0  # so often the order is made anew while nothing happens: waiting itself moves studies
_LEVELS = {level: number for number, level in enumerate(ReadingPriority)}


def spare_the_collector() -> None:
    """Look for cycles of garbage less often.

    The order of thousands of studies is made anew with each result; looking through all of them for cycles nearly each
    time takes longer than making it.
    """
    gc.set_threshold(100_000, 50, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """The reading tasks as they stood at one moment; an entry is made of one when somebody looks at it."""

    places: tuple[Known, ...]
    listed: dict[str, tuple[StudyRow, Turn]]  # by Study Instance UID
    arriving: frozenset[str]
    priorities: dict[str, ReadingPriority]  # by UID of the workitem
    now: float

    def entry(self, known: Known) -> Entry:
        uid = known.item.study_instance_uid or ""
        row, turn = self.listed.get(uid, (None, None))
        # one that came after this order was made has its own level until the next
        priority = self.priorities.get(known.item.workitem_uid)
        return Entry(
            known=known,
            row=row,
            turn=turn,
            priority=priority or procedure_step.level_of(known.item, turn, known.rules, self.now),
            is_arriving=uid in self.arriving,
            now=self.now,
        )


class Catalogue:
    """The reading tasks of a journal; several threads may ask."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._ended: tuple[Known, ...] | None = None  # None: to be put in order
        self._headers: dict[str, Values] = {}
        self._seen_event = -1  # the last workitem event that is in here
        self._seen_header = 0
        self._version = -1
        self._order = _Order(places=(), listed={}, arriving=frozenset(), priorities={}, now=float("-inf"))

    def entries(self, now: float | None = None) -> Iterator[Entry]:
        """Every reading task, in order; made one by one, as they are asked for."""
        order = self._fresh(time.time() if now is None else now)
        return (order.entry(known) for known in order.places)

    def entry(self, workitem_uid: str) -> Entry | None:
        """One reading task."""
        order = self._fresh(time.time())
        known = self._known.get(workitem_uid)
        return None if known is None else order.entry(known)

    def priorities(self, now: float) -> dict[str, ReadingPriority]:
        """Priority of every reading task that nobody has claimed, by its UID."""
        order = self._fresh(now)
        return {
            known.item.workitem_uid: order.priorities[known.item.workitem_uid]
            for known in order.places
            if known.item.state is StepState.SCHEDULED
        }

    def _fresh(self, now: float) -> _Order:
        with self._lock:
            version = self._journal.version()
            if version != self._version or now - self._order.now >= AGES_S:
                self._read_workitems()
                self._read_headers()
                self._order = self._arranged(now)
                self._version = version
            return self._order

    def _read_workitems(self) -> None:
        newest = self._journal.row("select coalesce(max(id), 0) as id from workitem_events")
        assert newest is not None
        if self._seen_event < 0 or newest["id"] < self._seen_event:  # smaller: the events were counted from 1 again
            rows = self._journal.rows(f"select {transitions.COLUMNS} from workitems")
        elif newest["id"] > self._seen_event:
            rows = self._journal.rows(
                f"select {transitions.COLUMNS} from workitems where workitem_uid in"
                " (select workitem_uid from workitem_events where id > ?)",
                self._seen_event,
            )
        else:
            return
        for row in rows:
            item = transitions.workitem_of(row)
            if item.state not in OPEN:
                self._ended = None
            self._known[item.workitem_uid] = Known(
                item=item,
                headers=self._headers,
                ordered=_read(item.ordered_json, item.workitem_uid),
                performed=_read(item.performed_json, item.workitem_uid),
                label=self._settings.ups.worklist_label,
                ae_title=self._settings.node.ae_title,
                rules=self._settings.worklist,
                inputs=partial(self._inputs, item.study_instance_uid or ""),
            )
        self._seen_event = newest["id"]

    def _read_headers(self) -> None:
        rows = self._journal.rows(
            "select rowid as number, study_instance_uid, header_json from study_headers where rowid > ? order by rowid",
            self._seen_header,
        )
        for row in rows:
            self._headers[row["study_instance_uid"]] = _read(row["header_json"], row["study_instance_uid"])
            self._seen_header = row["number"]

    def _arranged(self, now: float) -> _Order:
        listed = {
            row.study_instance_uid: (row, turn)
            for row, turn in worklist.reading_turns(self._journal, self._settings, now)
        }
        arriving = self._journal.rows("select distinct study_instance_uid from series where state = 'open'")
        places: list[tuple[float, int, float, str]] = []
        levels: dict[str, ReadingPriority] = {}
        for uid, known in self._known.items():
            _, turn = listed.get(known.item.study_instance_uid or "", (None, None))
            levels[uid] = level = procedure_step.level_of(known.item, turn, self._settings.worklist, now)
            if known.item.state in OPEN:
                place = (float("inf"), _LEVELS[level]) if turn is None else (turn.rank, 0)
                places.append((*place, known.item.created_at, uid))
        places.sort()
        most_urgent = ReadingPriority.LOW
        for rank, *_, uid in reversed(places):
            if rank != float("inf"):  # an order without images, of which nothing can be read yet, lifts nobody
                levels[uid] = most_urgent = min(most_urgent, levels[uid], key=_LEVELS.__getitem__)
        return _Order(
            places=(*(self._known[uid] for *_, uid in places), *self._ended_last_first()),
            listed=listed,
            arriving=frozenset(row["study_instance_uid"] for row in arriving),
            priorities=levels,
            now=now,
        )

    def _ended_last_first(self) -> tuple[Known, ...]:
        if self._ended is None:
            ended = [known for known in self._known.values() if known.item.state not in OPEN]
            ended.sort(key=lambda known: (-(known.item.ended_at or 0.0), known.item.workitem_uid))
            self._ended = tuple(ended)
        return self._ended

    def _inputs(self, study: str) -> tuple[Values, ...]:
        """The images of a study by series (PS3.3 table 10-3b), and the AE titles that have sent them."""
        rows = self._journal.rows(
            "select series_instance_uid, sop_class_uid, sop_instance_uid, peer_ae from instances left join associations"
            " on associations.id = association_id where study_instance_uid = ? and sop_instance_uid not in"
            " (select sop_instance_uid from objects) order by instances.id",
            study,
        )
        series: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            series.setdefault(row["series_instance_uid"], []).append(row)
        return tuple(_input(study, uid, found) for uid, found in series.items())


def _read(text: str | None, uid: str) -> Values:
    try:
        return values.from_json(text)
    except Exception:  # noqa: BLE001  # a border round each: one that cannot be read must not end the list
        logbook.get().exception("what is kept of a reading task cannot be read", uid=uid)
        return {}


def _input(study: str, series: str, rows: list[dict[str, Any]]) -> Values:
    senders = dict.fromkeys(row["peer_ae"] for row in rows if row["peer_ae"])
    return values.of(
        TypeOfInstances="DICOM",
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        ReferencedSOPSequence=(
            values.of(ReferencedSOPClassUID=row["sop_class_uid"], ReferencedSOPInstanceUID=row["sop_instance_uid"])
            for row in rows
        ),
        DICOMRetrievalSequence=(values.of(RetrieveAETitle=ae_title) for ae_title in senders),
    )
