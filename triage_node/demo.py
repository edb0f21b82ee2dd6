"""The demonstration: a whole node and a receiving archive on loopback, real DICOM over the wire.

Phantom studies of several severities (or the user's own files) are sent as a scanner would; the list is shown in
order of arrival and as the node reorders it; the archive files what the node sends back, for any viewer.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom import AE, evt
from rich.console import Console

from triage_node import config, conformance, folder, phantom_dicom, results, terminal, worklist
from triage_node.errors import TriageError
from triage_node.journal import Journal, outbox
from triage_node.phantom import Body, PhantomSpec
from triage_node.phantom_dicom import CANON, GE, PHILIPS, SIEMENS, Person, VendorHabit
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE, StudyState

if TYPE_CHECKING:
    from pathlib import Path

REFUSALS_SHOWN = 5  # of a folder
MARK = "made by triage-node demo; everything in this folder is replaced by the next demonstration\n"
START_TIMEOUT_S = 60.0
STUDY_TIMEOUT_S = 120.0
CONFIG = """\
[node]
ae_title = "TRIAGE"
state_dir = "state"

[intake]
port = {intake}
minimum_free_bytes = 200000000

[completion]
quiet_s = 1.0         # a hospital's node waits longer, above all for missing slices
long_quiet_s = 10.0

[[destinations]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}

