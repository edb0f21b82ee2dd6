"""Weights of the paper's public implementation give the same logits here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from typer.testing import CliRunner

from nets.weights import load_lungs, load_multitask
from tests import public_networks

IMPORT = Path(__file__).parents[2] / "tools" / "import_weights.py"
CLOSE = 1e-5
Run = Callable[..., tuple[int, str, Path]]


@pytest.fixture(scope="module")
def dpipe():
    with pytest.MonkeyPatch.context() as patch:
        yield public_networks.layers(patch)
    for name in [name for name in sys.modules if name.split(".")[0] == "dpipe"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def program() -> typer.Typer:
    spec = importlib.util.spec_from_file_location("import_weights", IMPORT)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    app = typer.Typer()
    app.command()(tool.main)
    return app


@pytest.fixture
def run(program: typer.Typer, tmp_path: Path) -> Run:
    """Saves a state dict and imports it: exit code, what was said on stderr, folder."""

    def imported(state: object, *options: str) -> tuple[int, str, Path]:
        torch.save(state, tmp_path / "theirs.pth")
        done = CliRunner().invoke(program, [str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "ours"), *options])
        return done.exit_code, " ".join(done.stderr.split()), tmp_path / "ours"

    return imported


def compare(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert theirs.abs().max() > 0.1  # zeros would be equal whatever the weights
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=CLOSE)


def test_the_lung_network_gives_the_same_logits_on_slices_of_any_size(dpipe: ModuleType, run: Run) -> None:
    theirs = public_networks.randomise(public_networks.lungs(dpipe), seed=1)
    code, said, folder = run(theirs.state_dict())
    assert code == 0, said
    ours, card = load_lungs(folder / "lungs.safetensors")
    assert card.metrics == {}
    assert card.version == "imported"
    for shape in ((2, 1, 64, 64), (1, 1, 77, 53), (1, 1, 45, 130)):
        slices = torch.rand(shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            compare(ours(slices), theirs(slices))


@pytest.mark.parametrize("order", ["head-first", "feet-first"])
def test_the_multitask_network_gives_the_same_logits_on_stacks_of_any_size(
    order: str, dpipe: ModuleType, run: Run
) -> None:
    theirs = public_networks.randomise(public_networks.Multitask(dpipe), seed=3)
    code, said, folder = run(theirs.state_dict(), "--slices", order)
    assert code == 0, said
    ours, card = load_multitask(folder / "multitask.safetensors")
    assert card.thresholds.lesion == 0.2
    assert order in card.training
    for shape in ((2, 1, 8, 24, 40), (1, 1, 13, 61, 47), (1, 1, 19, 33, 58)):
        stack = torch.rand(shape, generator=torch.Generator().manual_seed(4))
        # [N, 1, D, H, W] from the feet to the head -> [N, 1, H, W, D] in their order
        turned = (stack.flip(2) if order == "head-first" else stack).movedim(2, -1)
        with torch.no_grad():
            lesions, covid = theirs(turned)
            logits = ours(stack)
        lesions = lesions.movedim(-1, 2)
        compare(logits.lesions, lesions.flip(2) if order == "head-first" else lesions)
        compare(logits.covid, covid[:, 0])


def test_the_order_of_the_slices_matters_to_the_probability(dpipe: ModuleType, run: Run) -> None:
    theirs = public_networks.randomise(public_networks.Multitask(dpipe), seed=3)
    _, _, folder = run(theirs.state_dict(), "--slices", "feet-first")
    ours, _ = load_multitask(folder / "multitask")
    stack = torch.rand(1, 1, 13, 30, 30, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert abs(ours(stack).covid - theirs(stack.flip(2).movedim(2, -1))[1][:, 0]) > 100 * CLOSE


def test_parts_under_one_of_their_names_alone_are_understood(dpipe: ModuleType, run: Run) -> None:
    theirs = public_networks.randomise(public_networks.Multitask(dpipe), seed=5)
    code, said, folder = run({f"model.{key}": value for key, value in theirs.model.state_dict().items()})
    assert code == 0, said
    network, _ = load_multitask(folder / "multitask.safetensors")
    assert torch.equal(network.backbone.stem.weight, theirs.backbone[0].weight)


def test_half_precision_and_a_name_can_be_chosen(dpipe: ModuleType, run: Run) -> None:
    theirs = public_networks.randomise(public_networks.lungs(dpipe), seed=1)
    _, _, folder = run(theirs.state_dict(), "--half", "--name", "ward")
    half = (folder / "ward.safetensors").stat().st_size
    assert half < 0.55 * (folder.parent / "theirs.pth").stat().st_size
    assert load_lungs(folder / "ward.json")[1].name == "ward"


def test_missing_and_unknown_weights_are_named(dpipe: ModuleType, run: Run) -> None:
    state = public_networks.lungs(dpipe).state_dict()
    state["2.layer.bias"] = torch.zeros(1)
    state["3.extra"] = torch.zeros(1)
    del state["1.bridge.0.conv_path.0.bn.running_mean"]
    state["0.weight"] = torch.zeros(4, 1, 3, 3)
    code, said, folder = run(state)
    assert code == 1
    assert not folder.exists()
    for part in (
        "not the lungs network of the public implementation",
        "2.layer.bias",
        "3.extra",
        "missing here as: backbone.bottom.0.first.norm.running_mean",
        "backbone.stem.weight (4, 1, 3, 3) instead of (8, 1, 3, 3)",
    ):
        assert part in said


def test_copies_of_a_weight_that_differ_are_refused(dpipe: ModuleType, run: Run) -> None:
    state = public_networks.Multitask(dpipe).state_dict()
    state["model.1.paths.1.5.weight"] = state["cls_head.5.weight"] + 1
    code, said, _ = run(state)
    assert code == 1
    assert "one weight, but differ" in said


def test_weights_that_are_not_finite_are_refused(dpipe: ModuleType, run: Run) -> None:
    state = public_networks.lungs(dpipe).state_dict()
    state["0.bias"] = torch.full((8,), float("nan"))
    code, said, folder = run(state)
    assert code == 1
    assert "backbone.stem.bias" in said
    assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [{"epoch": 3, "state_dict": {}}, [1, 2], {}, Path("somewhere")],
    ids=["checkpoint", "list", "empty", "code"],
)
def test_what_is_no_state_dict_is_refused_with_what_to_save(content: object, run: Run) -> None:
    code, said, _ = run(content)
    assert code == 1
    assert "state_dict()" in said


def test_a_file_of_another_kind_is_refused(program: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "theirs.pth").write_text("not a checkpoint at all")
    done = CliRunner().invoke(program, [str(tmp_path / "theirs.pth"), "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "torch.save(network.state_dict(), path)" in done.stderr


def test_help_says_what_goes_in_and_what_comes_out() -> None:
    said = subprocess.run([sys.executable, str(IMPORT), "--help"], capture_output=True, text=True, check=True).stdout
    assert "public implementation" in said
    assert "--slices" in said
