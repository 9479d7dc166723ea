"""Detectors from the Hugging Face hub or a folder: RT-DETR, D-FINE, RF-DETR, DETR, YOLOS and others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import yaml
from pydantic import Field

from prelabel.errors import ConfigError, MachineError, WeightsError
from prelabel.models.detectors.base import DetectorOptions, ModelFacts, NetworkDetector, PendingBatch, class_ids_of
from prelabel.models.detectors.postprocess import Rows
from prelabel.models.networks import replica_of
from prelabel.models.weights import Weights, sha256_of

if TYPE_CHECKING:
    from types import ModuleType

_FILES = ["*.json", "*.safetensors", "*.txt", "README.md"]
"""Files that are fetched: weights and settings. Python files and pickles are left out, since they can run code."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class TransformersOptions(DetectorOptions):
    """Detectors of the Hugging Face hub.

    Attributes:
        weights: a folder as `save_pretrained` writes it, or a hub id such as PekingU/rtdetr_v2_r18vd
        revision: of a hub id, a commit, tag or branch; a commit gives every run the same weights
        half: float16; auto: on a GPU
        classes: names or ids of the classes to find; a name stands for all classes that have it; null: all
    """

    revision: str | None = None
    half: bool | Literal["auto"] = "auto"
    classes: list[int | str] | None = Field(default=None, min_length=1)


class TransformersDetector(NetworkDetector):
    """Runs any closed-set detector that `AutoModelForObjectDetection` loads. Code from the hub is never run.

    The processor that comes with the weights prepares the frames, for the whole batch and on the device. Its own
    post-processing yields the boxes, in float32. This class clips them to the frame.
    """

    Options: ClassVar[type[DetectorOptions]] = TransformersOptions
    _options: TransformersOptions

    def _resolve_weights(self) -> Weights:
        named = Path(self._options.weights).expanduser()
        if named.is_dir():
            return Weights(path=named.absolute(), sha256=sha256_of(named), name=named.name)
        if not _HUB_ID.fullmatch(self._options.weights):
            raise WeightsError(f"weights {self._options.weights!r}: no such folder, and no hub id (OWNER/NAME) either")
        folder = _fetch(self._options.weights, self._options.revision)
        return Weights(path=folder, sha256=sha256_of(folder), name=self._options.weights)

    def _load(self, weights: Weights) -> ModelFacts:
        library = _import()
        self._processor = _load_processor(library, weights)
        self._network, config = _load_network(library, weights)
        half = self._device.type != "cpu" if self._options.half == "auto" else self._options.half
        self._dtype = torch.float16 if half else torch.float32
        self._network.to(self._device, self._dtype).eval()
        names = tuple(
            str(config.id2label.get(class_id) or f"class {class_id}") for class_id in range(config.num_labels)
        )
        self._class_ids = class_ids_of(self._options.classes, names)
        precision = str(self._dtype).removeprefix("torch.")
        engine = f"transformers {library.__version__}, torch {torch.__version__.split('+')[0]}, {precision}"
        return ModelFacts(names, licence=_licence(weights.path), engine=engine)

    def _start(self, frames: torch.Tensor) -> PendingBatch:
        height, width = frames.shape[1:3]
        inputs = self._processor(
            images=list(frames.permute(0, 3, 1, 2)),
            input_data_format="channels_first",
            return_tensors="pt",
            device=self._device,
        )
        inputs["pixel_values"] = inputs["pixel_values"].to(self._dtype)
        outputs = self._network(**inputs)
        # In float16 a corner is up to 2 pixels off at 1920, so boxes are computed in float32.
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        return PendingBatch(lambda: self._rows(outputs, height, width))

    def _rows(self, outputs: Any, height: int, width: int) -> list[Rows]:
        found = self._processor.post_process_object_detection(
            outputs, threshold=self._raw_conf, target_sizes=[(height, width)] * len(outputs.logits)
        )
        return [self._table(of["boxes"], of["scores"], of["labels"], height, width) for of in found]

    def _table(self, boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, height: int, width: int) -> Rows:
        """Returns the best `max_det` boxes of a frame, highest confidence first, clipped to it."""
        table = torch.cat([boxes, scores[:, None], labels[:, None].to(boxes.dtype)], dim=1).cpu().numpy()
        # transformers does not clip boxes, so the box of an object at the edge may extend beyond the frame.
        table[:, 0:4:2] = table[:, 0:4:2].clip(0, width)
        table[:, 1:4:2] = table[:, 1:4:2].clip(0, height)
        if self._class_ids is not None:
            table = table[np.isin(table[:, 5], self._class_ids)]
        order = np.argsort(-table[:, 4], kind="stable")  # DETR and YOLOS return boxes in the order of their queries
        rows: Rows = table[order[: self._options.max_det]].astype(np.float32)
        return rows

    def _replicate(self) -> bool:
        self._network = replica_of(self._network)
        return True