[web]
port = {web}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One phantom study of the demonstration."""

    name: str
    spec: PhantomSpec
    habit: VendorHabit
    left_out: tuple[int, ...] = ()  # slices that are never sent


def _chest(seed: int, right: float, left: float, consolidation: float = 0.2) -> PhantomSpec:
    return PhantomSpec(
        seed=seed,
        slices=50,
        rows=192,
        columns=192,
        spacing_zyx_mm=(6.0, 2.0, 2.0),
        right_fraction=right,
        left_fraction=left,
        consolidation_share=consolidation,
    )


CASES = (
    Case(
        name="healthy",  # thick slices: made fast, so that there is soon something to see
        spec=PhantomSpec(seed=1, slices=40, rows=160, columns=160, spacing_zyx_mm=(7.5, 2.4, 2.4)),
        habit=SIEMENS,
    ),
    Case(name="mild, right lung", spec=_chest(2, 0.12, 0.02), habit=GE),
    Case(name="abdomen, not a chest", spec=PhantomSpec(seed=3, body=Body.ABDOMEN, slices=40), habit=PHILIPS),
    Case(name="moderate, both lungs", spec=_chest(4, 0.30, 0.35), habit=CANON),
    Case(name="incomplete: slices lost on the way", spec=_chest(5, 0.20, 0.20), habit=SIEMENS, left_out=(20, 21, 22)),
    Case(name="severe", spec=_chest(6, 0.55, 0.60), habit=GE),
    Case(name="healthy, lung kernel", spec=_chest(7, 0.0, 0.0), habit=CANON),
    Case(name="critical", spec=_chest(8, 0.80, 0.70, 0.4), habit=PHILIPS),
    Case(name="mild, left lung", spec=_chest(9, 0.01, 0.15), habit=SIEMENS),
)


class ReceivingArchive:
    """A storage SCP that files what it gets by study, as a PACS would."""

    def __init__(self, place: Path) -> None:
        """Listen on a free loopback port."""
        self.place = place
        ae = AE(ae_title="ARCHIVE")
        for service in conformance.services(
            conformance.Role.SCU, conformance.Purpose.DELIVERY, conformance.Purpose.ECHO
        ):
            ae.add_supported_context(service.sop_class_uid, list(service.transfer_syntaxes))
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._keep)])
        assert self._server is not None
        self.port = int(self._server.server_address[1])

    def _keep(self, event: evt.Event) -> int:
        dataset = event.dataset
        study = self.place / str(dataset.get("AccessionNumber") or dataset.StudyInstanceUID)
        study.mkdir(parents=True, exist_ok=True)
        kind = str(dataset.Modality).lower()
        if kind == "seg":
            kind = f"seg-{'lungs' if 'lungs' in str(dataset.SeriesDescription).lower() else 'lesions'}"
        path = study / f"{kind}.dcm"
        path.write_bytes(event.encoded_dataset())
        if kind != "sr" and not kind.startswith("seg"):
            (study / "overview.png").write_bytes(results.png(dataset))
        return 0x0000

    def stop(self) -> None:
        """Close the port."""
        assert self._server is not None
        self._server.shutdown()


def run(out: Path, own: Path | None, *, keep: bool) -> int:
    """Run the demonstration in `out`; returns the exit status."""
    screen = Console(highlight=False)
    started = time.monotonic()

    def say(words: str, style: str | None = None) -> None:
        screen.print(f"[dim]{time.monotonic() - started:5.1f} s[/dim]  ", end="")
        screen.print(words, style=style, markup=False)

    _clear(out)
    archive = ReceivingArchive(out / "archive")
    intake, web = _free_port(11112), _free_port(8080)
    config_path = out / "node.toml"
    config_path.write_text(CONFIG.format(intake=intake, web=web, archive=archive.port), encoding="utf-8")
    settings = config.load(config_path)
    say(f"{NOT_FOR_DIAGNOSTIC_USE}: a demonstration with {'your own files' if own else 'made-up patients'}")
    workers = _workers()
    studies = _own_studies(own) if own else _phantoms(out / "studies", workers)
    with (out / "node.log").open("wb") as log:
        command = [sys.executable, "-m", "triage_node", "serve", "--config", str(config_path)]
        node = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        say(f"node starting: TRIAGE@127.0.0.1:{intake}, page http://127.0.0.1:{web}/, archive on port {archive.port}")
        journal = _wait_for_node(settings, node, out)
        watcher = _Watcher(journal, settings, say)
        for name, made in studies:
            while not made.done():
                watcher.look()
                time.sleep(0.1)
            place = made.result()
            sent = folder.send(place, folder.target(None, settings), settings, show=False)
            watcher.names.append(name)
            say(
                f"sent      {name}: {sent['sent']} images"
                + (f", {len(sent['refused'])} refused" if sent["refused"] else "")
            )
            for one in sent["refused"][:REFUSALS_SHOWN]:
                say(f"refused   {one['file']}: {one['why']}", "yellow")
            if len(sent["refused"]) > REFUSALS_SHOWN:
                say(f"refused   ... and {len(sent['refused']) - REFUSALS_SHOWN} more", "yellow")
            watcher.look()
        before = worklist.reading_list(journal, settings, time.time())
        watcher.until_all_answered(len(before))
        after = worklist.reading_list(journal, settings, time.time())
        screen.print(
            terminal.reading_list(sorted(after, key=lambda item: item.arrival_rank), "Before: in order of arrival")
        )
        screen.print(terminal.reading_list(after, "After: in reading order"))
        watcher.until_delivered()
        _where_things_lie(say, out, web, settings)
        if keep:
            say("node and page keep running; stop them with Ctrl-C")
            _wait_for_interrupt()
    finally:
        workers.shutdown(cancel_futures=True)
        node.send_signal(signal.SIGTERM)
        node.wait(20)
        archive.stop()
    say("node stopped")
    return 0


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / "README").exists() or (out / "README").read_text(encoding="utf-8") != MARK:
            raise TriageError(f"{out} is not empty and not of an earlier demonstration: name another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "README").write_text(MARK, encoding="utf-8")


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just given back is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TriageError("no free port on 127.0.0.1")


def _phantoms(place: Path, workers: Executor) -> list[tuple[str, Future[Path]]]:
    return [
        (f"PH{number:04d} ({case.name})", workers.submit(_make, case, number, place / f"{number:02d}"))
        for number, case in enumerate(CASES, start=1)
    ]


def _workers() -> Executor:
    # Threads of the linear algebra library would fight the node for the cores; each worker does with one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=2, mp_context=context, initializer=os.nice, initargs=(5,))


def _make(case: Case, number: int, study: Path) -> Path:
    files = phantom_dicom.write_study(study, case.spec, case.habit, person=Person(number=number))
    for index in case.left_out:
        files[index].unlink()
    return study


def _own_studies(own: Path) -> list[tuple[str, Future[Path]]]:
    if not own.is_dir():
        raise TriageError(f"{own} is not a folder")
    studies = []
    for place in sorted(entry for entry in own.iterdir() if entry.is_dir()) or [own]:
        there: Future[Path] = Future()
        there.set_result(place)
        studies.append((place.name, there))
    return studies


def _wait_for_node(settings: config.Settings, node: subprocess.Popen[bytes], out: Path) -> Journal:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise TriageError(f"the node ended; {out / 'node.log'} says why")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", settings.intake.port)) == 0:
                return Journal(settings.state_dir, "demo")
        time.sleep(0.1)
    raise TriageError(f"the node did not start within {START_TIMEOUT_S:g} s; {out / 'node.log'} says why")


class _Watcher:
    """Says for each study when it was answered, and where it went on the list."""

    def __init__(self, journal: Journal, settings: config.Settings, say: Any) -> None:
        self._journal = journal
        self._settings = settings
        self._say = say
        self._told: set[str] = set()
        self.names: list[str] = []

    def look(self) -> int:
        items = worklist.reading_list(self._journal, self._settings, time.time())
        for item in items:
            if item.state is StudyState.WAITING or item.study_instance_uid in self._told:
                continue
            self._told.add(item.study_instance_uid)
            name = item.accession_number or item.study_instance_uid
            if item.state is StudyState.JUDGED:
                grade = f"{item.ct_grade}, {terminal.percent(item.affected_fraction)} of the worse lung affected"
                self._say(f"judged    {name}: {grade}; place {item.rank} of {len(items)}")
            else:
                self._say(f"answered  {name}: {item.reasons[0]}", style="yellow")
        return len(self._told)

    def until_all_answered(self, studies: int) -> None:
        deadline = time.monotonic() + STUDY_TIMEOUT_S
        while self.look() < studies:
            if time.monotonic() > deadline:
                raise TriageError(f"{studies - len(self._told)} studies were not answered in time; see the log")
            time.sleep(0.2)

    def until_delivered(self) -> None:
        deadline = time.monotonic() + STUDY_TIMEOUT_S
        while outbox.next_at(self._journal, "archive") is not None:
            if time.monotonic() > deadline:
                raise TriageError("the archive did not get every object in time; see the log")
            time.sleep(0.2)


def _where_things_lie(say: Any, out: Path, web: int, settings: config.Settings) -> None:
    objects = sorted((out / "archive").rglob("*.dcm"))
    say(f"{len(objects)} objects reached the archive: {out / 'archive'}/STUDY/seg-lungs.dcm, seg-lesions.dcm, sr.dcm")
    say(f"overview pictures: {out / 'archive'}/STUDY/overview.png")
    say(f"look again: triage-node worklist --config {out / 'node.toml'} (or study, status, logs)")
    say(f"page while the node runs: http://127.0.0.1:{web}/ (tools/demo --keep)")
    say(f"log: {settings.state_dir / 'log' / 'node.log'}")


def _wait_for_interrupt() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
