"""The header by which an instance is filed, and everything that is not one."""

from __future__ import annotations

import struct
import time
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import builders, wire
from triage_node import filing
from triage_node.errors import CannotUnderstand
from triage_node.study import OrderPriority

if TYPE_CHECKING:
    from pathlib import Path

GOOD = wire.encoded(wire.ct())


@pytest.mark.parametrize("syntax", [wire.EXPLICIT, wire.IMPLICIT, wire.BIG_ENDIAN, wire.DEFLATED])
def test_a_header_reads_the_same_in_every_encoding(syntax: str) -> None:
    dataset = wire.ct(3)
    header = filing.read_header(wire.encoded(dataset, syntax), syntax)
    assert header.sop_instance_uid == dataset.SOPInstanceUID
    assert header.sop_class_uid == wire.CT
    assert (header.study_instance_uid, header.series_instance_uid) == (
        dataset.StudyInstanceUID,
        dataset.SeriesInstanceUID,
    )
    assert (header.modality, header.accession_number, header.study_date) == ("CT", "A0001", "20200401")
    assert (header.volumetric, header.frames) == (True, 1)
    assert header.geometry == filing.Geometry(position_mm=(0, 0, 15), orientation=(1, 0, 0, 0, 1, 0))


def test_a_localizer_is_not_volumetric() -> None:
    header = filing.read_header(wire.encoded(wire.ct(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])), wire.EXPLICIT)
    assert not header.volumetric


@pytest.mark.parametrize(
    ("character_sets", "text"),
    [("ISO_IR 192", "Lunge für ÄÖÜ 肺"), ("ISO_IR 100", "Thorax für Ärzte"), (["", "ISO 2022 IR 87"], "Yamada 山田")],
)
def test_a_description_is_read_in_its_character_set(character_sets: str | list[str], text: str) -> None:
    data = wire.encoded(wire.ct(SpecificCharacterSet=character_sets, StudyDescription=text))
    assert filing.read_header(data, wire.EXPLICIT).study_description == text


def test_an_unknown_character_set_does_not_cost_the_instance() -> None:
    data = GOOD.replace(b"ISO_IR 100", b"NO_SUCH_99")
    assert filing.read_header(data, wire.EXPLICIT).study_description == "CT chest"


@pytest.mark.parametrize("syntax", [wire.EXPLICIT, wire.IMPLICIT, wire.BIG_ENDIAN, wire.DEFLATED])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("STAT", OrderPriority.STAT),
        ("routine ", OrderPriority.ROUTINE),
        ("HIGH", OrderPriority.HIGH),
        ("in a hurry", None),
        ("", None),
    ],
)
def test_the_priority_of_the_order_is_read_where_it_is_one_of_the_standards_words(syntax, value: str, expected) -> None:
    data = wire.encoded(wire.ct(RequestedProcedurePriority=value), syntax)
    assert filing.read_header(data, syntax).order_priority is expected


def test_an_instance_that_does_not_speak_of_an_order_has_no_priority() -> None:
    assert filing.read_header(GOOD, wire.EXPLICIT).order_priority is None


@pytest.mark.parametrize(
    "rest",
    [
        b"\x32\x00",
        wire.element(0x00321060, b"LO", b"CT")[:-1],
        b"\x32\x00\x01\x00SQ\0\0\xff\xff\xff\xff" * 70,
        b"\xff" * 20,
    ],
)
def test_disorder_behind_what_must_be_understood_costs_nothing_but_the_priority(rest: bytes) -> None:
    whole = wire.encoded(wire.ct(RequestedProcedurePriority="STAT"))
    at = whole.index(b"\x40\x00\x03\x10SH")
    header = filing.read_header(whole[:at] + rest, wire.EXPLICIT)
    assert header.order_priority is None
    assert header.sop_instance_uid == filing.read_header(whole, wire.EXPLICIT).sop_instance_uid


def test_a_description_of_a_megabyte_is_cut() -> None:
    body = b"".join(
        (
            wire.element(0x00080016, b"UI", wire.CT.encode() + b"\0"),
            wire.element(0x00080018, b"UI", b"1.2.3\0"),
            wire.element(0x0008103E, b"UT", b"x" * 1_000_000),
            wire.element(0x0020000D, b"UI", b"1.2\0"),
            wire.element(0x0020000E, b"UI", b"1.2\0"),
        )
    )
    assert len(filing.read_header(body, wire.EXPLICIT).series_description) == filing.MAXIMUM_TEXT_LENGTH


