"""Anatomy of the phantom's chest as smooth fields: wall, bones, mediastinum, lungs, what lies under the diaphragm.

Everything is in patient millimetres (L, P, S) around a point at the level of the lungs' middle; the carina lies at
z = 48, the apices near z = 125, the costophrenic angles near z = -130.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import PchipInterpolator

from triage_node.phantom_fields import (
    NO_SEGMENTS,
    Field,
    Grid,
    Loose,
    Segments,
    common,
    distance,
    ellipsoid,
    make_grid,
    tube,
    union,
    value_noise,
)
from triage_node.phantom_tree import beside, grow, sample_points

NOTHING_MM = 60.0  # a distance that says "not here"

# half width, half depth and middle (y) of the rib cage's inside and of the skin, by height z, in mm
LEVELS = (-180, -120, -60, 0, 40, 80, 100, 118, 135, 170)
CAVITY_HALF_WIDTH = (131, 136, 137, 133, 124, 106, 93, 78, 58, 42)
CAVITY_HALF_DEPTH = (94, 97, 98, 93, 85, 70, 61, 52, 42, 34)
CAVITY_MIDDLE = (0, 0, 0, 2, 6, 14, 20, 26, 30, 34)
SKIN_HALF_WIDTH = (162, 163, 164, 164, 168, 172, 172, 166, 150, 120)
SKIN_HALF_DEPTH = (127, 127, 126, 122, 117, 108, 101, 95, 87, 78)
SKIN_MIDDLE = (6, 6, 6, 8, 10, 15, 20, 25, 28, 30)

RIB_PITCH_MM = 25.0
VERTEBRA_PITCH_MM = 25.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fields:
    """A body as signed distances in mm (negative inside) and attenuations in HU, all [z, y, x] on `grid`."""

    grid: Grid
    skin: Field
    soft: Field  # everything that is not fat
    soft_hu: Field
    bone: Field
    gas: Field
    lung: Field | None = None
    parenchyma_hu: Field | None = None
    lesion_score: Field | None = None  # in mm: where it is largest disease starts
    consolidation_score: Field | None = None
    lesion_hu: Field | None = None  # what ground glass adds
    airways: Segments = field(default_factory=lambda: NO_SEGMENTS)  # radii of the lumen
    vessels: Segments = field(default_factory=lambda: NO_SEGMENTS)


def _profile(values: tuple[float, ...], z: Field) -> Field:
    return np.asarray(PchipInterpolator(LEVELS, values)(np.clip(z, LEVELS[0], LEVELS[-1])), np.float32)


def _oval(grid: Grid, half_width: Loose, half_depth: Field, middle: Field, exponent: float) -> Field:
    """Signed distance of a body whose cross-section is a superellipse."""
    across = np.abs(grid.x / half_width) ** exponent
    along = np.abs((grid.y - middle) / half_depth) ** exponent
    return distance((across + along) ** (1 / exponent) - 1, grid.step_mm)


def chest(rng: np.random.Generator, lesion_rng: np.random.Generator, *, prone: bool = False) -> Fields:
    """Build one chest; another state of `rng` is another person, of `lesion_rng` another course of disease."""
    grid = make_grid(rng, low=(-195, -150, -185), high=(195, 175, 170), step_mm=2.75, warp_mm=1.8, warp_scale_mm=42.0)
    axes = (grid.z_mm, grid.y_mm, grid.x_mm)
    x, y, z = grid.x, grid.y, grid.z
    width, depth = (float(v) for v in rng.normal(1.0, 0.025, 2).clip(0.95, 1.05))
    fat_mm = float(rng.uniform(-3, 8))
    middle = _profile(CAVITY_MIDDLE, z)
    cavity_depth = _profile(CAVITY_HALF_DEPTH, z) * depth
    half_width = _profile(CAVITY_HALF_WIDTH, z) * width * (1 - 0.03 * np.tanh(x / 40))  # the right half is wider
    cavity = _oval(grid, half_width, cavity_depth, middle, 2.25)
    skin = _oval(
        grid,
        _profile(SKIN_HALF_WIDTH, z) * width + fat_mm,
        _profile(SKIN_HALF_DEPTH, z) * depth + fat_mm,
        _profile(SKIN_MIDDLE, z),
        2.35,
    )
    spine_y = middle + cavity_depth - 13  # centre of the vertebral bodies
    around = np.arctan2(np.abs(x), y - middle)  # 0 at the back, pi at the front

    heart, vessels, oesophagus = _mediastinum(grid, rng, spine_y)
    diaphragm = _diaphragm(grid, rng)
    bone, cartilage, vertebra = _bones(grid, cavity, around, spine_y)
    lung = _lungs(grid, rng, cavity, diaphragm, heart, vessels, vertebra)

    # what lies under the diaphragm
    abdomen = common(cavity + 0.5, 2 - diaphragm)
    wavy = value_noise(rng, axes, 30.0)
    liver = common(abdomen, ((x - 32) + 0.35 * (y + 40) + 0.5 * (z + 85)) * 0.8, blend_mm=12)
    liver = union(liver, common(abdomen + 1, ellipsoid(grid, (28, -50, -92), (52, 30, 24)), blend_mm=8), blend_mm=10)
    spleen = common(abdomen + 1, ellipsoid(grid, (92, 48, -118), (34, 44, 48), yaw_deg=-25), blend_mm=6)
    stomach = common(abdomen + 2, ellipsoid(grid, (58, -22, -112), (46, 52, 36), yaw_deg=20) + 2 * wavy, blend_mm=6)
    level = float(rng.uniform(-38, -22))  # of the fluid in the stomach
    gas = common(stomach + 4, (level - y if prone else y - level).astype(np.float32))
    bowel = common(abdomen + 5, (z + 150) * 0.9, 9 * (0.5 - wavy), -(liver - 5), -(spleen - 5), -(stomach - 5))

    wall = _wall(grid, rng, cavity, skin, around)
    muscle_sheet = common(cavity, np.abs(diaphragm - 2.0) - 2.0)
    soft = union(
        common(wall, skin + 2), common(cartilage, skin + 5), heart, vessels, oesophagus, liver, spleen, stomach, bowel,
        muscle_sheet, vertebra - 5,
    )  # fmt: skip
    soft_hu = np.full(grid.shape, 52, np.float32) + 4 * value_noise(rng, axes, 9.0)
    for shape, attenuation in (
        (heart, 42), (vessels, 40), (liver, 60), (spleen, 50), (stomach, 18), (bowel, 25), (cartilage, 105),
    ):  # fmt: skip
        soft_hu += (attenuation - 52) * (shape < 0)
    canal = np.hypot(x, y - spine_y - 25) - 8.5
    soft_hu -= 27 * (canal < 0)
    gas = union(gas, tube(grid, ((4, 30, 62), (4, 31, 50)), (2.5, 2.5)), common(bowel + 5, wavy * 20 - 20))

    airways, blood = _trees(grid, rng, lung)
    score, consolidation = _disease(grid, lesion_rng, common(cavity, diaphragm), -1.0 if prone else 1.0)
    hang = (-1 if prone else 1) * (y - 10) / 90  # dependent lung is denser
    parenchyma = -862 + 24 * hang + 9 * value_noise(rng, axes, 7.0) + 6 * value_noise(rng, axes, 40.0)
    parenchyma += 70 * np.exp(-((_fissures(grid, rng) / 1.6) ** 2))
    glass = 345 + 45 * value_noise(rng, axes, 6.0) + 45 * value_noise(rng, axes, 22.0)
    return Fields(
        grid=grid,
        skin=skin,
        soft=soft,
        soft_hu=soft_hu,
        bone=common(bone, skin + 4),
        gas=gas,
        lung=lung,
        parenchyma_hu=parenchyma.astype(np.float32),
        lesion_score=score,
        consolidation_score=consolidation,
        lesion_hu=glass.astype(np.float32),
        airways=airways,
        vessels=blood,
    )


def _diaphragm(grid: Grid, rng: np.random.Generator) -> Field:
    """Distance to the two domes: negative above them, positive in the abdomen."""
    x, y, z = grid.x, grid.y, grid.z
    right_top, left_top = float(-53 + rng.normal(0, 3)), float(-61 + rng.normal(0, 3))
    side = 0.5 - 0.5 * np.tanh(x / 22)  # 1 on the right
    top = left_top + (right_top - left_top) * side
    from_dome = ((np.abs(x) - 62) / 76) ** 2 * np.where(np.abs(x) < 62, 0.35, 1.0) + ((y + 8) / 96) ** 2
    dome = top - 70 * from_dome**1.35 - 0.10 * (y + 8)
    return distance((dome - z).astype(np.float32), grid.step_mm)


def _mediastinum(grid: Grid, rng: np.random.Generator, spine_y: Field) -> tuple[Field, Field, Field]:
    """The heart, the great vessels and the oesophagus (with the walls of the large airways)."""
    size = float(rng.normal(1.0, 0.04))
    heart = ellipsoid(grid, (23, -34, -37), (62 * size, 42 * size, 47 * size), yaw_deg=-38, pitch_deg=18)
    heart = union(
        heart,
        ellipsoid(grid, (-20, -18, -25), (28, 34, 42)),  # right atrium
        ellipsoid(grid, (2, 12, -12), (36, 19, 24)),  # left atrium
        blend_mm=10,
    )
    groove = value_noise(rng, (grid.z_mm, grid.y_mm, grid.x_mm), 26.0)
    heart = np.asarray(heart + 4 + 2.2 * groove, np.float32)  # epicardial fat lies between this and its envelope
    back = float(np.interp(0, grid.z_mm, spine_y[:, 0, 0]))
    trunks = (
        (((0, -30, -20), (-15, -28, 15), (-16, -24, 45), (-8, -12, 66), (8, 6, 72), (20, 24, 64), (23, 40, 46),
          (21, back - 25, 10), (19, back - 24, -50), (14, back - 24, -110), (8, back - 26, -185)),
         (16, 17, 16, 14.5, 13.5, 13, 12.5, 12, 12, 11.5, 11)),  # aorta
        (((-26, -14, 82), (-27, -12, 40), (-26, -14, -10)), (8, 9.5, 11)),  # superior vena cava
        (((-20, -2, -50), (-20, 10, -110), (-16, 20, -185)), (12, 12, 11)),  # inferior vena cava
        (((14, -42, -5), (20, -28, 14), (20, -12, 24)), (15, 14, 13)),  # pulmonary trunk
        (((20, -12, 24), (0, 4, 22), (-34, 10, 16)), (11, 10.5, 9)),  # right pulmonary artery
        (((20, -12, 24), (32, 8, 28), (42, 20, 24)), (11, 10.5, 9)),  # left pulmonary artery
        (((-4, -6, 68), (-10, -6, 95), (-20, -4, 130)), (6.5, 6, 5)),  # brachiocephalic artery
        (((6, 4, 72), (10, 4, 100), (16, 6, 165)), (4.5, 4, 3.5)),  # left common carotid
        (((14, 12, 72), (20, 18, 100), (34, 14, 125), (90, 10, 138)), (5, 5, 5, 4)),  # left subclavian
        (((-26, -14, 82), (-30, -12, 105), (-34, -4, 165)), (7, 6.5, 6)),  # right brachiocephalic vein
        (((-26, -14, 80), (0, -24, 88), (26, -18, 106), (32, -4, 165)), (6.5, 6.5, 6, 6)),  # left one
        (((-9, back - 16, -185), (-9, back - 17, 40), (-16, 30, 56), (-24, -4, 56)), (3, 4, 4, 4)),  # azygos
        (((-34, -2, -4), (-10, 6, -10)), (7, 8)), (((-34, 16, -26), (-8, 12, -20)), (7, 8)),  # right veins
        (((38, -2, 2), (16, 8, -8)), (7, 8)), (((38, 22, -24), (14, 14, -18)), (7, 8)),  # left veins
    )  # fmt: skip
    vessels = union(*(tube(grid, path, radii) for path, radii in trunks))
    wall = tube(grid, ((5, 36, 170), (5, 34, 60), (2, 34, 20), (10, 36, -60), (22, 20, -100)), (7, 7, 7, 7.5, 9))
    thyroid = union(ellipsoid(grid, (-20, 8, 150), (8, 10, 18)), ellipsoid(grid, (20, 8, 150), (8, 10, 18)))
    return heart, vessels, union(wall, thyroid)


def _lungs(
    grid: Grid,
    rng: np.random.Generator,
    cavity: Field,
    diaphragm: Field,
    heart: Field,
    vessels: Field,
    vertebra: Field,
) -> Field:
    """Both lungs as one shape that never touches the midline."""
    x, y, z = grid.x, grid.y, grid.z
    lumps = value_noise(rng, (grid.z_mm, grid.y_mm, grid.x_mm), 30.0)
    right, left = (-44.0, 18.0, 14.0), (47.0, 22.0, 14.0)
    hila = union(ellipsoid(grid, right, (13, 17, 24)), ellipsoid(grid, left, (12, 17, 23)), blend_mm=4)
    upper = common(np.hypot(x, (y - 8) / 1.25) - 27 - 0.05 * (z - 60), 48 - z)
    fore = np.abs(x - 3 - 0.08 * y) - 2.2 - 6 * np.clip((-50 - y) / 45, 0, 1) - 10 * np.clip((z - 55) / 50, 0, 1)
    front = common(fore, y + 10)
    back = common((np.abs(x - 6) - 17).astype(np.float32), -y - 5)
    pad = union(ellipsoid(grid, (55, -68, -88), (42, 24, 22)), ellipsoid(grid, (-42, -70, -84), (26, 18, 20)))
    middle = union(
        heart - 6, vessels - 3.5, hila, upper, front, back, pad, vertebra - 5,
        tube(grid, ((0, 14, 48), (-34, 22, 20)), (13, 11)), tube(grid, ((0, 14, 48), (40, 28, 18)), (13, 11)),
        blend_mm=9,
    )  # fmt: skip
    middle = np.asarray(middle - 1.2 * lumps, np.float32)
    apex = (z - 128 + ((np.abs(x) - 40) ** 2 + 0.3 * (y - 32) ** 2) / 85) * 0.75
    lung = common(cavity + 1.5, diaphragm + 1.5, -middle, apex.astype(np.float32), blend_mm=3)
    # the free end below the bases that the domes' fall leaves around the abdomen is too thin to be lung
    return common(lung, (-142 - z) * 0.9)


def _bones(grid: Grid, cavity: Field, around: Field, spine_y: Field) -> tuple[Field, Field, Field]:
    """All bones, the ribs' cartilage, and the front of the vertebral bodies with their discs."""
    x, y, z = grid.x, grid.y, grid.z
    # ribs fall forwards: the same rib is found about 100 mm lower in front, where its cartilage rises again
    forward = around / np.pi
    fall = 128 * np.clip(forward, 0, 0.78) - 150 * np.clip(forward - 0.78, 0, None)
    phase = (z + fall) / RIB_PITCH_MM
    from_rib = (phase - np.floor(phase) - 0.5) * RIB_PITCH_MM * 0.88
    ring = np.sqrt((from_rib / 6.3) ** 2 + ((cavity - 6.0) / 4.2) ** 2)
    rib = ((ring - 1) * 4.2).astype(np.float32)
    number = np.floor(phase)
    rib = np.where((number > 5) | (number < -6), np.float32(8.0), rib)
    joint = (around - 0.74 * np.pi) * 80
    ribs = common(rib, joint.astype(np.float32), 12 - np.abs(x))
    sternum_end = (-75 - z).astype(np.float32)
    cartilage = common(rib - 0.6, -joint.astype(np.float32), sternum_end)

    in_disc = np.abs((z / VERTEBRA_PITCH_MM) % 1 - 0.5) * VERTEBRA_PITCH_MM  # 0 in the middle of a disc
    waist = 1.8 * np.clip(in_disc / 8, 0, 1)
    column = distance(np.sqrt((x / 19) ** 2 + ((y - spine_y) / 15.5) ** 2) - 1, grid.step_mm) + waist
    bodies = common(column, 2.8 - in_disc)
    arch_high = np.clip(np.abs(in_disc - 8.0) - 7.5, -4, None)
    canal = np.hypot(x * 0.95, y - spine_y - 25)
    arch = common((np.abs(canal - 12.5) - 3.2).astype(np.float32), (spine_y + 12 - y), arch_high)
    slanted = np.abs(((z + 0.55 * (y - spine_y)) / VERTEBRA_PITCH_MM) % 1 - 0.5) * VERTEBRA_PITCH_MM
    spinous = common(np.abs(x) - 3.0, np.abs(y - spine_y - 46) - 13, 4.5 - slanted)
    transverse = common(np.abs(y - spine_y - 24 - 0.25 * np.abs(x)) - 4.5, np.abs(np.abs(x) - 24) - 13, 6.5 - in_disc)
    spine = union(bodies, arch, spinous, transverse, blend_mm=2)

    front = _profile(CAVITY_MIDDLE, z) - _profile(CAVITY_HALF_DEPTH, z)
    half_width = np.interp(z, (-80, -50, 40, 60, 90), (5, 17, 15, 24, 30)).astype(np.float32)
    plate = np.abs(y - front + 8) - 5.5
    sternum = common(plate, np.abs(x) - half_width, np.abs(z - 8) - 82, blend_mm=4)
    clavicles = union(
        *(
            tube(grid, ((s * 18, -52, 92), (s * 60, -58, 104), (s * 105, -30, 122), (s * 150, -6, 132)), (8, 6.5, 6, 7))
            for s in (-1, 1)
        )
    )
    blade = np.abs(cavity - 27 - 5 * np.cos(3 * around)) - 2.6
    scapulae = common(
        blade, np.abs(around - (0.29 + 0.0004 * (z - 60)) * np.pi) * 90 - np.interp(z, (0, 90), (12, 42)),
        np.abs(z - 68) - 66, blend_mm=3,
    )  # fmt: skip
    bone = union(ribs, spine, sternum, clavicles, np.asarray(scapulae, np.float32))
    return np.asarray(bone, np.float32), np.asarray(cartilage, np.float32), np.asarray(column, np.float32)


