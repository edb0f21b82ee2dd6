"""Classical lung segmentation: a chest CT without weights -> right and left lung.

The straight line: enclosed air in every slice -> gas (airways, bowel) put aside -> the lungs among what is left ->
airway followed into the hila -> right and left -> each lung closed over vessels, nodules and consolidation at the
pleura -> back to the series' own voxels, the border decided there by attenuation. All but the last step happen on
the reduced grid of `triage_node.grid`.

Limits: a lung without any air (whiteout, pneumonectomy) leaves nothing to find and is reported as missing; a
consolidated lobe that leaves no aerated lung around it is not told from chest wall, effusion or liver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from triage_node import airway, grid, laterality
from triage_node.airway import AIR_BELOW_HU, COVERED_SHARE, IN_PLANE, IN_SLICE, between_walls
from triage_node.distance import distance_mm
from triage_node.errors import Refused
from triage_node.study import NotAnalysed, Reason

if TYPE_CHECKING:
    from triage_node.grid import PatientGrid, Reduced
    from triage_node.study import Hounsfield, LungMap, Mask, Volume

GAS_BELOW_HU = -960  # free air; parenchyma, even emphysema, is denser on average
GAS_SHARE = 0.75  # of a region's inside that must be free air to make it airway, bowel or the room
FILLER_BELOW_HU = -1050  # no tissue is lighter than air: outside the reconstructed field
BOWEL_GAS_SHARE, BOWEL_MOST_MM2 = 0.3, 2500.0
PIECE_ML = 3.0  # smaller islands of air are not lung
MAIN_SHARE = 0.1  # of the largest region; as large as this a region counts as a lung by itself
NEAR_MM = 25.0  # a piece cut off by consolidation lies this near to a lung
MAIN_LEAST_ML = 30.0
CUT_GAS_SHARE, CUT_LEAST_MM2 = 0.3, 300.0  # a lung that the field of view cuts: little free air, not a sliver
CUT_TOLD_MM2 = 1000.0  # lung at the edge of the field of view that is worth a warning
LEAST_ML, MOST_ML = 400.0, 14_000.0  # of both lungs together
LEAST_HEIGHT_MM = 50.0
CLOSING_MM = 6.0  # radius that bridges vessels and fissures everywhere
DOME_LEAST_MM2, DOME_SHARE = 150.0, 0.5  # a hole in the lung that stands this much on tissue below is diaphragm
COSTAL_CLOSING_MM = 30.0  # radius on the side of the ribs, in the slice
FAR_APART_MM = 1e4  # a slice spacing that keeps a distance within its slice
DIRECTIONS = 180  # around the middle of the chest
NOT_LUNG_ABOVE_HU = 150  # bone and enhanced vessels are never taken in by closing


@dataclass(frozen=True, kw_only=True, eq=False)
class Lungs:
    """Right and left lung on the volume's grid and on the reduced one."""

    map: LungMap  # [z, y, x] as in Findings
    reduced_map: LungMap  # [z, y, x] of `reduced`
    reduced: Reduced
    warnings: tuple[str, ...]


def find(volume: Volume) -> Lungs:
    """Segment the lungs. Raises Refused (NO_LUNGS) with what was found instead."""
    reduced = grid.reduce(volume)
    air = _enclosed_air(reduced.hounsfield, reduced.spacing_zyx_mm)
    chosen = _choose(reduced, air)
    tubes = airway.follow(reduced, chosen)
    chosen = _largest_pieces(chosen & ~ndimage.binary_dilation(tubes, IN_PLANE), reduced)
    refuse_without_lungs(reduced, chosen)
    sides, warnings = laterality.split(chosen, reduced)
    repaired = np.zeros_like(sides)
    middle = _middle(sides, reduced)
    wall = ndimage.binary_dilation(tubes, IN_PLANE, iterations=2)
    for label in np.unique(sides[chosen]):
        repaired[_close(sides == label, reduced, wall, middle) & (repaired == 0)] = label
    repaired[chosen] = sides[chosen]
    return Lungs(
        map=_restore(volume, reduced, repaired, tubes),
        reduced_map=repaired,
        reduced=reduced,
        warnings=(*warnings, *cut_off(repaired, reduced)),
    )


