"""Measures how soon the reading worklist answers by DICOM with thousands of open studies.

    python tools/bench_ups.py                       10 000 studies
    python tools/bench_ups.py --studies 2000 --json

The journal is the one of bench_worklist.py. The worklist runs in a process of its own, as in a node; this one is the
reading system, with an association that stays open. "The first 50" ends with the fiftieth answer, then the query is
cancelled. The query after a result is the first one after a study has become the most urgent. Beside the time by the
clock stands that of the processor in the worklist's process, which other programs on the machine do not lengthen.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from bench_worklist import FIRST, a_result, fill, study_uid
from pydicom.dataset import Dataset
from pynetdicom import AE, _config
from rich.console import Console
from rich.table import Table

from triage_node import config, conformance
from triage_node.journal import Journal, orders, workitems
from triage_node.ups import Worklist, catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pynetdicom.association import Association

# What a list on a workstation shows, besides what identifies it
KEYS = (
    "ScheduledProcedureStepPriority",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "PatientName",
    "PatientID",
    "StudyInstanceUID",
    "ProcedureStepState",
    "ScheduledProcessingParametersSequence",
    "CommentsOnTheScheduledProcedureStep",
)


def serve(folder: Path) -> None:
    """The worklist of a journal until the end of the input; prints its port."""
    catalogue.spare_the_collector()
    settings = config.parse("", folder=folder)
    settings = settings.model_copy(
        update={
            "ups": settings.ups.model_copy(update={"enabled": True, "port": 0}),
            "worklist": settings.worklist.model_copy(update={"max_wait_min": 1e6}),  # nobody is overdue
        }
    )
    worklist = Worklist(settings, Journal(settings.state_dir, "desk"))
    _, port = worklist.start()
    sys.stdout.write(f"\nport {port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    worklist.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A worklist in a process of its own."""

    port: int
    pid: int

    def processor_ms(self) -> float:
        """What its process has used so far (proc(5), /proc/PID/schedstat), all threads together."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e6


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A worklist of a journal in this folder."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = next(int(line.split()[1]) for line in process.stdout if line.startswith("port "))
        try:
            yield Served(port=port, pid=process.pid)
        finally:
            process.stdin.close()
            process.stdout.read()


@contextmanager
def associated(port: int) -> Iterator[Association]:
    """An association of a reading system."""
    # or the library writes out every answer for a log that nobody reads, which takes longer than everything else
    _config.LOG_RESPONSE_IDENTIFIERS = _config.LOG_REQUEST_IDENTIFIERS = False
    ae = AE(ae_title="READER")
    ae.add_requested_context(conformance.UPS_PULL, list(conformance.UNCOMPRESSED))
    association = ae.associate("127.0.0.1", port, ae_title="TRIAGE")
    if not association.is_established:
        raise RuntimeError("the worklist does not answer")
    try:
        yield association
    finally:
        association.release()


def query(**keys: str) -> Dataset:
    """A query for what a list shows, with these values to match."""
    made = Dataset()
    for keyword in KEYS:
        setattr(made, keyword, [] if keyword.endswith("Sequence") else "")
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def asked(association: Association, keys: Dataset, first: int | None = None) -> list[Dataset]:
    """The answers to a query, or the `first` so many."""
    found = []
    answers = association.send_c_find(keys, conformance.UPS_PULL, msg_id=3)
    for status, answer in answers:
        if answer is not None:
            found.append(answer)
        elif status.get("Status") not in (0x0000, 0xFE00):
            raise RuntimeError(f"the query failed: {status}")
        if len(found) == first:
            break
    if first is not None:
        association.send_c_cancel(3, query_model=conformance.UPS_PULL)
        for _ in answers:  # what was on its way
            pass
    return found


def timed(work: Callable[[], object]) -> float:
    """Milliseconds by the clock."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def until_fiftieth(association: Association, keys: Dataset) -> float:
    """Milliseconds from the query to the fiftieth answer."""
    started = time.perf_counter()
    ended = started
    answers = association.send_c_find(keys, conformance.UPS_PULL, msg_id=3)
    for number, (_, answer) in enumerate(answers, start=1):
        if number == FIRST and answer is not None:
            ended = time.perf_counter()
            association.send_c_cancel(3, query_model=conformance.UPS_PULL)
    return 1000 * (ended - started)