def _wall(grid: Grid, rng: np.random.Generator, cavity: Field, skin: Field, around: Field) -> Field:
    """Muscles of the chest wall: between the ribs, on the back, in front and around the shoulder."""
    z = grid.z
    axes = (grid.z_mm, grid.y_mm, grid.x_mm)
    inner = common(-(cavity + 2.0), cavity - 11.0)
    back = np.exp(-((around / 0.62) ** 2)) * 22
    chest_muscle = np.exp(-(((around - 0.80 * np.pi) / 0.42) ** 2)) * np.interp(z, (-20, 20, 90), (0, 10, 16))
    flank = np.exp(-(((around - 0.45 * np.pi) / 0.5) ** 2)) * np.interp(z, (-120, -40, 40, 100), (4, 8, 20, 30))
    thickness = 13 + back + chest_muscle + flank + 1.5 * value_noise(rng, axes, 24.0)
    layer = common(-(cavity - 13.0), (cavity - thickness).astype(np.float32), skin + 5)
    cleft = 1.1 - np.abs(value_noise(rng, axes, 17.0)) * 4.5  # fat between the muscles
    layer = common(layer, cleft.astype(np.float32), blend_mm=1)
    return union(inner, layer)


def _fissures(grid: Grid, rng: np.random.Generator) -> Field:
    """Distance to the oblique fissures and, on the right, the horizontal one."""
    x, y, z = grid.x, grid.y, grid.z
    wave = 3.0 * value_noise(rng, (grid.z_mm, grid.y_mm, grid.x_mm), 50.0)
    oblique = ((z - 15) - 0.95 * (y - 10) + 0.0012 * (np.abs(x) - 80) ** 2 + wave) * 0.72
    horizontal = np.where((x < 0) & (oblique > 0), z - 5 + 0.06 * (x + 80) + wave, NOTHING_MM)
    return np.asarray(np.minimum(np.abs(oblique), np.abs(horizontal)), np.float32)


