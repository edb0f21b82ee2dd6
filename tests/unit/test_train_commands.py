"""The training programs as they are run: killed and gone on with, seeded, refused, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_lungs
import train_multitask
from training.run import Run, RunError

from nets import unet2d, weights
from nets.unet2d import LungNetwork
from tests import training_cases

TOOLS = Path(__file__).parents[2] / "tools"
QUICK = {
    "train_lungs.py": ["--batch-size", "2"],
    "train_multitask.py": ["--stacks", "2", "--depth", "2"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_cases.write_layout(tmp_path_factory.mktemp("data"))


def command(tool: str, data: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, str(TOOLS / tool), str(data), "--out", str(out), "--threads", "1", *QUICK[tool], *more]


def run(tool: str, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(tool, data, out, *more), capture_output=True, text=True, check=False, timeout=280)


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("tool", QUICK)
def test_a_killed_run_goes_on_where_it_was_and_leaves_weights_with_their_card(
    tool: str, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    steps = ("--steps", "12", "--save-every", "3", "--validate-every", "6")
    with subprocess.Popen(command(tool, data, out, *steps), stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 200
        while not (out / "checkpoint.pt").exists() and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    again = run(tool, data, out, *steps)
    assert again.returncode == 0, again.stderr
    reached = int(again.stdout.split("going on from step ")[1].split()[0])
    assert reached in {3, 6, 9, 12}
    assert log(out)[-1]["step"] == 12
    name = tool.removeprefix("train_").removesuffix(".py")
    load = weights.load_lungs if name == "lungs" else weights.load_multitask
    network, card = load(out / f"{name}.safetensors")
    assert not network.training
    assert card.name == name
    assert any("2 studies of 2 patients" in sentence for sentence in card.data)
    assert "validation_dice" in card.metrics
    done = run(tool, data, out, *steps)
    assert "going on from step 12 of 12" in done.stdout


@pytest.mark.parametrize("tool", QUICK)
def test_a_seed_gives_the_same_first_steps_and_another_seed_others(tool: str, data: Path, tmp_path: Path) -> None:
    kept = []
    for name, seed in (("one", "5"), ("two", "5"), ("three", "6")):
        result = run(tool, data, tmp_path / name, "--steps", "3", "--validate-every", "1", "--seed", seed)
        assert result.returncode == 0, result.stderr
        kept.append([{k: v for k, v in line.items() if k != "time"} for line in log(tmp_path / name)])
    assert kept[0] == kept[1]
    assert kept[0] != kept[2]


def test_a_run_is_not_gone_on_with_under_other_settings_but_may_become_longer(data: Path, tmp_path: Path) -> None:
    assert run("train_lungs.py", data, tmp_path, "--steps", "2").returncode == 0
    other = run("train_lungs.py", data, tmp_path, "--steps", "2", "--learning-rate", "0.5")
    assert other.returncode == 1
    assert "comes from a run with other settings (learning_rate): give another --out" in other.stderr
    assert "Traceback" not in other.stderr
    longer = run("train_lungs.py", data, tmp_path, "--steps", "4")
    assert longer.returncode == 0
    assert "going on from step 2 of 4" in longer.stdout


def test_the_identification_head_alone_leaves_the_rest_as_it_was(data: Path, tmp_path: Path) -> None:
    assert run("train_multitask.py", data, tmp_path / "first", "--steps", "2").returncode == 0
    start = tmp_path / "first" / "multitask.safetensors"
    result = run(
        "train_multitask.py",
        data,
        tmp_path / "head",
        "--steps",
        "4",
        "--start-from",
        str(start),
        "--identification-only",
    )
    assert result.returncode == 0, result.stderr
    before, _ = weights.load_multitask(start)
    after, _ = weights.load_multitask(tmp_path / "head" / "multitask.safetensors")
    changed = {
        key.split(".")[0]
        for key, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[key])
    }
    assert changed == {"identification"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cuda"], "this machine has no CUDA device"),
        (["--architecture", "huge"], "--architecture is one of shipped, public"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], words: str, data: Path, tmp_path: Path) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    result = run("train_lungs.py", data, tmp_path / "out", *arguments)
    assert result.returncode != 0
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def test_a_folder_without_studies_says_how_to_make_one(tmp_path: Path) -> None:
    result = run("train_multitask.py", tmp_path, tmp_path / "out")
    assert result.returncode == 1
    assert "make one with tools/prepare_*.py" in result.stderr


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    kept = Run(
        folder=tmp_path,
        network=LungNetwork(unet2d.LUNGS),
        settings={},
        device=torch.device("cpu"),
        seed=0,
        learning_rate=1e-3,
        steps=5,
    )
    kept.save()
    written = kept.checkpoint.read_bytes()
    with pytest.raises(RunError, match="lower --learning-rate"):
        kept.descend(torch.tensor(float("nan"), requires_grad=True))
    assert kept.checkpoint.read_bytes() == written


def test_the_rate_rises_then_falls_to_zero(tmp_path: Path) -> None:
    kept = Run(
        folder=tmp_path,
        network=torch.nn.Linear(1, 1),
        settings={},
        device=torch.device("cpu"),
        seed=0,
        learning_rate=1.0,
        steps=1000,
    )
    rates = []
    for step in range(1001):
        kept.step = step
        rates.append(kept.rate())
    assert np.argmax(rates) in {199, 200}
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(a >= b for a, b in pairwise(rates[200:]))


def test_both_programs_learn_from_the_same_studies_that_their_validation_does_not_see(data: Path) -> None:
    sources, held_out = train_lungs.read(data)
    kinds, also_held_out = train_multitask.read(data)
    learnt = {study.card.patient for each in sources.values() for study in each}
    assert learnt == {study.card.patient for of in kinds.values() for each in of.values() for study in each}
    for studies in (held_out, also_held_out):
        assert not learnt & {study.card.patient for study in studies}
        assert studies
