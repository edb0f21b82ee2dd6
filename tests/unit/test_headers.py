"""Two readers of headers, one result: the short way of plain files must say what pydicom says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests import builders
from triage_node import explicit, headers
from triage_node.attributes import quiet
from triage_node.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triage_node.study import Instance, NotAnalysed


def outcome(instance: Instance) -> headers.Header | NotAnalysed:
    with quiet():
        try:
            return headers.read(instance)
        except Refused as error:
            return error.not_analysed


def by_pydicom(instance: Instance) -> headers.Header | NotAnalysed:
    with patch.object(explicit, "selected", side_effect=ValueError):
        return outcome(instance)


def one_image(folder: Path) -> Path:
    builders.ct_series(folder, slices=1)
    (path,) = folder.iterdir()
    return path


def _plain(_: Dataset) -> None:
    """As the builder makes it."""


def _sequence_of_undefined_length(dataset: Dataset) -> None:
    inner = Dataset()
    inner.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    inner.ReferencedSOPInstanceUID = "1.2.3"
    inner.PurposeOfReferenceCodeSequence = Sequence([Dataset()])
    dataset.ReferencedImageSequence = Sequence([inner, inner])
    dataset["ReferencedImageSequence"].is_undefined_length = True
    for item in dataset.ReferencedImageSequence:
        item.is_undefined_length_sequence_item = True


def _private(dataset: Dataset) -> None:
    block = dataset.private_block(0x0009, "TRIAGE TEST", create=True)
    block.add_new(1, "UN", b"anything" * 40)
    block.add_new(2, "OB", b"\xff\xff\xff\xff")


def _empty_values(dataset: Dataset) -> None:
    dataset.ConvolutionKernel = None
    dataset.SeriesDescription = ""
    dataset.AcquisitionNumber = None


def _long_header(dataset: Dataset) -> None:
    dataset.private_block(0x0009, "TRIAGE TEST", create=True).add_new(1, "OB", bytes(100_000))


@pytest.mark.parametrize("change", [_plain, _sequence_of_undefined_length, _private, _empty_values, _long_header])
def test_both_ways_read_the_same(change: Callable[[Dataset], None], tmp_path: Path) -> None:
    path = one_image(tmp_path)
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    (instance,) = builders.instances_in([path])
    read = outcome(instance)
    assert isinstance(read, headers.Header)
    assert read == by_pydicom(instance)


def test_a_plain_file_takes_the_short_way(tmp_path: Path) -> None:
    (instance,) = builders.instances_in([one_image(tmp_path)])
    with patch.object(pydicom, "dcmread", side_effect=AssertionError("the long way")):
        assert isinstance(outcome(instance), headers.Header)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Instance:
    return builders.instances_in([one_image(tmp_path_factory.mktemp("whole"))])[0]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_both_ways_read_or_refuse_the_same_from_damaged_files(whole: Instance, data: st.DataObject) -> None:
    content = bytearray(whole.path.read_bytes())
    pixels = content.rindex(b"\xe0\x7f\x10\x00")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(128, pixels + 11))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(128, len(content))) :]
    damaged = replace(whole, path=whole.path.with_name("damaged.dcm"))
    damaged.path.write_bytes(content)
    assert outcome(damaged) == by_pydicom(damaged)
