"""The sizes of the public models, as arguments of their classes or of the writers in `support.tiny`; and small ones.

Everything here is written down from the configurations of the public files, which are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from support.tiny import clip, hpsv2, hpsv3, image_reward, qwen3_vl

_CROSS_DOWN, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_CROSS_UP, _UP = "CrossAttnUpBlock2D", "UpBlock2D"
_TOKENS = {"vocab_size": 49408, "max_position_embeddings": 77}


@dataclass(frozen=True)
class PipelineSizes:
    """The configurations of a pipeline's networks; one or two text encoders."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    texts: tuple[dict[str, Any], ...]


def _vae(scaling: float, widths: tuple[int, ...] = (128, 256, 512, 512), layers: int = 2, groups: int = 32) -> dict:
    blocks = len(widths)
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "sample_size": 512,
        "scaling_factor": scaling,
    }


def _text(width: int, layers: int, heads: int, inner: int, act: str, projection: int) -> dict[str, Any]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**sizes, "intermediate_size": inner, "hidden_act": act, "projection_dim": projection, **_TOKENS}


SD_TURBO = PipelineSizes(
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (_CROSS_DOWN, _CROSS_DOWN, _CROSS_DOWN, _DOWN),
        "up_block_types": (_UP, _CROSS_UP, _CROSS_UP, _CROSS_UP),
        "attention_head_dim": (5, 10, 20, 20),  # numbers of heads, despite the name
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    vae=_vae(0.18215),
    texts=(_text(1024, 23, 16, 4096, "gelu", 512),),
)
SDXL_TURBO = PipelineSizes(
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (_DOWN, _CROSS_DOWN, _CROSS_DOWN),
        "up_block_types": (_CROSS_UP, _CROSS_UP, _UP),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae=_vae(0.13025),
    texts=(_text(768, 12, 12, 3072, "quick_gelu", 768), _text(1280, 32, 20, 5120, "gelu", 1280)),
)
_SMALL_VAE = {"widths": (8, 8, 16, 16), "layers": 1, "groups": 4}
_SMALL_UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 2,
    "use_linear_projection": True,
}
SMALL_SD_TURBO = PipelineSizes(
    unet=_SMALL_UNET
    | {"down_block_types": (_CROSS_DOWN, _DOWN), "up_block_types": (_UP, _CROSS_UP), "cross_attention_dim": 16},
    vae=_vae(0.18215, **_SMALL_VAE),
    texts=(_text(16, 1, 2, 32, "gelu", 16),),
)
SMALL_SDXL_TURBO = PipelineSizes(
    unet=_SMALL_UNET
    | {"down_block_types": (_DOWN, _CROSS_DOWN), "up_block_types": (_CROSS_UP, _UP), "cross_attention_dim": 32}
    | {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "transformer_layers_per_block": (1, 1)}
    | {"projection_class_embeddings_input_dim": 6 * 8 + 16},
    vae=_vae(0.13025, **_SMALL_VAE),
    texts=(_text(16, 2, 2, 32, "quick_gelu", 16), _text(16, 2, 2, 32, "gelu", 16)),
)

MAE = {"widths": (256, 512, 1024, 2048), "blocks": (3, 4, 6, 3), "decoder": False}
SMALL_MAE = {"widths": (8, 16), "blocks": (1, 1), "norm_groups": 4, "decoder": False}

CLIP_H = clip.ClipSizes(
    vision=clip.Tower(1280, 5120, 32, 16),
    text=clip.Tower(1024, 4096, 24, 16),
    patch=14,
    projection=1024,
    vocabulary=49408,
    dtype=torch.float16,
)
CLIP_L = clip.ClipSizes(
    vision=clip.Tower(1024, 4096, 24, 16),
    text=clip.Tower(768, 3072, 12, 12),
    patch=14,
    projection=768,
    vocabulary=49408,
    dtype=torch.float16,
)
HPSV2 = hpsv2.Sizes(
    vision=1280,
    vision_layers=32,
    text=1024,
    text_layers=24,
    mlp_ratio=4,
    projection=1024,
    patch=14,
    vocabulary=49408,
    dtype=torch.float16,
)
IMAGE_REWARD = image_reward.Sizes(
    vision=1024,
    vision_layers=24,
    text=768,
    text_layers=12,
    text_heads=12,
    mlp_ratio=4,
    patch=16,
    tokens=512,
    vocabulary=30524,
    dtype=torch.float16,
)
HPSV3 = hpsv3.Sizes(
    vision=1280,
    vision_heads=16,
    vision_layers=32,
    vision_mlp_ratio=4,
    text=3584,
    text_mlp=18944,
    heads=28,
    kv_heads=4,
    layers=28,
    sections=(16, 24, 24),
)
QWEN3_VL_2B = qwen3_vl.Sizes(
    vision=1024,
    vision_mlp=4096,
    vision_heads=16,
    vision_layers=24,
    text=2048,
    text_mlp=6144,
    heads=16,
    kv_heads=8,
    head=128,
    layers=28,
    grid=48,
    sections=(24, 20, 20),
    deepstack=(5, 11, 17),
    words=151936,
)
QWEN3_VL_8B = qwen3_vl.Sizes(
    vision=1152,
    vision_mlp=4304,
    vision_heads=16,
    vision_layers=27,
    text=4096,
    text_mlp=12288,
    heads=32,
    kv_heads=8,
    head=128,
    layers=36,
    grid=48,
    sections=(24, 20, 20),
    deepstack=(8, 16, 24),
    words=151936,
)
MASK2FORMER = {
    "backbone": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "model": {"num_labels": 80},  # the rest are the defaults of its class
}
