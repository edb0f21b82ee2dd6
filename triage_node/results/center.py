"""Packed masks -> the voxel at which a viewer shows what was measured of them.

Readers of TID 1500 jump to a place when a measurement is chosen; OHIF opens no report whose groups have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triage_node.results.frames import Slices
    from triage_node.results.segmentation import Masks
    from triage_node.study import Volume

Voxel = tuple[int, int, int]  # slice, row, column of the volume, from 0
STUDY = "study"  # key of the study as a whole


def centers(lesions: Masks, lungs: Masks, volume: Volume) -> dict[str, Voxel]:
    """Tracking name of each segment -> its centre; that of the study lies in the lesions, without any in the lungs.

    A centre is a voxel of the structure: on the slice that shows most of it, the voxel nearest to its centroid there.
    Each has a slice to itself as far as there are enough, the study and the lesions before the lungs, since viewers
    write the numbers beside the point. Slices are counted in their packed form; one is opened for each centre.
    """
    segments = {segment.tracking: bits for segment, bits in (*lesions, *lungs)}
    counts = {name: _counts(bits) for name, bits in segments.items()}
    wanted = {STUDY: [segment.tracking for segment, _ in lesions or lungs]}
    wanted |= {name: [name] for name in segments}
    found: dict[str, Voxel] = {}
    for name, parts in wanted.items():
        if parts:
            z = _slice([counts[part] for part in parts], {z for z, _, _ in found.values()})
            found[name] = z, *_nearest_to_centroid([segments[part] for part in parts], z, volume)
    return found


def _counts(bits: Slices) -> dict[int, int]:
    """Slice -> voxels."""
    return {z: int(np.bitwise_count(plane).sum(dtype=np.uint32)) for z, plane in bits.items()}


def _slice(counts: Iterable[dict[int, int]], taken: set[int]) -> int:
    """With most voxels of segments that do not overlap, not among `taken` if it can be; of several the middle one."""
    total: dict[int, int] = {}
    for each in counts:
        for z, count in each.items():
            total[z] = total.get(z, 0) + count
    free = {z: count for z, count in total.items() if z not in taken} or total
    most = max(free.values())
    largest = sorted(z for z, count in free.items() if count == most)
    return largest[len(largest) // 2]


def _nearest_to_centroid(segments: Sequence[Slices], z: int, volume: Volume) -> tuple[int, int]:
    """Row and column of a voxel of `segments`."""
    rows, columns = volume.hounsfield.shape[1:]
    mask = np.zeros(rows * columns, np.uint8)
    for bits in segments:
        if z in bits:
            mask |= np.unpackbits(bits[z], count=mask.size, bitorder="little")
    y, x = np.divmod(np.flatnonzero(mask), columns)
    _, row_mm, column_mm = volume.spacing_zyx_mm
    nearest = int((((y - y.mean()) * row_mm) ** 2 + ((x - x.mean()) * column_mm) ** 2).argmin())
    return int(y[nearest]), int(x[nearest])
