from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs

from tests import networks
from triage_node.errors import ConfigurationError
from triage_node.inference import engine
from triage_node.inference.engine import OpenVino, SliceNetwork, Torch
from triage_node.inference.multitask import lesion_slices, lung_slices

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lesions() -> SliceNetwork:
    torch.manual_seed(0)
    return lesion_slices(networks.multitask_network())


@pytest.fixture(scope="module")
def bf16(lesions: SliceNetwork) -> OpenVino:
    return OpenVino(lesions, threads=1)


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(3, 1, 43, 61), (1, 1, 16, 17)])
def test_openvino_in_float32_computes_what_torch_computes(lesions: SliceNetwork, shape: tuple[int, ...]) -> None:
    slices = images(*shape)
    ours = OpenVino(lesions, threads=1, precision="f32")(slices)
    truth = Torch(lesions, CPU)(slices)
    assert [one.shape for one in ours] == [(shape[0], 2, *shape[2:]), (shape[0], 8, 21)]
    for one, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_network_without_a_pyramid_has_one_output() -> None:
    slices = images(2, 1, 40, 24)
    network = lung_slices(networks.lung_network())
    (ours,) = OpenVino(network, threads=1, precision="f32")(slices)
    (truth,) = Torch(network, CPU)(slices)
    torch.testing.assert_close(ours, truth, atol=1e-4, rtol=1e-4)


def test_the_same_bits_come_out_however_many_slices_go_through_at_a_time(lesions: SliceNetwork, bf16: OpenVino) -> None:
    slices = images(7, 1, 40, 48)
    alone = [bf16(slices[index : index + 1]) for index in range(7)]
    together = OpenVino(lesions, threads=2)(slices)
    for number, output in enumerate(together):
        assert torch.equal(output, torch.cat([one[number] for one in alone]))


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_batches_of_torch_differ_by_rounding_alone(lesions: SliceNetwork, device: str) -> None:
    slices = images(7, 1, 40, 48)
    truth = Torch(lesions, CPU, batch=1)(slices)
    allowed = {"cpu": (1e-4, 1e-5), "cuda": (0.1, 0.01)}[device]  # float16 there
    for batch in (1, 5):
        ours = Torch(copy.deepcopy(lesions), torch.device(device), batch=batch)(slices)
        for one, other in zip(ours, truth, strict=True):
            torch.testing.assert_close(one, other, atol=allowed[0], rtol=allowed[1])


def test_slices_of_many_sizes_leave_few_compiled_networks(bf16: OpenVino) -> None:
    for rows in range(20, 20 + engine.KEPT_SHAPES + 2):
        bf16(images(1, 1, rows, 24))
    assert list(bf16._compiled) == [(20 + 2 + number, 24) for number in range(engine.KEPT_SHAPES)]


def test_work_that_is_stopped_leaves_the_engine_usable(bf16: OpenVino) -> None:
    slices = images(5, 1, 24, 24)

    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = bf16(slices)
    with pytest.raises(KeyboardInterrupt):
        bf16(slices, stop)
    assert torch.equal(bf16(slices)[0], whole[0])


# ---------------------------------------------------------------------- telemetry

TELEMETRY = "from pathlib import Path\nPath('imported').touch()\nraise ImportError('planted')\n"


def telemetry_imported(folder: Path, code: str) -> bool:
    """Whether a planted stand-in for OpenVINO's telemetry is imported by `code`."""
    (folder / "openvino_telemetry.py").write_text(TELEMETRY)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), root])}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True)
    return (folder / "imported").exists()


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    code = "from triage_node.inference import engine; engine._openvino().convert_model"
    assert not telemetry_imported(tmp_path, code)


def test_the_planted_telemetry_sees_an_import_that_nobody_has_stopped(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    assert telemetry_imported(tmp_path, "import openvino")


# ---------------------------------------------------------------------- devices and threads


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r'analysis.device: found "cuda:99".*allowed: "auto", "cpu"'):
        engine.device_of("cuda:99")


def test_auto_takes_the_first_cuda_device_or_says_that_there_is_none() -> None:
    with capture_logs() as lines:
        device = engine.device_of("auto")
    if torch.cuda.is_available():
        assert device == torch.device("cuda", 0)
    else:
        assert device == CPU
        assert [line["event"] for line in lines] == ["no CUDA device: the networks run on the CPU"]
    assert engine.device_of("cpu") == CPU


def test_threads_are_bounded_by_the_cores_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = engine.threads()
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert engine.threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert engine.threads() == cores
