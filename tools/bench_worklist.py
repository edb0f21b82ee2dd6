"""Measures how long the reading list takes with thousands of open studies.

    python tools/bench_worklist.py                  10 000 studies
    python tools/bench_worklist.py --studies 2000 --json

Fills a journal in a temporary folder: one in ten studies waits, one in ten was not analysed, the others are judged.
Every repetition also makes the list in the former way, in which each row was read, parsed and judged anew for every
list; the ratio, of processor time, is taken within the repetition. No study is overdue, so that every place is decided
by urgency, which is the slowest case.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from triage_node import config, priority, severity, worklist
from triage_node.journal import Journal, queue, views
from triage_node.study import Assessment, Laterality, LungMeasurement, Model, NotAnalysed, Reason, StudyState

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = config.Settings()
MODEL = Model(name="bench", version="1", digest="0" * 64)
LUNG_ML = 2500.0
FIRST = 50  # a page of a list, and what a workstation asks for
APART_S = 30.0


def assessment_of(right: float, left: float, probability: float) -> Assessment:
    """A judged study of these affected fractions."""
    lungs = {
        side: LungMeasurement(
            laterality=side, volume_ml=LUNG_ML, lesion_ml=fraction * LUNG_ML, consolidation_ml=fraction * LUNG_ML / 4
        )
        for side, fraction in ((Laterality.RIGHT, right), (Laterality.LEFT, left))
    }
    worse, both = max(right, left), (right + left) / 2
    return Assessment(
        right=lungs[Laterality.RIGHT],
        left=lungs[Laterality.LEFT],
        affected_fraction=worse,
        affected_fraction_both=both,
        consolidation_share=0.25 if worse else None,
        ct_grade=severity.ct_grade(worse),
        ct_ss=severity.ct_severity_score(both),
        covid_probability=probability,
        model=MODEL,
        generation=1,
    )


def fill(journal: Journal, studies: int, now: float, chance: random.Random) -> None:
    """Open studies, the last one just now; written in one transaction, since an analyst would take hours."""
    refused = queue.NOT_ANALYSED.dump_json(NotAnalysed(reason=Reason.GAP, words="3 slices seem to be missing")).decode()
    with journal.writing() as database:
        for number in range(1, studies + 1):
            uid = study_uid(number)
            state = (StudyState.WAITING, StudyState.NOT_ANALYSED)[number % 2] if number % 10 < 2 else StudyState.JUDGED
            if state is not StudyState.WAITING:
                judged = state is StudyState.JUDGED
                found = assessment_of(chance.random() ** 4, chance.random() ** 4, chance.random())
                database.conn.execute(
                    "insert into results (id, study_instance_uid, generation, assessment_json, not_analysed_json,"
                    " passed_over_json, identity_json, created_at, duration_s)"
                    " values (?, ?, 1, ?, ?, '[]', '{}', ?, 1)",
                    (
                        number,
                        uid,
                        queue.ASSESSMENT.dump_json(found).decode() if judged else None,
                        None if judged else refused,
                        now,
                    ),
                )
            database.conn.execute(
                "insert into studies (study_instance_uid, accession_number, description, study_date, arrived_at, state,"
                " result_id) values (?, ?, 'CT THORAX NATIV', '20261121', ?, ?, ?)",
                (
                    uid,
                    f"2026-{number:06d}",
                    now - APART_S * (studies - number),
                    state,
                    None if state is StudyState.WAITING else number,
                ),
            )


def study_uid(number: int) -> str:
    """The UID of a study of the bench."""
    return f"2.25.{10**20 + number}"


def former_list(journal: Journal, now: float) -> list[dict[str, Any]]:
    """The list as it was made before rows were kept: read, parsed and judged anew, every place in words."""
    rows = {row.study_instance_uid: row for row in views.studies(journal)}
    places = priority.arrange([worklist.facts_of(row) for row in rows.values()], SETTINGS.worklist, now)
    return [{"row": rows[place.study_instance_uid], "place": place} for place in places]


def a_result(journal: Journal, number: int, now: float) -> None:
    """One waiting study gets an answer that puts it first."""
    with journal.writing() as database:
        cursor = database.conn.execute(
            "insert into results (study_instance_uid, generation, assessment_json, passed_over_json, identity_json,"
            " created_at, duration_s) values (?, 2, ?, '[]', '{}', ?, 1)",
            (study_uid(number), queue.ASSESSMENT.dump_json(assessment_of(1.0, 1.0, 1.0)).decode(), now),
        )
        database.conn.execute(
            "update studies set result_id = ?, state = 'judged' where study_instance_uid = ?",
            (cursor.lastrowid, study_uid(number)),
        )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the clock and of the processor, which other programs on the machine do not lengthen."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - used)


def measured(
    folder: Path, studies: int, repeat: int, chance: random.Random, say: Callable[[str], None]
) -> dict[str, Any]:
    """Medians over the repetitions, by the clock and of the processor, and the longest."""
    now = 1_700_000_000.0
    journal = Journal(folder, "bench")
    fill(journal, studies, now, chance)
    say("measuring")
    settings = SETTINGS.model_copy(
        update={"worklist": SETTINGS.worklist.model_copy(update={"max_wait_min": APART_S * studies})}
    )
    first_time = timed(lambda: worklist.reading_list(journal, settings, now, FIRST))
    walks: dict[str, list[tuple[float, float]]] = {}
    ratios = []
    for repetition in range(repeat):
        waiting = 10 * (repetition + 1)
        walk = {
            "the first 50": timed(lambda: worklist.reading_list(journal, settings, now, FIRST)),
            "the first 50 as JSON": timed(
                lambda: json.dumps([asdict(item) for item in worklist.reading_list(journal, settings, now, FIRST)])
            ),
            "the whole list": timed(lambda: worklist.reading_list(journal, settings, now)),
            "a result is written": timed(lambda number=waiting: a_result(journal, number, now)),  # type: ignore[misc]  # bound early
            "the first 50 after the result": timed(lambda: worklist.reading_list(journal, settings, now, FIRST)),
            "former way": timed(lambda: former_list(journal, now)),
        }
        top = worklist.reading_list(journal, settings, now, FIRST)
        assert study_uid(waiting) in [item.study_instance_uid for item in top]
        for name, value in walk.items():
            walks.setdefault(name, []).append(value)
        ratios.append(walk["former way"][1] / walk["the first 50"][1])
    journal.close()
    return {
        "studies": studies,
        "repetitions": repeat,
        "first_time_ms": round(first_time[0], 1),
        "median_ms": {name: round(statistics.median(wall for wall, _ in walks[name]), 1) for name in walks},
        "longest_ms": {name: round(max(wall for wall, _ in walks[name]), 1) for name in walks},
        "median_processor_ms": {name: round(statistics.median(cpu for _, cpu in walks[name]), 1) for name in walks},
        "times_as_fast_as_the_former_way": round(statistics.median(ratios), 1),
    }


def main(
    studies: Annotated[int, typer.Option(help="Open studies.", min=100)] = 10_000,
    repeat: Annotated[int, typer.Option(help="Repetitions.", min=1)] = 9,
    seed: Annotated[int, typer.Option(help="Of the studies' numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Milliseconds that the reading list takes."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-worklist-") as folder,
        Console(stderr=True).status(f"filling a journal with {studies} studies") as status,
    ):
        answer = measured(Path(folder), studies, min(repeat, studies // 10), random.Random(seed), status.update)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    table = Table(title=f"{studies} open studies")
    table.add_column("")
    table.add_column("median ms", justify="right")
    table.add_column("longest ms", justify="right")
    table.add_column("processor ms", justify="right")
    for name, value in answer["median_ms"].items():
        table.add_row(
            name, f"{value:.1f}", f"{answer['longest_ms'][name]:.1f}", f"{answer['median_processor_ms'][name]:.1f}"
        )
    Console().print(table)
    typer.echo(f"the first list of a process: {answer['first_time_ms']:.0f} ms")
    typer.echo(f"the first 50 come {answer['times_as_fast_as_the_former_way']:.1f} times as fast as in the former way")


if __name__ == "__main__":
    typer.run(main)
