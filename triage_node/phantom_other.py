"""Bodies that are not a chest: an abdomen with gas in the bowel, and a head with skull and sinuses."""

from __future__ import annotations

import numpy as np

from triage_node.phantom_chest import Fields
from triage_node.phantom_fields import Field, Loose, common, distance, ellipsoid, make_grid, tube, union, value_noise

VERTEBRA_PITCH_MM = 34.0


def abdomen(rng: np.random.Generator, *, prone: bool = False) -> Fields:
    """Upper abdomen to pelvis: liver, spleen, kidneys, aorta, psoas, bowel with gas and fluid, spine and pelvis."""
    grid = make_grid(rng, low=(-195, -150, -200), high=(195, 175, 200), step_mm=3.0, warp_mm=3.0, warp_scale_mm=45.0)
    axes = (grid.z_mm, grid.y_mm, grid.x_mm)
    x, y, z = grid.x, grid.y, grid.z
    waist = 1 - 0.05 * np.cos(z / 60)
    round_body = np.sqrt((x / (168 * waist)) ** 2 + ((y - 6) / (122 * waist)) ** 2) - 1
    skin = distance(round_body.astype(np.float32), grid.step_mm)
    back = ((np.abs(x) / 90) ** 2 + ((y - 120) / 46) ** 2).astype(np.float32)
    wall = common(skin + 20 + 3 * value_noise(rng, axes, 40.0), -(skin + 34))
    erector = common(distance(np.sqrt(back) - 1, grid.step_mm), skin + 14, 4 - np.abs(x))
    cavity = common(skin + 35, (y - 74) * 0.9)
    spine_y = 80.0
    in_disc = np.abs((z / VERTEBRA_PITCH_MM) % 1 - 0.5) * VERTEBRA_PITCH_MM
    column = (np.hypot(x / 1.25, y - spine_y) - 18).astype(np.float32)
    canal = np.hypot(x, y - spine_y - 27)
    arch = common((np.abs(canal - 12) - 3).astype(np.float32), 8.5 - np.abs(in_disc - 9))
    spinous = common(np.abs(x) - 3.5, np.abs(y - spine_y - 50) - 13, 9 - in_disc)
    blade = np.abs(np.abs(x) - 75 - 0.25 * (z + 110) + 0.6 * (y - 40)) * 0.7 - 4
    wings = common(_f32(blade), z + 70, np.abs(y - 40) - 55, -165 - z)
    bone = union(common(column, 4 - in_disc), arch, spinous, wings)
    liver = common(cavity + 3, ellipsoid(grid, (-80, -5, 110), (95, 88, 75), yaw_deg=10), blend_mm=8)
    spleen = common(cavity + 3, ellipsoid(grid, (108, 40, 115), (32, 46, 52)), blend_mm=6)
    kidneys = union(*(ellipsoid(grid, (s * 66, 62, 20 + s * 10), (28, 26, 54), yaw_deg=-s * 30) for s in (-1, 1)))
    sinus = union(*(ellipsoid(grid, (s * 56, 58, 20 + s * 10), (15, 10, 24)) for s in (-1, 1)))
    psoas = union(
        *(tube(grid, ((s * 30, 76, 90), (s * 48, 66, -60), (s * 78, 30, -190)), (8, 20, 19)) for s in (-1, 1))
    )
    vessels = union(
        tube(grid, ((10, 50, 200), (6, 52, -50), (-30, 40, -130)), (11, 9.5, 6)),
        tube(grid, ((-20, 52, 200), (-18, 54, -50), (-40, 48, -130)), (12, 11, 7)),
        tube(grid, ((6, 52, -50), (34, 40, -130)), (8, 6)),
    )
    organs = union(liver, spleen, common(kidneys, -sinus), psoas, vessels)
    coil, other = value_noise(rng, axes, 34.0), value_noise(rng, axes, 38.0)
    loops = common(
        ((np.abs(coil) - 0.55) * 16).astype(np.float32), cavity + 8, -(organs - 4), (y - 30) * 0.9, blend_mm=4
    )
    colon = union(
        tube(grid, ((-112, 8, -120), (-116, 0, 0), (-100, -40, 45), (0, -78, 20), (95, -45, 60)), (26, 27, 23, 22, 21)),
        tube(grid, ((95, -45, 60), (122, 25, 20), (118, 30, -90), (60, 20, -140), (0, 40, -190)), (20, 18, 17, 19, 20)),
    )
    colon = np.asarray(colon + 3 * other, np.float32)
    upward = -y if not prone else y
    gas = common(colon + 3, (-(upward - 6 * coil - (10 if prone else 5))).astype(np.float32))
    gas = union(gas, common(loops + 5, ((0.9 - other) * 14).astype(np.float32)))
    soft = union(common(wall, skin + 2), erector, organs, loops, colon, column - 2)
    soft_hu = np.full(grid.shape, 52, np.float32) + 4 * value_noise(rng, axes, 9.0)
    for shape, attenuation in ((liver, 60), (spleen, 50), (kidneys, 32), (vessels, 40), (loops, 25), (colon, 30)):
        soft_hu += (attenuation - 52) * (shape < 0)
    soft_hu -= 27 * (canal < 8.5)
    return Fields(
        grid=grid, skin=skin, soft=_f32(soft), soft_hu=_f32(soft_hu), bone=common(_f32(bone), skin + 4), gas=_f32(gas)
    )


