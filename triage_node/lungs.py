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
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from triage_node import grid, laterality
from triage_node.errors import Refused
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, NotAnalysed, Reason

if TYPE_CHECKING:
    from triage_node.grid import Reduced
    from triage_node.study import Hounsfield, LungMap, Mask, Volume

AIR_BELOW_HU = -300  # between aerated lung and soft tissue; ground glass lies below
GAS_BELOW_HU = -960  # free air; parenchyma, even emphysema, is denser on average
GAS_SHARE = 0.75  # of a region's inside that must be free air to make it airway, bowel or the room
FILLER_BELOW_HU = -1050  # no tissue is lighter than air: outside the reconstructed field
AIRWAY_BELOW_HU = (-900, -930, -960)  # tried in turn while the airway is followed; the next where it leaks
WALL_ABOVE_HU, WALL_SHARE = -750, 0.6  # of the voxels around a bronchus
AIRWAY_SLICE_MM2 = 1500.0  # carina and both main bronchi; more is a leak into the lung
AIRWAY_BEYOND_MM = 40.0  # how far below the last free-standing piece it is followed
BOWEL_GAS_SHARE, BOWEL_MOST_MM2 = 0.3, 2500.0
LUMEN_BELOW_HU, LUMEN_SHARE = -900, 0.6  # the airway's inside where it stands free, blurred by its wall
PIECE_ML = 3.0  # smaller islands of air are not lung
MAIN_SHARE = 0.1  # of the largest region; as large as this a region counts as a lung by itself
NEAR_MM = 25.0  # a piece cut off by consolidation lies this near to a lung
MAIN_LEAST_ML = 30.0
COVERED_SHARE = 0.6  # of a region that has the body in front and behind; the table and clothes have not
CUT_GAS_SHARE, CUT_LEAST_MM2 = 0.3, 300.0  # a lung that the field of view cuts: little free air, not a sliver
LEAST_ML, MOST_ML = 400.0, 14_000.0  # of both lungs together
LEAST_HEIGHT_MM = 50.0
CLOSING_MM = 6.0  # radius that bridges vessels and fissures everywhere
DOME_LEAST_MM2, DOME_SHARE = 150.0, 0.5  # a hole in the lung that stands this much on tissue below is diaphragm
COSTAL_CLOSING_MM = 30.0  # radius on the side of the ribs, in the slice
FAR_APART_MM = 1e4  # a slice spacing that keeps a distance within its slice
DIRECTIONS = 180  # around the middle of the chest
NOT_LUNG_ABOVE_HU = 150  # bone and enhanced vessels are never taken in by closing
IN_PLANE = ndimage.generate_binary_structure(2, 1)[np.newaxis]


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
    airway = _airway(reduced, chosen)
    chosen = _largest_pieces(chosen & ~ndimage.binary_dilation(airway, IN_PLANE), reduced)
    _check(reduced, chosen)
    sides, warnings = laterality.split(chosen, reduced)
    repaired = np.zeros_like(sides)
    middle = _middle(sides, reduced)
    wall = ndimage.binary_dilation(airway, IN_PLANE, iterations=2)
    for label in np.unique(sides[chosen]):
        repaired[_close(sides == label, reduced, wall, middle) & (repaired == 0)] = label
    repaired[chosen] = sides[chosen]
    return Lungs(
        map=_restore(volume, reduced, repaired, airway),
        reduced_map=repaired,
        reduced=reduced,
        warnings=(*warnings, *_cut_off(repaired, reduced)),
    )


def _enclosed_air(hounsfield: Hounsfield, spacing: tuple[float, float, float]) -> Mask:
    """Air within the body that may be lung, slice by slice."""
    filler = _filler(hounsfield)
    regions, count = ndimage.label((hounsfield < AIR_BELOW_HU) & ~filler, _stack(IN_PLANE))
    sizes = np.maximum(np.bincount(regions.ravel(), minlength=count + 1), 1)
    inside = ndimage.binary_erosion(regions > 0, IN_PLANE, border_value=1)
    insides = np.bincount(regions[inside], minlength=count + 1)
    free_air = hounsfield < GAS_BELOW_HU
    gas_share = np.where(
        insides > 0,
        np.bincount(regions[free_air & inside], minlength=count + 1) / np.maximum(insides, 1),
        np.bincount(regions[free_air], minlength=count + 1) / sizes,
    )
    covered = np.bincount(regions[_between_walls(hounsfield)], minlength=count + 1) / sizes >= COVERED_SHARE
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
    return lung_like[regions]


