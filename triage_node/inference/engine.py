"""What runs a network on slices: OpenVINO on the CPU, torch on CUDA and where OpenVINO is missing.

Measured on two cores of an AMD EPYC with AVX-512 bf16 beside busy neighbours, medians of one interleaved run over
slices of 190 x 190 through the lung network, in GFLOP/s: OpenVINO bfloat16 with one slice a core 232; torch bfloat16,
traced and frozen, one slice batch a core 141; the same in eager mode 119; torch with both cores on one batch 23 to 27.
A matrix product of torch in bfloat16 reached 228 meanwhile. Since every slice goes through alone, results do not
depend on how many go through at a time.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from nets.blocks import PyramidPooling, box_and_stride
from triage_node import logbook
from triage_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[[int], None]  # how many slices are done or on their way

PIXELS_AT_ONCE = {"cpu": 400_000, "cuda": 4_000_000}  # of a batch: what bounds the memory of the feature maps
KEPT_SHAPES = 4  # compiled networks for slices of one size each; compiling takes about 0.2 s
TRACED_AT = (64, 64)  # rows and columns of the example that torch.jit sees; the graph holds for all


class Engine(Protocol):
    """Runs one network: a stack of slices in, a stack of each of its outputs out."""

    @property
    def describes(self) -> str:
        """Device, precision and threads, for people."""

    def __call__(self, slices: torch.Tensor, tell: Tell | None = None) -> tuple[torch.Tensor, ...]:
        """[n, 1, H, W] float32 on the CPU -> outputs [n, ...] float32 on the CPU."""


class SliceNetwork(nn.Module):
    """A network as engines take it: slices -> a tuple of outputs, the last of which may be pooled over a pyramid."""

    def __init__(self, body: nn.Module, pooling: PyramidPooling | None = None) -> None:
        super().__init__()
        self.body = body
        self.pooling = pooling

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[n, 1, H, W] -> outputs [n, ...]."""
        outputs: tuple[torch.Tensor, ...] = self.body(slices)
        if self.pooling is None:
            return outputs
        return (*outputs[:-1], self.pooling.within_slices(outputs[-1]))


def engine_for(network: SliceNetwork, device: torch.device) -> Engine:
    """The fastest engine for a device that was found by `device_of`."""
    if device.type != "cpu":
        return Torch(network, device)
    try:
        return OpenVino(network, threads=threads())
    except ImportError as error:
        logbook.get().warning("OpenVINO cannot be loaded: torch in float32, several times slower", why=str(error))
        return Torch(network, device)


# ---------------------------------------------------------------------- devices and threads