def head(rng: np.random.Generator) -> Fields:
    """A head from the chin to the vertex: skull, brain with ventricles, orbits, sinuses, mastoid cells."""
    grid = make_grid(rng, low=(-110, -140, -180), high=(110, 150, 140), step_mm=2.5, warp_mm=2.0, warp_scale_mm=40.0)
    axes = (grid.z_mm, grid.y_mm, grid.x_mm)
    x, y, z = grid.x, grid.y, grid.z
    vault = ellipsoid(grid, (0, 0, 20), (71, 90, 72))
    face = ellipsoid(grid, (0, -44, -62), (58, 54, 62))
    neck = (np.hypot(x, y - 12) - 58).astype(np.float32)
    neck = common(neck, z + 40)
    skin = union(vault - 9, face, neck, tube(grid, ((0, -96, -18), (0, -112, -46)), (9, 13)), blend_mm=18)
    base = common(union(vault - 3, ellipsoid(grid, (0, -30, -45), (52, 52, 30))), np.abs(z + 42 - 0.25 * y) - 7)
    jaw = common((np.abs(np.hypot(x, (y + 40) * 0.8) - 44) - 6).astype(np.float32), np.abs(z + 100) - 12, y + 10)
    maxilla = common((np.abs(np.hypot(x, (y + 50) * 0.9) - 36) - 5).astype(np.float32), np.abs(z + 62) - 22, y + 20)
    cervical = common((np.hypot(x, y - 22) - 11).astype(np.float32), 3 - np.abs((z / 18) % 1 - 0.5) * 18, z + 55)
    skull = common(np.abs(vault + 0.5) - 3.2, -38 - z)
    orbit = union(*(ellipsoid(grid, (s * 32, -62, -22), (19, 24, 18)) for s in (-1, 1)))
    cells = ((np.abs(value_noise(rng, axes, 8.0)) - 0.9) * 6).astype(np.float32)
    sinus = union(
        *(ellipsoid(grid, (s * 26, -58, -56), (14, 17, 16)) for s in (-1, 1)),
        ellipsoid(grid, (0, -54, -28), (11, 22, 14)),
        ellipsoid(grid, (4, -86, 12), (20, 6, 11)),
        ellipsoid(grid, (0, -22, -36), (13, 11, 9)),
    )
    mastoid = common(union(*(ellipsoid(grid, (s * 56, 22, -44), (11, 14, 20)) for s in (-1, 1))), -cells)
    throat = tube(grid, ((0, -70, -52), (0, -20, -58), (0, -14, -110), (0, -12, -180)), (7, 9, 8, 8))
    bone = common(union(skull, base, jaw, maxilla, _f32(cervical), mastoid - 3, blend_mm=3), -(orbit - 1))
    brain = common(vault + 5, -34 - z + 0.2 * y)
    globe = union(*(ellipsoid(grid, (s * 32, -68, -22), (12, 12, 12)) for s in (-1, 1)))
    muscle = common(skin + 8, _f32((np.abs(value_noise(rng, axes, 14.0)) - 1.1) * 8))
    soft = union(brain, globe, muscle, cervical - 8)
    folds = value_noise(rng, axes, 11.0)
    ventricles = union(*(ellipsoid(grid, (s * 12, 0, 26), (7, 34, 9), yaw_deg=s * 14) for s in (-1, 1)))
    grooves = common(_f32((np.abs(folds) - 0.22) * 10), -(vault + 15))
    soft_hu = np.full(grid.shape, 48, np.float32)
    soft_hu += np.where(brain < 0, -14 - 7 * np.clip((-vault - 9) / 5, 0, 1), 0)
    soft_hu = np.where((brain < 0) & ((ventricles < 0) | (grooves < 0)), np.float32(9), soft_hu)
    return Fields(
        grid=grid, skin=skin, soft=_f32(soft), soft_hu=_f32(soft_hu), bone=_f32(bone),
        gas=union(sinus, mastoid, throat),
    )  # fmt: skip


def _f32(field: Loose) -> Field:
    return np.asarray(field, np.float32)
