"""Air inside the body: where the body's walls are, and the airway from the neck into the hila."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from triage_node.grid import Reduced
    from triage_node.study import Hounsfield, Mask

BELOW_HU = (-900, -930, -960)  # tried in turn while the airway is followed; the next where it leaks
WALL_ABOVE_HU, WALL_SHARE = -750, 0.6  # of the voxels around a bronchus
SLICE_MM2 = 1500.0  # carina and both main bronchi; more is a leak into the lung
BEYOND_MM = 40.0  # how far below the last free-standing piece it is followed
LUMEN_BELOW_HU, LUMEN_SHARE = -900, 0.6  # the airway's inside where it stands free, blurred by its wall
AIR_BELOW_HU = -300  # between aerated lung and soft tissue; ground glass lies below
COVERED_SHARE = 0.6  # of a region that has the body in front and behind; the table and clothes have not
IN_PLANE = ndimage.generate_binary_structure(2, 1)[np.newaxis]
IN_SLICE = np.concatenate([np.zeros_like(IN_PLANE), IN_PLANE, np.zeros_like(IN_PLANE)])


def between_walls(hounsfield: Hounsfield) -> Mask:
    """Voxels with the body in front and behind in their column: not the table, not clothes, not the room."""
    thick = ndimage.binary_opening(hounsfield > AIR_BELOW_HU, np.ones((1, 3, 3)))
    regions, _ = ndimage.label(thick)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    body = regions == sizes.argmax() if sizes.any() else thick
    in_front = np.maximum.accumulate(body, axis=1)
    behind = np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    return in_front & behind


def follow(reduced: Reduced, chosen: Mask) -> Mask:
    """Trachea and main bronchi: the long column of air between the lungs, followed down to where it enters them."""
    airway = np.zeros_like(chosen)
    if not chosen.any():
        return airway
    dz, dy, dx = reduced.spacing_zyx_mm
    z, _, x = np.nonzero(chosen)
    right, left = np.percentile(x, [25, 75])
    regions, _ = ndimage.label(_lumen(reduced), np.ones((3, 3, 3)))
    trachea, longest_mm = airway, 15.0
    for label, box in enumerate(ndimage.find_objects(regions), start=1):
        length_mm = (box[0].stop - box[0].start) * dz
        if length_mm <= longest_mm or box[0].stop <= np.median(z):
            continue
        region = regions[box] == label
        if right <= ndimage.center_of_mass(region)[2] + box[2].start <= left:
            trachea, longest_mm = regions == label, length_mm
    levels = np.flatnonzero(trachea.any(axis=(1, 2)))
    if not len(levels):
        return airway
    steps = max(1, round(max(4.0, dz) / dy))
    last = max(0, int(levels[0] - BEYOND_MM / dz))
    previous = trachea[levels[-1]]
    airway[levels[-1]] = previous
    for level in range(int(levels[-1]) - 1, last - 1, -1):
        reach = ndimage.binary_dilation(previous, iterations=steps)
        current = trachea[level]
        most = max(SLICE_MM2 / 3, 1.5 * np.count_nonzero(previous) * dy * dx)
        for below_hu in BELOW_HU:
            grown = current | _walled(reach & (reduced.hounsfield[level] < below_hu), reduced.hounsfield[level])
            if np.count_nonzero(grown) * dy * dx <= min(most, SLICE_MM2):
                current = grown
                break
        if not current.any():
            break
        airway[level] = previous = current
    return airway


def _walled(lumen: Mask, image: Hounsfield) -> Mask:
    """The parts of `lumen` that a wall goes round; a leak into emphysema has none."""
    labels, _ = ndimage.label(lumen)
    result = np.zeros_like(lumen)
    for label in range(1, int(labels.max()) + 1):
        part = labels == label
        ring = ndimage.binary_dilation(part, iterations=2) & ~part
        if (image[ring] > WALL_ABOVE_HU).mean() >= WALL_SHARE:
            result |= part
    return result


def _lumen(reduced: Reduced) -> Mask:
    """Small regions of free air that stand alone in their slice, with the body around them."""
    hounsfield = reduced.hounsfield
    regions, count = ndimage.label(hounsfield < AIR_BELOW_HU, IN_SLICE)
    sizes = np.maximum(np.bincount(regions.ravel(), minlength=count + 1), 1)
    inside = ndimage.binary_erosion(regions > 0, IN_PLANE)
    insides = np.maximum(np.bincount(regions[inside], minlength=count + 1), 1)
    share = np.bincount(regions[inside & (hounsfield < LUMEN_BELOW_HU)], minlength=count + 1) / insides
    covered = np.bincount(regions[between_walls(hounsfield)], minlength=count + 1) / sizes >= COVERED_SHARE
    area_mm2 = sizes * reduced.spacing_zyx_mm[1] * reduced.spacing_zyx_mm[2]
    lumen = covered & (share >= LUMEN_SHARE) & (area_mm2 < SLICE_MM2)
    lumen[0] = False
    result: Mask = lumen[regions]
    return result
