"""Detectors from the Hugging Face hub or a folder: RT-DETR, D-FINE, DETR and others; by words Grounding DINO, OWLv2."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError, WeightsError
from prelabel.models.detectors.base import DetectorOptions, ModelFacts, NetworkDetector, PendingBatch, class_ids_of
from prelabel.models.detectors.host import Rows
from prelabel.models.detectors.postprocess import HostCopy
from prelabel.models.detectors.words import (
    EXAMPLE,
    WORD_MODEL_TYPES,
    BoxesOfFrame,
    TextPass,
    outputs_to_read,
    read_words,
    text_passes,
)
from prelabel.models.hub import (
    import_transformers,
    licence_of,
    load_network,
    load_processor,
    model_type_of,
    resolve_hub_weights,
)
from prelabel.models.networks import replica_of
from prelabel.models.weights import Weights

if TYPE_CHECKING:
    from types import ModuleType


class TransformersOptions(DetectorOptions):
    """Detectors of the Hugging Face hub.

    Attributes:
        weights: a folder as `save_pretrained` writes it, or a hub id such as PekingU/rtdetr_v2_r18vd
        revision: of a hub id, a commit, tag or branch; a commit gives every run the same weights
        half: float16; auto: on a GPU, if the model has fixed classes
        words: what an open-vocabulary model looks for, such as [forklift, safety vest]; null: labels.prompts, or else
            the names of the ontology's objects
    """

    revision: str | None = None
    half: bool | Literal["auto"] = "auto"
    words: list[str] | None = Field(default=None, min_length=1)


class TransformersDetector(NetworkDetector):
    """Runs any detector that `AutoModelForObjectDetection` loads, and the models of `WORD_MODEL_TYPES`.

    The processor that comes with the weights prepares the frames, for the whole batch and on the device. Its own
    post-processing yields the boxes, in float32. This class clips them to the frame. Code from the hub is never run.

    A model of `WORD_MODEL_TYPES` has no classes of its own. It finds the option `words`, or those of `with_words`.
    """

    Options: ClassVar[type[DetectorOptions]] = TransformersOptions
    _options: TransformersOptions

    def _resolve_weights(self) -> Weights:
        return resolve_hub_weights(self._options.weights, self._options.revision)

    def _load(self, weights: Weights) -> ModelFacts:
        library = import_transformers("detector")
        self._takes_words = model_type_of(weights) in WORD_MODEL_TYPES
        self._processor = _load_processor(library, weights, takes_words=self._takes_words)
        zero_shot, closed_set = library.AutoModelForZeroShotObjectDetection, library.AutoModelForObjectDetection
        self._network: Any = load_network(zero_shot if self._takes_words else closed_set, weights, "a detector")
        self._config = self._network.config
        if not self._takes_words and self._config.num_labels < 1:
            raise ConfigError(f"{weights.path}: config.json names no classes")
        if not self._takes_words and self._options.words is not None:
            raise ConfigError(
                f"detector.words: {weights.name} has fixed classes: choose some by detector.only, or take weights "
                f"that find words, such as {EXAMPLE}"
            )
        # Open-vocabulary models stay in float32: their published weights have not been tried in float16.
        fits_half = self._device.type != "cpu" and not self._takes_words
        half = fits_half if self._options.half == "auto" else self._options.half
        self._dtype = torch.float16 if half else torch.float32
        self._network.to(self._device, self._dtype).eval()
        self._passes: Sequence[TextPass | None] = (None,)  # a network with fixed classes reads no text
        precision = str(self._dtype).removeprefix("torch.")
        engine = f"transformers {library.__version__}, torch {torch.__version__.split('+')[0]}, {precision}"
        licence = licence_of(weights.path)
        if self._takes_words:
            words = tuple(self._options.words or ())
            return ModelFacts(words, licence=licence, engine=engine, word_passes=self._plan_passes(words))
        known = self._config.id2label
        names = tuple(str(known.get(class_id) or f"class {class_id}") for class_id in range(self._config.num_labels))
        self._class_ids = class_ids_of(self._options.only, names)
        return ModelFacts(names, licence=licence, engine=engine)

    def _plan_passes(self, words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Sets the words to find, and returns those of each pass of the network."""
        passes = text_passes(self._processor, self._config, words, self._device)
        self._passes, self._class_ids = passes, class_ids_of(self._options.only, words) if words else None
        return tuple(each.words for each in passes)

    def with_words(self, words: Sequence[str]) -> Self:
        """Returns a detector on the same network that looks for these words; its classes are the words.

        Raises:
            ConfigError: the model cannot read a word, or two words are the same to it.
        """
        detector = copy.copy(self)
        detector.class_names, detector._batch_sizes = tuple(words), {}
        detector.traits = replace(self.traits, word_passes=detector._plan_passes(words))
        return detector

    def _start(self, batch: FrameBatch) -> PendingBatch:
        frames = batch.data
        inputs = self._processor_of_frames(
            images=list(frames.permute(0, 3, 1, 2)),
            input_data_format="channels_first",
            return_tensors="pt",
            device=self._device,
        )
        inputs["pixel_values"] = inputs["pixel_values"].to(self._dtype)
        sizes = [(frames.shape[1], frames.shape[2])] * len(frames)
        reads: list[Callable[[], list[BoxesOfFrame]]] = []
        for text in self._passes:
            if text is None:
                reads.append(self._read_later(self._network(**inputs), sizes))
            else:
                outputs = outputs_to_read(self._network(**inputs, **text.inputs_for(len(frames))))
                reads.append(partial(read_words, outputs, text, self._processor, self._raw_conf, sizes))
        return PendingBatch(lambda: self._rows([read() for read in reads], sizes))

    @property
    def _processor_of_frames(self) -> Any:
        return self._processor.image_processor if self._takes_words else self._processor

    def _read_later(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> Callable[[], list[BoxesOfFrame]]:
        """Starts to copy the outputs to the host, and returns a function that reads the boxes there.

        The processor waits for the device several times a frame. By then the device works on the next batch, so it
        would wait for that one too.
        """
        # In float16 a corner is up to 2 pixels off at 1920, so boxes are computed in float32.
        logits, boxes = HostCopy(outputs.logits.float()), HostCopy(outputs.pred_boxes.float())

        def read() -> list[BoxesOfFrame]:
            outputs.logits, outputs.pred_boxes = torch.from_numpy(logits.wait()), torch.from_numpy(boxes.wait())
            found = self._processor.post_process_object_detection(outputs, threshold=self._raw_conf, target_sizes=sizes)
            return [(of["boxes"], of["scores"], of["labels"]) for of in found]

        return read

    def _rows(self, passes: Sequence[list[BoxesOfFrame]], sizes: Sequence[tuple[int, int]]) -> list[Rows]:
        """Returns the rows of each frame, with the boxes of all passes."""
        rows = []
        for of_frame, (height, width) in zip(zip(*passes, strict=True), sizes, strict=True):
            boxes, scores, labels = (torch.cat(column) for column in zip(*of_frame, strict=True))
            rows.append(self._table(boxes, scores, labels, height, width))
        return rows

    def _table(self, boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, height: int, width: int) -> Rows:
        """Returns the best `max_det` boxes of a frame, highest confidence first, clipped to it."""
        table = torch.cat([boxes, scores[:, None], labels[:, None].to(boxes.dtype)], dim=1).cpu().numpy()
        # transformers does not clip boxes, so the box of an object at the edge may extend beyond the frame. A box of
        # OWLv2 may lie outside, in the padding.
        table[:, 0:4:2] = table[:, 0:4:2].clip(0, width)
        table[:, 1:4:2] = table[:, 1:4:2].clip(0, height)
        table = table[(table[:, 2] > table[:, 0]) & (table[:, 3] > table[:, 1])]
        if self._class_ids is not None:
            table = table[np.isin(table[:, 5], self._class_ids)]
        order = np.argsort(-table[:, 4], kind="stable")  # DETR and YOLOS return boxes in the order of their queries
        rows: Rows = table[order[: self._options.max_det]].astype(np.float32)
        return rows

    def _replicate(self) -> bool:
        self._network = replica_of(self._network)
        return True


def _load_processor(library: ModuleType, weights: Weights, *, takes_words: bool) -> Any:
    """Returns the processor of a detector.

    Raises:
        WeightsError: it is missing, incomplete, or of another kind of model.
    """
    tokenizers = ("tokenizer.json", "vocab.txt", "vocab.json")
    loader = library.AutoProcessor if takes_words else library.AutoImageProcessor
    post_process = "post_process_grounded_object_detection" if takes_words else "post_process_object_detection"
    processor = load_processor(loader, weights)
    if takes_words and not any((weights.path / name).is_file() for name in tokenizers):
        # transformers makes a tokenizer that knows no word.
        raise WeightsError(f"{weights.path}: tokenizer.json is missing: it says how words are read")
    if not hasattr(processor, post_process):
        raise WeightsError(f"{weights.path}: {type(processor).__name__} is no processor of a detector")
    return processor