def _import() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise MachineError("detector.use: transformers is not installed: install prelabel[transformers]") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    library: ModuleType = transformers
    return library


def _fetch(hub_id: str, revision: str | None) -> Path:
    """Returns the folder of a hub id, and fetches it unless it is in the hub's cache.

    Raises:
        WeightsError: the model does not exist, is gated, or cannot be fetched. The message says what to do.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    by_hand = "fetch it on a machine with network (`hf download`) and name the folder as weights"
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=_FILES))
    except GatedRepoError as error:
        raise WeightsError(f"weights {hub_id!r}: are gated: accept their terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(f"weights {hub_id!r}: the hub has no such model, or it is private: set HF_TOKEN") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(f"weights {hub_id!r}: the hub cannot be reached: {by_hand}") from error


def _load_processor(library: ModuleType, weights: Weights) -> Any:
    if (
        not (weights.path / "preprocessor_config.json").is_file()
        and not (weights.path / "processor_config.json").is_file()
    ):
        raise WeightsError(f"{weights.path}: preprocessor_config.json is missing: it says how frames are prepared")
    try:
        processor = library.AutoImageProcessor.from_pretrained(
            weights.path, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError, ImportError) as error:
        raise WeightsError(f"{weights.path}: preprocessor_config.json: {_first_line(error)}") from error
    if not hasattr(processor, "post_process_object_detection"):
        raise WeightsError(f"{weights.path}: {type(processor).__name__} is no processor of a detector")
    return processor


def _load_network(library: ModuleType, weights: Weights) -> tuple[torch.nn.Module, Any]:
    """Returns the network and its config.

    Raises:
        WeightsError: the model is no detector, or some of its weights are missing and would be random.
        MachineError: the model needs a package that is not installed.
    """
    try:
        network, loading = library.AutoModelForObjectDetection.from_pretrained(
            weights.path,
            dtype=torch.float32,
            use_safetensors=True,  # the other format is a pickle, which can run code
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except ImportError as error:
        raise MachineError(f"{weights.name}: {_first_line(error)}") from error
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{weights.path}: cannot be loaded as a detector: {_first_line(error)}") from error
    # transformers fills missing weights with random values and only prints a report.
    absent = sorted(str(name) for key in ("missing_keys", "mismatched_keys") for name in loading[key])
    if absent:
        raise WeightsError(f"{weights.path}: {len(absent)} weights are missing ({absent[0]}, …): they would be random")
    config = network.config
    if config.num_labels < 1:
        raise ConfigError(f"{weights.path}: config.json names no classes")
    return network, config


def _licence(folder: Path) -> str | None:
    """Returns the licence that the header of the model's README states."""
    page = folder / "README.md"
    text = page.read_text(errors="replace") if page.is_file() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        facts = yaml.safe_load(head.group(1)) if head else None
    except yaml.YAMLError:
        return None
    licence = facts.get("license") if isinstance(facts, dict) else None
    return licence if isinstance(licence, str) else None


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