def device_of(name: str) -> torch.device:
    """The device that `analysis.device` names; "auto" is the first CUDA device, or else the CPU.

    Raises ConfigurationError for a device that is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        if not count:
            logbook.get().info("no CUDA device: the networks run on the CPU", threads=threads())
        return torch.device("cuda", 0) if count else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        there = ", ".join(['"auto"', '"cpu"', *(f'"cuda:{number}"' for number in range(count))])
        raise ConfigurationError(f'analysis.device: found "{name}", which this machine does not have; allowed: {there}')
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def threads() -> int:
    """How many threads may compute: the cores this process may use, its CPU quota and OMP_NUM_THREADS."""
    allowed = [len(os.sched_getaffinity(0))]
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        allowed.append(int(asked))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        quota, period = "max", ""
    if quota != "max":
        allowed.append(max(1, -(-int(quota) // int(period))))
    return min(allowed)


# ---------------------------------------------------------------------- torch


class Torch:
    """Eager torch: float16 on CUDA, float32 on the CPU (the reference of the tests)."""

    def __init__(
        self, network: SliceNetwork, device: torch.device, *, batch: int | None = None, half: bool = True
    ) -> None:
        """`batch` is how many slices go through at a time; by default as many as fit into `PIXELS_AT_ONCE`.

        Without `half` CUDA computes in float32, too.
        """
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types memory_format away
        self._device = device
        self._half = half and device.type == "cuda"
        self._batch = batch
        # the same slices give the same numbers again: no kernel that adds in an order of its own
        torch.backends.cudnn.deterministic = True

    @property
    def describes(self) -> str:
        """Device, precision and threads, for people."""
        if self._device.type == "cuda":
            precision = "float16" if self._half else "float32"
            return f"torch {precision} on {self._device} ({torch.cuda.get_device_name(self._device)})"
        return f"torch float32 on the CPU, {torch.get_num_threads()} threads"

    @torch.inference_mode()
    def __call__(self, slices: torch.Tensor, tell: Tell | None = None) -> tuple[torch.Tensor, ...]:
        """[n, 1, H, W] float32 on the CPU -> outputs [n, ...] float32 on the CPU."""
        pixels = slices.shape[2] * slices.shape[3]
        batch = self._batch or max(1, PIXELS_AT_ONCE[self._device.type] // pixels)
        parts: list[tuple[torch.Tensor, ...]] = []
        for first in range(0, len(slices), batch):
            if tell is not None:
                tell(first)
            part = slices[first : first + batch].to(self._device, memory_format=torch.channels_last)
            with torch.autocast(self._device.type, torch.float16, enabled=self._half):
                outputs = self._network(part)
            parts.append(tuple(output.float().cpu() for output in outputs))
        return tuple(torch.cat(each) for each in zip(*parts, strict=True))


# ---------------------------------------------------------------------- OpenVINO


class OpenVino:
    """OpenVINO on the CPU: bfloat16 where the CPU computes in it, else float32; one slice a stream, one stream a core.

    The network is compiled anew for every size of slices, since that makes it a third faster than one graph for all
    sizes; the last few are kept.
    """

    def __init__(self, network: SliceNetwork, *, threads: int, precision: str | None = None) -> None:
        """`precision` is "bf16" or "f32"; by default the faster one that the CPU has."""
        self._openvino = _openvino()
        self._core = self._openvino.Core()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._precision = precision or ("bf16" if "BF16" in capabilities else "f32")
        self._threads = threads
        self._pooling = network.pooling
        self._model = self._converted(network.body)
        self._compiled: OrderedDict[tuple[int, int], Any] = OrderedDict()

    @property
    def describes(self) -> str:
        """Device, precision and threads, for people."""
        version = self._openvino.__version__.split("-")[0]
        return f"OpenVINO {version} {self._precision} on the CPU, {self._threads} threads"

    def __call__(self, slices: torch.Tensor, tell: Tell | None = None) -> tuple[torch.Tensor, ...]:
        """[n, 1, H, W] float32 on the CPU -> outputs [n, ...] float32 on the CPU."""
        images = slices.numpy()
        compiled = self._network_for((images.shape[2], images.shape[3]))
        outputs = [np.empty((len(images), *tuple(output.shape)[1:]), dtype=np.float32) for output in compiled.outputs]
        queue = self._openvino.AsyncInferQueue(compiled, self._threads)

        def keep(request: Any, index: int) -> None:
            for number, output in enumerate(outputs):
                output[index] = request.get_output_tensor(number).data[0]

        queue.set_callback(keep)
        try:
            for index in range(len(images)):
                if tell is not None:
                    tell(index)
                queue.start_async({0: images[index : index + 1]}, index)
        finally:
            queue.wait_all()  # also when `tell` ends the work: requests write into `outputs`
        return tuple(torch.from_numpy(output) for output in outputs)

    def _converted(self, body: nn.Module) -> Any:
        """The graph of a network, for slices of any size."""
        example = torch.zeros(1, 1, *TRACED_AT)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is old, but what OpenVINO reads without an ONNX in between
            traced = torch.jit.trace(body.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]  # torch ships this untyped
            return self._openvino.convert_model(traced, example_input=example)

    def _network_for(self, shape: tuple[int, int]) -> Any:
        if shape not in self._compiled:
            model = self._model.clone()
            model.reshape([1, 1, *shape])
            if self._pooling is not None:
                model = self._pooled(model, self._pooling.levels)
            settings = {
                "INFERENCE_PRECISION_HINT": self._precision,
                "NUM_STREAMS": self._threads,
                "INFERENCE_NUM_THREADS": self._threads,
            }
            self._compiled[shape] = self._core.compile_model(model, "CPU", settings)
            if len(self._compiled) > KEPT_SHAPES:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(shape)
        return self._compiled[shape]

    def _pooled(self, model: Any, levels: int) -> Any:
        """The model with `PyramidPooling.within_slices` of its last output in that output's place."""
        opset = self._openvino.opset8
        *others, features = (result.input_value(0) for result in model.get_results())
        channels, rows, columns = tuple(features.get_shape())[1:]
        pooled = []
        for level in range(levels):
            (kernel_y, stride_y), (kernel_x, stride_x) = (box_and_stride(size, 2**level) for size in (rows, columns))
            maxima = opset.max_pool(features, [stride_y, stride_x], [1, 1], [0, 0], [0, 0], [kernel_y, kernel_x])
            pooled.append(opset.reshape(maxima.output(0), np.array([1, channels, 4**level]), special_zero=False))
        return self._openvino.Model([*others, opset.concat(pooled, 2).output(0)], model.get_parameters())


def _openvino() -> Any:
    """The package, without the telemetry that it would send at its import.

    Merely importing `openvino` reports to Intel through the package `openvino_telemetry`, unless that cannot be
    imported: then OpenVINO uses the empty stand-in that it brings. None in `sys.modules` is how Python is told so.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None: cannot be imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import openvino
    return openvino
