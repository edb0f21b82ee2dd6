from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nets import weights
from tests import networks
from tests.chests import TISSUE, Chest, affine, chest, volume_of
from tests.shared import SERIES, require_shared
from triage_node import inference, severity
from triage_node.config import AnalysisSection
from triage_node.errors import ConfigurationError, Refused
from triage_node.inference import axial, multitask
from triage_node.inference.axial import THRESHOLD, AxialSlices, levels_of
from triage_node.inference.engine import Torch
from triage_node.inference.multitask import Multitask, lesion_slices, lung_slices
from triage_node.phantom import PhantomSpec, make
from triage_node.study import LEFT_LUNG, RIGHT_LUNG, Findings, Reason, Volume
from triage_node.volume import read, study_in

CPU = torch.device("cpu")
GLASS, DENSE = -500, -100
SETTINGS = AnalysisSection(method="multitask", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def method(folder: Path) -> Multitask:
    loaded = inference.load(SETTINGS, folder)
    assert isinstance(loaded, Multitask)
    return loaded


@pytest.fixture(scope="module")
def ill() -> tuple[Chest, npt.NDArray[np.uint8]]:
    """A chest with ground glass (1) and consolidation (2) in the right lung; it fills the field of view."""
    made = chest(slice_mm=10.0)
    around = (made.lungs == 0) & ~made.trachea & ~made.stomach
    made.hounsfield[around] = np.maximum(made.hounsfield[around], TISSUE)
    z, y, x = np.argwhere(made.lungs == RIGHT_LUNG).mean(axis=0).astype(int)
    lesions = np.zeros(made.lungs.shape, dtype=np.uint8)
    lesions[z - 4 : z + 4, y - 12 : y + 12, x - 10 : x + 10] = 1
    lesions[z - 2 : z + 2, y - 6 : y + 6, x - 5 : x + 5] = 2
    lesions[made.lungs != RIGHT_LUNG] = 0
    made.hounsfield[lesions == 1], made.hounsfield[lesions == 2] = GLASS, DENSE
    return made, lesions


@pytest.fixture(scope="module")
def found(method: Multitask, ill: tuple[Chest, npt.NDArray[np.uint8]]) -> Findings:
    return method(ill[0].volume)


def dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


# ---------------------------------------------------------------------- what is found


def test_lungs_lesions_and_consolidation_lie_where_the_networks_see_them(
    found: Findings, ill: tuple[Chest, npt.NDArray[np.uint8]]
) -> None:
    made, lesions = ill
    assert found.lungs.shape == found.lesions.shape == made.hounsfield.shape
    assert dice(found.lungs == RIGHT_LUNG, made.lungs == RIGHT_LUNG) > 0.97
    assert dice(found.lungs == LEFT_LUNG, made.lungs == LEFT_LUNG) > 0.97
    assert dice(found.lesions, lesions > 0) > 0.97
    assert found.consolidation is not None
    assert dice(found.consolidation, lesions == 2) > 0.97
    assert found.warnings == ()


def test_lesions_lie_inside_the_lungs_and_consolidation_inside_the_lesions(found: Findings) -> None:
    assert found.consolidation is not None
    assert found.lesions[found.consolidation].all()
    assert (found.lungs[found.lesions] > 0).all()


def test_the_model_names_weights_thresholds_and_trust(found: Findings, folder: Path) -> None:
    card = weights.read_card(folder / "multitask.safetensors")
    parameters = dict(found.model.parameters)
    assert card.sha256 in parameters["Multitask network"]
    assert parameters["Lesion threshold"] == "0.5"
    assert found.model.trust == card.trust
    assert found.model.operating_point.probability_high == card.operating_point.probability_high
    assert found.covid_probability is not None
    assert 0 < found.covid_probability < 1


def test_the_same_volume_gives_the_same_findings_again(
    method: Multitask, found: Findings, ill: tuple[Chest, npt.NDArray[np.uint8]]
) -> None:
    again = method(ill[0].volume)
    assert again.lungs.tobytes() == found.lungs.tobytes()
    assert again.lesions.tobytes() == found.lesions.tobytes()
    assert again.covid_probability == found.covid_probability


def in_float32(method: Multitask, folder: Path) -> Multitask:
    """The same method in eager torch and float32."""
    lung_network, _ = weights.load_lungs(folder / "lungs.safetensors")
    network, _ = weights.load_multitask(folder / "multitask.safetensors")
    return replace(method, lungs=Torch(lung_slices(lung_network), CPU), lesions=Torch(lesion_slices(network), CPU))


def moved(method: Multitask, folder: Path, volume: Volume) -> tuple[float, float, float]:
    """The affected fraction in float32, and how far half precision moves it and the probability."""
    fast, exact = method(volume), in_float32(method, folder)(volume)
    assert fast.covid_probability is not None
    assert exact.covid_probability is not None
    fractions = [
        severity.assess(volume, one, generation=1, settings=SETTINGS).affected_fraction for one in (fast, exact)
    ]
    return fractions[1], abs(fractions[0] - fractions[1]), abs(fast.covid_probability - exact.covid_probability)


def test_half_precision_moves_neither_fraction_nor_probability(
    method: Multitask, folder: Path, ill: tuple[Chest, npt.NDArray[np.uint8]]
) -> None:
    fraction, off, probability_off = moved(method, folder, ill[0].volume)
    assert fraction > 0.01
    assert off < 0.001
    assert probability_off < 0.005


@pytest.mark.parametrize("right_fraction", [0.0, 0.1, 0.3])
def test_nor_with_the_weights_that_ship(right_fraction: float) -> None:
    shipped = inference.load(SETTINGS)
    assert isinstance(shipped, Multitask)
    spec = PhantomSpec(slices=30, rows=160, columns=160, spacing_zyx_mm=(10.0, 2.4, 2.4), right_fraction=right_fraction)
    made = make(spec)
    fraction, off, probability_off = moved(shipped, weights.PACKAGED, volume_of(made.hounsfield, made.affine_lps_mm))
    assert fraction > 0.3 * right_fraction
    assert off < 0.001
    assert probability_off < 0.005


def test_nor_on_real_series_with_the_weights_that_ship() -> None:
    """On one a single pixel that rounding took from the lungs once made their box smaller, and moved 0.90 to 0.87."""
    require_shared()
    shipped = inference.load(SETTINGS)
    assert isinstance(shipped, Multitask)
    for folder in sorted(SERIES.glob("*-*/")):
        if folder.name == "transfer-syntaxes":
            continue
        (study,) = study_in(folder)
        (series,) = study.series
        _, off, probability_off = moved(shipped, weights.PACKAGED, read(series, SETTINGS))
        assert off < 0.001, folder.name
        assert probability_off < 0.005, folder.name


def test_slices_are_doubtful_where_a_rounded_pixel_decides_the_size_of_the_box() -> None:
    level = np.zeros((6, 20, 20), dtype=np.uint8)
    level[1:5, 5:15, 5:15] = 255
    level[2, 8, 8] = THRESHOLD  # inside of the box: it decides nothing of its size
    assert not len(multitask.doubtful_slices(level, level >= THRESHOLD))
    level[3, 15, 10] = THRESHOLD + 1  # counts, but may not have counted before rounding
    level[4, 10, 4] = THRESHOLD - 1  # the other way round
    level[0, 10, 10] = THRESHOLD - 1  # of a slice beyond
    level[5, 0, 0] = THRESHOLD - 1  # far away: no part of the lungs
    assert multitask.doubtful_slices(level, level >= THRESHOLD).tolist() == [0, 3, 4]
    faint = np.where(level == 255, THRESHOLD + 1, 0).astype(np.uint8)
    assert multitask.doubtful_slices(faint, faint >= THRESHOLD).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_stored_the_other_way_round_shows_the_same(
    method: Multitask, found: Findings, ill: tuple[Chest, npt.NDArray[np.uint8]], axis: int
) -> None:
    made = ill[0]
    turned = made.affine_lps_mm.copy()
    column = 2 - axis  # of x, y, z
    turned[:3, 3] += turned[:3, column] * (made.hounsfield.shape[axis] - 1)
    turned[:3, column] *= -1
    other = method(volume_of(np.flip(made.hounsfield, axis), turned))
    assert np.array_equal(np.flip(other.lungs, axis), found.lungs)
    assert np.array_equal(np.flip(other.lesions, axis), found.lesions)
    assert other.covid_probability == found.covid_probability


def test_pixels_need_not_be_square(
    method: Multitask, found: Findings, ill: tuple[Chest, npt.NDArray[np.uint8]]
) -> None:
    made = ill[0]
    halved = np.repeat(made.hounsfield, 2, axis=2)
    other = method(volume_of(halved, affine((10.0, 2.0, 1.0), (-200.5, -200.0, -150.0))))
    assert other.lungs.shape == halved.shape
    # the border of the lungs is blurred by the resampling, and the networks take part of it for lung
    assert dice(other.lungs == RIGHT_LUNG, np.repeat(found.lungs == RIGHT_LUNG, 2, axis=2)) > 0.95
    assert dice(other.lungs == LEFT_LUNG, np.repeat(found.lungs == LEFT_LUNG, 2, axis=2)) > 0.95


def test_thin_slices_are_told_right_from_left_as_thick_ones(
    method: Multitask, found: Findings, ill: tuple[Chest, npt.NDArray[np.uint8]]
) -> None:
    made = ill[0]
    thin = np.repeat(made.hounsfield, 10, axis=0)[50:170]
    other = method(volume_of(thin, affine((1.0, 2.0, 2.0), (-200.0, -200.0, -104.5))))
    assert np.array_equal(other.lungs, np.repeat(found.lungs, 10, axis=0)[50:170])


# ---------------------------------------------------------------------- what is not a pair of lungs


def refused(method: Multitask, volume: Volume) -> Reason:
    with pytest.raises(Refused) as refusal:
        method(volume)
    return refusal.value.not_analysed.reason


def test_a_series_without_lungs_is_refused(method: Multitask) -> None:
    hounsfield = np.full((20, 100, 100), TISSUE, dtype=np.int16)
    assert refused(method, volume_of(hounsfield, affine((10.0, 4.0, 4.0), (0.0, 0.0, 0.0)))) is Reason.NO_LUNGS


@pytest.mark.parametrize("slices", [1, 2])
def test_a_few_slices_are_refused_and_break_nothing(
    method: Multitask, ill: tuple[Chest, npt.NDArray[np.uint8]], slices: int
) -> None:
    made = ill[0]
    middle = len(made.hounsfield) // 2
    part = made.hounsfield[middle : middle + slices]
    assert refused(method, volume_of(part, made.affine_lps_mm)) is Reason.NO_LUNGS


def test_a_field_of_view_without_room_for_a_chest_is_refused(method: Multitask) -> None:
    tiny = np.full((30, 8, 512), -850, dtype=np.int16)
    assert refused(method, volume_of(tiny, affine((5.0, 2.0, 1.0), (0.0, 0.0, 0.0)))) is Reason.NO_LUNGS


def test_slices_that_are_not_axial_are_refused(method: Multitask, ill: tuple[Chest, npt.NDArray[np.uint8]]) -> None:
    coronal = np.array([[2.0, 0, 0, 0], [0, 0, 2.0, 0], [0, -2.0, 0, 0], [0, 0, 0, 1]])
    assert refused(method, volume_of(ill[0].hounsfield, coronal)) is Reason.NOT_AXIAL


def test_a_single_lung_is_named_by_its_side(method: Multitask, ill: tuple[Chest, npt.NDArray[np.uint8]]) -> None:
    hounsfield = ill[0].hounsfield.copy()
    hounsfield[ill[0].lungs == LEFT_LUNG] = TISSUE
    findings = method(volume_of(hounsfield, ill[0].affine_lps_mm))
    assert set(np.unique(findings.lungs)) == {0, RIGHT_LUNG}
    assert "only the right lung was found" in findings.warnings


def test_islands_are_dropped_and_two_lungs_of_unlike_size_are_kept() -> None:
    mask = np.zeros((20, 40, 60), dtype=np.bool_)
    mask[2:18, 5:35, 5:25] = True
    mask[4:10, 10:30, 35:50] = True  # a fifth of the other
    kept = mask.copy()
    mask[0:3, 36:39, 50:58] = True  # under a hundredth
    assert np.array_equal(multitask.lung_regions(mask), kept)
    assert not multitask.lung_regions(np.zeros_like(mask)).any()


# ---------------------------------------------------------------------- to the grid and back


def test_a_byte_says_exactly_whether_a_probability_is_reached() -> None:
    logits = torch.linspace(-9, 9, 1001)[:, None, None]
    for threshold in (0.05, 0.2, 0.5, 0.9):
        assert np.array_equal(
            levels_of(logits, threshold) >= THRESHOLD, (logits >= np.log(threshold / (1 - threshold)))
        )
    assert (levels_of(logits, 0.0) >= THRESHOLD).all()
    assert (levels_of(logits, 1.0) < THRESHOLD).all()


def test_a_contour_comes_back_rounder_than_by_nearest_pixels() -> None:
    fine, coarse = 256, 100  # 200 mm
    made = volume_of(np.zeros((2, fine, fine), np.int16), affine((5.0, 200 / fine, 200 / fine), (0.0, 0.0, 0.0)))
    stack = AxialSlices.of(made, CPU, lambda _: None)
    assert stack.grid.hounsfield.shape == (2, coarse, coarse)
    rows, columns = np.ogrid[:coarse, :coarse]
    inside_mm = 60.3 - np.hypot((rows + 0.5) * 2 - 101.7, (columns + 0.5) * 2 - 97.1)
    level = levels_of(torch.from_numpy(inside_mm / 2).float().expand(2, -1, -1), 0.5)
    whole = (slice(0, 2), slice(0, coarse), slice(0, coarse))
    back = stack.masks(np.ones((2, coarse, coarse), np.uint8), (level, level), whole, lambda _: None, 2)
    rows, columns = np.ogrid[:fine, :fine]
    truth = np.hypot((rows + 0.5) * 200 / fine - 101.7, (columns + 0.5) * 200 / fine - 97.1) < 60.3
    index = axial._nearest(fine, coarse)
    nearest = (level[0] >= THRESHOLD)[np.ix_(index, index)]
    assert dice(back.lesions[0], truth) > 0.998
    assert dice(back.lesions[0], truth) > dice(nearest, truth)


def test_the_grid_has_two_millimetres_whatever_the_matrix() -> None:
    large = volume_of(np.zeros((3, 1024, 1024), np.int16), affine((5.0, 0.35, 0.35), (-179.0, -179.0, 0.0)))
    stack = AxialSlices.of(large, CPU, lambda _: None)
    assert stack.grid.hounsfield.shape == (3, 179, 179)
    assert stack.grid.spacing_zyx_mm == pytest.approx((5.0, 2.0022, 2.0022), abs=1e-3)
    assert stack.grid.origin_zyx_mm == pytest.approx((0.0, -179.0 + 0.826, -179.0 + 0.826), abs=1e-3)


# ---------------------------------------------------------------------- progress, memory, loading


def test_progress_grows_to_the_end_and_names_every_step(
    method: Multitask, ill: tuple[Chest, npt.NDArray[np.uint8]]
) -> None:
    told: list[tuple[str, float]] = []
    method(ill[0].volume, lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert list(dict.fromkeys(what for what, _ in told)) == list(multitask.STEPS)


def test_memory_does_not_grow_over_series_of_different_sizes(method: Multitask) -> None:
    made = chest(slice_mm=25.0)

    def judge(cut: int) -> int:
        method(volume_of(made.hounsfield[:, cut : 200 - cut], made.affine_lps_mm))
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # what tests before this one have left to the allocator is taken up first
    warm = [judge(cut) for _ in range(4) for cut in range(6)]
    later = [judge(cut) for cut in range(6)]
    assert max(later) - max(warm) < 30_000  # KiB; one volume with its masks has 3,000


def test_another_threshold_is_another_model(folder: Path, method: Multitask) -> None:
    other = inference.load(SETTINGS.model_copy(update={"lesion_threshold": 0.25}), folder)
    assert isinstance(other, Multitask)
    assert other.thresholds.lesion == 0.25
    assert dict(other.model.parameters)["Lesion threshold"] == "0.25"
    assert other.model.digest != method.model.digest


def test_damaged_weights_are_a_fault_of_the_configuration(tmp_path: Path) -> None:
    folder = networks.write(tmp_path)
    with (folder / "multitask.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ConfigurationError, match=r'analysis.method: "multitask" cannot be used: .*SHA-256'):
        inference.load(SETTINGS, folder)
