"""Packed masks -> the voxel at which a viewer shows what was measured of them.

Readers of TID 1500 jump to a place when a measurement is chosen; OHIF opens no report whose groups have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from triage_node.results.frames import Slices
    from triage_node.results.segmentation import Masks
    from triage_node.study import Volume

Place = tuple[float, float, float]  # x, y, z of a voxel's centre in the patient, mm
STUDY = "study"  # key of the study as a whole


def centers(lesions: Masks, lungs: Masks, volume: Volume) -> dict[str, Place]:
    """Tracking name of each segment -> its centre; that of the study lies in the lesions, without any in the lungs.

    A centre is a voxel of the structure on a slice of the source: on the slice that shows most of the structure, the
    voxel nearest to its centroid there. Slices are counted in their packed form, and one of them is opened for each.
    """
    counts = {segment.tracking: _counts(bits) for segment, bits in (*lesions, *lungs)}
    found = {segment.tracking: _center([bits], [counts[segment.tracking]], volume) for segment, bits in lesions}
    found |= {segment.tracking: _center([bits], [counts[segment.tracking]], volume) for segment, bits in lungs}
    whole = lesions or lungs
    if len(whole) == 1:
        return found | {STUDY: found[whole[0][0].tracking]}
    every = [bits for _, bits in whole], [counts[segment.tracking] for segment, _ in whole]
    return found | ({STUDY: _center(*every, volume)} if whole else {})


def _counts(bits: Slices) -> dict[int, int]:
    """Slice -> voxels."""
    return {z: int(np.bitwise_count(plane).sum(dtype=np.uint32)) for z, plane in bits.items()}


def _center(segments: Sequence[Slices], counts: Sequence[dict[int, int]], volume: Volume) -> Place:
    """Of segments that do not overlap, taken together; of slices that show as much, the middle one."""
    total: dict[int, int] = {}
    for each in counts:
        for z, count in each.items():
            total[z] = total.get(z, 0) + count
    most = max(total.values())
    largest = sorted(z for z, count in total.items() if count == most)
    z = largest[len(largest) // 2]
    rows, columns = volume.hounsfield.shape[1:]
    mask = np.zeros(rows * columns, np.uint8)
    for bits in segments:
        if z in bits:
            mask |= np.unpackbits(bits[z], count=mask.size, bitorder="little")
    y, x = np.divmod(np.flatnonzero(mask), columns)
    _, row_mm, column_mm = volume.spacing_zyx_mm
    off: npt.NDArray[np.float64] = ((y - y.mean()) * row_mm) ** 2 + ((x - x.mean()) * column_mm) ** 2
    nearest = int(off.argmin())
    across, down = volume.affine_lps_mm[:3, 0], volume.affine_lps_mm[:3, 1]
    place = volume.slice_positions_mm[z] + y[nearest] * down + x[nearest] * across
    return float(place[0]), float(place[1]), float(place[2])
