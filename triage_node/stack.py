"""Frames in any order -> one clean stack of slices, or the reason why there is none.

A stack is what can be one volume: slices of one orientation, matrix and frame of reference, each at its own place,
evenly enough spaced, none missing. Frames are sorted by what their headers say before anything is decided, so that
the order in which they came changes nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triage_node.attributes import refuse
from triage_node.completion import GAP_FACTOR
from triage_node.headers import SEPARATORS, Frame
from triage_node.study import Reason

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

# Frames that are no part of the stack (a localizer without the mark, a key image) are left out while they are fewer
# than this share; more of them, and which of two stacks is meant would be a guess.
STRAY_SHARE = 0.1
# Scanners tilt their gantry by at most 30 degrees (PS3.3 C.8.2.1, Gantry/Detector Tilt): what is steeper is a
# reformat or a coronal or sagittal image.
STEEPEST_DEGREES = 30.0
TILT_WORTH_A_WARNING_DEGREES = 0.5
SAME_DIRECTION = 0.005  # greatest difference of a component of two direction vectors: 0.3 degrees
SAME_PLACE_MM = 0.01
SAME_SPACING = 1e-3  # relative
LEAST_STEP = 0.5  # of the median; a smaller one is a second image at the same place
UNEVEN_STEP = 0.05  # deviation from the median from which the reader is told


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """Slices in order along their normal, row x column."""

    frames: tuple[Frame, ...]
    positions_mm: npt.NDArray[np.float64]  # [z, 3]
    affine_lps_mm: npt.NDArray[np.float64]  # [4, 4] as in `Volume`
    spacing_mm: float  # median distance between neighbours along the normal; 0 of a single slice
    tilt_degrees: float  # between the way from slice to slice and their normal
    warnings: tuple[str, ...]

    @property
    def coverage_mm(self) -> float:
        """Height along the normal, the outer halves of the first and last slice included."""
        return self.spacing_mm * len(self.frames)


SamePixels = Callable[[Frame, Frame], bool]


def stacked(frames: Sequence[Frame], *, same_pixels: SamePixels | None) -> Stack:
    """Order frames into a stack; `same_pixels` tells whether two frames at one place hold the same values.

    Without it, as long as nobody has looked at the pixels, frames at one place are taken for the same.

    Raises Refused: MIXED_MATRIX, MIXED_ORIENTATION, MIXED_FRAME_OF_REFERENCE, NOT_AXIAL, DUPLICATE_POSITIONS, GAP.
    """
    ordered = sorted(frames, key=lambda frame: (frame.instance.sop_instance_uid, frame.number or 0))
    kept, warnings = _without_strays(ordered)
    _check_axial(kept[0])
    kept.sort(key=_place)
    kept, remarks = _one_at_each_place(kept, same_pixels)
    warnings += remarks
    along = _along(kept)
    steps = np.diff(along)
    if (gap := _gap(along)) is not None:
        refuse(Reason.GAP, gap)
    median = float(np.median(steps)) if len(steps) else 0.0
    if len(steps) and np.abs(steps / median - 1).max() > UNEVEN_STEP:
        warnings.append(f"the distance between slices varies from {steps.min():.2f} mm to {steps.max():.2f} mm")
    positions = np.array([frame.position_mm for frame in kept])
    affine, tilt = _affine(kept[0], positions)
    if tilt > TILT_WORTH_A_WARNING_DEGREES:
        warnings.append(f"the gantry was tilted by {tilt:.1f} degrees: the slices are sheared against each other")
    return Stack(
        frames=tuple(kept),
        positions_mm=positions,
        affine_lps_mm=affine,
        spacing_mm=median,
        tilt_degrees=tilt,
        warnings=tuple(warnings),
    )


def normal_of(frame: Frame) -> npt.NDArray[np.float64]:
    """[3] the direction in which the slices follow each other: row x column."""
    return np.cross(frame.orientation[:3], frame.orientation[3:])


def _along(frames: Sequence[Frame]) -> npt.NDArray[np.float64]:
    # one normal for all, or rounding would move slices by their distance from the origin
    normal = normal_of(min(frames, key=lambda frame: frame.orientation))
    return np.array([frame.position_mm for frame in frames]) @ normal


def _place(frame: Frame) -> tuple[float, tuple[str, ...], str, int]:
    z = float(np.dot(frame.position_mm, normal_of(frame)))
    return z, frame.separators, frame.instance.sop_instance_uid, frame.number or 0


def _without_strays(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    kept, warnings = frames, []
    for reason, what, same in (
        (Reason.MIXED_FRAME_OF_REFERENCE, "frame of reference", _same_frame_of_reference),
        (Reason.MIXED_ORIENTATION, "orientation", _same_orientation),
        (Reason.MIXED_MATRIX, "matrix or pixel spacing", _same_matrix),
    ):
        groups: list[list[Frame]] = []
        for frame in kept:
            home = next((group for group in groups if same(group[0], frame)), None)
            if home is None:
                groups.append([frame])
            else:
                home.append(frame)
        largest = max(groups, key=len)
        strays = len(kept) - len(largest)
        if strays > STRAY_SHARE * len(kept):
            sizes = ", ".join(str(size) for size in sorted(map(len, groups), reverse=True)[:5])
            refuse(reason, f"the images are of {len(groups)} kinds by {what}: {sizes} images")
        if strays:
            warnings.append(f"{strays} of {len(kept)} images were left out: they differ from the others by {what}")
        kept = largest
    return list(kept), warnings


def _same_frame_of_reference(one: Frame, other: Frame) -> bool:
    return one.frame_of_reference_uid == other.frame_of_reference_uid


def _same_orientation(one: Frame, other: Frame) -> bool:
    return all(abs(a - b) <= SAME_DIRECTION for a, b in zip(one.orientation, other.orientation, strict=True))


def _same_matrix(one: Frame, other: Frame) -> bool:
    return (
        (one.cells.rows, one.cells.columns) == (other.cells.rows, other.cells.columns)
        and math.isclose(one.row_spacing_mm, other.row_spacing_mm, rel_tol=SAME_SPACING)
        and math.isclose(one.column_spacing_mm, other.column_spacing_mm, rel_tol=SAME_SPACING)
    )


def _check_axial(frame: Frame) -> None:
    degrees = math.degrees(math.acos(min(1.0, abs(float(normal_of(frame)[2])))))
    if degrees > STEEPEST_DEGREES:
        words = f"the slices are {degrees:.0f} degrees from axial; up to {STEEPEST_DEGREES:.0f} can be a gantry's tilt"
        refuse(Reason.NOT_AXIAL, words)


def _one_at_each_place(frames: list[Frame], same_pixels: SamePixels | None) -> tuple[list[Frame], list[str]]:
    """Frames in order, no two of them at one place."""
    if not _crowded(_along(frames)):
        return frames, []
    distinct: list[list[Frame]] = []  # the frames at each place that differ in their pixels
    last = -math.inf
    for frame, along in zip(frames, _along(frames), strict=True):
        if along - last > SAME_PLACE_MM:
            distinct.append([frame])
            last = along
        elif same_pixels and not any(same_pixels(other, frame) for other in distinct[-1]):
            distinct[-1].append(frame)
    single = [frame for place in distinct for frame in place]
    if not _crowded(_along(single)):
        repeats = len(frames) - len(single)
        what = "were there twice with the same pixels" if same_pixels else "lie where others lie"
        return single, [f"{repeats} of {len(frames)} images {what}"]
    doubled = sum(len(place) - 1 for place in distinct) or int(_too_near(_along(single)).sum())
    for index, (name, _) in enumerate(SEPARATORS):
        groups: dict[Hashable, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[frame.separators[index]].append(frame)
        clean = [group for group in groups.values() if _is_clean(group)]
        if len(groups) > 1 and clean:
            largest = max(clean, key=lambda group: (len(group), [-z for z in _along(group)[:1]]))
            words = f"the series holds {len(groups)} stacks that differ by {name}: the one of {len(largest)} images"
            return largest, [f"{words} was taken, {len(frames) - len(largest)} images were left out"]
    along = _along(single)
    z = along[int(np.argmin(np.diff(along)))]
    words = f"{doubled} images lie where others lie, the first at {z:.1f} mm, and no attribute tells them apart"
    refuse(Reason.DUPLICATE_POSITIONS, words)


def _too_near(along: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """[z - 1] steps too small for two slices of one stack."""
    steps = np.diff(along)
    apart = steps[steps > SAME_PLACE_MM]
    least = LEAST_STEP * float(np.median(apart)) if len(apart) else math.inf
    return steps < least


def _crowded(along: npt.NDArray[np.float64]) -> bool:
    return bool(_too_near(along).any())


def _is_clean(group: list[Frame]) -> bool:
    along = _along(group)
    return len(group) > 1 and not _crowded(along) and _gap(along) is None


def _gap(along: npt.NDArray[np.float64]) -> str | None:
    """Where slices seem to be missing; None where none do."""
    steps = np.diff(along)
    if not len(steps):
        return None
    median = float(np.median(steps))
    wide = np.flatnonzero(steps > GAP_FACTOR * median)
    if not len(wide):
        return None
    widest = int(wide[np.argmax(steps[wide])])
    missing = max(1, round(float(steps[widest]) / median) - 1)
    slices = "1 slice seems" if missing == 1 else f"{missing} slices seem"
    words = f"{slices} to be missing between {along[widest]:.1f} mm and {along[widest + 1]:.1f} mm"
    return words if len(wide) == 1 else f"{words}, and there are {len(wide) - 1} more gaps"


def _affine(first: Frame, positions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """[4, 4] voxel (x, y, z, 1) -> patient millimetres, and the tilt in degrees."""
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    step, tilt = normal * (first.thickness_mm or 1.0), 0.0
    if len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        tilt = math.degrees(math.acos(min(1.0, float(step @ normal / np.linalg.norm(step)))))
        if tilt > STEEPEST_DEGREES:
            refuse(Reason.NOT_AXIAL, f"the slices are sheared by {tilt:.0f} degrees, more than a gantry tilts")
        # how far each slice lies from the line through the first and the last, within its plane
        shares = ((positions - positions[0]) @ normal) / float((positions[-1] - positions[0]) @ normal)
        aside = positions - positions[0] - shares[:, None] * (positions[-1] - positions[0])
        aside_mm = float(np.linalg.norm(aside, axis=1).max())
        if aside_mm > max(first.row_spacing_mm, first.column_spacing_mm):
            words = f"the slices are shifted against each other by up to {aside_mm:.1f} mm within their plane"
            refuse(Reason.MIXED_ORIENTATION, words)
    affine = np.eye(4)
    affine[:3, 0] = row * first.column_spacing_mm
    affine[:3, 1] = column * first.row_spacing_mm
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return affine, tilt