@pytest.mark.parametrize("name", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_instance_without_one_of_its_uids_cannot_be_filed(name: str) -> None:
    with pytest.raises(CannotUnderstand, match=f"{name} is missing"):
        filing.read_header(wire.encoded(wire.ct(**{name: None})), wire.EXPLICIT)


@pytest.mark.parametrize(
    "value", [b"../../../../etc/passwd", b"1.2/3", b"1.2.3\\4.5", b"1." + b"2" * 64, b".", b"..", b"1..2", b"\xff\xfe"]
)
def test_a_uid_that_is_none_cannot_become_a_path(value: bytes) -> None:
    body = b"".join(
        (
            wire.element(0x00080016, b"UI", wire.CT.encode() + b"\0"),
            wire.element(0x00080018, b"UI", value),
            wire.element(0x0020000D, b"UI", b"1.2\0"),
            wire.element(0x0020000E, b"UI", b"1.2\0"),
        )
    )
    with pytest.raises(CannotUnderstand, match="SOPInstanceUID is not a UID"):
        filing.read_header(body, wire.EXPLICIT)


@pytest.mark.parametrize("syntaxes", [(wire.IMPLICIT, wire.EXPLICIT), (wire.EXPLICIT, wire.IMPLICIT)])
def test_another_encoding_than_agreed_is_refused(syntaxes: tuple[str, str]) -> None:
    written, agreed = syntaxes
    with pytest.raises(CannotUnderstand, match="VR where the transfer syntax says"):
        filing.read_header(wire.encoded(wire.ct(), written), agreed)


def test_a_data_set_that_ends_within_its_header_is_refused() -> None:
    place = GOOD.index(b"Thorax")
    with pytest.raises(CannotUnderstand):
        filing.read_header(GOOD[: place + 2], wire.EXPLICIT)


def test_a_claim_of_four_gigabytes_costs_neither_memory_nor_time() -> None:
    claim = wire.element(0x00091001, b"UN", b"x", 0xFFFFFFF0)
    with pytest.raises(CannotUnderstand, match="middle of an element"):
        filing.read_header(claim + GOOD, wire.EXPLICIT)


def test_a_thousand_nested_sequences_are_refused() -> None:
    level = wire.element(0x00091001, b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(CannotUnderstand):
        filing.read_header(level * 100_000, wire.EXPLICIT)


def test_a_bomb_in_a_deflated_header_inflates_no_further_than_a_header_may_be_long() -> None:
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = b"".join(
        deflate.compress(piece)
        for piece in (wire.element(0x00091001, b"UN", b"", 500_000_000), *([bytes(10_000_000)] * 50))
    )
    bomb += deflate.flush()
    assert len(bomb) < 1_000_000
    started = time.monotonic()
    with pytest.raises(CannotUnderstand):
        filing.read_header(bomb, wire.DEFLATED)
    assert time.monotonic() - started < 10  # whole inflation alone would need more memory than it may have


@pytest.mark.parametrize("value", [b"nan ", b"inf ", b"1,50", b"   x", b"\\\\\\\\"])
def test_a_position_that_is_no_number_is_no_position(value: bytes) -> None:
    data = wire.encoded(wire.ct(ImagePositionPatient=[0, 0, 7777]))
    assert data.count(b"7777") == 1
    assert filing.read_header(data.replace(b"7777", value), wire.EXPLICIT).geometry is None


def test_sequences_before_the_geometry_are_stepped_over_whatever_their_encoding() -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    explicit = (
        wire.element(0x00081140, b"SQ", b"", 0xFFFFFFFF) + item + wire.element(0x0020000D, b"UI", b"9.9\0") + ends
    )
    # of unknown VR: implicit inside
    unknown = (
        wire.element(0x00091001, b"UN", b"", 0xFFFFFFFF) + item + struct.pack("<HHL", 0x20, 0xD, 4) + b"9.9\0" + ends
    )
    header = filing.read_header(explicit + unknown + GOOD, wire.EXPLICIT)
    assert header.study_instance_uid == wire.ct().StudyInstanceUID


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([wire.EXPLICIT, wire.IMPLICIT, wire.BIG_ENDIAN, wire.DEFLATED]))
def test_random_bytes_are_refused_and_nothing_else_happens(data: bytes, syntax: str) -> None:
    with pytest.raises(CannotUnderstand):
        filing.read_header(data, syntax)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 40), st.binary(min_size=1, max_size=12))
def test_a_damaged_header_is_read_or_refused(place: int, damage: bytes) -> None:
    data = GOOD[:place] + damage + GOOD[place + len(damage) :]
    try:
        header = filing.read_header(data, wire.EXPLICIT)
    except CannotUnderstand:
        return
    for uid in (header.sop_instance_uid, header.study_instance_uid, header.series_instance_uid):
        assert filing.UID_FORM.fullmatch(uid)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    builders.write(path, wire.ct())
    whole = path.read_bytes()
    place = data.draw(st.integers(128, 400))
    damage = data.draw(st.binary(min_size=1, max_size=8))
    cut = data.draw(st.sampled_from([len(whole), 200, 300]))
    path.write_bytes((whole[:place] + damage + whole[place + len(damage) :])[:cut])
    try:
        _, syntax, offset = filing.read_file(path)
    except CannotUnderstand:
        return
    assert filing.UID_FORM.fullmatch(syntax)
    assert 132 < offset < len(whole)


def test_a_file_gives_its_header_its_syntax_and_where_its_data_set_begins(tmp_path: Path) -> None:
    path = tmp_path / "file.dcm"
    builders.write(path, wire.ct(2), wire.IMPLICIT)
    header, syntax, offset = filing.read_file(path)
    assert header.sop_instance_uid == wire.ct(2).SOPInstanceUID
    assert syntax == wire.IMPLICIT
    assert path.read_bytes()[offset:] == wire.encoded(wire.ct(2), wire.IMPLICIT)


def test_a_wrong_group_length_does_not_move_the_data_set(tmp_path: Path) -> None:
    """Some writers count it wrongly; the elements themselves say where they end."""
    path = tmp_path / "file.dcm"
    builders.write(path, wire.ct())
    whole = bytearray(path.read_bytes())
    whole[140:144] = struct.pack("<L", 9999)
    path.write_bytes(whole)
    _, _, offset = filing.read_file(path)
    assert bytes(whole[offset:]) == GOOD
