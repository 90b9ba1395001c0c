"""A tiny random HPSv3 in the public layout: its weights, and the configuration and tokenizer of its base."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from support.tiny.qwen_tokenizer import SPECIAL, TOKEN, write_qwen_tokenizer
from support.tiny.random_weights import Draw

VISION, VISION_HEADS, PATCH, TEXT, HEADS, KV_HEADS, LAYERS = 32, 2, 14, 32, 2, 1, 2
SECTIONS = [2, 3, 3]  # of a head's 8 frequencies: time, height, width


def write_hpsv3(folder: Path, seed: int = 0) -> Path:
    """Writes `HPSv3.safetensors` and the configuration and tokenizer of its base to `folder` and returns it."""
    write_qwen_tokenizer(folder)
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": TOKEN["<|endoftext|>"],
        "eos_token_id": TOKEN["<|im_end|>"],
        "vision_start_token_id": TOKEN["<|vision_start|>"],
        "vision_end_token_id": TOKEN["<|vision_end|>"],
        "vision_token_id": TOKEN["<|vision_pad|>"],
        "image_token_id": TOKEN["<|image_pad|>"],
        "video_token_id": TOKEN["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": TEXT,
        "initializer_range": 0.02,
        "intermediate_size": 2 * TEXT,
        "max_position_embeddings": 32768,
        "max_window_layers": LAYERS,
        "model_type": "qwen2_vl",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": LAYERS,
            "embed_dim": VISION,
            "mlp_ratio": 2,
            "num_heads": VISION_HEADS,
            "in_chans": 3,
            "hidden_size": TEXT,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "spatial_patch_size": PATCH,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": SECTIONS},
        "vocab_size": 300,  # more rows than tokens, as in the public file
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(hpsv3_weights(seed), folder / "HPSv3.safetensors")
    return folder


def hpsv3_weights(seed: int = 0) -> dict[str, Tensor]:
    draw = Draw(seed)
    words = 256 + len(SPECIAL) + 1
    wide = TEXT // HEADS * KV_HEADS
    weights = {
        "visual.patch_embed.proj.weight": draw(VISION, 3, 2, PATCH, PATCH, scale=0.05),
        **draw.norm("visual.merger.ln_q", VISION),
        **draw.linear("visual.merger.mlp.0", 4 * VISION, 4 * VISION),
        **draw.linear("visual.merger.mlp.2", 4 * VISION, TEXT),
        "model.embed_tokens.weight": draw(words, TEXT, scale=1.0),
        "model.norm.weight": 1 + draw(TEXT, scale=0.1),
        "lm_head.weight": draw(words, TEXT),
        **draw.linear("rm_head.0", TEXT, 1024),
        **draw.linear("rm_head.3", 1024, 16),
        **draw.linear("rm_head.5", 16, 2),
    }
    for layer in range(LAYERS):
        name = f"visual.blocks.{layer}"
        weights |= draw.norm(f"{name}.norm1", VISION) | draw.norm(f"{name}.norm2", VISION)
        weights |= draw.linear(f"{name}.attn.qkv", VISION, 3 * VISION) | draw.linear(
            f"{name}.attn.proj", VISION, VISION
        )
        weights |= draw.linear(f"{name}.mlp.fc1", VISION, 2 * VISION) | draw.linear(
            f"{name}.mlp.fc2", 2 * VISION, VISION
        )
        name = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{name}.{norm}.weight"] = 1 + draw(TEXT, scale=0.1)
        weights |= draw.linear(f"{name}.self_attn.q_proj", TEXT, TEXT)
        weights |= draw.linear(f"{name}.self_attn.k_proj", TEXT, wide) | draw.linear(
            f"{name}.self_attn.v_proj", TEXT, wide
        )
        weights |= draw.linear(f"{name}.self_attn.o_proj", TEXT, TEXT, bias=False)
        weights |= draw.linear(f"{name}.mlp.gate_proj", TEXT, 2 * TEXT, bias=False)
        weights |= draw.linear(f"{name}.mlp.up_proj", TEXT, 2 * TEXT, bias=False)
        weights |= draw.linear(f"{name}.mlp.down_proj", 2 * TEXT, TEXT, bias=False)
    return {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
