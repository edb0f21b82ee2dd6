"""The archive that misbehaves on purpose does so as real peers see it, and its register says what happened."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
import unreliable_archive
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from soaking import register
from soaking.committing import PUSH_MODEL, PUSH_MODEL_INSTANCE, Node
from soaking.misbehaviour import KINDS, Dice, Misbehaviour, Occasion, shares
from soaking.unreliable import Pace, UnreliableArchive
from typer.testing import CliRunner

from tests import builders, peers, wire
from tests.running import free_port, listens, until
from triage_node import filing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.peers,
    # pynetdicom leaves a socket that could not connect, or whose peer was faster, to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
PACE = Pace(slow_s=0.3, stall_s=2.0, late_s=0.5)
PROGRAM = Path(__file__).parents[2] / "tools" / "unreliable_archive.py"


@contextmanager
def archive(place: Path, *always: Misbehaviour, **options: Any) -> Iterator[UnreliableArchive]:
    """An archive in this process that does one thing on every occasion of its kind."""
    running = UnreliableArchive(
        place, "PACS", 0, shares=shares(dict.fromkeys(always, 1.0), scale=0), **{"pace": PACE, **options}
    )
    running.open()
    try:
        yield running
    finally:
        running.stop()
        running.close()
        running.register.close()


def slice_of(folder: Path, number: int = 0) -> Path:
    """A CT image of 32 kB, so that it takes several PDUs."""
    path = folder / f"{number}.dcm"
    builders.write(path, wire.ct(number, Rows=128, Columns=128, PixelData=bytes(2 * 128 * 128)))
    return path


def dcmtk(program: str, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = peers.require(program, package="dcmtk")
    return subprocess.run(
        [str(path), "-d", "-aec", "PACS", "127.0.0.1", str(port), *arguments],
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        errors="replace",
    )


def words(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def events(place: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in register.events(place) if line["event"] == event]


def found(port: int, study: str) -> set[str]:
    """SOP Instance UIDs that findscu finds in a study."""
    done = dcmtk("findscu", port, "-S", "-k", "QueryRetrieveLevel=IMAGE", "-k", f"StudyInstanceUID={study}",
                 "-k", "SeriesInstanceUID", "-k", "SOPInstanceUID")  # fmt: skip
    assert done.returncode == 0, words(done)
    responses = words(done).split("Find Response", 1)[-1]
    return set(re.findall(r"\(0008,0018\) UI \[([\d.]+)", responses))


# ---------------------------------------------------------------------- storage and query


def test_a_series_that_dcmsend_sends_is_kept_and_found(tmp_path: Path) -> None:
    sent = [slice_of(tmp_path, number) for number in range(3)]
    with archive(tmp_path / "pacs") as pacs:
        done = dcmtk("dcmsend", pacs.port, *map(str, sent))
        assert done.returncode == 0, words(done)
        datasets = [dcmread(path) for path in sent]
        assert found(pacs.port, datasets[0].StudyInstanceUID) == {str(one.SOPInstanceUID) for one in datasets}
        assert found(pacs.port, builders.uid("another study")) == set()
        for one in datasets:
            account = pacs.register.all_held()[one.SOPInstanceUID]
            kept = register.path(tmp_path / "pacs", one.SOPInstanceUID, account.holds or "")
            assert dcmread(kept) == one
            assert account.digests == {register.digest_of(kept.read_bytes()[filing.read_file(kept)[2] :])}


@pytest.mark.parametrize(
    ("misbehaviour", "status"),
    [
        (Misbehaviour.REFUSE_A700, "0xa700"),
        (Misbehaviour.REFUSE_0110, "0x0110"),
        (Misbehaviour.REFUSE_C000, "0xc000"),
        (Misbehaviour.KEEP_AND_WARN, "0xb007"),
        (Misbehaviour.STORE_SLOWLY, "0x0000"),
        (Misbehaviour.FORGET, "0x0000"),
    ],
)
def test_storescu_gets_the_status_and_the_archive_holds_what_it_says(
    tmp_path: Path, misbehaviour: Misbehaviour, status: str
) -> None:
    path = slice_of(tmp_path)
    dataset = dcmread(path)
    with archive(tmp_path / "pacs", misbehaviour) as pacs:
        done = dcmtk("storescu", pacs.port, str(path))
        assert re.search(rf"DIMSE Status\s*: {status}", words(done)), words(done)
        kept = misbehaviour in (Misbehaviour.KEEP_AND_WARN, Misbehaviour.STORE_SLOWLY)
        assert found(pacs.port, dataset.StudyInstanceUID) == ({str(dataset.SOPInstanceUID)} if kept else set())
    (arrival,) = register.accounts(tmp_path / "pacs")[dataset.SOPInstanceUID].arrivals
    assert arrival.status == int(status, 16)
    assert [line["what"] for line in events(tmp_path / "pacs", register.MISBEHAVED)] == [misbehaviour]


@pytest.mark.parametrize(
    ("misbehaviour", "kept"),
    [
        (Misbehaviour.CUT_SHORT, False),
        (Misbehaviour.ABORT, False),
        (Misbehaviour.STALL, False),
        (Misbehaviour.KEEP_AND_ABORT, True),
        (Misbehaviour.KEEP_AND_STALL, True),
    ],
)
def test_storescu_gets_no_answer(tmp_path: Path, misbehaviour: Misbehaviour, *, kept: bool) -> None:
    path = slice_of(tmp_path)
    uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    with archive(tmp_path / "pacs", misbehaviour) as pacs:
        done = dcmtk("storescu", pacs.port, "-td", "1", str(path))
        assert done.returncode != 0
        assert not re.search(r"DIMSE Status\s*: 0x0000", words(done)), words(done)
        assert (uid in pacs.register.all_held()) == kept
        if misbehaviour is Misbehaviour.CUT_SHORT:
            assert uid not in pacs.register.accounts  # it never came as a whole


@pytest.mark.parametrize(
    ("misbehaviour", "expected"),
    [
        (Misbehaviour.REJECT_TRANSIENT, r"Result: Rejected Transient.*Local Limit Exceeded"),
        (Misbehaviour.REJECT_PERMANENT, r"Result: Rejected Permanent.*No Reason"),
        (Misbehaviour.ACCEPT_NEVER, r"Association Request Failed|Aborted|Timeout|timeout"),
    ],
)
def test_echoscu_is_rejected(tmp_path: Path, misbehaviour: Misbehaviour, expected: str) -> None:
    with archive(tmp_path / "pacs", misbehaviour) as pacs:
        done = dcmtk("echoscu", pacs.port, "-ta", "1")
        assert done.returncode != 0
        assert re.search(expected, words(done), re.DOTALL), words(done)


def test_echoscu_waits_for_a_slow_archive(tmp_path: Path) -> None:
    with archive(tmp_path / "pacs", Misbehaviour.ACCEPT_SLOWLY) as pacs:
        started = time.monotonic()
        assert dcmtk("echoscu", pacs.port).returncode == 0
        assert time.monotonic() - started >= PACE.slow_s


@pytest.mark.parametrize(
    ("misbehaviour", "expected"),
    [(Misbehaviour.FIND_REFUSED, r"0xa700"), (Misbehaviour.FIND_ABORT, r"Peer aborted|Abort")],
)
def test_findscu_is_not_answered(tmp_path: Path, misbehaviour: Misbehaviour, expected: str) -> None:
    with archive(tmp_path / "pacs", misbehaviour) as pacs:
        done = dcmtk("findscu", pacs.port, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")
        assert re.search(expected, words(done)), words(done)


def test_another_content_under_a_known_uid_is_refused_and_on_record(tmp_path: Path) -> None:
    path = slice_of(tmp_path)
    uid = str(dcmread(path).SOPInstanceUID)
    with archive(tmp_path / "pacs") as pacs:
        assert dcmtk("storescu", pacs.port, str(path)).returncode == 0
        builders.write(path, wire.ct(0, Rows=128, Columns=128, PixelData=b"\1" * (2 * 128 * 128)))
        assert "0x0111" in words(dcmtk("storescu", pacs.port, str(path)))
    account = register.accounts(tmp_path / "pacs")[uid]
    assert len(account.digests) == 2
    assert account.holds == account.arrivals[0].digest


# ---------------------------------------------------------------------- storage commitment


class Asking:
    """A storage commitment SCU with a port for reports."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, int, Dataset]] = []  # where it came, event type, what it says
        self.ae = AE(ae_title="NODE")
        self.ae.add_requested_context(wire.CT, wire.EXPLICIT)
        self.ae.add_requested_context(PUSH_MODEL)
        self.ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._note, ["new"])]
        self._server = self.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert self._server is not None
        self.node = Node(host="127.0.0.1", port=int(self._server.server_address[1]))

    def _note(self, event: evt.Event, where: str) -> tuple[int, None]:
        assert event.event_type is not None
        self.reports.append((where, event.event_type, event.event_information))
        return 0x0000, None

    def store_and_ask(self, port: int, *paths: Path, wait_s: float) -> int | None:
        """Store, ask for commitment, keep the association open for so long; the status of the request."""
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._note, ["same"])]
        association = self.ae.associate("127.0.0.1", port, ae_title="PACS", evt_handlers=handlers)
        assert association.is_established
        information = Dataset()
        information.TransactionUID = builders.uid("transaction")
        information.ReferencedSOPSequence = []
        for path in paths:
            assert association.send_c_store(path).Status == 0x0000
            item, dataset = Dataset(), dcmread(path, stop_before_pixels=True)
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
            information.ReferencedSOPSequence.append(item)
        status, _ = association.send_n_action(information, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        time.sleep(wait_s)
        if association.is_established:
            association.release()
        return status.get("Status")

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()


@pytest.fixture
def asking() -> Iterator[Asking]:
    one = Asking()
    yield one
    one.stop()


@pytest.mark.parametrize(
    ("misbehaviour", "wheres"),
    [
        ((), ["same"]),
        ((Misbehaviour.REPORT_ANEW,), ["new"]),
        ((Misbehaviour.REPORT_EARLY,), ["new"]),
        ((Misbehaviour.REPORT_LATE,), ["new"]),
        ((Misbehaviour.REPORT_TWICE,), ["same", "new"]),
        ((Misbehaviour.REPORT_NEVER,), []),
    ],
)
def test_the_report_comes_as_the_dice_decide(
    tmp_path: Path, asking: Asking, misbehaviour: tuple[Misbehaviour, ...], wheres: list[str]
) -> None:
    paths = [slice_of(tmp_path, number) for number in range(2)]
    with archive(tmp_path / "pacs", *misbehaviour, report_to={"NODE": asking.node}) as pacs:
        assert asking.store_and_ask(pacs.port, *paths, wait_s=0.4) == 0x0000
        if wheres:
            until(lambda: len(asking.reports) == len(wheres), 10, "the reports have come")
        else:
            time.sleep(PACE.late_s)
        assert [where for where, _, _ in asking.reports] == wheres
        for _, kind, report in asking.reports:
            assert kind == 1
            assert report.TransactionUID == builders.uid("transaction")
            assert len(report.ReferencedSOPSequence) == 2
            assert "FailedSOPSequence" not in report
    assert len(events(tmp_path / "pacs", register.REPORTED)) == len(wheres)


@pytest.mark.parametrize(("misbehaviour", "lost"), [(Misbehaviour.FORGET, 2), (Misbehaviour.COMMIT_FORGET, 1)])
def test_what_was_forgotten_is_reported_as_a_failure_and_not_found(
    tmp_path: Path, asking: Asking, misbehaviour: Misbehaviour, lost: int
) -> None:
    paths = [slice_of(tmp_path, number) for number in range(2)]
    study = dcmread(paths[0]).StudyInstanceUID
    with archive(tmp_path / "pacs", misbehaviour, report_to={"NODE": asking.node}) as pacs:
        assert asking.store_and_ask(pacs.port, *paths, wait_s=0.4) == 0x0000
        until(lambda: asking.reports, 10, "the report has come")
        ((_, kind, report),) = asking.reports
        assert kind == 2
        assert [item.FailureReason for item in report.FailedSOPSequence] == [0x0112] * lost
        assert len(report.get("ReferencedSOPSequence", [])) == 2 - lost
        assert len(found(pacs.port, study)) == 2 - lost


@pytest.mark.parametrize(
    ("misbehaviour", "status"), [(Misbehaviour.COMMIT_REFUSED, 0x0213), (Misbehaviour.COMMIT_ABORT, None)]
)
def test_a_request_can_fail(tmp_path: Path, asking: Asking, misbehaviour: Misbehaviour, status: int | None) -> None:
    with archive(tmp_path / "pacs", misbehaviour, report_to={"NODE": asking.node}) as pacs:
        assert asking.store_and_ask(pacs.port, slice_of(tmp_path), wait_s=0.3) == status
        assert not asking.reports


def test_what_was_promised_is_never_forgotten(tmp_path: Path, asking: Asking) -> None:
    """Otherwise no sender in the world could keep an object there."""
    path = slice_of(tmp_path)
    uid = str(dcmread(path).SOPInstanceUID)
    with archive(tmp_path / "pacs") as pacs:
        assert dcmtk("storescu", pacs.port, str(path)).returncode == 0
        asking.store_and_ask(pacs.port, path, wait_s=0.3)
        until(lambda: asking.reports, 10, "the report has come")
        assert not pacs.register.forget(uid)
        assert uid in pacs.register.all_held()


# ---------------------------------------------------------------------- a process of its own, dice


@contextmanager
def process(keep: Path, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(PROGRAM), "--keep", str(keep), "--port", str(port), "--scale", "0", *options]
    running = subprocess.Popen(command)
    try:
        until(lambda: listens(port), 30, "the archive listens")
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(20)


def test_what_was_answered_outlives_sigkill(tmp_path: Path) -> None:
    path, port = slice_of(tmp_path), free_port()
    dataset = dcmread(path)
    with process(tmp_path / "pacs", port) as running:
        assert dcmtk("storescu", port, str(path)).returncode == 0
        running.kill()
        running.wait(10)
    with (tmp_path / "pacs" / register.NAME).open("a") as file:
        file.write('{"at": 1, "event": "sto')  # what a kill in the middle of a line leaves
    with process(tmp_path / "pacs", port, "--away-every-s", "1", "--away-for-s", "0.5") as running:
        assert found(port, dataset.StudyInstanceUID) == {str(dataset.SOPInstanceUID)}
        until(lambda: not listens(port), 10, "it has gone away")
        until(lambda: listens(port), 10, "it has come back")
    assert running.returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--share", "forget=2"),
        ("--share", "forget"),
        ("--share", "sleep=0.1"),
        ("--share", "forget=0.9", "--share", "abort=0.9"),
        ("--report-to", "TRIAGE=127.0.0.1"),
        (),
    ],
)
def test_the_program_says_what_is_wrong_with_its_options(options: tuple[str, ...]) -> None:
    app = typer.Typer()
    app.command()(unreliable_archive.main)
    done = CliRunner().invoke(app, [*options])
    assert done.exit_code == 2
    assert re.search("share|expected AE=HOST:PORT|name a folder", done.output), done.output


