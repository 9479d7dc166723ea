"""Words for the open-vocabulary models of transformers: the passes that they take, and the boxes of each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from prelabel.data.words import plain_text, refuse_repeated
from prelabel.errors import ConfigError, DetectError

GROUNDING_TYPES = ("grounding-dino", "mm-grounding-dino")
"""Models that read all words of a pass as one text, and score each token of it."""
WORD_MODEL_TYPES = (*GROUNDING_TYPES, "owlv2", "owlvit", "omdet-turbo")
"""All open-vocabulary models, by `model_type` in config.json."""
EXAMPLE = "IDEA-Research/grounding-dino-tiny"

_OUTPUTS = ("logits", "pred_boxes", "decoder_class_logits", "decoder_coord_logits", "classes_structure")
"""The outputs that post-processing reads."""

BoxesOfFrame = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Boxes (n, 4) as corners in pixels, confidences (n,) and class ids (n,)."""


@dataclass(frozen=True, slots=True)
class TextPass:
    """The words of one pass of the network over a batch.

    Attributes:
        words: as the user wrote them. Their class ids are consecutive.
        first_id: class id of the first word.
        inputs: text inputs for one frame, by name, on the device.
        spans: first and last + 1 token of each word, for models that score tokens; otherwise empty.
    """

    words: tuple[str, ...]
    first_id: int
    inputs: Mapping[str, torch.Tensor]
    spans: tuple[tuple[int, int], ...] = ()

    def inputs_for(self, num_frames: int) -> dict[str, torch.Tensor]:
        """Returns the text inputs for a batch: those of one frame, repeated."""
        return {name: value.repeat(num_frames, *[1] * (value.dim() - 1)) for name, value in self.inputs.items()}


def split_words(num_tokens: Sequence[int], per_pass: int | None) -> list[int]:
    """Returns the number of words in each pass. Each pass takes as many of the next words as fit.

    Args:
        num_tokens: tokens of each word, without its separator.
        per_pass: the most tokens of a pass, in which each word takes one more for its separator; None: no limit.

    >>> split_words([2, 3, 1, 1], per_pass=7), split_words([2, 3], per_pass=None)
    ([2, 2], [2])
    """
    passes, used = [0], 0
    for num in num_tokens:
        if per_pass is not None and used + num + 1 > per_pass and passes[-1]:
            passes, used = [*passes, 0], 0
        passes[-1] += 1
        used += num + 1
    return passes


def text_passes(processor: Any, config: Any, words: Sequence[str], device: torch.device) -> tuple[TextPass, ...]:
    """Returns the passes for words.

    Args:
        processor: the model's, with its tokenizer.
        config: the model's.
        words: words or short phrases; the class id of a word is its place.
        device: where the network is.

    Raises:
        ConfigError: a word has no token or too many, or two words are the same to the model.
    """
    if not words:
        return ()
    texts = [plain_text(word) for word in words]
    refuse_repeated(words, texts)
    per_word, per_pass = _most_tokens(processor.tokenizer, config)
    num_tokens = [_count_tokens(processor.tokenizer, word, per_word) for word in words]
    passes, first = [], 0
    for num in split_words(num_tokens, per_pass):
        inputs = _encode(processor, texts[first : first + num], device)
        spans = _spans(processor.tokenizer, inputs["input_ids"]) if config.model_type in GROUNDING_TYPES else ()
        passes.append(TextPass(tuple(words[first : first + num]), first, inputs, spans))
        first += num
    return tuple(passes)


def outputs_to_read(outputs: Any) -> SimpleNamespace:
    """Returns the outputs that `read_words` needs, with floats as float32.

    The others, such as feature maps, would stay in the device's memory until all passes are read.
    """
    kept = {name: outputs[name] for name in _OUTPUTS if name in outputs}
    return SimpleNamespace(
        **{name: kept[name].float() if kept[name].is_floating_point() else kept[name] for name in kept}
    )


