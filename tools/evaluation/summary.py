"""Figures of many scans -> the figures of a method: means over scans, agreement with experts, intervals.

One figure a scan, then the mean over scans. Single slices count in the tables by source alone, unless there is
nothing else: a slice is no scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evaluation import agreement, bootstrap
from evaluation.figures import MASKS, OVERLAPS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.cases import Case
    from evaluation.figures import Figures

Numbers = npt.NDArray[np.float64]

PAIRS = (
    "fraction",
    "fraction_worse",
    "ground_glass_fraction",
    "consolidation_fraction",
    "lungs_ml",
    "lesion_ml",
    "ground_glass_ml",
    "consolidation_ml",
)
CT_SS, CT_GRADES = (1, 2, 3, 4, 5), (0, 1, 2, 3, 4)
SCORE, GROUP = "score", "group"  # columns that are not figures of a scan
HEALTHY, OTHER, COVID = 0.0, 1.0, 2.0
GROUPS = {"healthy": HEALTHY, "other": OTHER, "covid": COVID}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One scan as one method judged it."""

    case: Case
    figures: Figures
    not_scored: dict[str, str]  # a figure or a mask -> the reason
    seconds: float | None = None  # of the method alone, without reading
    peak_memory_mib: float | None = None
    failed: str | None = None  # why it was not judged
    warnings: tuple[str, ...] = ()

    def column(self, name: str) -> float | None:
        """A figure by name, or what the AUC needs: the score for COVID-19 and the group."""
        if name == SCORE:
            return self.figures.get("covid_probability", self.figures.get("predicted_fraction"))
        if name == GROUP:
            return GROUPS[self.case.group] if self.case.group is not None and self.case.kind != "slice" else None
        return self.figures.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of a method: the columns it needs of every scan, the groups that count (None: all), and the formula."""

    name: str
    columns: tuple[str, ...]
    formula: Callable[..., float | None]
    groups: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A metric's value with its 95 % interval and from how many scans and patients it comes."""

    value: float | None
    interval: tuple[float, float] | None
    deviation: float | None  # standard deviation over the scans, of means alone
    scans: int
    patients: int


def mean(values: Numbers) -> float | None:
    """The mean over scans."""
    return float(values.mean()) if len(values) else None


def _accuracy(expert: Numbers, predicted: Numbers) -> float | None:
    return float(np.mean(expert == predicted)) if len(expert) else None


def _within_one(expert: Numbers, predicted: Numbers) -> float | None:
    return float(np.mean(np.abs(expert - predicted) <= 1)) if len(expert) else None


def _auc(scores: Numbers, groups: Numbers) -> float | None:
    return agreement.auc(scores, groups == COVID)


def _mean_of_group(fractions: Numbers, _: Numbers) -> float | None:
    return mean(fractions)


def _low(predicted: Numbers, expert: Numbers) -> float | None:
    limits = agreement.bland_altman(predicted, expert)
    return limits.low if limits else None


def _high(predicted: Numbers, expert: Numbers) -> float | None:
    limits = agreement.bland_altman(predicted, expert)
    return limits.high if limits else None


def _metrics() -> tuple[Metric, ...]:
    found = [
        Metric(name="auc_vs_healthy", columns=(SCORE, GROUP), formula=_auc, groups=(COVID, HEALTHY)),
        Metric(name="auc_vs_all_others", columns=(SCORE, GROUP), formula=_auc, groups=tuple(GROUPS.values())),
        Metric(
            name="fraction_in_healthy",
            columns=("predicted_fraction", GROUP),
            formula=_mean_of_group,
            groups=(HEALTHY,),
        ),
    ]
    names = [f"{mask}_{what}" for mask in MASKS for what in OVERLAPS] + ["right_lung_dice", "left_lung_dice"]
    for pair in PAIRS:
        both = (f"predicted_{pair}", f"expert_{pair}")
        names += [f"{pair}_mae", f"{pair}_bias"]
        found += [
            Metric(name=f"{pair}_limit_low", columns=both, formula=_low),
            Metric(name=f"{pair}_limit_high", columns=both, formula=_high),
            Metric(name=f"{pair}_spearman", columns=both, formula=agreement.spearman),
            Metric(name=f"{pair}_pearson", columns=both, formula=agreement.pearson),
        ]
    found += [Metric(name=name, columns=(name,), formula=mean) for name in names]
    for scale in ("ct_ss", "ct_grade"):
        both = (f"expert_{scale}", f"predicted_{scale}")
        found.append(Metric(name=f"{scale}_accuracy", columns=both, formula=_accuracy))
        found.append(Metric(name=f"{scale}_within_one", columns=both, formula=_within_one))
    return tuple(found)


METRICS = _metrics()


def main_scans(scans: Sequence[Scan]) -> list[Scan]:
    """The scans that the figures of a method come from: whole ones, or slices where there is nothing else."""
    return [scan for scan in scans if scan.case.kind != "slice"] or list(scans)


