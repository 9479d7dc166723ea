"""Loads models with Ultralytics, without letting it install, fetch or report anything."""

from __future__ import annotations

import importlib.util
import logging
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prelabel.data.boxes import Letterbox
from prelabel.errors import MachineError, WeightsError
from prelabel.models.openvino import PixelSession, compile_for_cpu
from prelabel.models.weights import user_cache

if TYPE_CHECKING:
    import torch

# Packages that a format needs in addition to torch: (module, what to install). Ultralytics installs them unasked.
_REQUIRED_MODULES: dict[str, tuple[tuple[str, str], ...]] = {
    ".pt": (),
    ".torchscript": (),
    ".onnx": (("onnx", "onnx"), ("onnxruntime", "onnxruntime (or onnxruntime-gpu)")),
    ".engine": (("tensorrt", "tensorrt"),),
    "": (("openvino", "openvino"),),
}
_REQUIRED_METADATA = ("task", "names", "stride", "imgsz")
_TASKS_WITH_BOXES = ("detect", "segment", "pose", "obb")
_COCO_KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
"""COCO's keypoints, https://cocodataset.org/#format-data. The published pose weights do not name theirs."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """Facts about an Ultralytics model that do not depend on the engine.

    Attributes:
        class_names: names by class id.
        task: detect, segment, pose or obb.
        stride: the sides of the input are multiples of this.
        rtdetr: whether the head is RT-DETR's: square input, boxes in fractions of it, no NMS.
        end2end: whether the predictions are boxes that need no NMS.
        licence: the licence that the weights state.
        channels: channels of the input: 3 for RGB, 1 for grey.
        keypoint_names: keypoint names of a pose model, in order.
        keypoint_values: numbers per keypoint: x and y, and for most models a confidence.
    """

    class_names: tuple[str, ...]
    task: str
    stride: int
    rtdetr: bool
    end2end: bool
    licence: str | None
    channels: int = 3
    keypoint_names: tuple[str, ...] = ()
    keypoint_values: int = 3

    def has_boxes(self, shape: Sequence[int]) -> bool:
        """Returns whether one frame's predictions of this shape are boxes that need no NMS."""
        # Whether a head is end-to-end depends on the weights and on Ultralytics' version. The output's shape shows it.
        return self.end2end or shape[-1] == 6

    def count_classes(self, shape: Sequence[int]) -> int:
        """Returns the number of classes in one frame's predictions of this shape, which need NMS."""
        return shape[0] - 4 if self.task == "detect" else len(self.class_names)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        facts: facts about the model.
        forward: takes the input and returns the raw predictions. On a CPU the next call may overwrite them.
        dtype: type of the input, (N, C, H, W) in 0..1; if it is uint8, the input is (N, H, W, C) in 0..255.
        input_size: (height, width) of an export with a fixed shape; None if any multiple of the stride is accepted.
        engine: the runtime and its precision, in words.
        forward_masks: like `forward`, but also returns the mask prototypes, (N, C, H / 4, W / 4); None if the engine or
            the model has none.
        replicate: returns a model with the same weights for another thread; None if the engine cannot do that.
        pixels: runs the model without torch; None if the engine cannot do that.
    """

    facts: NetworkFacts
    forward: Callable[[torch.Tensor], torch.Tensor]
    dtype: str
    input_size: tuple[int, int] | None
    engine: str
    forward_masks: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None
    replicate: Callable[[], LoadedModel] | None = None
    pixels: PixelSession | None = None

    def letterbox(self, height: int, width: int, imgsz: int) -> Letterbox:
        """Returns how a frame of this size, in pixels, becomes the input."""
        if self.input_size is not None:
            return Letterbox.fit_fixed(height, width, *self.input_size)
        return Letterbox.fit(height, width, imgsz, self.facts.stride)


@contextmanager
def contained() -> Iterator[None]:
    """Runs Ultralytics offline and without the user's settings. Restores environment, threads and Pillow afterwards."""
    import torch
    from PIL import Image

    home = user_cache() / "ultralytics"
    wanted = {
        "YOLO_OFFLINE": "true",  # without it, Ultralytics uses the network when it is imported
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": os.environ.get("YOLO_CONFIG_DIR", str(home)),
    }
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{home}: {error.strerror}: set XDG_CACHE_HOME to a folder that is yours") from error
    before = {name: os.environ.get(name) for name in (*wanted, "OMP_NUM_THREADS")}
    os.environ.update(wanted)
    # ultralytics 8.4 sets one thread less than there are cores: on two cores, torch would compute on one.
    num_threads = torch.get_num_threads()
    open_image = Image.open  # ultralytics 8.4 replaces it with a function that tries to install a package
    try:
        import torchvision  # noqa: F401, Ultralytics uses torchvision's NMS only if torchvision is imported first
        from ultralytics.utils import SETTINGS

        dict.update(SETTINGS, sync=False)  # no telemetry in this process; the settings file stays as it is
        yield
    except ImportError as error:
        raise MachineError(f"'ultralytics': its packages cannot be imported: {error}") from error
    finally:
        Image.open = open_image
        torch.set_num_threads(num_threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def load_checkpoint(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Returns the model of a .pt file as it was saved, and the checkpoint that holds it.

    Raises:
        WeightsError: the file is no Ultralytics checkpoint.
    """
    from ultralytics.nn import tasks

    safe_load = tasks.SAFE_LOAD
    try:
        tasks.SAFE_LOAD = True
        return _read_checkpoint(path)
    except WeightsError as refused:
        if "outside the supported" not in str(refused):
            raise
        # The user named this file, and Ultralytics itself would run it. A fetched file has passed its sha256 check.
        _log.warning("%s: holds classes of its own, so loading it runs code from the file", path)
        tasks.SAFE_LOAD = False
        return _read_checkpoint(path)
    finally:
        tasks.SAFE_LOAD = safe_load


def _read_checkpoint(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    from ultralytics.nn import tasks

    if not _is_torch_file(path):
        raise WeightsError(
            f"{path}: is no Ultralytics checkpoint: it is another kind of file, or cut off: get it again"
        )
    try:
        model, checkpoint = tasks.load_checkpoint(str(path.absolute()))
        return model, checkpoint
    except (RuntimeError, TypeError, AttributeError, ModuleNotFoundError, LookupError, EOFError) as error:
        reason = str(error).removeprefix("ERROR ❌️ ").removeprefix(f"{path.absolute()} ")
        reason = reason.splitlines()[0].partition(". ")[0] if reason else type(error).__name__
        raise WeightsError(f"{path}: is no Ultralytics checkpoint that this version can load: {reason}") from error


def _is_torch_file(path: Path) -> bool:
    """Returns whether a file is a whole zip archive, as `torch.save` writes it, or begins like a pickle."""
    with path.open("rb") as file:
        return zipfile.is_zipfile(path) or file.read(1) == b"\x80"


def names_in_order(names: Mapping[int, str]) -> tuple[str, ...]:
    """Returns the class names in the order of their ids."""
    return tuple(str(names[index]) for index in sorted(names))


def require_ultralytics(section: str) -> None:
    """Checks that Ultralytics is installed.

    Raises:
        MachineError: it is not.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise MachineError(
            f"{section} 'ultralytics' needs the package ultralytics (AGPL-3.0): uv add ultralytics, or use: torchvision"
        )


def load_model(path: Path, device: torch.device, *, half: bool, nms_head: bool) -> LoadedModel:
    """Returns the model in a weights file, ready on the device.

    Args:
        path: an existing file, or an OpenVINO folder.
        device: where it runs.
        half: compute in float16 on a GPU, and in bfloat16 for an OpenVINO folder on a CPU.
        nms_head: use the head that needs NMS, as `predict` does, even if the model also has an end-to-end head.

    Raises:
        WeightsError: the file holds no model that outputs boxes.
        MachineError: a package that this format needs is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in _REQUIRED_MODULES:
        formats = ", ".join(name or "an OpenVINO folder" for name in _REQUIRED_MODULES)
        raise WeightsError(f"{path}: got {suffix or 'a file without suffix'}, expected {formats}")
    require_ultralytics("detector")
    missing = [package for module, package in _REQUIRED_MODULES[suffix] if importlib.util.find_spec(module) is None]
    if missing:
        raise MachineError(f"{path}: needs a package that is not installed here: uv add {' and '.join(missing)}")
    with contained():
        return _load(path, device, half=half, nms_head=nms_head)


def _load(path: Path, device: torch.device, *, half: bool, nms_head: bool) -> LoadedModel:
    import torch
    from ultralytics.nn.autobackend import AutoBackend

    checkpoint: dict[str, Any] = {}
    source: Any = str(path.absolute())
    if path.suffix.lower() == ".pt":
        source, checkpoint = load_checkpoint(path)
        check_task(path, getattr(source, "task", None))
    try:
        network = AutoBackend(
            source, device=device, fp16=half and device.type != "cpu", verbose=False, end2end=not nms_head
        )
    except Exception as error:  # each runtime has its own; those of ONNX Runtime derive from Exception alone
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: Ultralytics cannot load it on {device}: {reason}") from error
    network.eval()
    if not checkpoint:
        _check_metadata(path, network.metadata)
    task = getattr(source, "task", None) or network.task
    check_task(path, task)
    facts = NetworkFacts(
        class_names=names_in_order(network.names),
        task=task,
        stride=int(network.stride),
        rtdetr=_head_name(source, network) == "RTDETRDecoder",
        end2end=bool(network.end2end),
        licence=checkpoint.get("license") or network.metadata.get("license"),
        channels=int(network.channels),
        **keypoint_facts(getattr(network, "kpt_shape", None), _keypoint_names(source, network)),
    )
    check_channels(path, facts.channels)
    engine = f"{network.format} export"
    if network.format == "pt":
        engine = f"torch {torch.__version__}, {'float16' if network.fp16 else 'float32'}"
    elif network.format == "openvino":
        engine += f", {_set_openvino_precision(network.backend, path, half=half)}"
    return _ready(network, facts, engine)


def _set_openvino_precision(backend: Any, folder: Path, *, half: bool) -> str:
    """Recompiles an OpenVINO folder's graph for the CPU in the requested precision, and returns that precision.

    ultralytics 8.4.190 sets no precision, so OpenVINO uses bfloat16 on every processor that supports it. This function
    can go once `OpenVINOBackend.load_model` takes a precision.
    """
    if backend.read_model is not None:  # a quantised graph, which Ultralytics recompiles for each shape
        return "int8"
    backend.ov_compiled_model = compile_for_cpu(next(folder.glob("*.xml")), half=half)
    return "bfloat16" if half else "float32"


def _ready(network: Any, facts: NetworkFacts, engine: str) -> LoadedModel:
    from prelabel.models.networks import replica_of

    is_checkpoint, has_masks = network.format == "pt", facts.task == "segment"
    return LoadedModel(
        facts=facts,
        forward=lambda inputs: _own(_boxes_of(network(inputs)), network.format),
        forward_masks=(lambda inputs: _with_prototypes(network(inputs), network.format)) if has_masks else None,
        dtype="float16" if network.fp16 else "float32",
        input_size=None if is_checkpoint or network.dynamic else _height_and_width(network.imgsz),
        engine=engine,
        replicate=(lambda: _ready(replica_of(network), facts, engine)) if is_checkpoint else None,
    )


def _own(tensor: torch.Tensor, format: str) -> torch.Tensor:
    """Returns a tensor that the next call does not overwrite. Runtimes of exports may reuse their memory."""
    return tensor if format == "pt" else tensor.clone()


def _boxes_of(output: Any) -> torch.Tensor:
    """Returns the boxes of an output: its first tensor, however deeply nested."""
    return _boxes_of(output[0]) if isinstance(output, (list, tuple)) else output


def _with_prototypes(output: Any, format: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the boxes and the mask prototypes of a segmentation model's output."""
    boxes, prototypes = output[0] if isinstance(output[0], (list, tuple)) else output[:2]
    return _own(boxes, format), _own(prototypes, format)


def keypoint_facts(shape: Sequence[int] | None, names: Mapping[int, Sequence[str]] | None) -> dict[str, Any]:
    """Returns the keypoint fields of `NetworkFacts`.

    Args:
        shape: number of keypoints, and numbers per keypoint; None: there are no keypoints.
        names: keypoint names by class id. All classes have the same number of keypoints, so the names of the first are
            used. Without names, keypoints get COCO's names if the number fits, and numbers otherwise.
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


def check_channels(path: Path, channels: int) -> None:
    """Checks that RGB frames can be turned into the model's input.

    Raises:
        WeightsError: they cannot.
    """
    if channels not in (1, 3):
        raise WeightsError(f"{path}: the model takes images of {channels} channels, expected 3 (RGB) or 1 (grey)")


def _check_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    missing = [key for key in _REQUIRED_METADATA if not metadata.get(key)]
    if missing:
        raise WeightsError(
            f"{path}: lacks the metadata {', '.join(missing)}, which Ultralytics writes into its exports: for an .onnx "
            "file of another tool set use: onnx; otherwise export the checkpoint again with Ultralytics, or name the "
            "checkpoint itself as weights"
        )


def check_task(path: Path, task: str | None) -> None:
    """Checks that a model's task yields boxes.

    Raises:
        WeightsError: it does not.
    """
    if task not in _TASKS_WITH_BOXES:
        wanted = ", ".join(_TASKS_WITH_BOXES)
        raise WeightsError(f"{path}: holds a model for {task!r}, expected one that gives boxes: {wanted}")


def _head_name(source: Any, network: Any) -> str:
    if not isinstance(source, str):
        return type(source.model[-1]).__name__
    # Exports name their head since ultralytics 8.4. Older exports only name the architecture.
    description = str(network.metadata.get("description", "")).lower()
    return str(network.metadata.get("head") or ("RTDETRDecoder" if "rtdetr" in description else ""))


def _height_and_width(imgsz: Any) -> tuple[int, int]:
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return int(height), int(width)