def _enclosed_air(hounsfield: Hounsfield, spacing: tuple[float, float, float]) -> Mask:
    """Air within the body that may be lung, slice by slice."""
    filler = _filler(hounsfield)
    regions, count = ndimage.label((hounsfield < AIR_BELOW_HU) & ~filler, IN_SLICE)
    sizes = np.maximum(np.bincount(regions.ravel(), minlength=count + 1), 1)
    inside = ndimage.binary_erosion(regions > 0, IN_PLANE, border_value=1)
    insides = np.bincount(regions[inside], minlength=count + 1)
    free_air = hounsfield < GAS_BELOW_HU
    gas_share = np.where(
        insides > 0,
        np.bincount(regions[free_air & inside], minlength=count + 1) / np.maximum(insides, 1),
        np.bincount(regions[free_air], minlength=count + 1) / sizes,
    )
    covered = np.bincount(regions[between_walls(hounsfield)], minlength=count + 1) / sizes >= COVERED_SHARE
    edge = np.zeros_like(filler)
    edge[:, [0, -1], :] = edge[:, :, [0, -1]] = True
    edge |= ndimage.binary_dilation(filler, IN_PLANE)
    at_edge = np.zeros(count + 1, dtype=bool)
    at_edge[np.unique(regions[edge])] = True
    # what the field of view cuts is lung only if it is plainly not the room's air
    cut = at_edge & (gas_share < CUT_GAS_SHARE) & (sizes * spacing[1] * spacing[2] > CUT_LEAST_MM2)
    # a small region with much free gas is bowel with its contents
    bowel = (gas_share >= BOWEL_GAS_SHARE) & (sizes * spacing[1] * spacing[2] < BOWEL_MOST_MM2)
    lung_like = covered & (cut | ~at_edge & ~bowel & (gas_share < GAS_SHARE))
    lung_like[0] = False
    enclosed: Mask = lung_like[regions]
    return enclosed


def _filler(hounsfield: Hounsfield) -> Mask:
    """What was never reconstructed: lighter than any air and open to the image's border, or the same in all slices."""
    light = hounsfield < FILLER_BELOW_HU
    if light.any():
        regions, _ = ndimage.label(light, IN_SLICE)
        borders = np.concatenate([regions[:, [0, -1], :].ravel(), regions[:, :, [0, -1]].ravel()])
        light = (regions > 0) & np.isin(regions, np.unique(borders))
    lowest, highest = hounsfield.min(axis=0), hounsfield.max(axis=0)
    constant: Mask = (lowest == highest) & (lowest <= -1000)
    return light | constant if len(hounsfield) > 1 else light


def _choose(reduced: Reduced, air: Mask) -> Mask:
    """The regions of enclosed air that are lung."""
    regions, count = ndimage.label(air)
    millilitres = np.bincount(regions.ravel(), minlength=count + 1) * reduced.voxel_ml
    millilitres[0] = 0.0
    mains = np.flatnonzero(millilitres >= max(MAIN_LEAST_ML, MAIN_SHARE * millilitres.max()))
    chosen: Mask = np.isin(regions, mains)
    if not len(mains):
        return chosen
    boxes = ndimage.find_objects(regions)
    low = min(boxes[label - 1][0].start for label in mains)
    high = max(boxes[label - 1][0].stop for label in mains)
    pieces = [
        label
        for label in np.flatnonzero(millilitres >= PIECE_ML)
        if label not in mains
        # bowel lies at the lower end, and above the upper end there is only the neck
        and low + 0.2 * (high - low) <= (boxes[label - 1][0].start + boxes[label - 1][0].stop) / 2 <= high
    ]
    if pieces:
        near = distance_mm(chosen, reduced.spacing_zyx_mm) <= NEAR_MM
        for label in pieces:
            if near[regions == label].mean() > 0.5:
                chosen |= regions == label
    return chosen


def _largest_pieces(lungs: Mask, reduced: Reduced) -> Mask:
    """Without the crumbs that cutting out the airway leaves behind."""
    regions, count = ndimage.label(lungs)
    millilitres = np.bincount(regions.ravel(), minlength=count + 1) * reduced.voxel_ml
    keep = millilitres >= PIECE_ML
    keep[0] = False
    kept: Mask = keep[regions]
    return kept


