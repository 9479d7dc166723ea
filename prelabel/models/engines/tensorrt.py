"""TensorRT engines: built from an ONNX graph for this GPU, run on torch's current stream. Not yet run on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prelabel.errors import MachineError


@dataclass(frozen=True, slots=True)
class InputShapes:
    """The shapes that an engine takes, and the one that it is made fast for.

    Attributes:
        num_frames: most frames of a batch.
        usual_num_frames: frames of the batch that it is made fast for.
        imgsz: longest side in pixels.
        usual: height and width that it is made fast for.
        least: shortest side in pixels.
    """

    num_frames: int
    usual_num_frames: int
    imgsz: int
    usual: tuple[int, int]
    least: int = 32

    def __str__(self) -> str:
        return f"1..{self.num_frames} x 3 x {self.least}..{self.imgsz}, usual {self.usual[0]} x {self.usual[1]}"


def build_engine(graph: Path, target: Path, shapes: InputShapes, device: torch.device) -> None:
    """Builds an engine with the precision that the graph has; takes minutes.

    Raises:
        MachineError: TensorRT does not take the graph, or cannot build it here.
    """
    import tensorrt as trt

    with torch.cuda.device(device):
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        # From TensorRT 11 on every network is strongly typed, and the flag is gone.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
        if not parser.parse_from_file(str(graph)):
            reasons = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
            raise MachineError(f"TensorRT {trt.__version__} does not take the graph: {reasons}")
        profile = builder.create_optimization_profile()
        profile.set_shape(
            network.get_input(0).name,
            min=(1, 3, shapes.least, shapes.least),
            opt=(shapes.usual_num_frames, 3, *shapes.usual),
            max=(shapes.num_frames, 3, shapes.imgsz, shapes.imgsz),
        )
        options = builder.create_builder_config()
        options.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, options)
    if engine is None:
        raise MachineError(f"TensorRT {trt.__version__} could not build the engine on {device}")
    target.write_bytes(engine)


class TensorRtSession:
    """Runs an engine of one input; gives its first output, on the same GPU.

    Args:
        path: as `build_engine` wrote it.
        device: the GPU that it was built for.
        num_frames: frames that it takes at once; larger batches go in parts.

    Raises:
        MachineError: the engine is not for this GPU or this version of TensorRT.
    """

    def __init__(self, path: Path, device: torch.device, num_frames: int) -> None:
        import tensorrt as trt

        self._device, self._num_frames = device, num_frames
        with torch.cuda.device(device):
            runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                raise MachineError(f"{path}: TensorRT {trt.__version__} cannot load it on {device}")
            self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._input = next(name for name in names if is_input[name])
        self._outputs = {name: _torch_type(self._engine, name) for name in sorted(names) if not is_input[name]}

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the output for (N, 3, H, W)."""
        parts = [self._run(part.contiguous()) for part in inputs.split(self._num_frames)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self._context.set_input_shape(self._input, tuple(inputs.shape)):
            raise ValueError(f"got {tuple(inputs.shape)}, the engine was built for other shapes")
        self._context.set_tensor_address(self._input, inputs.data_ptr())
        outputs = []
        for name, dtype in self._outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            outputs.append(torch.empty(shape, dtype=dtype, device=self._device))
            self._context.set_tensor_address(name, outputs[-1].data_ptr())
        stream = torch.cuda.current_stream(self._device).cuda_stream
        if not self._context.execute_async_v3(stream):
            raise RuntimeError(f"TensorRT could not run {tuple(inputs.shape)} on {self._device}")
        return outputs[0]


def _torch_type(engine: Any, name: str) -> torch.dtype:
    import tensorrt as trt

    return {trt.DataType.HALF: torch.float16, trt.DataType.FLOAT: torch.float32}.get(
        engine.get_tensor_dtype(name), torch.float32
    )
