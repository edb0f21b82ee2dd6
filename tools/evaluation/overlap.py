"""How far two masks agree, voxel by voxel: Dice, IoU, sensitivity, specificity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from triage_node.study import Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Counts of voxels. A ratio is None where nothing lies under its line: an empty mask has no Dice."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN); None where the expert drew nothing, since then it says nothing of the method."""
        return self._of_drawn(2 * self.true_positive, self.false_positive + self.false_negative)

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN), the Jaccard index; None where the expert drew nothing."""
        return self._of_drawn(self.true_positive, self.false_positive + self.false_negative)

    @property
    def sensitivity(self) -> float | None:
        """TP / (TP + FN): the share of what the expert drew that was found."""
        return self._of_drawn(self.true_positive, self.false_negative)

    @property
    def specificity(self) -> float | None:
        """TN / (TN + FP): the share of what the expert left out that was left out."""
        outside = self.true_negative + self.false_positive
        return self.true_negative / outside if outside else None

    def _of_drawn(self, hits: int, misses: int) -> float | None:
        return hits / (hits + misses) if self.true_positive + self.false_negative else None


def overlap(found: Mask, drawn: Mask, counted: Mask | None = None) -> Overlap:
    """Compare what was found with what was drawn, on the voxels of `counted` alone; all masks [z, y, x]."""
    if counted is not None:
        found, drawn = found[counted], drawn[counted]
    hit = int(np.count_nonzero(found & drawn))
    in_found, in_drawn = int(np.count_nonzero(found)), int(np.count_nonzero(drawn))
    return Overlap(
        true_positive=hit,
        false_positive=in_found - hit,
        false_negative=in_drawn - hit,
        true_negative=found.size - in_found - in_drawn + hit,
    )
