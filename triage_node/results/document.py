"""The frame of a report by TID 1500: who made it, of which images, with which evidence (PS3.3 A.35.13)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset

from triage_node import codes
from triage_node.conformance import COMPREHENSIVE_3D_SR_STORAGE, CT_SOP_CLASSES
from triage_node.explicit import element, item, raw_sequence, sequence
from triage_node.results import envelope
from triage_node.results.content import (
    SEPARATE,
    Item,
    Quantity,
    Reference,
    Relationship,
    Uid,
    code_item,
    encoded,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydicom.sr.coding import Code

    from triage_node.identity import ResultIdentity
    from triage_node.results.source import Source
    from triage_node.results.wording import Wording
    from triage_node.study import Model

_CONTAINS = Relationship.CONTAINS
_ACQUISITION = Relationship.HAS_ACQ_CONTEXT
_MODIFIER = Relationship.HAS_CONCEPT_MOD
_OBSERVATION = Relationship.HAS_OBS_CONTEXT


def document(
    head: Iterable[Item],
    groups: Iterable[Item],
    source: Source,
    identity: ResultIdentity,
    model: Model,
    segmentations: Iterable[Dataset],
    wording: Wording,
    title: Code = codes.IMAGING_MEASUREMENT_REPORT,
) -> Dataset:
    """The report of `groups`; `head` stands before them and before the image library.

    `title` is the root's concept name (CID 7021, extensible): viewers look for measurements beneath its default. Only
    there the library of images is written; elsewhere the evidence names them, and a list of what nobody measured would
    part the reader from the rest of the words.
    """
    library = _image_library(source) if title is codes.IMAGING_MEASUREMENT_REPORT else None
    content = [
        Item(_MODIFIER, codes.LANGUAGE_OF_CONTENT, wording.language),
        *_observer(identity, model),
        Item(_MODIFIER, codes.PROCEDURE_REPORTED, codes.CT_OF_CHEST),
        *head,
        *((library,) if library is not None else ()),
        Item(_CONTAINS, codes.IMAGING_MEASUREMENTS, None, tuple(groups)),
    ]
    dataset = Dataset()
    dataset.SOPClassUID = COMPREHENSIVE_3D_SR_STORAGE
    dataset.CodingSchemeIdentificationSequence = envelope.private_scheme()
    dataset.ReferencedPerformedProcedureStepSequence = []  # type 2 (PS3.3 C.17.1, C.17.2), and unknown
    dataset.PerformedProcedureCodeSequence = []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", SEPARATE
    dataset.CompletionFlag, dataset.VerificationFlag, dataset.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    _put(dataset, "ContentTemplateSequence", item(element(0x00080105, "CS", "DCMR"), element(0x0040DB00, "CS", "1500")))
    _put(dataset, "CurrentRequestedProcedureEvidenceSequence", _evidence(source, segmentations))
    before = [_predecessor(each) for each in identity.predecessors if "report" in each.kinds]
    if before:
        _put(dataset, "PredecessorDocumentsSequence", *before)
    envelope.stamp(dataset, "report", source, identity, model)
    _put(dataset, "ConceptNameCodeSequence", code_item(title, wording.meaning))
    _put(dataset, "ContentSequence", *encoded(content, wording.meaning))
    if not (words(content, wording.meaning) + wording.meaning(title)).isascii():
        dataset.SpecificCharacterSet = "ISO_IR 192"
    # What is bytes already is written as it is, instead of being read and encoded again
    character_set = convert_encodings(dataset.SpecificCharacterSet)
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=character_set)
    return dataset


def _put(dataset: Dataset, keyword: str, *items: bytes) -> None:
    raw = raw_sequence(keyword, items)
    dataset[raw.tag] = raw


def _observer(identity: ResultIdentity, model: Model) -> list[Item]:
    """TID 1002 and 1004: a device, with the same UID for every report of a node under this AE title."""
    number = uuid.uuid5(uuid.NAMESPACE_OID, f"{envelope.IMPLEMENTATION_CLASS_UID} {identity.ae_title}").int
    return [
        Item(_OBSERVATION, name, value)
        for name, value in (
            (codes.OBSERVER_TYPE, codes.DEVICE),
            (codes.DEVICE_UID, Uid(f"2.25.{number}")),
            (codes.DEVICE_NAME, identity.ae_title),
            (codes.DEVICE_MANUFACTURER, envelope.MANUFACTURER),
            (codes.DEVICE_MODEL_NAME, ", ".join(envelope.software_versions(model))),
            (codes.DEVICE_SERIAL_NUMBER, identity.ae_title),
        )
    ]


def _image_library(source: Source) -> Item | None:
    """TID 1600 with one entry for each CT object of the source; None where there is none. OHIF needs it."""
    images = [
        Item(
            _CONTAINS,
            codes.SOURCE,
            Reference(sop_class_uid=instance.sop_class_uid, sop_instance_uid=instance.sop_instance_uid),
        )
        for instance in source.instances
        if instance.sop_class_uid in CT_SOP_CLASSES
    ]
    if not images:
        return None
    shared = [Item(_ACQUISITION, codes.MODALITY, codes.COMPUTED_TOMOGRAPHY)]
    if source.frame_of_reference_uid is not None:
        shared.append(Item(_ACQUISITION, codes.FRAME_OF_REFERENCE_UID, Uid(source.frame_of_reference_uid)))
    if source.slices:
        names = (codes.VERTICAL_PIXEL_SPACING, codes.HORIZONTAL_PIXEL_SPACING)
        shared += [
            Item(_ACQUISITION, name, Quantity(value=float(spacing), unit=codes.MILLIMETRE))
            for name, spacing in zip(names, source.slices[0].pixel_spacing, strict=True)
        ]
    group = Item(_CONTAINS, codes.IMAGE_LIBRARY_GROUP, None, (*shared, *images))
    return Item(_CONTAINS, codes.IMAGE_LIBRARY, None, (group,))


def _evidence(source: Source, segmentations: Iterable[Dataset]) -> bytes:
    """Every object the report is based on, by series (PS3.3 C.17.2.3)."""
    series: dict[str, list[bytes]] = {}
    for instance in source.instances:
        members = series.setdefault(instance.series.series_instance_uid, [])
        members.append(_object(instance.sop_class_uid, instance.sop_instance_uid))
    for made in segmentations:
        series[str(made.SeriesInstanceUID)] = [_object(str(made.SOPClassUID), str(made.SOPInstanceUID))]
    return _by_series(source.study_instance_uid, series)


def _predecessor(before: ResultIdentity) -> bytes:
    """The report that this one supersedes (PS3.3 C.17.2.2)."""
    report = _object(COMPREHENSIVE_3D_SR_STORAGE, before.uid("report"))
    return _by_series(before.study_instance_uid, {before.uid("report series"): [report]})


def _by_series(study_instance_uid: str, series: Mapping[str, Sequence[bytes]]) -> bytes:
    """An item of the Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""
    items = [item(sequence(0x00081199, *members), element(0x0020000E, "UI", uid)) for uid, members in series.items()]
    return item(sequence(0x00081115, *items), element(0x0020000D, "UI", study_instance_uid))


def _object(sop_class_uid: str, sop_instance_uid: str) -> bytes:
    return item(element(0x00081150, "UI", sop_class_uid), element(0x00081155, "UI", sop_instance_uid))
