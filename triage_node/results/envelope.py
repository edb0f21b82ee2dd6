"""What every result carries around its content: patient, study, series, equipment and its own identity.

Nothing here depends on the clock or on chance, so that a repeated run writes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from triage_node import __version__
from triage_node.codes import PRIVATE_SCHEME, PRIVATE_SCHEME_NAME
from triage_node.explicit import element, item, raw_sequence, sequence
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from triage_node.identity import ResultIdentity, ResultKind
    from triage_node.results.source import Source
    from triage_node.study import Instance, Model

MANUFACTURER = "triage-node"
IMPLEMENTATION_CLASS_UID = UID("2.25.270517293849472770426404314788146685409")
CONTENT_SEQUENCE = 0x0040A730
IMPLEMENTATION_VERSION_NAME = f"TRIAGE_{__version__}"[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How objects of a kind are called; one series for each, since viewers show the last object of a series alone."""

    modality: str
    series_number: int
    title: str


KINDS: Mapping[ResultKind, Kind] = MappingProxyType({
    "lesions": Kind(modality="SEG", series_number=9801, title="Lung lesions"),
    "lungs": Kind(modality="SEG", series_number=9802, title="Lungs"),
    "report": Kind(modality="SR", series_number=9803, title="Report"),
    "overview": Kind(modality="OT", series_number=9804, title="Overview"),
    "lesion map": Kind(modality="SEG", series_number=9805, title="Lung lesions, map"),
    "lung map": Kind(modality="SEG", series_number=9806, title="Lungs, map"),
})  # fmt: skip


def description(kind: ResultKind, model: Model, generation: int = 1) -> str:
    """Series Description: title, caution, method, number of a later answer; 64 characters (PS3.5 table 6.2-1).

    The title comes first, since lists of series show some 20 characters; where all is too long the method is cut.
    """
    answer = f", answer {generation}" if generation > 1 else ""
    return f"{KINDS[kind].title} ({NOT_FOR_DIAGNOSTIC_USE}), {model.name}"[: 64 - len(answer)] + answer


def software_versions(model: Model) -> list[str]:
    """The node's and the method's."""
    return [f"{MANUFACTURER} {__version__}", f"{model.name} {model.version}"[:64]]


def moment(source: Source, identity: ResultIdentity) -> tuple[str, str]:
    """Content Date and Time: in the time zone that the source names (PS3.3 C.12.1), else in the node's."""
    offset = source.identity.get("TimezoneOffsetFromUTC")
    when: datetime = identity.created_at.astimezone(_zone(str(offset)) if offset else None)
    return when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")


def _zone(offset: str) -> timezone:
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


def stamp(dataset: Dataset, kind: ResultKind, source: Source, identity: ResultIdentity, model: Model) -> None:
    """Write identity and equipment into a finished object, over whatever a library has put there."""
    date, time = moment(source, identity)
    for own in source.identity:
        dataset[own.tag] = own
    dataset.StudyInstanceUID = source.study_instance_uid
    dataset.SeriesInstanceUID = identity.uid(f"{kind} series")
    dataset.SOPInstanceUID = identity.uid(kind)
    dataset.Modality = KINDS[kind].modality
    dataset.SeriesNumber = KINDS[kind].series_number
    dataset.SeriesDescription = description(kind, model, identity.generation)
    dataset.InstanceNumber = 1
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = model.name[:64]
    dataset.SoftwareVersions = software_versions(model)
    dataset.DeviceSerialNumber = identity.ae_title
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.SeriesDate, dataset.SeriesTime = date, time
    dataset.ContentDate, dataset.ContentTime = date, time
    if "ContributingEquipmentSequence" in dataset:
        del dataset.ContributingEquipmentSequence  # names a library, and the source's equipment at length
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.SpecificCharacterSet = _character_set(source.identity, dataset)
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128
    _as_encoded(dataset)


def _as_encoded(dataset: Dataset) -> None:
    """Tell pydicom that sequences which came as bytes are encoded as they are to be written: it leaves them alone."""
    character_set = convert_encodings(dataset.SpecificCharacterSet)
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True, character_encoding=character_set)


def _character_set(*datasets: Dataset) -> str:
    """UTF-8 where a name of another script needs it; else what also the oldest archives read."""
    return "ISO_IR 100" if all(str(text).isascii() for part in datasets for text in _texts(part)) else "ISO_IR 192"


def _texts(dataset: Dataset) -> Iterator[object]:
    for tag in dataset.keys():  # noqa: SIM118  # iterating a data set reads each of its sequences
        if dataset.get_item(tag).VR in ("LO", "LT", "PN", "SH", "ST", "UC", "UT"):
            yield dataset[tag].value
        elif tag == CONTENT_SEQUENCE:  # elsewhere all words are the node's own
            for content in dataset[tag].value:
                yield from _texts(content)


def refer(dataset: Dataset, instances: Iterable[Instance]) -> None:
    """Name the images that an image was made from: Referenced Series Sequence (PS3.3 C.12.2) and Source Image Sequence.

    Viewers find the series to lay a segmentation over by the first, so every image of the series is in it.
    """
    items: dict[str, list[bytes]] = {}
    for instance in instances:
        pair = element(0x00081150, "UI", instance.sop_class_uid), element(0x00081155, "UI", instance.sop_instance_uid)
        items.setdefault(instance.series.series_instance_uid, []).append(item(*pair))
    series = [item(sequence(0x0008114A, *members), element(0x0020000E, "UI", uid)) for uid, members in items.items()]
    for sequence_ in (
        raw_sequence("ReferencedSeriesSequence", series),
        raw_sequence("SourceImageSequence", (one for members in items.values() for one in members)),
    ):
        dataset[sequence_.tag] = sequence_


def private_scheme() -> list[Dataset]:
    """Coding Scheme Identification Sequence (PS3.3 C.12.1) that says what the private designator is."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = PRIVATE_SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return [item]