def _trees(
    grid: Grid,
    rng: np.random.Generator,
    lung: Field,
) -> tuple[Segments, Segments]:
    """Airways from the trachea on (lumen) and the vessels of both lungs."""
    trachea = [(0, 8, 172, 0, 10, 120, 8.5, 8.5), (0, 10, 120, -1, 20, 80, 8.5, 8.5), (-1, 20, 80, 0, 23, 48, 8.5, 8.0)]
    airways: list[Segments] = [np.array(trachea, np.float32)]
    vessels: list[Segments] = []
    for side in (-1, 1):
        own = np.where(grid.x * side > 0, lung, np.float32(NOTHING_MM))
        main = np.array([(0, 23, 48), (side * 20, 25, 32), (side * 36, 24, 20)], np.float32)
        bronchi = grow(main, sample_points(rng, grid, own, count=40, low_mm=18, high_mm=90), tip_mm=0.7, root_mm=6.8)
        airways.append(bronchi.segments)
        pulse = np.array([(side * 34, 10, 18), (side * 42, 14, 16)], np.float32)
        along = beside(bronchi, gap_mm=1.2, thinnest_mm=1.0, towards=(side * 0.55, -0.55, 0.6))[3:]
        ends = sample_points(rng, grid, own, count=800, low_mm=4, high_mm=90)
        vessels.append(grow(pulse, np.concatenate([along, ends]), tip_mm=0.6, root_mm=7.5).segments)
        for height, share in ((0, 350), (-26, 450)):  # upper and lower vein
            root = np.array([(side * 30, 8, height), (side * 42, 8 if height else -2, height)], np.float32)
            part = np.where((grid.z - 8 + 0.5 * (grid.y - 10)) * (1 if height == 0 else -1) > 0, own, NOTHING_MM)
            ends = sample_points(rng, grid, part.astype(np.float32), count=share, low_mm=5, high_mm=90)
            if len(ends):
                vessels.append(grow(root, ends, tip_mm=0.6, root_mm=6.0).segments)
    return np.concatenate(airways), np.concatenate(vessels)


def _disease(grid: Grid, rng: np.random.Generator, outer: Field, gravity: float) -> tuple[Field, Field]:
    """Where disease settles first, in mm of spread: under the pleura, at the back, at the bases, in patches."""
    axes = (grid.z_mm, grid.y_mm, grid.x_mm)
    at_pleura = np.exp(np.minimum(outer, 0) / 20)
    patches = 1.15 * value_noise(rng, axes, 58.0) + 0.5 * value_noise(rng, axes, 26.0)
    patches += 0.14 * value_noise(rng, axes, 9.0)
    depends = 1.7 * at_pleura + 0.9 * gravity * grid.y / 90 - 0.75 * grid.z / 110
    score: Field = np.asarray((depends + patches) * 13, np.float32)
    core = score + 9 * value_noise(rng, axes, 17.0) + 2.5 * value_noise(rng, axes, 8.0)
    return score, np.asarray(core, np.float32)
