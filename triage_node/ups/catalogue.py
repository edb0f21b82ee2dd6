"""All reading tasks in the order of the list, kept in memory and brought up to date when somebody asks.

What is open comes first: by priority, then as the node's own list has it. What has ended follows, the latest first.
Only workitems that changed are read again.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from triage_node import worklist
from triage_node.journal import transitions
from triage_node.study import ReadingPriority
from triage_node.ups import values
from triage_node.ups.procedure_step import Entry
from triage_node.workitem import OPEN

if TYPE_CHECKING:
    from triage_node.config import Settings
    from triage_node.journal import Journal
    from triage_node.journal.transitions import Workitem
    from triage_node.journal.views import StudyRow
    from triage_node.priority import Turn
    from triage_node.ups.values import Values

AGES_S = 1.0  # so often the order is made anew while nothing happens: waiting itself moves studies
_LEVELS = {level: number for number, level in enumerate(ReadingPriority)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A workitem with what was ordered and performed, parsed."""

    item: Workitem
    ordered: Values
    performed: Values


class Catalogue:
    """The reading tasks of a journal; several threads may ask."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._headers: dict[str, Values] = {}
        self._seen_event = -1  # the last workitem event that is in here
        self._seen_header = 0
        self._version = -1
        self._made_at = 0.0
        self._entries: dict[str, Entry] = {}

    def entries(self, now: float | None = None) -> tuple[Entry, ...]:
        """Every reading task, in order."""
        return tuple(self._fresh(time.time() if now is None else now).values())

    def entry(self, workitem_uid: str) -> Entry | None:
        """One reading task."""
        return self._fresh(time.time()).get(workitem_uid)

    def _fresh(self, now: float) -> dict[str, Entry]:
        with self._lock:
            version = self._journal.version()
            if version != self._version or now - self._made_at >= AGES_S:
                self._read_workitems()
                self._read_headers()
                self._entries = self._arranged(now)
                self._version, self._made_at = version, now
            return self._entries

    def _read_workitems(self) -> None:
        newest = self._journal.row("select coalesce(max(id), 0) as id from workitem_events")
        assert newest is not None
        if self._seen_event < 0:
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
            self._kept[item.workitem_uid] = _Kept(
                item=item,
                ordered=values.from_json(item.ordered_json),
                performed=values.from_json(item.performed_json),
            )
        self._seen_event = newest["id"]

    def _read_headers(self) -> None:
        rows = self._journal.rows(
            "select rowid as number, study_instance_uid, header_json from study_headers where rowid > ? order by rowid",
            self._seen_header,
        )
        for row in rows:
            self._headers[row["study_instance_uid"]] = values.from_json(row["header_json"])
            self._seen_header = row["number"]

    def _arranged(self, now: float) -> dict[str, Entry]:
        listed = {
            row.study_instance_uid: (row, turn)
            for row, turn in worklist.reading_turns(self._journal, self._settings, now)
        }
        arriving = {
            row["study_instance_uid"]
            for row in self._journal.rows("select distinct study_instance_uid from series where state = 'open'")
        }
        found = [self._entry(kept, listed, arriving, now) for kept in self._kept.values()]
        found.sort(key=_place)
        return {entry.item.workitem_uid: entry for entry in found}

    def _entry(self, kept: _Kept, listed: dict[str, tuple[StudyRow, Turn]], arriving: set[str], now: float) -> Entry:
        uid = kept.item.study_instance_uid or ""
        row, turn = listed.get(uid, (None, None))
        return Entry(
            item=kept.item,
            row=row,
            turn=turn,
            header=self._headers.get(uid, {}),
            ordered=kept.ordered,
            performed=kept.performed,
            label=self._settings.ups.worklist_label,
            ae_title=self._settings.node.ae_title,
            is_arriving=uid in arriving,
            rules=self._settings.worklist,
            now=now,
            inputs=partial(self._inputs, uid),
        )

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


def _place(entry: Entry) -> tuple[Any, ...]:
    item = entry.item
    if item.state not in OPEN:
        return (1, -(item.ended_at or 0.0), item.workitem_uid)
    rank = float("inf") if entry.turn is None else entry.turn.rank
    return (0, _LEVELS[entry.priority], rank, item.created_at, item.workitem_uid)
