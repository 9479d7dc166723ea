"""ONNX graphs in OpenVINO, on the CPU."""

from __future__ import annotations

from pathlib import Path

import torch

from prelabel.errors import MachineError


class OpenVinoSession:
    """Runs a graph of one input; gives its first output, which holds until the next call.

    Args:
        path: the graph: .onnx, or OpenVINO's own .xml.
        half: compute in bfloat16. Left to itself, OpenVINO does so wherever the processor can.

    Raises:
        MachineError: the processor has no bfloat16.
    """

    def __init__(self, path: Path, *, half: bool) -> None:
        import openvino

        core = openvino.Core()
        if half and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise MachineError("detector.half: this processor does not compute in bfloat16: leave half out")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the output for float32 (N, 3, H, W)."""
        outputs = self._request.infer([inputs.contiguous().numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(outputs[0])
