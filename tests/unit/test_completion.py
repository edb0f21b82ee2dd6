from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triage_node import completion
from triage_node.completion import Basis, Evidence
from triage_node.config import CompletionSection
from triage_node.filing import Geometry

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SETTINGS = CompletionSection(quiet_s=2.0, long_quiet_s=30.0)
LAST = 1_000_000.0


def at(z_mm: float, orientation: tuple[float, ...] = AXIAL) -> Geometry:
    return Geometry(position_mm=(-170.0, -170.0, z_mm), orientation=orientation)


def stack(*heights_mm: float) -> Evidence:
    return slices([at(z) for z in heights_mm])


def slices(geometries: list[Geometry], **other: int) -> Evidence:
    return Evidence(
        **{
            "instances": len(geometries),
            "volumetric_instances": len(geometries),
            "multi_frame_instances": 0,
            "geometries": geometries,
            "open_associations": 0,
            "broken_associations": 0,
            "last_received_at": LAST,
            **other,
        }
    )


WHOLE = stack(*range(0, 60, 2))
GAP = stack(*(z for z in range(0, 60, 2) if z != 30))
LOCALIZERS = slices([], instances=2)
MULTI_FRAME = slices([], instances=1, volumetric_instances=1, multi_frame_instances=1)

TABLE = {
    "released, no gap": (WHOLE, Basis.RELEASED_WITHOUT_GAP, "30 positions 2.00 mm apart without a gap"),
    "one slice missing": (GAP, Basis.LONG_QUIET, "1 gap, the first between 28.0 mm and 32.0 mm"),
    "association still open": (replace(WHOLE, open_associations=1), Basis.LONG_QUIET, "1 association is still open"),
    "aborted": (replace(WHOLE, broken_associations=1), Basis.LONG_QUIET, "1 association ended without a release"),
    "localizers only": (LOCALIZERS, Basis.RELEASED_NOTHING_TO_COUNT, "holds no slices that could be missing"),
    "localizers, aborted": (replace(LOCALIZERS, broken_associations=1), Basis.LONG_QUIET, "without a release"),
    "multi-frame": (MULTI_FRAME, Basis.RELEASED_MULTI_FRAME, "1 multi-frame object, each"),
    "multi-frame, still open": (replace(MULTI_FRAME, open_associations=1), Basis.LONG_QUIET, "still open"),
    "too few positions": (stack(0, 2, 4, 6, 8, 10, 12), Basis.LONG_QUIET, "only 7 positions, too few to tell"),
    "just enough positions": (stack(0, 2, 4, 6, 8, 10, 12, 14), Basis.RELEASED_WITHOUT_GAP, "8 positions"),
    "not parallel": (
        slices([*WHOLE.geometries[:20], at(40, CORONAL)]),
        Basis.LONG_QUIET,
        "the 21 slices are not parallel",
    ),
    "every position twice": (
        slices([*WHOLE.geometries, *WHOLE.geometries]),
        Basis.RELEASED_WITHOUT_GAP,
        "30 positions 2.00 mm apart",
    ),
    "the same position again and again": (slices([at(3.0)] * 30), Basis.LONG_QUIET, "only 1 position,"),
    "a position that is no number": (slices([*WHOLE.geometries, at(math.nan)]), Basis.LONG_QUIET, "lie nowhere"),
    "an infinite position": (slices([*WHOLE.geometries, at(math.inf)]), Basis.LONG_QUIET, "lie nowhere"),
    "an absurd position": (slices([*WHOLE.geometries, at(1e308)]), Basis.LONG_QUIET, "lie nowhere"),
    "an orientation that is no number": (
        slices([at(z, (math.nan, *AXIAL[1:])) for z in range(30)]),
        Basis.LONG_QUIET,
        "lie nowhere",
    ),
    "an orientation of zeros": (slices([at(z, (0.0,) * 6) for z in range(30)]), Basis.LONG_QUIET, "only 1 position,"),
    "a slice without a position": (
        replace(WHOLE, instances=31, volumetric_instances=31),
        Basis.LONG_QUIET,
        "1 of 31 slices do not say where they lie",
    ),
    "uneven steps under the factor": (
        stack(*(z * 5 + (z % 2) for z in range(20))),
        Basis.RELEASED_WITHOUT_GAP,
        "without a gap",
    ),
    "a localizer among the slices": (replace(WHOLE, instances=31), Basis.RELEASED_WITHOUT_GAP, "30 positions"),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_evidence_decides_when_and_on_which_basis_a_series_is_closed(case: str) -> None:
    evidence, basis, words = TABLE[case]
    quiet_s = SETTINGS.long_quiet_s if basis is Basis.LONG_QUIET else SETTINGS.quiet_s
    before = completion.judge(evidence, SETTINGS, LAST + quiet_s - 0.01)
    after = completion.judge(evidence, SETTINGS, LAST + quiet_s)
    assert (before.complete, before.due_at) == (False, LAST + quiet_s)
    assert after.basis is basis
    assert words in "; ".join(before.words)
    assert words in "; ".join(after.words)
    assert f"nothing new for {quiet_s:.1f} s (wanted {quiet_s:g} s)" in after.words


def test_a_stack_may_lie_across_the_axes_and_come_feet_first() -> None:
    oblique = (1.0, 0.0, 0.0, 0.0, math.cos(0.3), math.sin(0.3))
    normal = (0.0, -math.sin(0.3), math.cos(0.3))
    geometries = [Geometry(position_mm=tuple(-1.25 * z * n for n in normal), orientation=oblique) for z in range(40)]
    assert completion.judge(slices(geometries), SETTINGS, LAST + 2).basis is Basis.RELEASED_WITHOUT_GAP
    del geometries[17]
    assert completion.judge(slices(geometries), SETTINGS, LAST + 29).basis is None


def test_orientations_that_differ_by_rounding_are_parallel_whichever_comes_first() -> None:
    tilted = [(1.0, 0.0, error, 0.0, 1.0, 0.0) for error in (-0.0009, 0.0, 0.0009)]
    geometries = [at(z, tilted[z % 3]) for z in range(12)]
    verdicts = {completion.judge(slices(geometries[k:] + geometries[:k]), SETTINGS, LAST + 2).words for k in range(3)}
    assert len(verdicts) == 1


def test_every_gap_is_found_with_its_two_sides() -> None:
    along = completion.positions_along_normal_mm(stack(*(z for z in range(30) if z not in (7, 20, 21))).geometries)
    assert along is not None
    assert completion.gaps_mm(along) == [(6.0, 8.0), (19.0, 22.0)]
    assert completion.gaps_mm(along[:1]) == []


heights = st.lists(
    st.one_of(st.integers(-400, 400).map(float), st.floats(allow_nan=True, allow_infinity=True)), max_size=30
)
directions = st.sampled_from([AXIAL, AXIAL, AXIAL, CORONAL, (1.0, 0.0, 0.0005, 0.0, 1.0, 0.0), (math.nan,) * 6])


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    geometries = [at(z, draw(directions)) for z in draw(heights)]
    multi_frame = draw(st.integers(0, 3))
    volumetric = len(geometries) + multi_frame + draw(st.integers(0, 2))
    return slices(
        geometries,
        instances=volumetric + draw(st.integers(0, 2)),
        volumetric_instances=volumetric,
        multi_frame_instances=multi_frame,
        open_associations=draw(st.integers(0, 2)),
        broken_associations=draw(st.integers(0, 2)),
    )


@given(evidences(), st.randoms(use_true_random=False), st.floats(0, 100))
def test_the_order_of_arrival_does_not_change_the_verdict(evidence: Evidence, chance, later_s: float) -> None:
    shuffled = list(evidence.geometries)
    chance.shuffle(shuffled)
    now = LAST + later_s
    expected = completion.judge(evidence, SETTINGS, now)
    assert completion.judge(replace(evidence, geometries=shuffled), SETTINGS, now) == expected


@given(evidences(), st.floats(0, 100), st.floats(0, 100), st.floats(-10, 300))
def test_no_series_closes_before_the_quiet_time_and_every_one_after_the_long_one(
    evidence: Evidence, one_s: float, other_s: float, later_s: float
) -> None:
    settings = CompletionSection(quiet_s=min(one_s, other_s), long_quiet_s=max(one_s, other_s))
    now = LAST + later_s
    verdict = completion.judge(evidence, settings, now)
    if now < LAST + settings.quiet_s:
        assert not verdict.complete
    if now >= LAST + settings.long_quiet_s:
        assert verdict.complete
    assert verdict.complete == (now >= verdict.due_at)
