from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import nn

from nets import weights
from nets.multitask import MULTITASK
from nets.unet2d import LUNGS, Level, Levels
from nets.weights import (
    Calibration,
    Card,
    LevelTable,
    LungArchitecture,
    MultitaskArchitecture,
    OperatingPoint,
    WeightsDamaged,
    WeightsMismatch,
    WeightsMissing,
    load_lungs,
    load_multitask,
    read_card,
    save,
)
from tests.public_networks import randomise

ROOT = Path(__file__).parents[2]
SMALL = LevelTable.of(
    Levels(levels=(Level(down=(4, 4), up=(4, 4)), Level(down=(4, 8), up=(8, 4))), bottom=(8, 12, 8)),
)
LUNG = LungArchitecture(levels=SMALL)
MULTI = MultitaskArchitecture(levels=SMALL, hidden=8, pooling_levels=2)


def card(architecture: LungArchitecture | MultitaskArchitecture, **other: object) -> Card:
    words = {"licence": "none", "split": "none", "training": "none", "trust": "not at all"}
    lists = {"data": (), "metrics": {}, "not_for": ()}
    return Card.model_validate({"version": "1", "architecture": architecture, **words, **lists, **other})


def random_network(architecture: LungArchitecture | MultitaskArchitecture, seed: int = 1) -> nn.Module:
    return randomise(architecture.build(), seed, gain=0.7)


def stored(folder: Path, name: str = "lungs", *, half: bool = True) -> Path:
    return save(folder, name, random_network(LUNG), card(LUNG), half=half)


def change_card(path: Path, **changes: object) -> None:
    file = path.with_suffix(".json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# ---------------------------------------------------------------------- there and back


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    network = random_network(MULTI)
    path = save(tmp_path, "multitask", network, card(MULTI), half=False)
    loaded, _ = load_multitask(path)
    assert list(loaded.state_dict()) == list(network.state_dict())
    for key, value in network.state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype
        assert torch.equal(loaded.state_dict()[key], value), key


def test_the_card_comes_back_with_the_name_and_the_digest_of_the_weights(tmp_path: Path) -> None:
    written = card(
        MULTI,
        metrics={"lesion_dice": {"mean": 0.5, "scans": 3}},
        calibration=Calibration(scale=0.7, offset=-0.2),
        operating_point=OperatingPoint(probability_high=0.6, source="chosen on the validation patients"),
        data=("one source", "another"),
    )
    path = save(tmp_path / "new" / "folder", "ward", random_network(MULTI), written)
    _, read = load_multitask(path)
    assert read == written.model_copy(update={"name": "ward", "sha256": read.sha256})
    assert read == read_card(path) == read_card(path.with_suffix(".json"))
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert read.sha256 == digest


@pytest.mark.parametrize("form", ["weights", "card", "stem", "text"])
def test_weights_are_named_by_either_file(form: str, tmp_path: Path) -> None:
    path = stored(tmp_path, "best-0.75")
    named = {"weights": path, "card": path.with_suffix(".json"), "stem": tmp_path / "best-0.75", "text": str(path)}
    assert load_lungs(named[form])[1].name == "best-0.75"


def test_loaded_networks_are_ready_for_inference_and_can_be_trained_on(tmp_path: Path) -> None:
    network, _ = load_lungs(stored(tmp_path))
    assert not network.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())
    network.train()
    network(torch.rand(1, 1, 8, 8)).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()


