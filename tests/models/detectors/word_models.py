"""Small open-vocabulary models with random weights and tokenizers that know letters, made without network."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

SQUARE = {"size": {"height": 64, "width": 64}}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def bert_tokenizer() -> object:
    """A tokenizer that reads a word by its letters. Grounding DINO needs BERT's own numbers of the special tokens."""
    vocab = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    letters = string.ascii_lowercase + string.digits + ","
    vocab |= {letter: 200 + place for place, letter in enumerate(letters)}
    vocab |= {f"##{letter}": 300 + place for place, letter in enumerate(letters)}
    taken = set(vocab.values())
    vocab |= {f"[unused{number}]": number for number in range(1030) if number not in taken}
    return transformers.BertTokenizer(vocab=dict(sorted(vocab.items(), key=lambda each: each[1])))


def clip_tokenizer(length: int) -> object:
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def swin() -> object:
    return transformers.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )


def grounding_dino(config: str = "GroundingDinoConfig", network: str = "GroundingDinoForObjectDetection"):
    made = getattr(transformers, config)(
        backbone_config=swin(),
        text_config=transformers.BertConfig(vocab_size=1030, **SMALL),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=30,
        num_feature_levels=3,
    )
    frames = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    return getattr(transformers, network)(made), transformers.GroundingDinoProcessor(frames, bert_tokenizer())


def mm_grounding_dino():
    return grounding_dino("MMGroundingDinoConfig", "MMGroundingDinoForObjectDetection")


def owl(family: str = "Owlv2"):
    tokenizer = clip_tokenizer(16)
    made = getattr(transformers, f"{family}Config")(
        text_config={
            **SMALL,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**SMALL, "image_size": 64, "patch_size": 8},
        projection_dim=32,
    )
    network = getattr(transformers, f"{family}ForObjectDetection")(made)
    frames = getattr(transformers, f"{family}ImageProcessor")(**SQUARE)
    return network, getattr(transformers, f"{family}Processor")(frames, tokenizer)


def owlvit():
    return owl("OwlViT")


def omdet_turbo():
    tokenizer = clip_tokenizer(77)
    made = transformers.OmDetTurboConfig(
        text_config=transformers.CLIPTextConfig(
            vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **SMALL
        ),
        backbone_config=swin(),
        apply_layernorm_after_vision_backbone=False,
        text_projection_in_dim=32,
        text_projection_out_dim=32,
        class_embed_dim=32,
        num_queries=30,
        encoder_hidden_dim=64,  # as large as the text's, the network could not be made
        decoder_hidden_dim=64,
        vision_features_channels=[64, 64, 64],
        encoder_in_channels=[16, 32, 64],
        encoder_dim_feedforward=32,
        decoder_dim_feedforward=32,
        task_encoder_hidden_dim=32,
        decoder_num_layers=2,
        encoder_attention_heads=2,
        decoder_num_heads=2,
        image_size=64,
    )
    frames = transformers.DetrImageProcessor(do_pad=False, **SQUARE)
    return transformers.OmDetTurboForObjectDetection(made), transformers.OmDetTurboProcessor(frames, tokenizer)


FAMILIES = {
    "Grounding DINO": grounding_dino,
    "MM-Grounding-DINO": mm_grounding_dino,
    "OWLv2": owl,
    "OWL-ViT": owlvit,
    "OmDet-Turbo": omdet_turbo,
}


def save_word_model(folder: Path, family: str) -> Path:
    """Saves a model of a family with random weights."""
    return save_random(folder, FAMILIES[family])


def save_random(folder: Path, make: Callable[[], tuple[Any, Any]]) -> Path:
    """Saves the network and the processor that `make` returns, the random weights spread so that scores differ."""
    torch.manual_seed(1)
    network, processor = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
