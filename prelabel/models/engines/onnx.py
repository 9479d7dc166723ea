"""ONNX graphs in ONNX Runtime: inputs and outputs are bound where they lie, on the host or on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from prelabel.errors import MachineError

_NUMPY_TYPES = {torch.float32: np.float32, torch.float16: np.float16}


class OnnxSession:
    """Runs a graph of one input; gives its first output.

    Args:
        path: the graph.
        device: `cpu`, or a GPU; on a GPU it works on the stream that is current now.

    Raises:
        MachineError: the installed ONNX Runtime has no GPU support.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        import onnxruntime

        self._device = device
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        # Threads that spin while they wait take the core that the decoder needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=_providers(device))
        if device.type == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise MachineError(f"engine onnx on {device}: ONNX Runtime could not start its CUDA provider")
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the output for (N, 3, H, W), on the same device."""
        inputs = inputs.contiguous()
        place = (self._device.type, self._device.index or 0)
        bound = self._session.io_binding()
        bound.bind_input(self._input, *place, _NUMPY_TYPES[inputs.dtype], tuple(inputs.shape), inputs.data_ptr())
        bound.bind_output(self._output, *place)
        self._session.run_with_iobinding(bound)
        output: torch.Tensor = torch.from_dlpack(bound.get_outputs()[0])
        return output


def _providers(device: torch.device) -> list[str | tuple[str, dict[str, str]]]:
    import onnxruntime

    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise MachineError(
            f"engine onnx on {device}: the installed ONNX Runtime {onnxruntime.__version__} runs on the CPU only: "
            "install onnxruntime-gpu in its place, or set engine: torch"
        )
    stream = str(torch.cuda.current_stream(device).cuda_stream)
    return [("CUDAExecutionProvider", {"device_id": str(device.index or 0), "user_compute_stream": stream})]