def refuse_without_lungs(grid_: PatientGrid, lungs: Mask) -> None:
    """Raise Refused (NO_LUNGS) where a mask holds less or more, or is lower, than the lungs of a chest."""
    total_ml = np.count_nonzero(lungs) * grid_.voxel_ml
    height_mm = np.count_nonzero(lungs.any(axis=(1, 2))) * grid_.spacing_zyx_mm[0]
    if LEAST_ML <= total_ml <= MOST_ML and height_mm >= LEAST_HEIGHT_MM:
        return
    if total_ml == 0:
        found = "no air that is enclosed by tissue like a lung"
    else:
        found = f"{total_ml:.0f} ml of air enclosed by tissue over {height_mm:.0f} mm"
    words = (
        f"no lungs were found: the series shows {found}; a chest shows {LEAST_ML:.0f} to {MOST_ML:.0f} ml "
        f"of aerated lung over at least {LEAST_HEIGHT_MM:.0f} mm"
    )
    raise Refused(NotAnalysed(reason=Reason.NO_LUNGS, words=words))


def _middle(sides: LungMap, reduced: Reduced) -> tuple[float, float]:
    """(y, x) between the lungs, in reduced voxels: about where the heart and the great vessels are."""
    y = np.percentile(np.nonzero(sides)[1], 30)  # the heart lies in front
    centres = [np.nonzero(sides == label)[2].mean() for label in np.unique(sides[sides > 0])]
    x = np.mean(centres)
    if len(centres) == 1:
        x = (laterality.midline_mm(reduced, sides > 0) - reduced.origin_zyx_mm[2]) / reduced.spacing_zyx_mm[2]
    return float(y), float(x)


def _close(lung: Mask, reduced: Reduced, wall: Mask, middle: tuple[float, float]) -> Mask:
    """One lung with vessels, nodules and consolidation at the pleura taken in.

    A small ball closes everywhere; a large disk only on the side of the ribs, where a lung is convex and a dent is
    disease: towards the mediastinum the same disk would swallow the heart. `middle` is (y, x) between the lungs.
    """
    dz, dy, dx = reduced.spacing_zyx_mm
    window = _window(lung, [CLOSING_MM / dz, COSTAL_CLOSING_MM / dy, COSTAL_CLOSING_MM / dx])
    part = lung[window]
    closed = _closed(part, (dz, dy, dx), CLOSING_MM)
    beyond, outermost = _beyond(closed, middle[0] - window[1].start, middle[1] - window[2].start, dy / dx)
    costal = _closed(part, (FAR_APART_MM, dy, dx), COSTAL_CLOSING_MM)
    allowed = (reduced.hounsfield[window] < NOT_LUNG_ABOVE_HU) & ~wall[window]
    closed = part | (allowed & (closed | outermost & costal))
    closed = _without_holes(closed, allowed & beyond & costal, (dy, dx))
    result = lung.copy()
    result[window] = closed
    return result


def _without_holes(closed: Mask, dents: Mask, spacing: tuple[float, float]) -> Mask:
    """With the vessels, nodules and consolidation that the lung encloses (or nearly: `dents`), but not the diaphragm.

    From the lowest slice up: a large hole that stands on tissue outside the lung is the top of liver, spleen or
    heart; what stands on lung is inside the lung.
    """
    least = DOME_LEAST_MM2 / (spacing[0] * spacing[1])
    result = closed.copy()
    outside = np.zeros_like(closed[0])
    for z, plane in enumerate(closed):
        holes = ndimage.binary_fill_holes(plane | dents[z]) & ~plane
        labels, _ = ndimage.label(holes)
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            hole = labels[box] == label
            if np.count_nonzero(hole) < least or outside[box][hole].mean() < DOME_SHARE:
                result[z][box] |= hole
        outside = ~result[z]
    return result


def _window(mask: Mask, margins: list[float]) -> tuple[slice, slice, slice]:
    """The bounding box of a mask and at least `margins` voxels around it, within the volume."""
    bounds = []
    for axis, margin in enumerate(margins):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        reach = int(np.ceil(margin)) + 1
        bounds.append(slice(max(0, int(used[0]) - reach), min(mask.shape[axis], int(used[-1]) + 1 + reach)))
    return bounds[0], bounds[1], bounds[2]


