"""What is written and read here is what another library reads and writes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.unit.results_cases import build
from triage_node import explicit, results

if TYPE_CHECKING:
    from pathlib import Path


def _part10(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _tree(dataset: Dataset) -> dict[int, object]:
    """Tag -> representation and the tree of the items, or the length of what is written of a value."""
    return {
        int(element.tag): (element.VR, [_tree(item) for item in element.value])
        if element.VR == "SQ"
        else (element.VR, element.is_empty)
        for element in dataset
    }


def _own_tree(item: explicit.Item) -> dict[int, object]:
    return {
        tag: (element.vr, [_own_tree(each) for each in element.items])
        if element.vr == "SQ"
        else (element.vr, element.empty)
        for tag, element in item.items()
    }


def test_every_result_is_read_as_pydicom_reads_it(tmp_path: Path) -> None:
    for kind, made in build(tmp_path).objects().items():
        data = results.encode(made)
        meta, dataset = explicit.read(data)
        read = pydicom.dcmread(BytesIO(data))
        assert _own_tree(dataset) == _tree(read), kind
        assert meta[0x00020003].text == read.file_meta.MediaStorageSOPInstanceUID
        assert dataset[0x00080018].text == read.SOPInstanceUID


def test_sequences_of_undefined_length_are_read_too() -> None:
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "1"
    inner.is_undefined_length_sequence_item = True
    outer.ConceptNameCodeSequence = Sequence([inner, Dataset()])
    outer["ConceptNameCodeSequence"].is_undefined_length = True
    outer.ValueType = "TEXT"
    _, dataset = explicit.read(_part10(outer))
    items = dataset[0x0040A043].items
    assert [len(item) for item in items] == [1, 0]
    assert items[0][0x00080100].text == "1"
    assert dataset[0x0040A040].text == "TEXT"


@pytest.mark.parametrize(
    ("vr", "value", "padded"), [("UI", "1.2.3", b"1.2.3\0"), ("CS", "YES", b"YES "), ("OB", b"\1", b"\1\0")]
)
def test_values_of_odd_length_are_padded_as_their_representation_asks(
    vr: str, value: bytes | str, padded: bytes
) -> None:
    assert explicit.element(0x00080018, vr, value).endswith(padded)


def test_a_sequence_of_bytes_is_a_sequence_to_pydicom() -> None:
    dataset = Dataset()
    item = explicit.item(explicit.element(0x00081150, "UI", "1.2"), explicit.element(0x00081155, "UI", "1.2.3.4"))
    element = explicit.raw_sequence("SourceImageSequence", [item, item])
    dataset[element.tag] = element
    read = pydicom.dcmread(BytesIO(_part10(dataset)))
    assert [image.ReferencedSOPInstanceUID for image in read.SourceImageSequence] == ["1.2.3.4"] * 2


def test_wherever_a_file_is_cut_it_is_refused_or_shorter(tmp_path: Path) -> None:
    data = results.encode(build(tmp_path).objects()["lungs"])
    whole = len(explicit.read(data)[1])
    for length in range(0, len(data) - 1, 997):
        try:
            _, dataset = explicit.read(data[:length])
        except ValueError:
            continue
        assert len(dataset) < whole


def test_bytes_that_only_begin_like_a_file_are_refused() -> None:
    with pytest.raises(ValueError, match="DICM"):
        explicit.read(b"\0" * 200)
    with pytest.raises(ValueError, match="cut off"):
        explicit.read(b"\0" * 128 + b"DICM" + b"\x08\x00\x18\x00UI\xff\xff1.2")