def test_the_same_objects_meet_the_same_misbehaviour_in_any_order() -> None:
    thrown = []
    for objects in (range(200), reversed(range(200))):
        dice = Dice(7, shares())
        thrown.append(
            {(number, nth): dice.throw(Occasion.STORE, f"{number}") for number in objects for nth in range(2)}
        )
    assert thrown[0] == thrown[1]
    other = Dice(8, shares())
    assert [other.throw(Occasion.STORE, f"{number}") for number in range(200)] != [
        thrown[0][number, 0] for number in range(200)
    ]


def test_every_misbehaviour_happens_about_as_often_as_its_share_says() -> None:
    dice = Dice(1, shares())
    for occasion in Occasion:
        thrown = [dice.throw(occasion, f"{number}") for number in range(4000)]
        for misbehaviour, kind in KINDS.items():
            if kind.occasion is occasion:
                assert thrown.count(misbehaviour) / 4000 == pytest.approx(kind.share, abs=0.02)
                assert misbehaviour in thrown


def test_shares_that_are_more_than_one_together_are_refused() -> None:
    with pytest.raises(ValueError, match="together"):
        shares(scale=3.0)
    with pytest.raises(ValueError, match="must be 0 to 1"):
        shares({Misbehaviour.FORGET: -0.1})
    assert not any(itertools.chain(shares(scale=0).values()))
