"""Small SAM 2 models with random weights, made without network."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

SIDE = 64


def parts() -> dict[str, object]:
    backbone = hf.Sam2HieraDetConfig(
        image_size=[SIDE, SIDE],
        hidden_size=8,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 2, 1],
        global_attention_blocks=[3],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 4],
        window_size_per_stage=[4, 4, 4, 4],
        window_positional_embedding_background_size=[2, 2],
    )
    return {
        "vision_config": hf.Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=32,
        ),
        "prompt_encoder_config": hf.Sam2PromptEncoderConfig(
            hidden_size=32, image_size=SIDE, patch_size=16, mask_input_channels=4
        ),
        "mask_decoder_config": hf.Sam2MaskDecoderConfig(
            hidden_size=32, mlp_dim=32, num_hidden_layers=2, num_attention_heads=2, iou_head_hidden_dim=32
        ),
    }


def write_model(folder: Path, *, for_videos: bool = False) -> Path:
    """Writes a model for images, or one for videos as the published files are."""
    torch.manual_seed(0)
    if for_videos:
        config = hf.Sam2VideoConfig(
            **parts(),
            image_size=SIDE,
            memory_attention_hidden_size=32,
            memory_attention_num_layers=1,
            memory_attention_feed_forward_hidden_size=32,
            memory_attention_rope_feat_sizes=[4, 4],
            memory_encoder_hidden_size=32,
            memory_encoder_output_channels=8,
            mask_downsampler_embed_dim=32,
            memory_fuser_embed_dim=32,
            memory_fuser_intermediate_dim=32,
        )
        network = hf.Sam2VideoModel(config)
    else:
        network = hf.Sam2Model(hf.Sam2Config(**parts()))
    for name, weights in network.named_parameters():  # else all masks of random weights are alike
        if "upscale_conv" in name or "hypernetwork" in name:
            torch.nn.init.normal_(weights, std=0.5)
    frames = hf.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}, mask_size={"height": 16, "width": 16})
    network.save_pretrained(folder)
    hf.Sam2Processor(frames, target_size=SIDE).save_pretrained(folder)
    return folder
