"""A procedural CT: anatomy and disease by seed and by numbers, as Hounsfield units with their true masks.

It serves the demo and the tests, where real patients must not be committed and the truth must be known. Axis order
is [z, y, x], coordinates are patient millimetres (L, P, S). Nothing here is a person; nothing is for diagnostic use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triage_node.phantom_chest import Fields, chest
from triage_node.phantom_other import abdomen, head
from triage_node.phantom_slab import AIR_HU, Lattice, Slab, at_heights
from triage_node.study import LEFT_LUNG, RIGHT_LUNG

if TYPE_CHECKING:
    from triage_node.phantom_fields import Field
    from triage_node.study import Hounsfield, LungMap, Mask

LOWEST_HU, HIGHEST_HU = -1024, 3071  # what a 12-bit scanner can say
SLAB_SLICES = 8  # sub-slices composed at a time: bounds the memory


class Body(StrEnum):
    """What was scanned."""

    CHEST = "CHEST"
    ABDOMEN = "ABDOMEN"
    HEAD = "HEAD"


class Reconstruction(StrEnum):
    """Sharpness of the image; decides the noise."""

    SOFT = "soft"
    LUNG = "lung"


NOISE_HU = {Reconstruction.SOFT: 18.0, Reconstruction.LUNG: 48.0}  # standard deviation in the middle of the body
NOISE_CUT_PER_MM = {Reconstruction.SOFT: 0.28, Reconstruction.LUNG: 0.60}  # where the kernel rolls off
NOISE_POOL = 12  # fields that are made; every slice gets one of them, shifted


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSpec:
    """What to make. Fractions are 0..1: of the lung's volume, `consolidation_share` of the lesions' volume."""

    seed: int = 1
    body: Body = Body.CHEST
    slices: int = 60
    rows: int = 256
    columns: int = 256
    spacing_zyx_mm: tuple[float, float, float] = (5.0, 1.5, 1.5)
    thickness_mm: float | None = None  # None: as thick as the slices are apart
    right_fraction: float = 0.0
    left_fraction: float = 0.0
    consolidation_share: float = 0.2
    reconstruction: Reconstruction = Reconstruction.SOFT
    noise_hu: float | None = None  # standard deviation in the middle of the body; None: as the reconstruction has it
    prone: bool = False
    gantry_tilt_deg: float = 0.0  # positive: the image's lower edge (the back) leans towards the head
    centre_z_mm: float = -5.0  # height of the middle slice; the lungs reach from about -130 to +125

    def __post_init__(self) -> None:
        for name in ("right_fraction", "left_fraction", "consolidation_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if min(self.slices, self.rows, self.columns) < 1 or min(self.spacing_zyx_mm) <= 0:
            raise ValueError("slices, rows, columns and spacing_zyx_mm must be positive")
        if self.thickness_mm is not None and self.thickness_mm <= 0:
            raise ValueError(f"thickness_mm is {self.thickness_mm}: it must be positive")
        if abs(self.gantry_tilt_deg) > 30:
            raise ValueError(f"gantry_tilt_deg is {self.gantry_tilt_deg}: gantries tilt by at most 30 degrees")
        if self.body is not Body.CHEST and (self.right_fraction or self.left_fraction):
            raise ValueError(f"a {self.body} has no lungs to be affected: fractions must be 0")

    @property
    def slice_thickness_mm(self) -> float:
        """Thickness of a slice."""
        return self.spacing_zyx_mm[0] if self.thickness_mm is None else self.thickness_mm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The true masks, on the phantom's grid [z, y, x]."""

    lungs: LungMap  # 0 none, 1 right, 2 left
    lesions: Mask  # inside the lungs
    consolidation: Mask  # inside the lesions

    def affected_fraction(self, label: int) -> float:
        """Lesion volume over lung volume of the lung with this label; 0 without a lung."""
        lung = self.lungs == label
        volume = int(np.count_nonzero(lung))
        return float(np.count_nonzero(self.lesions & lung) / volume) if volume else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phantom:
    """A volume with its truth. `affine_lps_mm` maps voxel indices (x, y, z, 1) to patient millimetres."""

    spec: PhantomSpec
    hounsfield: Hounsfield  # [z, y, x], z ascending to the head, y to the back, x to the patient's left
    truth: Truth
    affine_lps_mm: npt.NDArray[np.float64]  # [4, 4]

    def lung_volume_ml(self, label: int) -> float:
        """True volume of one lung as far as it was scanned."""
        voxel_ml = abs(float(np.linalg.det(self.affine_lps_mm[:3, :3]))) / 1000
        return int(np.count_nonzero(self.truth.lungs == label)) * voxel_ml


