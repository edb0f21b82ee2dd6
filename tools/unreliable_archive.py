"""An archive that misbehaves on purpose, in a process of its own: for the soak, for the tests and for trying a node.

python tools/unreliable_archive.py --port 11113 --ae-title PACS --keep /tmp/pacs --report-to TRIAGE=127.0.0.1:11112
python tools/unreliable_archive.py --port 11113 --keep /tmp/pacs --scale 0 --share forget=0.5
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from soaking import misbehaviour
from soaking.committing import Node
from soaking.misbehaviour import KINDS, Misbehaviour
from soaking.unreliable import USUAL_PACE, Pace, UnreliableArchive

screen = Console(stderr=True, highlight=False)


def main(
    keep: Annotated[
        Path | None, typer.Option(help="Folder for objects and register; gone on with if it is there.")
    ] = None,
    port: Annotated[int, typer.Option(help="TCP port on 127.0.0.1; 0 for any that is free.")] = 11113,
    ae_title: Annotated[str, typer.Option(help="AE title that it reports commitments under.")] = "PACS",
    seed: Annotated[int, typer.Option(help="Seed of the dice.")] = 0,
    scale: Annotated[float, typer.Option(help="All default shares times this; 0: no misbehaviour.", min=0.0)] = 1.0,
    share: Annotated[list[str] | None, typer.Option(help="NAME=SHARE for one misbehaviour; may be repeated.")] = None,
    report_to: Annotated[
        list[str] | None, typer.Option(help="AE=HOST:PORT: where a sender listens for commitment reports.")
    ] = None,
    slow_s: Annotated[float, typer.Option(help="How slow slow is, in seconds.")] = USUAL_PACE.slow_s,
    stall_s: Annotated[float, typer.Option(help="Longer than the sender's time-out, in seconds.")] = USUAL_PACE.stall_s,
    late_s: Annotated[
        float, typer.Option(help="How late a late commitment report is, in seconds.")
    ] = USUAL_PACE.late_s,
    away_every_s: Annotated[
        float, typer.Option(help="The port closes about so often, in seconds; 0: never.")
    ] = USUAL_PACE.away_every_s,
    away_for_s: Annotated[float, typer.Option(help="And stays closed for about so long.")] = USUAL_PACE.away_for_s,
    show: Annotated[bool, typer.Option("--list", help="List every misbehaviour with its share and end.")] = False,
) -> None:
    """Run an archive that refuses, stalls, aborts and forgets at random, until SIGTERM or Ctrl-C."""
    try:
        shares = misbehaviour.shares(dict(map(misbehaviour.share, share or [])), scale=scale)
        nodes = dict(_node(one) for one in report_to or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if show:
        _list(shares)
        return
    if keep is None:
        raise typer.BadParameter("name a folder with --keep")
    pace = Pace(slow_s=slow_s, stall_s=stall_s, late_s=late_s, away_every_s=away_every_s, away_for_s=away_for_s)
    archive = UnreliableArchive(keep, ae_title, port, seed=seed, shares=shares, pace=pace, report_to=nodes)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: archive.stop())
    try:
        archive.run()
    except OSError as error:
        screen.print(f"port {port} cannot be opened: {error.strerror}", markup=False)
        sys.exit(3)


def _node(words: str) -> tuple[str, Node]:
    ae_title, equals, address = words.partition("=")
    host, colon, port = address.rpartition(":")
    if not (equals and colon and ae_title and host and port.isdigit()):
        raise ValueError(f"--report-to {words}: expected AE=HOST:PORT")
    return ae_title, Node(host=host, port=int(port))


def _list(shares: dict[Misbehaviour, float]) -> None:
    table = Table("name", "on", "share", "what it does")
    for each, kind in KINDS.items():
        table.add_row(each, kind.occasion, f"{shares[each]:.2f}", kind.words)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
