"""Work on folders of DICOM files without a running node: judge them, send them, ask who answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triage_node import (
    analyst,
    conformance,
    filing,
    inference,
    operating,
    priority,
    requestor,
    results,
    terminal,
    volume,
    worklist,
)
from triage_node.errors import CannotUnderstand, DeliveryFailed, TriageError
from triage_node.requestor import Peer
from triage_node.study import NOT_FOR_DIAGNOSTIC_USE

if TYPE_CHECKING:
    from pathlib import Path

    from pynetdicom.association import Association

    from triage_node.config import Settings
    from triage_node.study import Study

_TARGET = re.compile(r"(?P<ae_title>[^@]{1,16})@(?P<host>.+):(?P<port>\d{1,5})")
ECHO_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 30.0


def target(text: str | None, settings: Settings) -> Peer:
    """Read AE@HOST:PORT; without a text, the node of the configuration."""
    if text is None:
        return Peer(ae_title=settings.node.ae_title, host=_reachable(settings.intake.host), port=settings.intake.port)
    match = _TARGET.fullmatch(text)
    if match is None:
        raise TriageError(f"{text!r} is not AE@HOST:PORT, for example PACS@127.0.0.1:11113")
    return Peer(ae_title=match["ae_title"], host=match["host"], port=int(match["port"]))


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


# ---------------------------------------------------------------------- judge


def analyze(folder: Path, out: Path, settings: Settings, *, show: bool) -> list[dict[str, Any]]:
    """Judge every study below `folder`, write its objects below `out`; returns one answer a study."""
    screen = Console(stderr=True, highlight=False, quiet=not show)
    with screen.status("looking for DICOM files"):
        found = volume.contents_of(folder)
    if found.ignored:
        screen.print(f"{len(found.ignored)} files left out, for example {found.ignored[0].words}", style="dim")
    if not found.studies:
        return []  # said at once, without loading networks
    method = inference.load(settings.analysis)
    operating.check(method.model, worklist=settings.worklist)
    answers = []
    for study in found.studies:
        with screen.status("judging") as line:

            def progress(what: str, fraction: float, line: Any = line) -> None:
                line.update(f"{what} ({fraction:.0%})")

            walked = analyst.walk(study, method, settings, _occasion(study), progress)
        place = out if len(found.studies) == 1 else out / study.study_instance_uid
        answer = _write(study, walked, place)
        answers.append(answer)
        if show:
            terminal.console().print(_sentence(answer))
    return answers


def _occasion(study: Study) -> analyst.Occasion:
    # The newest file's time instead of the clock: a repeated run writes the same objects, as their UIDs promise.
    newest = max(instance.path.stat().st_mtime for series in study.series for instance in series.instances)
    return analyst.Occasion(generation=1, created_at=datetime.fromtimestamp(int(newest), UTC))


def _write(study: Study, walked: analyst.Walked, place: Path) -> dict[str, Any]:
    place.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for made in walked.objects:
        path = place / f"{made.kind}.dcm"
        path.write_bytes(made.data)
        files[made.kind] = str(path)
        if made.kind == "overview":
            path = place / "overview.png"
            path.write_bytes(results.png(made.dataset))
            files["overview_png"] = str(path)
    return {
        "study_instance_uid": study.study_instance_uid,
        "state": "judged" if walked.assessment else "not_analysed",
        "notice": NOT_FOR_DIAGNOSTIC_USE,
        "series_instance_uid": walked.series.key.series_instance_uid if walked.series else None,
        "not_analysed": None
        if walked.not_analysed is None
        else {"reason": walked.not_analysed.reason, "words": walked.not_analysed.words},
        "measurements": worklist.measurements(walked.assessment) if walked.assessment else None,
        "passed_over": [
            {
                "series_instance_uid": entry.series_instance_uid,
                "description": entry.description,
                "reason": entry.not_analysed.reason,
                "words": entry.not_analysed.words,
            }
            for entry in walked.passed_over
        ],
        "files": files,
    }


def _sentence(answer: dict[str, Any]) -> str:
    where = ", ".join(answer["files"].values())
    if answer["not_analysed"]:
        refusal = answer["not_analysed"]
        return f"{answer['study_instance_uid']}\n  not analysed ({refusal['reason']}): {refusal['words']}\n  {where}"
    numbers = answer["measurements"]
    sides = ", ".join(
        f"{side} lung {numbers[side]['affected_fraction']:.1%}" if numbers[side] else f"no {side} lung"
        for side in ("right", "left")
    )
    both = numbers["both"]
    parts = [
        f"{words} {both[f'{part}_ml']:.0f} ml ({both[f'{part}_fraction']:.1%})"
        for part, words in (("ground_glass", "ground glass"), ("consolidation", "consolidation"))
    ]
    probability = numbers["covid_probability"]
    trust = numbers["trust"] if probability is not None else ""
    lines = [
        answer["study_instance_uid"],
        f"affected: {sides}; {numbers['ct_grade']}, CT-SS {numbers['ct_ss']}",
        f"both lungs: {', '.join(parts)}",
        "P(COVID-19): " + ("not provided by this method" if probability is None else priority.probability(probability)),
        *([f"how far it can be trusted: {trust}"] if trust else []),
        *(f"warning: {warning}" for warning in numbers["warnings"]),
        where,
        answer["notice"],
    ]
    return "\n  ".join(lines)


# ---------------------------------------------------------------------- send


def send(folder: Path, to: Peer, settings: Settings, *, show: bool) -> dict[str, Any]:
    """Send every DICOM file below `folder` on one association; says what was taken and what was not."""
    files, ignored, offers = [], 0, set()
    refused: list[dict[str, str]] = []
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        try:
            header, syntax, _ = filing.read_file(path)
        except (CannotUnderstand, OSError):
            ignored += 1
            continue
        try:
            offers.add(conformance.offer(conformance.Purpose.SEND, header.sop_class_uid, syntax))
        except DeliveryFailed as failure:
            refused.append({"file": str(path), "why": str(failure)})
            continue
        files.append((path, header.sop_class_uid))
    if not files:
        raise TriageError(refused[0]["why"] if refused else f"no DICOM file in {folder}")
    unsendable = len(refused)
    association = requestor.associate(settings.node.ae_title, to, sorted(offers)[:128], timeout_s=SEND_TIMEOUT_S)
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, quiet=not show)) as bar:
        for path, sop_class in bar.track(files):
            why = _store(association, path, sop_class)
            if why:
                refused.append({"file": str(path), "why": why})
    if association.is_established:
        association.release()
    sent = len(files) + unsendable - len(refused)
    if show:
        for one in refused[:20]:
            terminal.console().print(f"{one['file']}: {one['why']}", style="yellow")
        terminal.console().print(
            f"{sent} of {len(files) + unsendable} objects taken by {to.ae_title}@{to.host}:{to.port}"
        )
    return {"sent": sent, "refused": refused, "not_dicom": ignored}


def _store(association: Association, path: Path, sop_class_uid: str) -> str:
    """Why the object was not taken; empty when it was."""
    try:
        status, words = requestor.store(association, path, sop_class_uid, "DICOM")
    except DeliveryFailed as failure:
        return str(failure)
    return "" if status == 0 else words


def echo_all(settings: Settings) -> list[dict[str, Any]]:
    """C-ECHO the node itself and every destination."""
    entries = [("this node", target(None, settings))] + [
        (one.name, Peer(ae_title=one.ae_title, host=one.host, port=one.port)) for one in settings.destinations
    ]
    answers = []
    for name, to in entries:
        try:
            association = requestor.associate(
                settings.node.ae_title,
                to,
                [conformance.offer(conformance.Purpose.ECHO, conformance.VERIFICATION)],
                timeout_s=ECHO_TIMEOUT_S,
            )
            reply = association.send_c_echo()
            ok = "Status" in reply and reply.Status == 0
            words = "answers" if ok else "does not answer the C-ECHO"
            association.release()
        except TriageError as error:
            ok, words = False, str(error)
        answers.append(
            {"name": name, "ae_title": to.ae_title, "host": to.host, "port": to.port, "ok": ok, "answer": words}
        )
    return answers