def make(spec: PhantomSpec) -> Phantom:
    """Make the phantom: the same for the same specification."""
    anatomy_rng, lesion_rng, noise_rng = (np.random.default_rng([spec.seed, part]) for part in range(3))
    lattice = _lattice(spec)
    match spec.body:
        case Body.CHEST:
            fields = chest(anatomy_rng, lesion_rng, prone=spec.prone)
        case Body.ABDOMEN:
            fields = abdomen(anatomy_rng, prone=spec.prone)
        case Body.HEAD:
            fields = head(anatomy_rng)
    glass, core = _disease(spec, fields, lattice)
    shape = (spec.slices, spec.rows, spec.columns)
    hounsfield = np.empty(shape, np.int16)
    lungs = np.zeros(shape, np.uint8)
    lesions = np.zeros(shape, np.bool_)
    consolidation = np.zeros(shape, np.bool_)
    noise = _Noise(noise_rng, spec, lattice)
    table = _table(lattice, prone=spec.prone)
    step = max(1, SLAB_SLICES // lattice.sub_slices)
    for first in range(0, spec.slices, step):
        last = min(first + step, spec.slices)
        slab = Slab(fields, lattice, first, last)
        image, lung = slab.compose(glass, core)
        image = np.maximum(image, table)
        noise.add_to(image)
        hounsfield[first:last] = np.clip(np.rint(image), LOWEST_HU, HIGHEST_HU).astype(np.int16)
        if lung is not None:
            right = np.where(lattice.x_mm < 0, np.uint8(RIGHT_LUNG), np.uint8(LEFT_LUNG))
            lungs[first:last] = np.where(lung, right, 0)
            lesions[first:last] = lung & slab.truth(glass)
            consolidation[first:last] = lesions[first:last] & slab.truth(core)
    truth = Truth(lungs=lungs, lesions=lesions, consolidation=consolidation)
    return Phantom(spec=spec, hounsfield=hounsfield, truth=truth, affine_lps_mm=_affine(spec, lattice))


def _lattice(spec: PhantomSpec) -> Lattice:
    def centred(count: int, step: float, middle: float) -> npt.NDArray[np.float64]:
        return np.asarray((np.arange(count) - (count - 1) / 2) * step + middle, np.float64)

    dz, dy, dx = spec.spacing_zyx_mm
    # a little off the midline, as patients lie; the table takes room behind the back
    return Lattice(
        x_mm=centred(spec.columns, dx, 2.0),
        y_mm=centred(spec.rows, dy, -14.0 if spec.prone else 14.0),
        z_mm=centred(spec.slices, dz, spec.centre_z_mm),
        tilt_rad=float(np.radians(spec.gantry_tilt_deg)),
        sub_slices=_sub_slices(spec.slice_thickness_mm),
        thickness_mm=spec.slice_thickness_mm,
    )


def _sub_slices(thickness_mm: float) -> int:
    """Layers that a slice averages over: odd, so that "at least half of them" favours nothing."""
    return 1 if thickness_mm <= 2.5 else 3 if thickness_mm <= 6 else 5


def _affine(spec: PhantomSpec, lattice: Lattice) -> npt.NDArray[np.float64]:
    dz, dy, dx = spec.spacing_zyx_mm
    cosine, sine = np.cos(lattice.tilt_rad), np.sin(lattice.tilt_rad)
    affine = np.eye(4)
    affine[:3, 0] = (dx, 0, 0)
    affine[:3, 1] = (0, dy * cosine, dy * sine)
    affine[:3, 2] = (0, 0, dz)
    affine[:3, 3] = (lattice.x_mm[0], lattice.y_mm[0] * cosine, lattice.z_mm[0] + lattice.y_mm[0] * sine)
    return affine


def _disease(spec: PhantomSpec, fields: Fields, lattice: Lattice) -> tuple[Field | None, Field | None]:
    """Signed depth in ground glass and in consolidation (mm, positive inside), cut so that the fractions are met."""
    if fields.lung is None or fields.lesion_score is None or fields.consolidation_score is None:
        return None, None
    if spec.right_fraction == 0 and spec.left_fraction == 0:
        return None, None
    seen = at_heights(fields.lung, fields, lattice, lattice.z_mm) < 0
    cosine = np.cos(lattice.tilt_rad)
    for axis, source, target in ((1, fields.grid.y_mm, lattice.y_mm * cosine), (2, fields.grid.x_mm, lattice.x_mm)):
        inside_view = (source >= target[0]) & (source <= target[-1])
        seen &= np.expand_dims(inside_view, tuple(i for i in range(3) if i != axis))
    score = at_heights(fields.lesion_score, fields, lattice, lattice.z_mm)
    core = at_heights(fields.consolidation_score, fields, lattice, lattice.z_mm)
    glass_cut = np.zeros(len(fields.grid.x_mm), np.float32)
    core_cut = np.zeros_like(glass_cut)
    on_right = fields.grid.x_mm < 0
    for columns, fraction in ((on_right, spec.right_fraction), (~on_right, spec.left_fraction)):
        values = score[..., columns][seen[..., columns]]
        glass_cut[columns] = _cut(values, fraction)
        ill = seen[..., columns] & (score[..., columns] > glass_cut[columns][0])
        core_cut[columns] = _cut(core[..., columns][ill], spec.consolidation_share)
    glass = fields.lesion_score - glass_cut
    return glass, np.minimum(fields.consolidation_score - core_cut, glass)


def _cut(values: Field, share: float) -> float:
    """The value above which `share` of the values lie; out of reach for none and for all."""
    if share <= 0 or not values.size:
        return 1e3
    return -1e3 if share >= 1 else float(np.quantile(values, 1 - share))


def _table(lattice: Lattice, *, prone: bool) -> Field:
    """The couch [y, x]: a thin curved shell with foam in it, under the back (under the chest when prone)."""
    sign = -1.0 if prone else 1.0
    y = sign * lattice.y_mm[:, None]
    x = lattice.x_mm[None, :]
    top = (112.0 if prone else 124.0) + 26 * (x / 200) ** 2 + 15
    under = y - top
    wide = np.clip((186 - np.abs(x)) / 2, 0, 1)
    pixel = float(lattice.y_mm[1] - lattice.y_mm[0])
    shell = np.clip(1.1 - np.abs(np.abs(under - 11) - 11) / max(pixel, 1.2), 0, 1)
    foam = np.clip(12 - np.abs(under - 11), 0, 1)
    return np.asarray(AIR_HU + wide * np.maximum(foam * 60, shell * 780), np.float32)


class _Noise:
    """Correlated noise, stronger where the beam has passed more tissue; a pool of fields, shifted for each slice."""

    def __init__(self, rng: np.random.Generator, spec: PhantomSpec, lattice: Lattice) -> None:
        self._rng = rng
        rows, columns = spec.rows, spec.columns
        sigma = NOISE_HU[spec.reconstruction] if spec.noise_hu is None else spec.noise_hu
        white = rng.standard_normal((NOISE_POOL, rows, columns), dtype=np.float32)
        frequency = np.hypot(
            np.fft.fftfreq(rows, spec.spacing_zyx_mm[1])[:, None], np.fft.rfftfreq(columns, spec.spacing_zyx_mm[2])
        )
        cut = NOISE_CUT_PER_MM[spec.reconstruction]
        # filtered back-projection: rising with the frequency (ramp), then rolled off by the kernel
        response = (0.06 + frequency) * np.exp(-((frequency / cut) ** 2))
        pool = np.fft.irfft2(np.fft.rfft2(white) * response, (rows, columns))
        self._pool = (pool / max(float(pool.std()), 1e-9)).astype(np.float32)
        from_centre = (lattice.x_mm[None, :] / 190) ** 2 + (lattice.y_mm[:, None] / 150) ** 2
        self._sigma = (sigma * (0.45 + 0.55 * np.exp(-from_centre))).astype(np.float32)

    def add_to(self, image: Field) -> None:
        """Add noise to slices [z, y, x] in place."""
        rows, columns = image.shape[1:]
        for index in range(len(image)):
            which, down, across = self._rng.integers(0, (NOISE_POOL, rows, columns))
            image[index] += self._sigma * np.roll(self._pool[which], (down, across), (0, 1))