def read_words(
    outputs: SimpleNamespace, text_pass: TextPass, processor: Any, threshold: float, sizes: Sequence[tuple[int, int]]
) -> list[BoxesOfFrame]:
    """Returns the boxes of each frame that have a word with a confidence above the threshold.

    Args:
        outputs: from `outputs_to_read`.
        text_pass: the pass that they come from.
        processor: the model's.
        threshold: 0..1.
        sizes: height and width of each frame, in pixels.

    Raises:
        DetectError: an output is no number, which happens if a model does not fit into float16.
    """
    if any(value.isnan().any() for value in vars(outputs).values()):
        raise DetectError("the model's outputs are no numbers: with detector.half: true, leave it out")
    if text_pass.spans:
        found = _read_tokens(outputs, text_pass.spans, threshold, sizes)
    else:
        read = processor.post_process_grounded_object_detection(outputs, threshold=threshold, target_sizes=sizes)
        found = [(of["boxes"], of["scores"], of["labels"]) for of in read]
    return [(boxes, scores, labels + text_pass.first_id) for boxes, scores, labels in found]


def _read_tokens(
    outputs: SimpleNamespace, spans: Sequence[tuple[int, int]], threshold: float, sizes: Sequence[tuple[int, int]]
) -> list[BoxesOfFrame]:
    """Returns the best word of each box. A word's score is that of its best token, as in transformers' processor.

    The processor itself cannot be used: its labels are pieces of text, which may be part of a word, several words or a
    separator.
    """
    of_words = [outputs.logits[..., start:end].amax(-1) for start, end in spans]
    scores, labels = torch.stack(of_words, dim=-1).sigmoid().max(dim=-1)
    centre, half = outputs.pred_boxes[..., :2], outputs.pred_boxes[..., 2:] / 2
    corners = torch.cat([centre - half, centre + half], dim=-1)
    found = []
    for (height, width), boxes, confidence, class_id in zip(sizes, corners, scores, labels, strict=True):
        keep = confidence > threshold
        scale = boxes.new_tensor([width, height, width, height])
        found.append((boxes[keep] * scale, confidence[keep], class_id[keep]))
    return found


def _most_tokens(tokenizer: Any, config: Any) -> tuple[int, int | None]:
    """Returns the most tokens of a word, and of a pass as in `split_words`, without the special ones."""
    num_special = int(tokenizer.num_special_tokens_to_add())
    if config.model_type in GROUNDING_TYPES:
        per_pass = config.max_text_len - num_special
        return per_pass - 1, per_pass
    per_word = config.text_config.max_position_embeddings - num_special
    if config.model_type != "omdet-turbo":
        return per_word, None
    # OmDet-Turbo also reads the task `Detect a, b.`, and its processor cuts what is too long without a warning.
    per_pass = per_word - len(tokenizer("Detect .", add_special_tokens=False)["input_ids"])
    return per_pass - 1, per_pass


def _count_tokens(tokenizer: Any, word: str, most: int) -> int:
    """Returns the number of tokens of a word.

    Raises:
        ConfigError: it has none that the tokenizer knows, or too many.
    """
    ids = tokenizer(plain_text(word), add_special_tokens=False)["input_ids"]
    if all(token == tokenizer.unk_token_id for token in ids):
        raise ConfigError(f"words: the model cannot read {word!r}: name the thing in other words, mostly English ones")
    if len(ids) > most:
        raise ConfigError(f"words: {word!r} has {len(ids)} tokens, the model reads {most}: shorten it")
    return len(ids)


def _encode(processor: Any, texts: Sequence[str], device: torch.device) -> dict[str, torch.Tensor]:
    """Returns the text inputs for one frame. The processor needs a frame to make them."""
    frame = torch.zeros((3, 64, 64), dtype=torch.uint8)
    inputs = processor(images=[frame], text=[list(texts)], return_tensors="pt", input_data_format="channels_first")
    return {name: value.to(device) for name, value in inputs.items() if not name.startswith("pixel_")}


def _spans(tokenizer: Any, input_ids: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """Returns the first and last + 1 token of each word in `[CLS] a . b c . [SEP]`."""
    stops = (input_ids[0] == tokenizer.convert_tokens_to_ids(".")).nonzero()[:, 0].tolist()
    return tuple(zip([1, *(stop + 1 for stop in stops[:-1])], stops, strict=True))
