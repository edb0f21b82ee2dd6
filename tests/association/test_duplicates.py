"""A re-send changes nothing; another object under a known UID goes into quarantine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests import wire
from tests.association.conftest import associate, store

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

EVERYTHING = "select * from instances, series, studies"


def test_a_byte_identical_resend_is_acknowledged_and_changes_nothing(receive: Callable[..., Any]) -> None:
    dataset = wire.ct()
    with receive() as node:
        first = associate(node.port)
        assert store(first, dataset) == 0x0000
        before = node.rows(EVERYTHING), [(path, path.stat().st_mtime_ns) for path in node.files()]
        assert store(first, dataset) == 0x0000
        first.release()
        second = associate(node.port)
        assert store(second, dataset) == 0x0000
        second.release()
        after = node.rows(EVERYTHING), [(path, path.stat().st_mtime_ns) for path in node.files()]
        assert after == before
        assert not list((node.state_dir / "quarantine").iterdir())


@pytest.mark.parametrize(
    "changed", [{"SliceThickness": "2.0"}, {"study": "another study"}, {"series": "another series"}]
)
def test_a_different_object_under_a_known_uid_is_quarantined_and_refused(
    receive: Callable[..., Any], logs: list[Any], changed: dict[str, str]
) -> None:
    original = wire.ct()
    impostor = wire.ct(**changed, SOPInstanceUID=original.SOPInstanceUID)
    with receive() as node:
        association = associate(node.port)
        assert store(association, original) == 0x0000
        assert store(association, impostor) == 0xC001
        assert store(association, impostor) == 0xC001
        assert store(association, wire.ct(1)) == 0x0000  # the association lives on
        association.release()
        assert node.kept() == {d.SOPInstanceUID: wire.encoded(d) for d in (original, wire.ct(1))}
        assert len(node.files()) == 2
        (quarantined,) = (node.state_dir / "quarantine").iterdir()
        assert quarantined.read_bytes().endswith(wire.encoded(impostor))
        events = node.rows("select study_instance_uid, event from events where event like 'conflicting%'")
        assert [event["study_instance_uid"] for event in events] == [impostor.StudyInstanceUID] * 2
    assert [line["status"] for line in logs if line["event"] == "instance refused"] == ["0xC001"] * 2


@pytest.mark.parametrize("under", ["same study", "other studies"])
def test_associations_that_race_with_one_uid_leave_one_object(receive: Callable[..., Any], under: str) -> None:
    """One of different objects wins, the others are refused and quarantined; who sends the winner too is thanked."""
    racers = 6
    with receive() as node:
        for turn in range(5):
            uid = wire.ct(turn).SOPInstanceUID
            datasets: list[Dataset] = [
                wire.ct(
                    turn,
                    study="study" if under == "same study" else f"study {number % 3}",
                    AccessionNumber=str(number % 3),
                    SOPInstanceUID=uid,
                )
                for number in range(racers)
            ]
            associations = [associate(node.port) for _ in range(racers)]
            statuses = [-1] * racers
            start = threading.Barrier(racers)

            def send(number: int) -> None:
                start.wait()  # noqa: B023
                statuses[number] = store(associations[number], datasets[number])  # noqa: B023  # joined below

            threads = [threading.Thread(target=send, args=(number,)) for number in range(racers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for association in associations:
                association.release()
            assert sorted(statuses) == [0x0000] * 2 + [0xC001] * 4
            (winner,) = {wire.encoded(d) for d, status in zip(datasets, statuses, strict=True) if status == 0}
            assert node.kept()[uid] == winner
        assert len(node.files()) == 5
        assert len(list((node.state_dir / "quarantine").iterdir())) == 10


def test_a_file_that_was_lost_comes_back_with_the_next_resend(receive: Callable[..., Any]) -> None:
    dataset = wire.ct()
    with receive() as node:
        association = associate(node.port)
        assert store(association, dataset) == 0x0000
        node.files()[0].unlink()
        assert store(association, dataset) == 0x0000
        association.release()
        assert node.kept() == {dataset.SOPInstanceUID: wire.encoded(dataset)}
