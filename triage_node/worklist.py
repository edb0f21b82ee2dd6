"""The reading worklist and the story of a study, as the command line and the page show them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from triage_node import priority, reading_order
from triage_node.journal import circuits, correspondence, messages, outbox, queue, views
from triage_node.study import NO_CARD, NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from triage_node.config import Settings, WorklistSection
    from triage_node.journal import Journal
    from triage_node.study import Assessment, CtGrade, OrderPriority, ReadingPriority, StudyState


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistItem:
    """One study on the list; the fields are the JSON that `triage-node worklist --json` prints."""

    rank: int
    arrival_rank: int
    study_instance_uid: str
    accession_number: str
    description: str
    study_date: str
    arrived_at: str | None  # ISO 8601, UTC
    waiting_s: float
    state: StudyState
    reading_priority: ReadingPriority
    order_priority: OrderPriority | None  # what came with the study
    covid_probability: float | None
    affected_fraction_right: float | None
    affected_fraction_left: float | None
    affected_fraction: float | None
    consolidation_share: float | None
    ct_grade: CtGrade | None
    ct_ss: int | None
    method: str | None
    generation: int | None
    has_overview: bool
    explanation: str  # of the place, one sentence
    reasons: tuple[str, ...]  # for priority and place


def reading_list(journal: Journal, settings: Settings, now: float, first: int | None = None) -> list[WorklistItem]:
    """Every study in reading order, or the `first` so many of all, which is quicker."""
    return _kept(journal, settings).items(journal, now, first)


def reading_turns(journal: Journal, settings: Settings, now: float) -> list[tuple[views.StudyRow, priority.Turn]]:
    """The same order without the words: every study with its place; `item` makes an entry of the list of one."""
    return _kept(journal, settings).turns(journal, now)


def _kept(journal: Journal, settings: Settings) -> _Kept:
    kept = journal.memory.get(_Kept)
    if not isinstance(kept, _Kept) or kept.rules != settings.worklist:
        kept = journal.memory[_Kept] = _Kept(settings.worklist)
    return kept


class _Kept:
    """What is known of each study, read and judged once; the journal is asked for what has changed since."""

    def __init__(self, rules: WorklistSection) -> None:
        self.rules = rules
        self._lock = threading.Lock()
        self._revision = -1
        self._rows: dict[str, views.StudyRow] = {}
        self._standings: dict[str, priority.Standing] = {}

    def items(self, journal: Journal, now: float, first: int | None) -> list[WorklistItem]:
        return [item(row, turn, self.rules, now) for row, turn in self.turns(journal, now, first)]

    def turns(
        self, journal: Journal, now: float, first: int | None = None
    ) -> list[tuple[views.StudyRow, priority.Turn]]:
        with self._lock:
            self._refresh(journal)
            rows, standings = self._rows, list(self._standings.values())
            pace_s = reading_order.pace(views.taken_at(journal, reading_order.PACE_OVER + 1))
            turns = priority.turns(standings, self.rules, now, pace_s, first=first)
            return [(rows[turn.standing.facts.study_instance_uid], turn) for turn in turns]

    def _refresh(self, journal: Journal) -> None:
        changed, revision, number = views.studies_after(journal, self._revision)
        self._take(changed)
        if number != len(self._rows):  # some were removed, which leaves no trace
            self._rows, self._standings = {}, {}
            changed, revision, _ = views.studies_after(journal, -1)
            self._take(changed)
        self._revision = revision

    def _take(self, changed: list[views.StudyRow]) -> None:
        for row in changed:
            self._rows[row.study_instance_uid] = row
            self._standings[row.study_instance_uid] = priority.standing(facts_of(row), self.rules)


def facts_of(row: views.StudyRow) -> priority.Facts:
    """What the order of a study depends on."""
    assessment = row.assessment
    return priority.Facts(
        study_instance_uid=row.study_instance_uid,
        arrived_at=row.arrived_at,
        state=row.state,
        covid_probability=assessment.covid_probability if assessment else None,
        affected_fraction_right=assessment.right.affected_fraction if assessment and assessment.right else None,
        affected_fraction_left=assessment.left.affected_fraction if assessment and assessment.left else None,
        operating_point=assessment.model.operating_point if assessment else NO_CARD,
        words=row.not_analysed.words if row.not_analysed else "",
        order_priority=row.order_priority,
    )


def item(row: views.StudyRow, turn: priority.Turn, rules: WorklistSection, now: float) -> WorklistItem:
    """One study on the list, in words and numbers."""
    facts, assessment = turn.standing.facts, row.assessment
    place = priority.place(turn, rules, now)
    return WorklistItem(
        rank=place.rank,
        arrival_rank=place.arrival_rank,
        study_instance_uid=row.study_instance_uid,
        accession_number=row.accession_number,
        description=row.description,
        study_date=row.study_date,
        arrived_at=iso(row.arrived_at),
        waiting_s=round(max(0.0, now - row.arrived_at), 1),
        state=row.state,
        reading_priority=place.reading_priority,
        order_priority=row.order_priority,
        covid_probability=facts.covid_probability,
        affected_fraction_right=facts.affected_fraction_right,
        affected_fraction_left=facts.affected_fraction_left,
        affected_fraction=facts.affected_fraction,
        consolidation_share=assessment.consolidation_share if assessment else None,
        ct_grade=assessment.ct_grade if assessment else None,
        ct_ss=int(assessment.ct_ss) if assessment else None,
        method=assessment.model.name if assessment else None,
        generation=row.generation,
        has_overview=assessment is not None,
        explanation=place.explanation,
        reasons=place.reasons,
    )


_TIMES = ("stored_at", "committed_at", "confirmed_at", "next_at")


def study_report(journal: Journal, study_instance_uid: str) -> dict[str, object] | None:
    """All that the node knows of a study, ready for JSON; None if it is unknown."""
    row = views.study(journal, study_instance_uid)
    if row is None:
        return None
    judged, passed_over, duration_s = views.judged_series(journal, row.result_id)
    reasons = {entry.series_instance_uid: entry.not_analysed for entry in passed_over}
    return {
        "study_instance_uid": row.study_instance_uid,
        "accession_number": row.accession_number,
        "description": row.description,
        "study_date": row.study_date,
        "arrived_at": iso(row.arrived_at),
        "state": row.state,
        "generation": row.generation,
        "judged_at": iso(row.judged_at),
        "seconds": duration_s if row.result_id is not None else None,
        "notice": NOT_FOR_DIAGNOSTIC_USE,
        "not_analysed": asdict(row.not_analysed) if row.not_analysed else None,
        "measurements": measurements(row.assessment) if row.assessment else None,
        "series": [
            {
                "series_instance_uid": entry.series_instance_uid,
                "modality": entry.modality,
                "description": entry.description,
                "instances": entry.instances,
                "state": entry.state,
                "generation": entry.generation,
                "closed_at": iso(entry.closed_at),
                "basis": entry.basis,
                "evidence": list(entry.evidence),
                "judged": entry.series_instance_uid == judged,
                "refusal": asdict(reasons[entry.series_instance_uid]) if entry.series_instance_uid in reasons else None,
            }
            for entry in views.series(journal, study_instance_uid)
        ],
        "objects": [
            {
                **asdict(entry),
                **{name: iso(getattr(entry, name)) for name in _TIMES},
                "current": entry.generation == row.generation,
                "deliveries": [{**asdict(one), "at": iso(one.at)} for one in entry.deliveries],
            }
            for entry in views.objects(journal, study_instance_uid)
        ],
        "messages": [
            {
                **asdict(entry),
                "kind": correspondence.KIND,
                "acknowledged_at": iso(entry.acknowledged_at),
                "next_at": iso(entry.next_at),
                "current": entry.generation == row.generation,
                "deliveries": [{**asdict(one), "at": iso(one.at)} for one in entry.deliveries],
            }
            for entry in correspondence.ledger(journal, study_instance_uid)
        ],
        "events": [{**asdict(entry), "at": iso(entry.at)} for entry in views.events(journal, study_instance_uid)],
    }


def measurements(assessment: Assessment) -> dict[str, object]:
    """An assessment in words that need no manual; volumes in ml, fractions 0..1 of the lung's or lungs' volume."""
    lungs = {
        lung.laterality.value: {
            "volume_ml": round(lung.volume_ml, 1),
            "lesion_ml": round(lung.lesion_ml, 1),
            "ground_glass_ml": round(lung.ground_glass_ml, 1),
            "consolidation_ml": round(lung.consolidation_ml, 1),
            "affected_fraction": lung.affected_fraction,
            "ground_glass_fraction": lung.ground_glass_fraction,
            "consolidation_fraction": lung.consolidation_fraction,
        }
        for lung in assessment.lungs
    }
    return {
        "right": lungs.get("right"),
        "left": lungs.get("left"),
        "both": {
            "volume_ml": round(assessment.volume_ml, 1),
            "lesion_ml": round(assessment.lesion_ml, 1),
            "ground_glass_ml": round(assessment.ground_glass_ml, 1),
            "consolidation_ml": round(assessment.consolidation_ml, 1),
            "affected_fraction": assessment.affected_fraction_both,
            "ground_glass_fraction": assessment.ground_glass_fraction_both,
            "consolidation_fraction": assessment.consolidation_fraction_both,
        },
        "affected_fraction": assessment.affected_fraction,
        "affected_fraction_both": assessment.affected_fraction_both,
        "consolidation_share": assessment.consolidation_share,
        "consolidation_from_hu": assessment.consolidation_from_hu,
        "ct_grade": assessment.ct_grade,
        "ct_ss": int(assessment.ct_ss),
        "covid_probability": assessment.covid_probability,
        "trust": assessment.model.trust,
        "operating_point": asdict(assessment.operating_point),
        "model": asdict(assessment.model),
        "generation": assessment.generation,
        "warnings": list(assessment.warnings),
    }


def status(journal: Journal, names: tuple[str, ...] = ()) -> dict[str, object]:
    """The numbers of one screen: what came, what waits, what failed, which destinations (of these names) answer."""
    depth = {**outbox.depth(journal), **messages.depth(journal)}  # their names are different
    return {
        **views.totals(journal),
        "jobs": queue.depth(journal),
        "deliveries": depth,
        "destinations": _destinations(journal, names, depth),
    }


def _destinations(
    journal: Journal, names: tuple[str, ...], depth: dict[str, dict[str, int]]
) -> list[dict[str, object]]:
    unproven, known = outbox.unproven(journal), circuits.every(journal)
    dead = Counter(letter.destination for letter in _dead_letters(journal))
    found: list[dict[str, object]] = []
    for name in dict.fromkeys((*names, *depth)):
        circuit = known.get(name)
        found.append(
            {
                "name": name,
                "state": circuit.state if circuit else "untried",
                "since": iso(circuit.since) if circuit else None,
                "next_probe_at": iso(circuit.probe_at) if circuit else None,
                "words": circuit.words if circuit else "",
                "queued": depth.get(name, {}).get("queued", 0),
                "awaiting": unproven.get(name, 0),
                "dead_letters": dead[name],
                "deliveries": depth.get(name, {}),
            }
        )
    return found


def dead_letters(journal: Journal) -> list[dict[str, object]]:
    """What will not be sent again by itself, ready for JSON."""
    return [{**asdict(letter), "at": iso(letter.at)} for letter in _dead_letters(journal)]


def _dead_letters(journal: Journal) -> list[views.DeadLetter]:
    found = [*views.dead_letters(journal), *correspondence.dead_letters(journal)]
    return sorted(found, key=lambda letter: letter.at)


def iso(at: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
