"""Fills a journal without a wire: arrivals, verdicts and results as the rooms write them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from triage_node.completion import Basis, Verdict
from triage_node.filing import Geometry, Header
from triage_node.identity import ResultIdentity
from triage_node.journal import intake, queue
from triage_node.study import (
    Assessment,
    CtGrade,
    CtSeverityScore,
    Laterality,
    LungMeasurement,
    Model,
    NotAnalysed,
    Reason,
)

if TYPE_CHECKING:
    from triage_node.journal import Journal
    from triage_node.study import PassedOver

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
MODEL = Model(name="threshold", version="1", digest="0" * 64)
COMPLETE = Verdict(basis=Basis.LONG_QUIET, due_at=0.0, words=("nothing new",))


def header(study: str, series: str, number: int, **other: object) -> Header:
    return Header(
        **{
            "sop_instance_uid": f"{series}.{number}",
            "sop_class_uid": CT,
            "study_instance_uid": study,
            "series_instance_uid": series,
            "modality": "CT",
            "accession_number": "A1",
            "study_date": "20200331",
            "study_description": "CHEST CT",
            "series_description": "LUNG 1.0",
            "volumetric": True,
            "frames": 1,
            "geometry": Geometry(position_mm=(0.0, 0.0, float(number)), orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
            **other,
        }
    )


def arrive(
    journal: Journal, one: Header, *, now: float, association: int | None = None, data: str | None = None
) -> bool:
    """Journal an instance as the receiver does."""
    kept = intake.Kept(
        header=one,
        transfer_syntax_uid=EXPLICIT,
        path=f"archive/{one.study_instance_uid}/{one.series_instance_uid}/{one.sop_instance_uid}.dcm",
        digest=hashlib.sha256((data or one.sop_instance_uid).encode()).hexdigest(),
        size_bytes=1000,
    )
    return intake.add_instance(journal, kept, association_id=association, now=now)


def close_all(journal: Journal, now: float) -> int:
    """Close every open series; returns how many were."""
    return sum(intake.close_series(journal, series, COMPLETE, now) for series in intake.open_series(journal))


def queued(journal: Journal, study: str, *, now: float, slices: int = 3, accession_number: str = "A1") -> None:
    """A study of one series that has arrived, was closed and waits for the analyst."""
    for number in range(slices):
        arrive(journal, header(study, f"{study}.1", number, accession_number=accession_number), now=now)
    close_all(journal, now)


def lung(laterality: Laterality, fraction: float) -> LungMeasurement:
    volume_ml = 2500.0
    lesion_ml = fraction * volume_ml
    return LungMeasurement(
        laterality=laterality, volume_ml=volume_ml, lesion_ml=lesion_ml, consolidation_ml=lesion_ml / 4
    )


def assessment(generation: int, right: float = 0.3, left: float = 0.1, probability: float | None = None) -> Assessment:
    return Assessment(
        right=lung(Laterality.RIGHT, right),
        left=lung(Laterality.LEFT, left),
        affected_fraction=max(right, left),
        affected_fraction_both=(right + left) / 2,
        consolidation_share=0.25,
        ct_grade=CtGrade.CT_2,
        ct_ss=CtSeverityScore.FROM_5_TO_25,
        covid_probability=probability,
        model=MODEL,
        generation=generation,
    )


def result(
    job: queue.Job,
    *,
    right: float = 0.3,
    left: float = 0.1,
    probability: float | None = None,
    refusal: str | None = None,
    passed_over: tuple[PassedOver, ...] = (),
) -> queue.Result:
    """The answer to a job, with an object of each kind."""
    identity = ResultIdentity(
        study_instance_uid=job.study_instance_uid,
        series_digest="a" * 64,
        model_digest="b" * 64,
        generation=job.generation,
        created_at=datetime.fromtimestamp(int(job.created_at), UTC),
    )
    return queue.Result(
        series_instance_uid=None if refusal else f"{job.study_instance_uid}.1",
        assessment=None if refusal else assessment(job.generation, right, left, probability),
        not_analysed=NotAnalysed(reason=Reason.GAP, words=refusal) if refusal else None,
        passed_over=passed_over,
        identity=identity,
        objects=tuple(
            queue.FiledObject(
                kind=kind,
                sop_class_uid=SEG,
                sop_instance_uid=identity.uid(kind),
                path=f"results/{job.study_instance_uid}/{job.generation:03d}-{kind}.dcm",
                size_bytes=10,
            )
            for kind in ("report", "lesions", "lungs", "overview")
        ),
        duration_s=1.5,
    )
