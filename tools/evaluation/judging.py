"""One scan, judged and scored by every method: read once, each method timed, the memory of each at its highest."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

from annotations.unusable import Unusable

from evaluation.figures import figures
from evaluation.summary import Scan
from triage_node.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from evaluation.cases import Case, Drawn
    from triage_node.config import AnalysisSection
    from triage_node.inference import Method

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def judged(
    case: Case,
    methods: Mapping[str, tuple[Method, AnalysisSection]],
    done: Callable[[str], None],
) -> dict[str, Scan]:
    """A `Scan` for every method; a scan that fails says why in `failed` and stops nothing.

    `done` is told the name of each method when it has judged.
    """
    try:
        drawn = case.read()
    except Exception as error:  # noqa: BLE001  # whatever is wrong with one study must not stop the others
        for name in methods:
            done(name)
        return {name: _failed(case, error) for name in methods}
    scans = {}
    for name, (method, settings) in methods.items():
        try:
            scans[name] = _scored(case, drawn, method, settings)
        except Exception as error:  # noqa: BLE001  # as above
            scans[name] = _failed(case, error)
        done(name)
    return scans


def _scored(case: Case, drawn: Drawn, method: Method, settings: AnalysisSection) -> Scan:
    _forget_peak()
    start = time.perf_counter()
    findings = method(drawn.volume)
    seconds = time.perf_counter() - start
    peak = peak_memory_mib()
    values, missing = figures(drawn, findings, settings)
    if case.group is None:
        missing["covid"] = "neither a label file nor a name says whether it is COVID-19"
    return Scan(
        case=case,
        figures=values,
        not_scored=missing,
        seconds=seconds,
        peak_memory_mib=peak,
        warnings=tuple(dict.fromkeys((*drawn.remarks, *drawn.volume.warnings, *findings.warnings))),
    )


def _failed(case: Case, error: Exception) -> Scan:
    if isinstance(error, Refused):
        why = f"{error.not_analysed.reason}: {error.not_analysed.words}"
    else:
        why = str(error) if isinstance(error, Unusable) else f"{type(error).__name__}: {error}"
    return Scan(case=case, figures={}, not_scored={"everything": why}, failed=why)


def _forget_peak() -> None:
    """Let the kernel forget the largest memory of this process (Linux, proc(5)); elsewhere it stays."""
    try:
        CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return


def peak_memory_mib() -> float:
    """The largest resident memory of this process since `_forget_peak`; since the start where that is not told."""
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