def _closed(mask: Mask, spacing: tuple[float, float, float], radius_mm: float) -> Mask:
    """Morphological closing with a ball; the image's border neither adds nor takes."""
    frame = [int(np.ceil(radius_mm / mm)) + 1 for mm in spacing]
    framed = np.pad(mask, [(n, n) for n in frame])
    grown = distance_mm(framed, spacing) <= radius_mm
    closed: Mask = distance_mm(~grown, spacing) > radius_mm
    return closed[tuple(slice(n, -n) for n in frame)]


def _beyond(lung: Mask, y: float, x: float, aspect: float) -> tuple[Mask, Mask]:
    """Voxels with lung between them and the axis through (y, x), and those of them with no lung behind them."""
    rows, columns = np.ogrid[: lung.shape[1], : lung.shape[2]]
    away = np.hypot((rows - y) * aspect, columns - x)
    towards = ((np.arctan2((rows - y) * aspect, columns - x) + np.pi) / (2 * np.pi) * DIRECTIONS).astype(np.intp)
    towards = np.minimum(towards, DIRECTIONS - 1)
    beyond, outermost = np.zeros_like(lung), np.zeros_like(lung)
    for z, plane in enumerate(lung):
        first, last = np.full(DIRECTIONS, 1e6), np.zeros(DIRECTIONS)
        np.minimum.at(first, towards[plane], away[plane])
        np.maximum.at(last, towards[plane], away[plane])
        # a narrow gap in the view, as of a bronchus at the hilum, does not open the mediastinum behind it
        first = ndimage.grey_closing(first, size=DIRECTIONS // 10, mode="wrap")
        beyond[z] = away > first[towards]
        outermost[z] = beyond[z] & (away > last[towards])
    return beyond, outermost


def _restore(volume: Volume, reduced: Reduced, sides: LungMap, tubes: Mask) -> LungMap:
    """The map on the series' own voxels: within a reduced voxel of the border attenuation decides."""
    lungs = sides > 0
    core = ndimage.binary_erosion(lungs, IN_PLANE, border_value=1)
    dense = lungs & (reduced.hounsfield >= AIR_BELOW_HU)  # taken in by closing: no border to be seen there
    band = ndimage.binary_dilation(lungs, IN_PLANE) & ~tubes
    # 0 outside, 1 and 2 certain, 3 and 4 where the attenuation decides
    nearest = np.where(lungs, sides, ndimage.grey_dilation(sides, footprint=IN_PLANE))
    plan = np.where(core | dense, sides, np.where(band, nearest + 2, 0)).astype(np.uint8)
    turned = reduced.to_volume_axes(plan)
    result = np.zeros(volume.hounsfield.shape, dtype=np.uint8)
    for z, image in enumerate(volume.hounsfield):
        block = turned[z // reduced.factors[0]]
        if not block.any():
            continue
        fine = reduced.expand_slice(turned, z)
        result[z] = np.where(fine > 2, (fine - 2) * (image < AIR_BELOW_HU), fine)
    return result


def cut_off(sides: LungMap, reduced: PatientGrid) -> list[str]:
    """Sentences about lungs that the series shows in part."""
    area = np.count_nonzero(sides, axis=(1, 2)) * reduced.spacing_zyx_mm[1] * reduced.spacing_zyx_mm[2]
    warnings = []
    for level, where in ((0, "lowest"), (-1, "uppermost")):
        if area[level] > 0.3 * area.max():
            warnings.append(f"the lungs are cut off at the {where} slice ({area[level] / 100:.0f} cm2 of lung there)")
    edge = np.ones_like(sides, dtype=np.bool_)
    edge[:, 1:-1, 1:-1] = False
    found = sides > 0
    if found.any():
        box = grid.bounds(found, 1)
        edge[box] |= ndimage.binary_dilation(_filler(reduced.hounsfield[box]), IN_PLANE)
    cut_mm2 = np.count_nonzero(found & edge) * reduced.spacing_zyx_mm[0] * reduced.spacing_zyx_mm[1]
    if cut_mm2 > CUT_TOLD_MM2:
        warnings.append(
            f"the field of view cuts the lungs at the side ({cut_mm2 / 100:.0f} cm2 of lung lie at its edge)"
        )
    return warnings