def measured(folder: Path, studies: int, repeat: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Medians over the repetitions and the longest, in milliseconds."""
    journal = Journal(config.parse("", folder=folder).state_dir, "bench")
    fill(journal, studies, time.time(), random.Random(0))
    say("giving every study its workitem")
    orders.register(journal, time.time())
    orders.describe(
        journal,
        {
            study_uid(number): json.dumps(
                {
                    "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Phantom^{number}"}]},
                    "00100020": {"vr": "LO", "Value": [f"P-{number:06d}"]},
                }
            )
            for number in range(1, studies + 1)
        },
    )
    walks: dict[str, list[tuple[float, float]]] = {}

    def note(name: str, work: Callable[[], float]) -> None:
        used = worklist.processor_ms()
        wall = work()
        walks.setdefault(name, []).append((wall, worklist.processor_ms() - used))

    say("measuring")
    with served(folder) as worklist, associated(worklist.port) as association:
        started = time.perf_counter()
        asked(association, query(), FIRST)
        first_time = 1000 * (time.perf_counter() - started)
        for repetition in range(repeat):
            waiting = study_uid(10 * (repetition + 1))
            note(f"the first {FIRST}", lambda: until_fiftieth(association, query()))
            note("one by its Study Instance UID", partial(timed, partial(asked, association, one(waiting))))
            note("one by name with a wildcard", partial(timed, partial(asked, association, query(PatientName="*^17"))))
            item = workitems.current(journal, waiting)
            assert item is not None
            note("all attributes of one (N-GET)", partial(timed, partial(get, association, item.workitem_uid)))
            a_result(journal, 10 * (repetition + 1), time.time())
            with journal.writing() as database:
                journal.note(database, "study judged", study=waiting)
            note(f"the first {FIRST} after a result", lambda: until_fiftieth(association, query()))
            top = asked(association, query(), FIRST)
            if waiting not in [str(found.StudyInstanceUID) for found in top]:
                raise RuntimeError("the result has not reordered the list")
        note(f"all {studies}", partial(timed, partial(asked, association, query())))
    journal.close()
    return {
        "studies": studies,
        "repetitions": repeat,
        "first_time_ms": round(first_time, 1),
        "median_ms": {name: round(statistics.median(wall for wall, _ in walks[name]), 1) for name in walks},
        "longest_ms": {name: round(max(wall for wall, _ in walks[name]), 1) for name in walks},
        "median_processor_ms": {name: round(statistics.median(cpu for _, cpu in walks[name]), 1) for name in walks},
    }


def one(study: str) -> Dataset:
    """A query for one study."""
    return query(StudyInstanceUID=study)


def get(association: Association, uid: str) -> None:
    """All attributes of a workitem."""
    answer, _ = association.send_n_get([], conformance.UPS_PUSH, uid, meta_uid=conformance.UPS_PULL)
    if answer.get("Status") != 0:
        raise RuntimeError(f"no answer to the N-GET: {answer}")


def main(
    studies: Annotated[int, typer.Option(help="Open studies.", min=100)] = 10_000,
    repeat: Annotated[int, typer.Option(help="Repetitions.", min=1)] = 9,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
    worklist_of: Annotated[Path | None, typer.Option("--serve", hidden=True)] = None,
) -> None:
    """Milliseconds that a reading system waits for the worklist."""
    if worklist_of is not None:
        serve(worklist_of)
        return
    with (
        tempfile.TemporaryDirectory(prefix="bench-ups-") as folder,
        Console(stderr=True).status(f"filling a journal with {studies} studies") as status,
    ):
        answer = measured(Path(folder), studies, min(repeat, studies // 10), status.update)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    table = Table(title=f"{studies} open studies")
    for column in ("", "median ms", "longest ms", "processor ms"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in answer["median_ms"].items():
        table.add_row(
            name, f"{value:.1f}", f"{answer['longest_ms'][name]:.1f}", f"{answer['median_processor_ms'][name]:.1f}"
        )
    Console().print(table)
    typer.echo(f"the first query of an association: {answer['first_time_ms']:.0f} ms")


if __name__ == "__main__":
    typer.run(main)
