"""Measures where the time of a series goes, and how near the networks come to what the machine can compute.

    python tools/bench_inference.py                          a phantom of 300 slices of 512 x 512
    python tools/bench_inference.py --series DIR --repeat 5  a series of your own
    python tools/bench_inference.py --leak 100               does memory grow over a hundred series?

Every repetition walks the whole line once, from files on the disk to encoded objects, and multiplies matrices before
and after, so that networks and floor meet the same neighbours. The floor is what the networks' convolutions and
matrix products would take at the rate of those matrix products, the better of bfloat16 and float16.
"""

from __future__ import annotations

import gc
import json
import platform
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from nets import weights as model_cards
from triage_node import inference, phantom_dicom, results, severity, volume
from triage_node.config import AnalysisSection
from triage_node.identity import ResultIdentity
from triage_node.inference import engine
from triage_node.inference.multitask import STEPS, Multitask, lesion_slices, lung_slices
from triage_node.phantom import PhantomSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from triage_node.study import Series

STAGES = ("read", *(step for step in STEPS if step != "done"), "measure", "encode")
NETWORKS = ("lungs", "multitask")  # inside of two of the stages
FIELD_MM, HEIGHT_MM = 380.0, 300.0  # of the phantom
SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices that are multiplied
PRODUCTS = 3


@dataclass(slots=True)
class Watched:
    """An engine whose time and slices are kept."""

    inner: engine.Engine
    seconds: float = 0.0
    shape: tuple[int, ...] = ()

    @property
    def describes(self) -> str:
        """Device, precision and threads, for people."""
        return self.inner.describes

    def __call__(self, slices: torch.Tensor, tell: Callable[[int], None] | None = None) -> tuple[torch.Tensor, ...]:
        """Run the engine."""
        started = time.perf_counter()
        outputs = self.inner(slices, tell)
        self.seconds = time.perf_counter() - started
        self.shape = tuple(slices.shape)
        return outputs


@dataclass(slots=True)
class Walk:
    """One repetition: seconds a stage and a network, and the rates of matrix products around it."""

    stages: dict[str, float] = field(default_factory=dict)
    networks: dict[str, float] = field(default_factory=dict)
    gflops_a_second: dict[str, float] = field(default_factory=dict)


def watched(method: Multitask) -> tuple[Multitask, dict[str, Watched]]:
    """The method with its engines watched."""
    engines = {
        "lungs": Watched(method.lungs),
        "lungs, float32": Watched(method.lungs_exact),
        "multitask": Watched(method.lesions),
    }
    lungs, exact, lesions = engines.values()
    return replace(method, lungs=lungs, lungs_exact=exact, lesions=lesions), engines


def walk(series: Series, method: Multitask, engines: dict[str, Watched], settings: AnalysisSection) -> Walk:
    """From files to encoded objects, once."""
    done = Walk()
    for each in engines.values():
        each.seconds = 0.0
    clock = _Clock(done.stages)
    clock.begin("read")
    read = volume.read(series, settings)
    step = ""

    def progress(what: str, _: float) -> None:
        nonlocal step
        if what not in (step, "done"):
            clock.begin(what)
        step = what

    findings = method(read, progress)
    clock.begin("measure")
    assessment = severity.assess(read, findings, generation=1, settings=settings)
    clock.begin("encode")
    identity = ResultIdentity(
        study_instance_uid=series.key.study_instance_uid,
        series_digest=series.digest,
        model_digest=method.model.digest,
        generation=1,
        created_at=datetime(2020, 1, 1, tzinfo=UTC),
    )
    results.judged(read, findings, assessment, identity)
    clock.end()
    done.networks = {name: engines[name].seconds for name in NETWORKS}
    done.networks["lungs"] += engines["lungs, float32"].seconds  # the slices on which rounding could decide, again
    return done


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._stage, self._since = "", 0.0

    def begin(self, stage: str) -> None:
        self.end()
        self._stage, self._since = stage, time.perf_counter()

    def end(self) -> None:
        if self._stage:
            self._seconds[self._stage] = time.perf_counter() - self._since
        self._stage = ""


# ---------------------------------------------------------------------- the floor


def product_rates(device: torch.device) -> dict[str, float]:
    """10^9 operations a second of matrix products, for each precision."""
    side = SIDE[device.type]
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if device.type == "cuda":  # no CPU multiplies in it at full speed
        types["float16"] = torch.float16
    rates = {}
    for name, kind in types.items():
        matrix = torch.rand(side, side, device=device).to(kind)
        seconds = []
        for _ in range(PRODUCTS):
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
        rates[name] = 2 * side**3 / min(seconds) / 1e9
    return rates


def operations(weights: Path, engines: dict[str, Watched]) -> dict[str, float]:
    """10^9 operations of each network over all slices that it saw: two a multiplication and addition."""
    with torch.device("meta"):
        built = {name: model_cards.read_card(weights / f"{name}.json").architecture.build().eval() for name in NETWORKS}
        bodies = {"lungs": lung_slices(built["lungs"]), "multitask": lesion_slices(built["multitask"])}  # type: ignore[arg-type]  # each name has its own network
        counted = {}
        for name, body in bodies.items():
            slices, *rest = engines[name].shape
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                body(torch.zeros(1, *rest))
            counted[name] = counter.get_total_flops() * slices / 1e9
    return counted


# ---------------------------------------------------------------------- the series


