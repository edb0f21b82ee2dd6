"""Assessment -> DICOM objects: two segmentations, a report and an overview image, checked before they leave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset  # noqa: TC002  resolved by who inspects the dataclass

from triage_node.identity import LABEL_MAPS
from triage_node.results import checking, overview, report, segmentation, source
from triage_node.results.center import centers
from triage_node.results.checking import check
from triage_node.results.overview import png, render
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from triage_node.identity import ResultIdentity, ResultKind
    from triage_node.study import Assessment, Findings, Instance, Model, NotAnalysed, PassedOver, Volume

__all__ = [
    "NOT_FOR_DIAGNOSTIC_USE",
    "ResultObject",
    "check",
    "encode",
    "judged",
    "not_analysed",
    "png",
    "render",
    "write",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResultObject:
    """One finished and checked object."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str  # derived from the result's identity, so that a repeated run gives the same
    dataset: Dataset
    references: frozenset[str]  # SOP Instance UIDs that it may refer to: the source, and the results beside it
    data: bytes  # Part 10 file


def judged(
    volume: Volume,
    findings: Findings,
    assessment: Assessment,
    identity: ResultIdentity,
    *,
    language: str = "en",
    label_maps: bool = False,
) -> tuple[ResultObject, ...]:
    """The objects of a judged study; without a lesion there is no lesion segmentation, and the report says so.

    `language` is that of the report's words, "en" or "de". With `label_maps` the segmentations are made as such, too;
    the report names the others, since archives reject a report that names a label map. Raises InvalidResult.
    """
    origin = source.of_volume(volume)
    with ThreadPoolExecutor(1) as beside:  # the picture is nearly all arithmetic outside the interpreter's lock
        picture = beside.submit(overview.dataset, volume, findings, assessment, origin, identity)
        masks = {"lesions": segmentation.lesions(findings), "lungs": segmentation.lungs(findings)}
        made: dict[ResultKind, Dataset] = {}

        def segment(kind: ResultKind, of: ResultKind) -> None:
            dataset = segmentation.dataset(kind, masks[of], volume, findings.model, origin, identity)
            if dataset is not None:
                made[kind] = dataset

        segment("lesions", "lesions")
        segment("lungs", "lungs")
        places = centers(masks["lesions"], masks["lungs"], volume)
        made["report"] = report.judged(assessment, origin, identity, tuple(made.values()), places, language)
        for kind, of in LABEL_MAPS.items() if label_maps else ():
            segment(kind, of)
        # checked while the picture is still being drawn
        beside_it = _objects(made, origin, identity)
        return beside_it + _objects({"overview": picture.result()}, origin, identity)


def not_analysed(
    instances: Sequence[Instance],
    refusal: NotAnalysed,
    passed_over: Sequence[PassedOver],
    model: Model,
    identity: ResultIdentity,
    *,
    language: str = "en",
) -> tuple[ResultObject, ...]:
    """The report of a study that was not analysed; `passed_over` says why for each of its series.

    Raises InvalidResult.
    """
    origin = source.of_instances(instances)
    return _objects(
        {"report": report.not_analysed(refusal, passed_over, origin, identity, model, language)}, origin, identity
    )


def encode(made: ResultObject) -> bytes:
    """The object's data set as a Part 10 file, read back and checked. Raises InvalidResult."""
    return _encoded(made.dataset, made.references, made.sop_instance_uid)


def write(made: ResultObject, path: Path) -> None:
    """Write the checked object to `path`. Raises InvalidResult before anything is written."""
    path.write_bytes(encode(made))


def _encoded(dataset: Dataset, references: frozenset[str], sop_instance_uid: str) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue()
    checking.check(data, references=references, sop_instance_uid=sop_instance_uid)
    return data


def _objects(
    made: dict[ResultKind, Dataset], origin: source.Source, identity: ResultIdentity
) -> tuple[ResultObject, ...]:
    references = {instance.sop_instance_uid for instance in origin.instances}
    references |= {str(dataset.SOPInstanceUID) for dataset in made.values()}
    references |= {before.uid("report") for before in identity.predecessors}
    allowed = frozenset(references)
    return tuple(
        ResultObject(
            kind=kind,
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=identity.uid(kind),
            dataset=dataset,
            references=allowed,
            data=_encoded(dataset, allowed, identity.uid(kind)),
        )
        for kind, dataset in made.items()
    )