def test_loading_draws_no_random_number(tmp_path: Path) -> None:
    path = stored(tmp_path)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_lungs(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_network_gives_the_same_file_and_saving_again_loses_nothing(tmp_path: Path) -> None:
    path = stored(tmp_path)
    network, read = load_lungs(path)
    again = save(tmp_path, "again", network.to(memory_format=torch.channels_last), card(LUNG))
    assert again.read_bytes() == path.read_bytes()
    assert read_card(again).sha256 == read.sha256


# ---------------------------------------------------------------------- half precision


def test_kernels_are_stored_as_halves_and_statistics_are_not(tmp_path: Path) -> None:
    state = safetensors.torch.load_file(stored(tmp_path))
    dtypes = {
        "backbone.stem.weight": torch.float16,
        "backbone.stem.bias": torch.float32,
        "head.norm.weight": torch.float32,
        "head.norm.running_mean": torch.float32,
        "head.norm.running_var": torch.float32,
        "head.norm.num_batches_tracked": torch.int64,
    }
    assert {key: state[key].dtype for key in dtypes} == dtypes
    network = random_network(LUNG)
    for key, value in state.items():
        if value.dtype != torch.float16:
            assert torch.equal(value, network.state_dict()[key]), key


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_halves_move_the_networks_that_ship_by_less_than_two_thousandths_of_a_probability(
    seed: int, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(seed)
    lungs = LungArchitecture(levels=LevelTable.of(LUNGS))
    multitask = MultitaskArchitecture(levels=LevelTable.of(MULTITASK), hidden=64)
    network, stack = random_network(multitask, seed), torch.rand(1, 1, 9, 40, 56, generator=generator)
    halved, _ = load_multitask(save(tmp_path, "multitask", network, card(multitask)))
    segmenter, slices = random_network(lungs, seed), torch.rand(2, 1, 70, 62, generator=generator)
    segmenter_halved, _ = load_lungs(save(tmp_path, "lungs", segmenter, card(lungs)))
    with torch.no_grad():
        for ours, theirs in (
            (halved(stack).lesions, network(stack).lesions),
            (halved(stack).covid, network(stack).covid),
            (segmenter_halved(slices), segmenter(slices)),
        ):
            assert theirs.abs().max() > 0.5
            difference = (torch.sigmoid(ours) - torch.sigmoid(theirs)).abs()
            assert 0 < difference.max() < 2e-3


def test_what_a_half_cannot_hold_stays_a_single(tmp_path: Path) -> None:
    network = random_network(LUNG)
    network.backbone.stem.weight.data[0, 0, 0, 0] = 70000.0  # float16 ends at 65504
    loaded, _ = load_lungs(save(tmp_path, "lungs", network, card(LUNG)))
    assert torch.equal(loaded.backbone.stem.weight, network.backbone.stem.weight)


# ---------------------------------------------------------------------- what is refused when reading


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = stored(tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsDamaged, match=r"not the file that its card was written for.*take both files anew"):
        load_lungs(path)


def test_a_file_that_is_cut_off_is_noticed(tmp_path: Path) -> None:
    path = stored(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsDamaged, match=r"\d+ bytes with the SHA-256"):
        load_lungs(path)


def test_a_card_with_another_digest_is_noticed(tmp_path: Path) -> None:
    path = stored(tmp_path)
    change_card(path, sha256="0" * 64)
    with pytest.raises(WeightsDamaged, match="expected 0000"):
        load_lungs(path)
    change_card(path, sha256="")
    with pytest.raises(WeightsDamaged, match="expected none at all"):
        load_lungs(path)


def test_a_file_of_another_kind_with_the_right_digest_is_noticed(tmp_path: Path) -> None:
    path = stored(tmp_path)
    path.write_bytes(b"not tensors at all")
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    change_card(path, sha256=digest)
    with pytest.raises(WeightsDamaged, match="not a safetensors file"):
        load_lungs(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "file: Invalid JSON"),
        ('{"version": "1"}', "architecture: Field required"),
        ("[]", "should be an object"),
    ],
)
def test_a_card_that_is_none_is_refused_by_what_is_wrong_with_it(content: str, words: str, tmp_path: Path) -> None:
    path = stored(tmp_path)
    path.with_suffix(".json").write_text(content)
    with pytest.raises(WeightsDamaged, match=words):
        load_lungs(path)


def test_unknown_keys_and_impossible_values_of_a_card_are_named(tmp_path: Path) -> None:
    path = stored(tmp_path)
    change_card(path, thresholds={"lungs": 1.5}, colour="red")
    with pytest.raises(WeightsDamaged, match=r"thresholds\.lungs: .*less than or equal to 1.*colour: Extra"):
        read_card(path)


def test_missing_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"no .*nothing\.json: .*side by side; weights there: none"):
        load_lungs(tmp_path / "nothing")
    path = stored(tmp_path)
    with pytest.raises(WeightsMissing, match="weights there: lungs"):
        load_lungs(tmp_path / "other.safetensors")
    path.unlink()
    with pytest.raises(WeightsMissing, match=r"no .*lungs\.safetensors"):
        load_lungs(path)
    with pytest.raises(WeightsMissing, match=r"no .*unheard\.json: reinstall the package, or name the path"):
        load_lungs("unheard")


def test_weights_of_the_other_network_are_refused(tmp_path: Path) -> None:
    lungs, multitask = stored(tmp_path), save(tmp_path, "multitask", random_network(MULTI), card(MULTI))
    with pytest.raises(WeightsMismatch, match="is a multitask network; a lungs network is needed"):
        load_lungs(multitask)
    with pytest.raises(WeightsMismatch, match="is a lungs network; a multitask network is needed"):
        load_multitask(lungs)