def phantom(folder: Path, slices: int, matrix: int) -> Series:
    """A phantom's series as DICOM files."""
    spacing = (HEIGHT_MM / slices, FIELD_MM / matrix, FIELD_MM / matrix)
    spec = PhantomSpec(slices=slices, rows=matrix, columns=matrix, spacing_zyx_mm=spacing, right_fraction=0.2)
    phantom_dicom.write_study(folder, spec)
    return largest(folder)


def largest(folder: Path) -> Series:
    """The series of most images below a folder."""
    found = [series for study in volume.study_in(folder) for series in study.series]
    if not found:
        raise typer.BadParameter(f"{folder} holds no DICOM image")
    return max(found, key=lambda series: len(series.instances))


def summary(walks: list[Walk], counted: dict[str, float], engines: dict[str, Watched]) -> dict[str, Any]:
    """Medians over the repetitions; ratios are taken within each repetition first."""
    ratios, shares = [], []
    for one in walks:
        half = max(rate for name, rate in one.gflops_a_second.items() if name != "float32")
        networks = sum(one.networks.values())
        ratios.append(networks / (sum(counted.values()) / half))
        shares.append(1.0 - networks / sum(one.stages.values()))

    def medians(of: Callable[[Walk], dict[str, float]], digits: int) -> dict[str, float]:
        return {key: round(statistics.median(of(one)[key] for one in walks), digits) for key in of(walks[0])}

    return {
        "machine": _machine(),
        "engine": engines["lungs"].describes,
        "threads": engine.threads(),
        "repetitions": len(walks),
        "seconds": medians(lambda one: one.stages, 3),
        "seconds_total": round(statistics.median(sum(one.stages.values()) for one in walks), 3),
        "network_seconds": medians(lambda one: one.networks, 3),
        "network_slices": {name: list(engines[name].shape) for name in NETWORKS},
        "network_gflop": {name: round(value, 1) for name, value in counted.items()},
        "product_gflop_a_second": medians(lambda one: one.gflops_a_second, 0),
        "networks_over_floor": round(statistics.median(ratios), 2),
        "share_outside_networks": round(statistics.median(shares), 3),
        "peak_memory_mib": _peak_mib(),
    }


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _peak_mib() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # Linux counts in KiB


def resident_mib() -> float:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def growth(held_mib: list[float]) -> dict[str, float]:
    """What is held after the first third, by when everything is warm, against the last third, and a series' share."""
    third = max(1, len(held_mib) // 3)
    early, late = statistics.median(held_mib[third : 2 * third] or held_mib), statistics.median(held_mib[-third:])
    return {
        "series": len(held_mib),
        "first_mib": round(held_mib[0], 1),
        "last_mib": round(held_mib[-1], 1),
        "growth_mib_a_series": round((late - early) / third, 3),
    }


# ---------------------------------------------------------------------- command line


def main(
    series: Annotated[Path | None, typer.Option(help="A folder of DICOM files instead of the phantom.")] = None,
    slices: Annotated[int, typer.Option(help="Slices of the phantom.", min=10)] = 300,
    matrix: Annotated[int, typer.Option(help="Rows and columns of the phantom.", min=64)] = 512,
    repeat: Annotated[int, typer.Option(help="Repetitions; one more before them warms up.", min=1)] = 3,
    leak: Annotated[int, typer.Option(help="Judge that many series more and report the growth of memory.")] = 0,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:N".')] = "auto",
    weights: Annotated[Path | None, typer.Option(help="Folder of weights instead of those that ship.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Seconds a stage, the networks against the arithmetic floor, memory."""
    settings = AnalysisSection(method="multitask", device=device)
    place = inference.packaged_weights() if weights is None else weights
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="bench-inference-") as folder, console.status("loading") as status:
        loaded = inference.load(settings, place)
        assert isinstance(loaded, Multitask)
        method, engines = watched(loaded)
        gc.freeze()  # as the analyst does
        status.update("making the phantom")
        subject = phantom(Path(folder), slices, matrix) if series is None else largest(series)
        walks = []
        for number in range(repeat + 1):
            status.update(f"repetition {number} of {repeat}" if number else "warming up")
            before = product_rates(loaded.device)
            one = walk(subject, method, engines, settings)
            after = product_rates(loaded.device)
            one.gflops_a_second = {name: (before[name] + after[name]) / 2 for name in before}
            walks.append(one)
        answer = summary(walks[1:], operations(place, engines), engines)
        if leak:
            held = []
            for number in range(leak):
                status.update(f"series {number + 1} of {leak} for the memory")
                walk(subject, method, engines, settings)
                held.append(resident_mib())
            answer["memory"] = growth(held)
            answer["peak_memory_mib"] = _peak_mib()
    if as_json:
        typer.echo(json.dumps(answer))
        return
    table = Table(title=f"{answer['engine']} ({answer['machine']})")
    for column in ("stage", "s", "of which network"):
        table.add_column(column, justify="right" if column != "stage" else "left")
    inside = {"finding the lungs": "lungs", "finding lesions": "multitask"}
    for stage, seconds in answer["seconds"].items():
        network = answer["network_seconds"].get(inside.get(stage, ""), None)
        table.add_row(stage, f"{seconds:.2f}", "" if network is None else f"{network:.2f}")
    table.add_row("total", f"{answer['seconds_total']:.2f}", f"{sum(answer['network_seconds'].values()):.2f}")
    Console().print(table)
    for key, value in answer.items():
        if key not in ("seconds", "seconds_total", "network_seconds", "engine", "machine"):
            typer.echo(f"{key:24} {value}")


if __name__ == "__main__":
    typer.run(main)
