"""Runs a node for minutes or hours against archives that refuse, stall, abort and forget, and judges what arrived.

    python tools/soak.py                              # a few studies, about two minutes
    python tools/soak.py --minutes 240 --kill --seed 7 --json soak.json

A real node (threshold method) gets phantom studies by C-STORE and delivers to four archives: one that does its duty,
one that misbehaves at random (`tools/unreliable_archive.py --list`), a slow one, and one that is not there in the
first half. When all is settled it is judged from outside: every object of every answer lies at each archive exactly
once, with the node's own content, and the ledger says that it is proven. Exit status 0: so it is; 1: something was
lost, sent twice or is not proven, in sentences; 2: the soak could not be run. NOT FOR DIAGNOSTIC USE.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from soaking import account, arrangement, feeding, judging, misbehaviour, register
from soaking.account import Outcome
from soaking.arrangement import Archive, Destination, Node, Unworkable
from soaking.killing import Killer

if TYPE_CHECKING:
    from collections.abc import Callable

    from soaking.feeding import Sent

    from triage_node.phantom import Phantom

UNWORKABLE = 2
LOOK_S = 1.0
screen = Console(stderr=True, highlight=False)


def main(
    studies: Annotated[int, typer.Option(help="Studies that are sent, without --minutes.", min=1)] = 8,
    minutes: Annotated[float | None, typer.Option(help="Send studies for so many minutes instead.", min=0.0)] = None,
    every_s: Annotated[float, typer.Option(help="A study about so often, in seconds.", min=0.0)] = 4.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 1,
    scale: Annotated[float, typer.Option(help="Shares of misbehaviour times this.", min=0.0)] = 1.0,
    share: Annotated[
        list[str] | None, typer.Option(help="NAME=SHARE for one misbehaviour (tools/unreliable_archive.py --list).")
    ] = None,
    kill: Annotated[bool, typer.Option("--kill", help="Also kill the node's children with SIGKILL.")] = False,
    settle_minutes: Annotated[float, typer.Option(help="Longest wait for the last proofs.", min=0.1)] = 10.0,
    keep: Annotated[Path | None, typer.Option(help="Work in this new folder and keep it.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures; - for the screen.")] = None,
) -> None:
    """Soak a node: random studies to unreliable archives, and a verdict on what arrived."""
    try:
        misbehaviour.shares(dict(map(misbehaviour.share, share or [])), scale=scale)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise typer.BadParameter(f"{keep} is not empty: name a new folder with --keep")
    place = keep or Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(place, arrangement.destinations(scale, tuple(share or [])), seed)
    try:
        outcome = soak.run(studies, minutes, every_s, settle_minutes, kill=kill)
    except (Unworkable, feeding.NotSent) as error:
        screen.print(f"the soak could not be run: {error} (everything lies in {place})", style="red", markup=False)
        sys.exit(UNWORKABLE)
    if json_file is not None:
        text = json.dumps(asdict(outcome), indent=1)
        if str(json_file) == "-":
            print(text)
        else:
            json_file.write_text(text + "\n", encoding="utf-8")
    screen.print(account.told(outcome))
    if outcome.passed and keep is None:
        shutil.rmtree(place)
    else:
        screen.print(f"journal, logs and registers: {place}", markup=False)
    sys.exit(0 if outcome.passed else 1)


class Soak:
    """One run in one folder."""

    def __init__(self, place: Path, destinations: tuple[Destination, ...], seed: int) -> None:
        self.place = place
        self.seed = seed
        intake, *ports = arrangement.free_ports(1 + len(destinations))
        self.node = Node((place / "node").resolve(), intake)
        self.archives = [Archive(one, port, place / one.name) for one, port in zip(destinations, ports, strict=True)]
        self.sent: list[Sent] = []
        self.wrong: list[str] = []  # what was seen on the way and cannot be undone
        self.requeued = 0
        self._feeding = True
        self._failure: Exception | None = None

    def run(self, studies: int, minutes: float | None, every_s: float, settle_minutes: float, *, kill: bool) -> Outcome:
        """Start everything, feed, wait until all is settled, stop everything, judge."""
        started = time.monotonic()
        killer = Killer(self.node.children, self.seed)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=screen) as progress:
            task = progress.add_task("making a phantom, starting a node and its archives")

            def say(words: str) -> None:
                progress.update(task, description=words)

            try:
                chest = self._start()
                began = time.monotonic()
                if kill:
                    killer.start()
                self._send(chest, studies, minutes, every_s, killer, say)
                if kill:
                    killer.stop()
                settling = time.monotonic()
                self._settle(settle_minutes, say)
                settled = time.monotonic()
                say("judging")
                reports = {one.study_instance_uid: self.node.ask("study", one.study_instance_uid) for one in self.sent}
            except KeyboardInterrupt:
                raise Unworkable("stopped by hand") from None
            finally:
                self._feeding = False
                self.node.stop()
                for archive in self.archives:
                    archive.stop()
        return self._judge(reports, killer, settled - started, settling - began, settled - settling)

    def _start(self) -> Phantom:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for all that is started here
        self.node.start(self.archives)
        there = [one for one in self.archives if not one.destination.late]
        for archive in there:
            archive.start(self.node.intake, self.seed)
        chest = feeding.phantom()
        arrangement.wait_for(self.node, *there)
        return chest

    def _send(
        self,
        chest: Phantom,
        studies: int,
        minutes: float | None,
        every_s: float,
        killer: Killer,
        say: Callable[[str], None],
    ) -> None:
        """Send until it is enough; half-way the late archives begin."""
        began = time.monotonic()
        until = None if minutes is None else began + minutes * 60
        feeder = threading.Thread(target=self._feed, args=(chest, studies, until, every_s), daemon=True)
        feeder.start()
        late = [one for one in self.archives if one.destination.late]
        while feeder.is_alive():
            half = len(self.sent) * 2 >= studies if minutes is None else time.monotonic() >= began + minutes * 30
            if half:
                self._begin(late)
                late = []
            kills = f", {sum(killer.killed.values())} kills" if killer.killed else ""
            say(f"sending: {len(self.sent)} studies{kills}")
            feeder.join(LOOK_S)
        if self._failure is not None:
            raise self._failure
        self._begin(late)
        arrangement.wait_for(*self.archives)

    def _begin(self, late: list[Archive]) -> None:
        for archive in late:
            archive.start(self.node.intake, self.seed)

    def _feed(self, chest: Phantom, studies: int, until: float | None, every_s: float) -> None:
        dice = random.Random(f"{self.seed} feed")
        number = 0
        try:
            while self._feeding and (time.monotonic() < until if until is not None else number < studies):
                number += 1
                sent = feeding.send(
                    chest, number, self.place / "studies" / str(number), self.node.intake,
                    seed=self.seed, go_on=lambda: self._feeding,
                )  # fmt: skip
                if sent is not None:
                    self.sent.append(sent)
                time.sleep(dice.uniform(0, 2 * every_s))
        except Exception as error:  # noqa: BLE001  the main thread raises it again
            self._failure = error

    def _settle(self, minutes: float, say: Callable[[str], None]) -> None:
        """Wait until nothing is left to do; dead letters that are rightly so are sent again, as people would."""
        deadline = time.monotonic() + minutes * 60
        while time.monotonic() < deadline:
            there = self.node.ask("status")["destinations"]
            listed = {one["study_instance_uid"]: one["state"] for one in self.node.ask("worklist")}
            to_judge = sum(listed.get(one.study_instance_uid, "waiting") == "waiting" for one in self.sent)
            queued, awaiting, dead = (sum(one[key] for one in there) for key in ("queued", "awaiting", "dead_letters"))
            say(f"settling: {to_judge} studies to judge, {queued} objects to send, {awaiting} proofs to come")
            if not (to_judge or queued or awaiting):
                if not dead:
                    return
                self._requeue()
            time.sleep(LOOK_S)
        self.wrong.append(f"not everything was settled {minutes:g} minutes after the last study")

    def _requeue(self) -> None:
        accounts = {one.destination.name: register.accounts(one.place) for one in self.archives}
        letters = self.node.ask("requeue", "--list")
        for letter in letters:
            problem = judging.dead_letter(letter, accounts[letter["destination"]])
            if problem is not None:
                self.wrong.append(problem)
        self.requeued += len(letters)
        self.node.ask("requeue")

    def _judge(
        self, reports: dict[str, Any], killer: Killer, seconds: float, sending_s: float, settling_s: float
    ) -> Outcome:
        accounts = {one.destination.name: register.accounts(one.place) for one in self.archives}
        destinations = tuple(one.destination for one in self.archives)
        breaches = (
            *dict.fromkeys(self.wrong),
            *judging.judge(reports, destinations, accounts, self.node.state_dir, killed=bool(killer.killed)),
        )
        return Outcome(
            passed=not breaches,
            breaches=breaches,
            seed=self.seed,
            seconds=round(seconds, 1),
            sending_s=round(sending_s, 1),
            settling_s=round(settling_s, 1),
            studies=len(self.sent),
            images=sum(one.images for one in self.sent),
            associations=sum(one.associations for one in self.sent),
            killed=killer.killed,
            requeued=self.requeued,
            destinations=tuple(
                account.figures(one.destination, one.place, reports, accounts[one.destination.name])
                for one in self.archives
            ),
            misbehaviour=account.misbehaved([one.place for one in self.archives if one.destination.scale > 0]),
        )


def _at(moment: float) -> Callable[[], bool]:
    return lambda: time.monotonic() >= moment


if __name__ == "__main__":
    typer.run(main)
