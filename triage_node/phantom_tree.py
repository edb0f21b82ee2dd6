"""Branching trees of the phantom's lungs: airways, the arteries that run beside them, and veins.

A tree grows by joining target points, near ones first, to the node that makes a short way home; radii follow
Murray's law from the tips to the root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from triage_node.phantom_fields import Field, Grid, Segments


Points = npt.NDArray[np.float32]  # [n, 3] x, y, z in mm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """Nodes, the index of each one's parent (-1 for the root) and the radius at each."""

    nodes: Points
    parents: npt.NDArray[np.int64]
    radii_mm: npt.NDArray[np.float32]

    @property
    def segments(self) -> Segments:
        """One row for each node but the root."""
        child = np.arange(1, len(self.nodes))
        parent = self.parents[1:]
        # a branch starts as thin as it goes on, otherwise each fork would be a blob
        start = np.minimum(self.radii_mm[parent], self.radii_mm[child] * 1.25)
        return np.column_stack([self.nodes[parent], self.nodes[child], start, self.radii_mm[child]]).astype(np.float32)


def sample_points(
    rng: np.random.Generator, grid: Grid, lung: Field, *, count: int, low_mm: float, high_mm: float
) -> Points:
    """Points of the lung whose depth under the pleura lies between `low_mm` and `high_mm`."""
    candidates = np.argwhere((lung < -low_mm) & (lung > -high_mm))
    if not len(candidates):
        return np.zeros((0, 3), np.float32)
    picked = candidates[rng.integers(0, len(candidates), count)]
    jitter = rng.uniform(-0.5, 0.5, (count, 3)) * grid.step_mm
    z, y, x = grid.z_mm[picked[:, 0]], grid.y_mm[picked[:, 1]], grid.x_mm[picked[:, 2]]
    return (np.column_stack([x, y, z]) + jitter).astype(np.float32)


def grow(trunk: Points, targets: Points, *, tip_mm: float, root_mm: float, detour: float = 0.35) -> Tree:
    """Join `targets` to `trunk` (a chain from its root); `detour` weighs the way to the root against the new piece."""
    order = np.argsort(np.linalg.norm(targets - trunk[-1], axis=1))
    total = len(trunk) + len(targets)
    nodes = np.zeros((total, 3), np.float32)
    nodes[: len(trunk)] = trunk
    parents = np.arange(-1, total - 1)
    home = np.zeros(total, np.float32)
    for i in range(1, len(trunk)):
        home[i] = home[i - 1] + np.linalg.norm(trunk[i] - trunk[i - 1])
    for i, target in enumerate(targets[order], len(trunk)):
        away = np.linalg.norm(nodes[:i] - target, axis=1)
        cost = away + detour * home[:i]
        cost[: len(trunk) - 1] += 1e3  # nothing leaves the trunk before its end
        parent = int(np.argmin(cost))
        nodes[i], parents[i], home[i] = target, parent, home[parent] + away[parent]
    _smooth(nodes, parents, fixed=len(trunk))
    return Tree(nodes=nodes, parents=parents, radii_mm=_radii(parents, tip_mm, root_mm))


def _smooth(nodes: Points, parents: npt.NDArray[np.int64], *, fixed: int, rounds: int = 3) -> None:
    """Pull inner nodes towards their neighbours, in place: vessels bend, they do not zigzag."""
    inner = np.arange(fixed, len(nodes))
    count = np.bincount(parents[1:], minlength=len(nodes))
    inner = inner[count[inner] > 0]
    for _ in range(rounds):
        below = np.zeros_like(nodes)
        np.add.at(below, parents[1:], nodes[1:])
        middle = 0.5 * nodes[parents[inner]] + 0.5 * below[inner] / count[inner, None]
        nodes[inner] = 0.4 * nodes[inner] + 0.6 * middle


def _radii(parents: npt.NDArray[np.int64], tip_mm: float, root_mm: float) -> npt.NDArray[np.float32]:
    """Murray's law, its exponent chosen so that tips and root have the radii asked for."""
    tips = np.zeros(len(parents), np.float64)
    leaves = np.bincount(parents[1:], minlength=len(parents)) == 0
    tips[leaves] = 1
    for i in range(len(parents) - 1, 0, -1):  # children come after their parents
        tips[parents[i]] += tips[i]
    exponent = np.log(max(tips[0], 2)) / np.log(root_mm / tip_mm)
    return np.asarray(tip_mm * tips ** (1 / exponent), np.float32)


def beside(tree: Tree, *, gap_mm: float, thinnest_mm: float, towards: tuple[float, float, float]) -> Points:
    """Points that run beside the thicker branches of `tree`: where a companion artery lies."""
    thick = tree.radii_mm > thinnest_mm
    offset = np.asarray(towards, np.float32)
    return (tree.nodes[thick] + offset * (1.6 * tree.radii_mm[thick, None] + gap_mm)).astype(np.float32)
