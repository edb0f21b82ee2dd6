"""When is a series complete? Evidence in, verdict out; no clock of its own and no I/O.

DICOM's C-STORE never says "that was all". What can be known without asking anybody (PS3.4 annex B has nothing more):
the sender has released its associations, the slices lie without a gap, and nothing has come for a while. All three
together close a series after a short quiet time; anything less waits for the long one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triage_node.config import CompletionSection
    from triage_node.filing import Geometry

# A step of more than this many times the usual one is a gap. Thinned and interleaved reconstructions stay under it;
# one missing slice makes a step of 2.
GAP_FACTOR = 1.5
# Fewer positions say nothing about gaps: the second half may just not have come yet.
MINIMUM_POSITIONS = 8
_SAME_POSITION_MM = 0.01
_SAME_DIRECTION = 1e-3
_LARGEST_COSINE = 1.01  # direction cosines, rounded
_FARTHEST_MM = 1e6


class Basis(StrEnum):
    """On what a series was closed; stored in the journal."""

    RELEASED_WITHOUT_GAP = "RELEASED_WITHOUT_GAP"
    RELEASED_MULTI_FRAME = "RELEASED_MULTI_FRAME"
    RELEASED_NOTHING_TO_COUNT = "RELEASED_NOTHING_TO_COUNT"
    LONG_QUIET = "LONG_QUIET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of the arrival of one series."""

    instances: int
    volumetric_instances: int  # slices and multi-frame stacks; the rest are localizers, reports and the like
    multi_frame_instances: int
    geometries: Sequence[Geometry]  # of the single-frame slices that have one
    open_associations: int  # on which instances of this series came and which are still open
    broken_associations: int  # that ended without a release
    last_received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Closed on which basis, or open until when; `words` tell people why."""

    basis: Basis | None  # None: keep waiting
    due_at: float  # when the series is closed if nothing else comes
    words: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether the series may be closed now."""
        return self.basis is not None


def judge(evidence: Evidence, settings: CompletionSection, now: float) -> Verdict:
    """Weigh the evidence for one open series."""
    released = evidence.open_associations == 0 and evidence.broken_associations == 0
    words = [_association_words(evidence)]
    basis = Basis.LONG_QUIET
    if evidence.volumetric_instances == 0:
        words.append("holds no slices that could be missing")
        if released:
            basis = Basis.RELEASED_NOTHING_TO_COUNT
    elif evidence.multi_frame_instances == evidence.volumetric_instances:
        words.append(f"{_count(evidence.multi_frame_instances, 'multi-frame object')}, each whole in itself")
        if released:
            basis = Basis.RELEASED_MULTI_FRAME
    else:
        stack = _stack_words(evidence)
        words.append(stack.words)
        if released and stack.without_gap:
            basis = Basis.RELEASED_WITHOUT_GAP
    quiet_s = settings.long_quiet_s if basis is Basis.LONG_QUIET else settings.quiet_s
    due_at = evidence.last_received_at + quiet_s
    if now < due_at:
        return Verdict(basis=None, due_at=due_at, words=tuple(words))
    words.append(f"nothing new for {now - evidence.last_received_at:.1f} s (wanted {quiet_s:g} s)")
    return Verdict(basis=basis, due_at=due_at, words=tuple(words))


def _association_words(evidence: Evidence) -> str:
    if evidence.open_associations:
        verb = "is" if evidence.open_associations == 1 else "are"
        return f"{_count(evidence.open_associations, 'association')} {verb} still open"
    if evidence.broken_associations:
        return f"{_count(evidence.broken_associations, 'association')} ended without a release"
    return "every association was released"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stack:
    without_gap: bool
    words: str


def _stack_words(evidence: Evidence) -> _Stack:
    single = evidence.volumetric_instances - evidence.multi_frame_instances
    if len(evidence.geometries) < single:
        return _Stack(
            without_gap=False, words=f"{single - len(evidence.geometries)} of {single} slices do not say where they lie"
        )
    along_mm = positions_along_normal_mm(evidence.geometries)
    if along_mm is None:
        return _Stack(without_gap=False, words=f"the {single} slices are not parallel or lie nowhere")
    if len(along_mm) < MINIMUM_POSITIONS:
        return _Stack(
            without_gap=False,
            words=f"only {_count(len(along_mm), 'position')}, too few to tell whether slices are missing",
        )
    gaps = gaps_mm(along_mm)
    if gaps:
        start, end = gaps[0]
        return _Stack(
            without_gap=False, words=f"{_count(len(gaps), 'gap')}, the first between {start:.1f} mm and {end:.1f} mm"
        )
    spacing = float(np.median(np.diff(along_mm)))
    return _Stack(without_gap=True, words=f"{len(along_mm)} positions {spacing:.2f} mm apart without a gap")


def positions_along_normal_mm(geometries: Sequence[Geometry]) -> npt.NDArray[np.float64] | None:
    """The distinct slice positions along their common normal, ascending; None when they have none."""
    orientations = np.array([geometry.orientation for geometry in geometries], dtype=np.float64)  # [n, 6]
    positions = np.array([geometry.position_mm for geometry in geometries], dtype=np.float64)  # [n, 3]
    # written so that NaN fails, too; a header may claim any number
    if not ((np.abs(orientations) <= _LARGEST_COSINE).all() and (np.abs(positions) <= _FARTHEST_MM).all()):
        return None
    # range and median, not the first slice as the measure: the order of arrival must not matter
    if (np.ptp(orientations, axis=0) > _SAME_DIRECTION).any():
        return None
    usual = np.median(orientations, axis=0)
    along = np.sort(positions @ np.cross(usual[:3], usual[3:]))
    distinct: npt.NDArray[np.float64] = along[np.concatenate([[True], np.diff(along) > _SAME_POSITION_MM])]
    return distinct


def gaps_mm(along_mm: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """Where ascending slice positions are too far apart: pairs of the positions on both sides of each gap."""
    steps = np.diff(along_mm)
    if len(steps) == 0:
        return []
    wide = np.flatnonzero(steps > GAP_FACTOR * np.median(steps))
    return [(float(along_mm[index]), float(along_mm[index + 1])) for index in wide]
