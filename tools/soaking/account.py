"""The figures of a soak, destination by destination, and how they are told."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from soaking import judging, register
from soaking.misbehaviour import KINDS, Misbehaviour

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from soaking.arrangement import Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Seconds from a study's answer to something, over all objects."""

    median_s: float
    p95_s: float
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What happened at one destination."""

    name: str
    words: str
    objects: int  # of current answers
    confirmed: int
    received: int  # C-STOREs that came as a whole
    not_kept: int
    forgotten: int
    sent_again: int  # after the archive had said that it lost them, by the node's ledger
    commitments_asked: int
    reports: int
    queries: int
    times_away: int
    to_stored: Delays | None
    to_committed: Delays | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The whole soak."""

    passed: bool
    breaches: tuple[str, ...]
    seed: int
    seconds: float
    sending_s: float
    settling_s: float
    studies: int
    images: int
    associations: int
    killed: dict[str, int]
    requeued: int  # dead letters that were rightly so, sent again by `triage-node requeue`
    destinations: tuple[Figures, ...]
    misbehaviour: dict[str, int]


def figures(
    destination: Destination, place: Path, studies: Mapping[str, Mapping[str, Any]], accounts: Mapping[str, Any]
) -> Figures:
    """Count what a destination's register and the ledger say."""
    lines = list(register.events(place))
    events = Counter(line["event"] for line in lines)
    stored, committed = [], []
    current = []
    resends = 0
    for report in studies.values():
        answered = datetime.fromisoformat(report["judged_at"]).timestamp() if report.get("judged_at") else None
        for entry in judging.entries(report):
            if entry.destination != destination.name:
                continue
            resends += entry.resends
            account = accounts.get(entry.sop_instance_uid)
            if not entry.current:
                continue
            current.append(entry)
            if account is None or answered is None:
                continue
            kept = [arrival.at for arrival in account.arrivals if arrival.kept]
            if kept:
                stored.append(kept[0] - answered)
            if account.committed_at is not None:
                committed.append(account.committed_at - answered)
    return Figures(
        name=destination.name,
        words=destination.words,
        objects=len(current),
        confirmed=sum(entry.state in ("committed", "confirmed") and not entry.awaiting for entry in current),
        received=events[register.STORED] + events[register.REFUSED],
        not_kept=events[register.REFUSED],
        forgotten=events[register.FORGOTTEN],
        sent_again=resends,
        commitments_asked=events[register.COMMITMENT],
        reports=events[register.REPORTED],
        queries=events[register.FOUND],
        times_away=max(0, events[register.OPENED] - 1),
        to_stored=_delays(stored),
        to_committed=_delays(committed),
    )


def misbehaved(places: Sequence[Path]) -> dict[str, int]:
    """How often each misbehaviour happened."""
    return dict(
        Counter(
            line["what"] for place in places for line in register.events(place) if line["event"] == register.MISBEHAVED
        )
    )


def _delays(seconds: Sequence[float]) -> Delays | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return Delays(
        median_s=round(statistics.median(ordered), 2),
        p95_s=round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        longest_s=round(ordered[-1], 2),
    )


def told(outcome: Outcome) -> RenderableType:
    """The report for people."""
    table = Table(title="What each archive was sent", title_justify="left")
    table.add_column("", no_wrap=True)
    for one in outcome.destinations:
        table.add_column(one.name, justify="right", no_wrap=True)
    for heading, cell in ROWS:
        table.add_row(heading, *(cell(one) for one in outcome.destinations))
    happened = Table(title="What went wrong on purpose", title_justify="left", show_header=False)
    for name, number in sorted(outcome.misbehaviour.items(), key=lambda item: -item[1]):
        happened.add_row(str(number), KINDS[Misbehaviour(name)].words)
    for role, number in sorted(outcome.killed.items()):
        happened.add_row(str(number), f"{role} of the node killed with SIGKILL")
    if outcome.requeued:
        happened.add_row(str(outcome.requeued), "objects refused for good, sent again by `triage-node requeue`")
    return Group(
        *(Text(f"{one.name}: {one.words}") for one in outcome.destinations),
        table,
        Text("* from the node's answer: median / longest\n"),
        happened,
        *(Text(f"  {words}", style="red") for words in outcome.breaches),
        _verdict(outcome),
    )


def _verdict(outcome: Outcome) -> Text:
    objects = sum(one.objects for one in outcome.destinations)
    ran = f"seed {outcome.seed}, {outcome.studies} studies, {outcome.images} images, {outcome.seconds:.0f} s"
    if outcome.passed:
        return Text(f"PASSED ({ran}): {objects} deliveries, each proven and there exactly once.", style="green")
    return Text(
        f"FAILED ({ran}): {len(outcome.breaches)} things are not as they must be, see above. The folder with journal,"
        " logs and registers was kept.",
        style="bold red",
    )


def _cell(delays: Delays | None) -> str:
    return "-" if delays is None else f"{delays.median_s:.1f} / {delays.longest_s:.1f}"


ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("objects of answers", lambda one: str(one.objects)),
    ("of these proven", lambda one: str(one.confirmed)),
    ("C-STOREs that came", lambda one: str(one.received)),
    ("not kept", lambda one: str(one.not_kept)),
    ("forgotten after all", lambda one: str(one.forgotten)),
    ("sent again for that", lambda one: str(one.sent_again)),
    ("commitments asked for", lambda one: str(one.commitments_asked)),
    ("commitment reports", lambda one: str(one.reports)),
    ("queries answered", lambda one: str(one.queries)),
    ("times gone away", lambda one: str(one.times_away)),
    ("seconds to arrival *", lambda one: _cell(one.to_stored)),
    ("seconds to commitment *", lambda one: _cell(one.to_committed)),
)
