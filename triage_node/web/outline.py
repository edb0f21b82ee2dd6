"""Mask -> outline: the edges of its pixels as an SVG path, so that it stays sharp and exact at every size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from triage_node.study import Mask


def path(mask: Mask) -> str:
    """Path data of all edges between a pixel [y, x] of the mask and one outside; "" for an empty mask.

    The unit is a pixel, the origin the outer corner of the first one: pixel [y, x] covers x..x+1 and y..y+1. Edges in
    one line are one stroke; they are not chained, since an outline is only ever drawn, not filled.
    """
    if not mask.any():
        return ""
    within = np.pad(mask, 1)
    across = within[1:, 1:-1] != within[:-1, 1:-1]  # [rows + 1, columns] edges along a row
    down = (within[1:-1, 1:] != within[1:-1, :-1]).T  # [columns + 1, rows] edges along a column
    strokes = [f"M{start} {line}H{end}" for line, start, end in _runs(across)]
    strokes += [f"M{line} {start}V{end}" for line, start, end in _runs(down)]
    return "".join(strokes)


def _runs(edges: Mask) -> list[tuple[int, int, int]]:
    """Every run of edges as line, start and end."""
    steps = np.diff(np.pad(edges.view(np.int8), ((0, 0), (1, 1))), axis=1)
    lines, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return list(zip(lines.tolist(), starts.tolist(), ends.tolist(), strict=True))
