"""Files by UID: whole or absent, never overwritten, and enough to rebuild the journal."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests import wire
from triage_node import filing
from triage_node.archive import Archive, digest_of_file
from triage_node.custody import Custody
from triage_node.errors import ConflictingInstance, OutOfResources
from triage_node.journal import Journal, intake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom.dataset import Dataset

META = wire.element(0x00020010, b"UI", wire.EXPLICIT.encode() + b"\0")
PREFIX = b"\0" * 128 + b"DICM" + wire.element(0x00020000, b"UL", len(META).to_bytes(4, "little")) + META


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path, "test")
    yield opened
    opened.close()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path)
    made.prepare()
    return made


def keep(custody: Custody, dataset: Dataset) -> bool:
    data = wire.encoded(dataset)
    header = filing.read_header(data, wire.EXPLICIT)
    return custody.keep(header, wire.EXPLICIT, (PREFIX, data), association_id=None)


def content(journal: Journal) -> list[dict[str, Any]]:
    """All that the journal says of instances, series and studies, but for numbers and times of arrival."""
    found = journal.rows(
        "select sop_instance_uid, instances.sop_class_uid, transfer_syntax_uid, path, digest, size_bytes, volumetric,"
        " frames, geometry_json, series.modality, series.description, series.instances as in_series, accession_number,"
        " studies.description as study_description, study_date, studies.state from instances"
        " join series using (study_instance_uid, series_instance_uid) join studies using (study_instance_uid)"
        " order by sop_instance_uid"
    )
    assert found
    return found


def test_a_file_is_put_under_its_uids_and_only_once(archive: Archive) -> None:
    data = wire.encoded(wire.ct())
    header = filing.read_header(data, wire.EXPLICIT)
    first = archive.keep(header, (PREFIX, data))
    again = archive.keep(header, (PREFIX, b"something else"))
    assert (first.already_there, again.already_there) == (False, True)
    assert first.path == again.path == archive.place_of(header)
    assert first.path.relative_to(archive.instances_dir).parts == (
        header.study_instance_uid,
        header.series_instance_uid,
        f"{header.sop_instance_uid}.dcm",
    )
    assert first.path.read_bytes() == PREFIX + data
    assert digest_of_file(first.path) == hashlib.sha256(data).hexdigest()
    assert list(archive.incoming_dir.iterdir()) == []


def test_a_result_is_replaced_by_a_repeated_run(archive: Archive) -> None:
    archive.keep_result("1.2", "report.dcm", b"first")
    assert archive.keep_result("1.2", "report.dcm", b"second").read_bytes() == b"second"


def test_a_disk_that_takes_nothing_is_out_of_resources(archive: Archive) -> None:
    archive.instances_dir.rmdir()
    archive.instances_dir.touch()
    data = wire.encoded(wire.ct())
    with pytest.raises(OutOfResources, match="archive cannot take"):
        archive.keep(filing.read_header(data, wire.EXPLICIT), (PREFIX, data))
    assert list(archive.incoming_dir.iterdir()) == []


def test_half_written_files_are_swept_at_the_start(archive: Archive) -> None:
    orphan = archive.incoming_dir / "1234.part"
    orphan.write_bytes(b"half")
    archive.prepare()
    assert not orphan.exists()


def test_a_file_without_its_row_is_adopted_by_the_next_resend(journal: Journal, archive: Archive) -> None:
    """The receiver died between file and journal; the sender, without an answer, sends again."""
    data = wire.encoded(wire.ct())
    archive.keep(filing.read_header(data, wire.EXPLICIT), (PREFIX, data))
    custody = Custody(journal, archive)
    assert keep(custody, wire.ct())
    assert not keep(custody, wire.ct())
    assert len(content(journal)) == 1


def test_another_object_does_not_take_the_place_of_a_file_without_its_row(journal: Journal, archive: Archive) -> None:
    data = wire.encoded(wire.ct())
    place = archive.keep(filing.read_header(data, wire.EXPLICIT), (PREFIX, data)).path
    custody = Custody(journal, archive)
    with pytest.raises(ConflictingInstance):
        keep(custody, wire.ct(AccessionNumber="other"))
    assert place.read_bytes() == PREFIX + data
    assert custody.adopt() == 1


def test_a_damaged_file_without_its_row_is_another_object(journal: Journal, archive: Archive) -> None:
    header = filing.read_header(wire.encoded(wire.ct()), wire.EXPLICIT)
    archive.keep(header, (b"not Part 10",))
    with pytest.raises(ConflictingInstance):
        keep(Custody(journal, archive), wire.ct())


def test_a_journal_that_was_lost_is_rebuilt_from_the_archive(
    journal: Journal, archive: Archive, tmp_path: Path
) -> None:
    custody = Custody(journal, archive)
    for study in ("a", "b"):
        for series in ("1", "2"):
            for number in range(3):
                keep(custody, wire.ct(number, study=study, series=series))
    before = content(journal)
    journal.close()
    for file in tmp_path.glob("journal.sqlite*"):
        file.unlink()
    rebuilt = Journal(tmp_path, "test")
    try:
        assert Custody(rebuilt, archive).adopt() == 12
        assert content(rebuilt) == before
        assert Custody(rebuilt, archive).adopt() == 0
    finally:
        rebuilt.close()


def test_a_file_that_cannot_be_read_is_logged_and_the_others_are_adopted(
    journal: Journal, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    custody = Custody(journal, archive)
    keep(custody, wire.ct(0))
    folder = archive.place_of(filing.read_header(wire.encoded(wire.ct(0)), wire.EXPLICIT)).parent
    (folder / "1.2.3.dcm").write_bytes(b"not DICOM")
    (folder / "1.2.4.dcm").write_bytes(b"")
    (folder / "1.2.5.dcm").mkdir()
    (folder / "1.2.6.dcm").write_bytes(PREFIX + wire.encoded(wire.ct(0)))  # a copy under another name
    with journal.writing() as database:
        for table in ("instances", "series", "studies"):
            database.conn.execute(f"delete from {table}")
    assert custody.adopt() == 1
    output = capsys.readouterr().out
    assert output.count("cannot be read") == 3
    assert "has the UID of another one" in output


def test_an_adopted_series_is_not_taken_for_one_whose_sender_released(journal: Journal, archive: Archive) -> None:
    """Of how it came nothing is known any more, so it waits for the long quiet time."""
    data = wire.encoded(wire.ct())
    archive.keep(filing.read_header(data, wire.EXPLICIT), (PREFIX, data))
    assert Custody(journal, archive).adopt() == 1
    (series,) = intake.open_series(journal)
    assert series.evidence.broken_associations == 1