def value_of(metric: Metric, scans: Sequence[Scan], *, resamples: int) -> Value:
    """A metric over the scans that have all it needs."""
    rows = [(scan.case.patient, [scan.column(name) for name in metric.columns]) for scan in scans]
    whole = [(patient, row) for patient, row in rows if None not in row]
    if metric.groups is not None:
        whole = [(patient, row) for patient, row in whole if row[-1] in metric.groups]  # the group is the last column
    columns = [np.array([row[i] for _, row in whole], dtype=np.float64) for i in range(len(metric.columns))]
    patients = [patient for patient, _ in whole]
    value = metric.formula(*columns)
    spread = metric.formula is mean and len(whole) > 1
    sizes = _patients_by_class(metric, whole)
    bounded = value is not None and min(sizes, default=0) >= bootstrap.LEAST_PATIENTS
    return Value(
        value=value,
        interval=None
        if not bounded
        else bootstrap.interval(
            patients, lambda drawn: metric.formula(*(c[drawn] for c in columns)), resamples=resamples
        ),
        deviation=float(columns[0].std(ddof=1)) if spread else None,
        scans=len(whole),
        patients=len(set(patients)),
    )


def _patients_by_class(metric: Metric, rows: Sequence[tuple[str, list[float | None]]]) -> list[int]:
    """Patients that a metric has; of an AUC those with and those without COVID-19: one of a kind bounds nothing."""
    if metric.formula is not _auc:
        return [len({patient for patient, _ in rows})]
    return [len({patient for patient, row in rows if (row[-1] == COVID) is covid}) for covid in (True, False)]


def values_of(scans: Sequence[Scan], *, resamples: int = bootstrap.RESAMPLES) -> dict[str, Value]:
    """Every metric of one method by name."""
    judged = main_scans(scans)
    return {metric.name: value_of(metric, judged, resamples=resamples) for metric in METRICS}


def confusions(scans: Sequence[Scan]) -> dict[str, list[list[int]]]:
    """`ct_ss_confusion` and `ct_grade_confusion`: a row for every class of the expert."""
    found = {}
    for scale, classes in (("ct_ss", CT_SS), ("ct_grade", CT_GRADES)):
        pairs = [(scan.column(f"expert_{scale}"), scan.column(f"predicted_{scale}")) for scan in main_scans(scans)]
        whole = np.array([pair for pair in pairs if None not in pair], dtype=np.float64).reshape(-1, 2)
        found[f"{scale}_confusion"] = agreement.confusion(whole[:, 0], whole[:, 1], classes)
    return found


def cautions(scans: Sequence[Scan]) -> list[str]:
    """What must be known before the figures are believed: size, and sources that have one class alone."""
    judged = [scan for scan in main_scans(scans) if scan.failed is None]
    patients = len({scan.case.patient for scan in judged})
    found = [f"{len(judged)} scans of {patients} patients"]
    labelled = [scan for scan in judged if scan.column(GROUP) is not None]
    sources = {covid: {scan.case.source for scan in labelled if scan.case.covid is covid} for covid in (True, False)}
    counts = {group: sum(scan.case.group == group for scan in labelled) for group in GROUPS}
    if counts["covid"] and counts["healthy"] + counts["other"]:
        score = (
            "the probability" if any("covid_probability" in s.figures for s in labelled) else "the affected fraction"
        )
        found.append(
            f"AUC by {score}: {counts['covid']} with COVID-19, {counts['healthy']} healthy, {counts['other']} other"
        )
        if apart := sources[True] - sources[False]:
            found.append(
                f"the sources {', '.join(sorted(apart))} have patients with COVID-19 alone: "
                "the AUC may tell sources apart instead of the disease"
            )
    return found


def as_json(scans: Sequence[Scan], *, resamples: int = bootstrap.RESAMPLES) -> dict[str, Any]:
    """The figures of one method as JSON values: `<metric>`, `intervals`, `deviations`, `counts`, sources, scans."""
    values = values_of(scans, resamples=resamples)
    sources = dict.fromkeys(scan.case.source for scan in scans)
    return {
        **{name: value.value for name, value in values.items()},
        **confusions(scans),
        "intervals": {name: list(value.interval) for name, value in values.items() if value.interval},
        "deviations": {name: value.deviation for name, value in values.items() if value.deviation is not None},
        "counts": {name: {"scans": value.scans, "patients": value.patients} for name, value in values.items()},
        "cautions": cautions(scans),
        "by_source": {source: _by_source([scan for scan in scans if scan.case.source == source]) for source in sources},
        "failed": sum(scan.failed is not None for scan in scans),
        "seconds_mean": mean(np.array([scan.seconds for scan in scans if scan.seconds is not None])),
        "peak_memory_mib": max((scan.peak_memory_mib for scan in scans if scan.peak_memory_mib), default=None),
        "scans": [_scan_json(scan) for scan in scans],
    }


def _by_source(scans: Sequence[Scan]) -> dict[str, Any]:
    values = {metric.name: value_of(metric, scans, resamples=0) for metric in METRICS}
    return {"scans": len(scans), **{name: value.value for name, value in values.items() if value.value is not None}}


def _scan_json(scan: Scan) -> dict[str, Any]:
    case = scan.case
    return {
        "study": case.name,
        "source": case.source,
        "kind": case.kind,
        "patient": case.patient,
        "split": case.split,
        "group": case.group,
        "covid": case.covid,
        "seconds": scan.seconds,
        "peak_memory_mib": scan.peak_memory_mib,
        "failed": scan.failed,
        **{name: scan.figures.get(name) for name in PER_SCAN},
        **scan.figures,
        "not_scored": scan.not_scored,
        "warnings": list(scan.warnings),
    }


PER_SCAN = ("lungs_dice", "lesion_dice", "predicted_fraction", "expert_fraction", "fraction_mae", "covid_probability")
