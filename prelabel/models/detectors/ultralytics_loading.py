"""Loads weights with Ultralytics: nothing installed, fetched or reported behind the user's back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prelabel.errors import MachineError, WeightsError
from prelabel.models.networks import replica_of
from prelabel.models.ultralytics_checkpoint import contained, load_checkpoint, names_in_order

# What loading a format needs besides torch: (module, what to install). Ultralytics would install it unasked.
_REQUIRED_MODULES: dict[str, tuple[tuple[str, str], ...]] = {
    ".pt": (),
    ".torchscript": (),
    ".onnx": (("onnx", "onnx"), ("onnxruntime", "onnxruntime (or onnxruntime-gpu)")),
    ".engine": (("tensorrt", "tensorrt"),),
    "": (("openvino", "openvino"),),
}
_TASKS_WITH_BOXES = ("detect", "segment", "pose", "obb")
_COCO_KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
"""https://cocodataset.org/#format-data: of the published pose weights, which do not name their own."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model whatever runs it.

    Attributes:
        class_names: by class id.
        task: detect, segment, pose or obb.
        stride: sides of the input are multiples of this.
        rtdetr: the head is RT-DETR's: square input, normalised boxes, no NMS.
        end2end: predictions are boxes that need no NMS.
        licence: what the weights say of themselves.
        keypoint_names: of a pose, in the order of its points; one that says nothing has numbers, or COCO's.
        keypoint_values: numbers a point: x and y, and of most how sure it is.
    """

    class_names: tuple[str, ...]
    task: str
    stride: int
    rtdetr: bool
    end2end: bool
    licence: str | None
    keypoint_names: tuple[str, ...] = ()
    keypoint_values: int = 3


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        facts: what is known of it.
        forward: takes `dtype` (N, 3, H, W) in 0..1, gives raw predictions; on a CPU they may hold
            until the next call only.
        dtype: of what goes in.
        input_size: (height, width) of an export of a fixed shape; None where any multiple of the stride will do.
        engine: what runs it and in which precision, in words.
        forward_masks: as `forward`, but gives the prototypes of masks, (N, C, H / 4, W / 4), besides; None where the
            engine, or the model, has none.
        twin: makes a model on the same weights, for another thread; None: the engine has none.
    """

    facts: ModelFacts
    forward: Callable[[torch.Tensor], torch.Tensor]
    dtype: torch.dtype
    input_size: tuple[int, int] | None
    engine: str
    forward_masks: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None
    replicate: Callable[[], LoadedModel] | None = None


def load_model(path: Path, device: torch.device, *, half: bool, nms_head: bool) -> LoadedModel:
    """Returns the model in a weights file, ready on the device.

    Args:
        path: an existing file, or OpenVINO's folder.
        device: where it runs.
        half: float16, where the format leaves the choice.
        nms_head: run the head that needs NMS, as `predict` does, where a model has an end-to-end one as well.

    Raises:
        WeightsError: if the file holds no model that gives boxes.
        MachineError: if a package is missing that this format needs.
    """
    suffix = path.suffix.lower()
    if suffix not in _REQUIRED_MODULES:
        formats = ", ".join(name or "an OpenVINO folder" for name in _REQUIRED_MODULES)
        raise WeightsError(f"{path}: got {suffix or 'a file without suffix'}, expected {formats}")
    _require_modules(path, _REQUIRED_MODULES[suffix])
    with contained():
        return _load(path, device, half=half, nms_head=nms_head)


def _load(path: Path, device: torch.device, *, half: bool, nms_head: bool) -> LoadedModel:
    from ultralytics.nn.autobackend import AutoBackend

    checkpoint: dict[str, Any] = {}
    source: Any = str(path.absolute())
    if path.suffix.lower() == ".pt":
        source, checkpoint = load_checkpoint(path)
        check_task(path, getattr(source, "task", None))
    try:
        network = AutoBackend(source, device=device, fp16=half, verbose=False, end2end=not nms_head)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise WeightsError(f"{path}: Ultralytics cannot load it on {device}: {error}") from error
    network.eval()
    task = getattr(source, "task", None) or network.task
    check_task(path, task)
    return _ready(
        network,
        ModelFacts(
            class_names=names_in_order(network.names),
            task=task,
            stride=int(network.stride),
            rtdetr=_head_name(source, network) == "RTDETRDecoder",
            end2end=bool(network.end2end),
            licence=checkpoint.get("license") or network.metadata.get("license"),
            **keypoint_facts(getattr(network, "kpt_shape", None), _keypoint_names(source, network)),
        ),
    )