def test_a_card_of_another_architecture_is_refused_by_the_weights_that_differ(tmp_path: Path) -> None:
    path = save(tmp_path, "multitask", random_network(MULTI), card(MULTI))
    change_card(path, architecture=MULTI.model_copy(update={"hidden": 9}).model_dump())
    with pytest.raises(WeightsMismatch, match=r"identification\.1\.weight is \(8, \d+\) instead of \(9, \d+\)"):
        load_multitask(path)
    deeper = Levels.of(SMALL.table, (8, 12, 12, 8))
    change_card(path, architecture=MULTI.model_copy(update={"levels": LevelTable.of(deeper)}).model_dump())
    with pytest.raises(WeightsMismatch, match=r"backbone\.bottom\.2\.first\.norm\.weight.* missing"):
        load_multitask(path)


@pytest.mark.parametrize("seen", [{"window_hu": [-1200, 600]}, {"spacing_mm": 1.5}])
def test_weights_that_saw_other_images_are_refused(seen: dict[str, object], tmp_path: Path) -> None:
    path = stored(tmp_path)
    change_card(path, **seen)
    with pytest.raises(WeightsMismatch, match="train it again with this version's tools"):
        load_lungs(path)


# ---------------------------------------------------------------------- what is refused when writing


def test_a_network_that_is_not_the_one_of_the_card_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match=r"the network to be saved as 'lungs'.*unknown"):
        save(tmp_path, "lungs", random_network(MULTI), card(LUNG))
    assert not list(tmp_path.iterdir())


def test_a_network_gone_astray_is_not_saved_and_leaves_the_old_one_alone(tmp_path: Path) -> None:
    path = stored(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    network = random_network(LUNG)
    network.head.norm.running_var[1] = float("inf")
    with pytest.raises(WeightsDamaged, match=r"head\.norm\.running_var hold values that are not finite"):
        save(tmp_path, "lungs", network, card(LUNG))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    load_lungs(path)


def test_a_disk_that_fails_half_way_leaves_the_old_weights_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken_disk)
        with pytest.raises(OSError, match="full"):
            save(tmp_path, "lungs", random_network(LUNG, seed=2), card(LUNG))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lungs.json", "lungs.safetensors"]
    load_lungs(path)


def broken_disk(_: int) -> None:
    raise OSError("full")


@pytest.mark.parametrize(
    ("part", "values"),
    [
        (OperatingPoint, {"probability_high": 0.3, "probability_medium": 0.4}),
        (OperatingPoint, {"grades_up_to": (0.5, 0.25)}),
        (OperatingPoint, {"fraction_high": 1.2}),
        (Calibration, {"scale": 0.0}),
        (LevelTable, {"table": (((4, 4), (4, 4)),), "bottom": (8, 4)}),
    ],
)
def test_no_impossible_card_can_be_made(part: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        part(**values)


def test_the_calibration_is_a_sigmoid_that_never_overflows() -> None:
    calibration = Calibration(scale=2.0, offset=-1.0)
    assert calibration.probability(0.5) == 0.5
    assert calibration.probability(1.0) == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert calibration.probability(1e6) == 1.0
    assert calibration.probability(-1e6) == 0.0


# ---------------------------------------------------------------------- what ships


def test_what_ships_loads_by_its_name_and_says_what_it_is() -> None:
    loaders = {"lungs": load_lungs, "multitask": load_multitask}
    names = {path.stem for path in weights.PACKAGED.glob("*.safetensors")}
    assert names == set(loaders)
    for name in names:
        _, read = loaders[name](name)
        assert read.name == name
        assert (weights.PACKAGED / f"{name}.safetensors").stat().st_size < 30e6
        for words in (read.data, read.licence, read.split, read.training, read.not_for, read.trust, read.metrics):
            assert words


def test_the_folder_of_the_weights_does_not_hide_the_module() -> None:
    assert weights.PACKAGED.is_dir()
    assert Path(weights.__file__) == weights.PACKAGED.with_suffix(".py")


def test_an_installed_wheel_finds_its_weights(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "nets" / "weights").mkdir(parents=True)
    for module in (ROOT / "nets").glob("*.py"):
        (source / "nets" / module.name).write_text(module.read_text())
    stored(source / "nets" / "weights", "ward")
    described = (ROOT / "pyproject.toml").read_text()
    described, packages = re.subn(r"^packages = .*$", 'packages = ["nets"]', described, flags=re.MULTILINE)
    assert packages == 1
    described = described.replace('readme = "README.md"\n', "")
    (source / "pyproject.toml").write_text(described)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run([*build, "-w", tmp_path, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    program = "import nets.weights as w; print(w.__file__, w.load_lungs('ward')[1].name)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == [str(tmp_path / "installed" / "nets" / "weights.py"), "ward"], ran.stderr