def _filler(hounsfield: Hounsfield) -> Mask:
    """What was never reconstructed: lighter than any air and open to the image's border, or the same in all slices."""
    light = hounsfield < FILLER_BELOW_HU
    if light.any():
        regions, _ = ndimage.label(light, _stack(IN_PLANE))
        borders = np.concatenate([regions[:, [0, -1], :].ravel(), regions[:, :, [0, -1]].ravel()])
        light = (regions > 0) & np.isin(regions, np.unique(borders))
    lowest, highest = hounsfield.min(axis=0), hounsfield.max(axis=0)
    constant: Mask = (lowest == highest) & (lowest <= -1000)
    return light | constant if len(hounsfield) > 1 else light


def _between_walls(hounsfield: Hounsfield) -> Mask:
    """Voxels with the body in front and behind in their column: not the table, not clothes, not the room."""
    thick = ndimage.binary_opening(hounsfield > AIR_BELOW_HU, np.ones((1, 3, 3)))
    regions, _ = ndimage.label(thick)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    body = regions == sizes.argmax() if sizes.any() else thick
    in_front = np.maximum.accumulate(body, axis=1)
    behind = np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    return in_front & behind


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


def _airway(reduced: Reduced, chosen: Mask) -> Mask:
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
    last = max(0, int(levels[0] - AIRWAY_BEYOND_MM / dz))
    previous = trachea[levels[-1]]
    airway[levels[-1]] = previous
    for level in range(int(levels[-1]) - 1, last - 1, -1):
        reach = ndimage.binary_dilation(previous, iterations=steps)
        current = trachea[level]
        most = max(AIRWAY_SLICE_MM2 / 3, 1.5 * np.count_nonzero(previous) * dy * dx)
        for below_hu in AIRWAY_BELOW_HU:
            grown = current | _walled(reach & (reduced.hounsfield[level] < below_hu), reduced.hounsfield[level])
            if np.count_nonzero(grown) * dy * dx <= min(most, AIRWAY_SLICE_MM2):
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
    regions, count = ndimage.label(hounsfield < AIR_BELOW_HU, _stack(IN_PLANE))
    sizes = np.maximum(np.bincount(regions.ravel(), minlength=count + 1), 1)
    inside = ndimage.binary_erosion(regions > 0, IN_PLANE)
    insides = np.maximum(np.bincount(regions[inside], minlength=count + 1), 1)
    share = np.bincount(regions[inside & (hounsfield < LUMEN_BELOW_HU)], minlength=count + 1) / insides
    covered = np.bincount(regions[_between_walls(hounsfield)], minlength=count + 1) / sizes >= COVERED_SHARE
    area_mm2 = sizes * reduced.spacing_zyx_mm[1] * reduced.spacing_zyx_mm[2]
    lumen = covered & (share >= LUMEN_SHARE) & (area_mm2 < AIRWAY_SLICE_MM2)
    lumen[0] = False
    return lumen[regions]


def _largest_pieces(lungs: Mask, reduced: Reduced) -> Mask:
    """Without the crumbs that cutting out the airway leaves behind."""
    regions, count = ndimage.label(lungs)
    millilitres = np.bincount(regions.ravel(), minlength=count + 1) * reduced.voxel_ml
    keep = millilitres >= PIECE_ML
    keep[0] = False
    return keep[regions]


def _check(reduced: Reduced, lungs: Mask) -> None:
    total_ml = np.count_nonzero(lungs) * reduced.voxel_ml
    height_mm = np.count_nonzero(lungs.any(axis=(1, 2))) * reduced.spacing_zyx_mm[0]
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


def distance_mm(mask: Mask, spacing: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    """Distance of every voxel to the nearest voxel of `mask`."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    squared = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=True, useImageSpacing=True)
    return np.sqrt(np.maximum(sitk.GetArrayViewFromImage(squared), 0.0))


def _restore(volume: Volume, reduced: Reduced, sides: LungMap, airway: Mask) -> LungMap:
    """The map on the series' own voxels: within a reduced voxel of the border attenuation decides."""
    lungs = sides > 0
    core = ndimage.binary_erosion(lungs, IN_PLANE, border_value=1)
    dense = lungs & (reduced.hounsfield >= AIR_BELOW_HU)  # taken in by closing: no border to be seen there
    band = ndimage.binary_dilation(lungs, IN_PLANE) & ~airway
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


def _cut_off(sides: LungMap, reduced: Reduced) -> list[str]:
    """Sentences about lungs that the series shows in part."""
    area = np.count_nonzero(sides, axis=(1, 2)) * reduced.spacing_zyx_mm[1] * reduced.spacing_zyx_mm[2]
    warnings = []
    for level, where in ((0, "lowest"), (-1, "uppermost")):
        if area[level] > 0.3 * area.max():
            warnings.append(f"the lungs are cut off at the {where} slice ({area[level] / 100:.0f} cm2 of lung there)")
    return warnings


def _stack(in_plane: Mask) -> Mask:
    """A structure that joins voxels within their slice alone."""
    return np.concatenate([np.zeros_like(in_plane), in_plane, np.zeros_like(in_plane)])
