"""Runs graphs in OpenVINO on the CPU. It needs no torch, whose import takes longer than labelling a short video."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import MachineError
from prelabel.runtime.process_settings import usable_cores

MOST_STREAMS = 4
"""The most requests that run at the same time: a CPU's batch has 4 frames by default."""
_Result = TypeVar("_Result")


@cache
def _core() -> Any:
    """Returns the only `openvino.Core` of this process, which lives as long as the process.

    The CPU plugin of a Core (OpenVINO 2026.4) gives its thread an alternative signal stack, and restores the earlier
    one when the Core is destroyed. If two Cores are not destroyed in reverse order, the thread is left with a stack
    that is gone, and the next signal, such as Ctrl-C, ends the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()


def cpu_has_bfloat16() -> bool:
    """Returns whether OpenVINO computes in bfloat16 on this processor (AVX512-BF16, AMX)."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_for_cpu(path: Path, *, half: bool, takes_pixels: bool = False, num_streams: int = 1) -> Any:
    """Returns OpenVINO's compiled model of a graph.

    Args:
        path: .onnx, or OpenVINO's own .xml.
        half: compute in bfloat16, otherwise in float32. Without a hint, OpenVINO uses bfloat16 if the processor
            supports it.
        takes_pixels: the graph's input is (N, C, H, W) in 0..1, and the compiled model takes uint8 (N, H, W, C).
        num_streams: requests that run at the same time, each on a share of the cores.

    Raises:
        MachineError: the processor does not support bfloat16.
    """
    if half and not cpu_has_bfloat16():
        raise MachineError("detector.half: this processor does not compute in bfloat16: leave half out")
    model = _core().read_model(path)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": _num_threads(),
        "NUM_STREAMS": num_streams,
    }
    return _core().compile_model(_with_pixels(model) if takes_pixels else model, "CPU", options)


def _num_threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or usable_cores())


def _with_pixels(model: Any) -> Any:
    """Returns the model with a step in front of it that turns pixels into its input."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input(0).tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input(0).model().set_layout(Layout("NCHW"))
    steps.input(0).preprocess().convert_element_type(Type.f32).scale(255.0)
    return steps.build()


class OpenVinoSession:
    """Runs a graph as it is, on arrays; the next call overwrites the outputs."""

    def __init__(self, path: Path, *, half: bool) -> None:
        self._request = compile_for_cpu(path, half=half).create_infer_request()

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Returns the outputs in the graph's order, for inputs in the graph's order."""
        arrays = [np.ascontiguousarray(array) for array in inputs]
        outputs = self._request.infer(arrays, share_inputs=True, share_outputs=True)
        return list(outputs.values())


class PixelSession:
    """Runs a network on pixels. Parts of a batch, and the next batch, run at the same time. Call it from one thread.

    Cores that share a layer wait for each other at its end. Cores that each compute their own frames do not.

    Args:
        path: a graph whose input is (N, C, H, W) in 0..1.
        half: as in `compile_for_cpu`.
    """

    def __init__(self, path: Path, *, half: bool) -> None:
        self._num = min(_num_threads(), MOST_STREAMS)
        self._model = compile_for_cpu(path, half=half, takes_pixels=True, num_streams=self._num)
        self._idle: list[Any] = []

    def start(
        self, pixels: NDArray[np.uint8], read: Callable[[Sequence[NDArray[np.float32]]], list[_Result]]
    ) -> Callable[[], list[_Result]]:
        """Starts the network on a batch, and returns a function that waits for it and returns what `read` returns.

        Args:
            pixels: uint8 (N, H, W, C).
            read: called with the outputs of a part of the batch. The next call of `start` may overwrite them.
        """
        begun = [(part, self._begin(part)) for part in _parts(pixels, self._num)]

        def finish() -> list[_Result]:
            results = []
            for _, request in begun:
                request.wait()
                results += read([output.data for output in request.output_tensors])
                self._idle.append(request)
            return results

        return finish

    def __call__(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Returns the outputs for a batch, uint8 (N, H, W, C), in the graph's order."""
        parts = self.start(pixels, lambda outputs: [[output.copy() for output in outputs]])()
        return [np.concatenate(of_parts) for of_parts in zip(*parts, strict=True)]

    def _begin(self, part: NDArray[np.uint8]) -> Any:
        request = self._idle.pop() if self._idle else self._model.create_infer_request()
        request.start_async([part], share_inputs=True)
        return request


def _parts(batch: NDArray[np.uint8], num: int) -> list[NDArray[np.uint8]]:
    """Returns a batch in at most `num` parts of much the same length."""
    ends = [len(batch) * part // num for part in range(num + 1)]
    return [batch[start:stop] for start, stop in pairwise(ends) if start < stop]