def _ready(network: Any, facts: ModelFacts) -> LoadedModel:
    is_checkpoint, has_masks = network.format == "pt", facts.task == "segment"
    precision = "float16" if network.fp16 else "float32"
    return LoadedModel(
        facts=facts,
        forward=lambda inputs: _own(_boxes_of(network(inputs)), network.format),
        forward_masks=(lambda inputs: _with_prototypes(network(inputs), network.format)) if has_masks else None,
        dtype=torch.float16 if network.fp16 else torch.float32,
        input_size=None if is_checkpoint or network.dynamic else _height_and_width(network.imgsz),
        engine=f"torch {torch.__version__}, {precision}" if is_checkpoint else f"{network.format} export",
        replicate=(lambda: _ready(replica_of(network), facts)) if is_checkpoint else None,
    )


def _own(tensor: torch.Tensor, format: str) -> torch.Tensor:
    """Returns a tensor in memory that the next call leaves alone: exports may use theirs again."""
    return tensor if format == "pt" else tensor.clone()


def _boxes_of(output: Any) -> torch.Tensor:
    """Returns the boxes of an output, which may have features and masks beside them, and those again."""
    return output if isinstance(output, torch.Tensor) else _boxes_of(output[0])


def _with_prototypes(output: Any, format: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the boxes of a segmentation model's output, and the prototypes of its masks."""
    boxes, prototypes = output[0] if isinstance(output[0], (list, tuple)) else output[:2]
    return _own(boxes, format), _own(prototypes, format)


def keypoint_facts(shape: Sequence[int] | None, names: Mapping[int, Sequence[str]] | None) -> dict[str, Any]:
    """Returns what `ModelFacts` says of keypoints.

    Args:
        shape: how many there are, and numbers of each; None: there are none.
        names: by class id; of several classes those of the first, since all have as many.
    """
    if not shape:
        return {}
    num, values = (int(number) for number in shape)
    known = next(iter(names.values())) if names else _COCO_KEYPOINTS
    named = tuple(map(str, known)) if len(known) == num else tuple(map(str, range(num)))
    return {"keypoint_names": named, "keypoint_values": values}


def _keypoint_names(source: Any, network: Any) -> Mapping[int, Sequence[str]] | None:
    names = getattr(source, "kpt_names", None) or network.metadata.get("kpt_names")
    return names if isinstance(names, Mapping) else None


def check_task(path: Path, task: str | None) -> None:
    """Raises: WeightsError: if a model's task is none that gives boxes."""
    if task not in _TASKS_WITH_BOXES:
        wanted = ", ".join(_TASKS_WITH_BOXES)
        raise WeightsError(f"{path}: holds a model for {task!r}, expected one that gives boxes: {wanted}")


def _head_name(source: Any, network: Any) -> str:
    if isinstance(source, torch.nn.Module):
        return type(source.model[-1]).__name__
    # Exports name their head since 8.4; older ones only the architecture.
    description = str(network.metadata.get("description", "")).lower()
    return str(network.metadata.get("head") or ("RTDETRDecoder" if "rtdetr" in description else ""))


def _height_and_width(imgsz: Any) -> tuple[int, int]:
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return int(height), int(width)


def _require_modules(path: Path, modules: tuple[tuple[str, str], ...]) -> None:
    if importlib.util.find_spec("ultralytics") is None:
        raise MachineError(
            "detector 'ultralytics' needs the package ultralytics (AGPL-3.0): uv add ultralytics, or use: torchvision"
        )
    missing = [package for module, package in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise MachineError(f"{path}: needs a package that is not installed here: uv add {' and '.join(missing)}")
