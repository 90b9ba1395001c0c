"""A tiny random HPSv3 in the public layout: its weights, and the configuration and tokenizer of its base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from support.tiny.qwen_tokenizer import SPECIAL, TOKEN, write_qwen_tokenizer
from support.tiny.random_weights import Draw, save_tensors

VISION, VISION_HEADS, PATCH, TEXT, HEADS, KV_HEADS, LAYERS = 32, 2, 14, 32, 2, 1, 2
SECTIONS = [2, 3, 3]  # of a head's 8 frequencies: time, height, width


@dataclass(frozen=True)
class Sizes:
    """The sizes of the two towers."""

    vision: int = VISION
    vision_heads: int = VISION_HEADS
    vision_layers: int = LAYERS
    vision_mlp_ratio: int = 2
    text: int = TEXT
    text_mlp: int = 2 * TEXT
    heads: int = HEADS
    kv_heads: int = KV_HEADS
    layers: int = LAYERS
    sections: tuple[int, ...] = tuple(SECTIONS)


TINY = Sizes()


def write_hpsv3(
    folder: Path, seed: int = 0, sizes: Sizes = TINY, words: Sequence[str] = (), device: str = "cpu"
) -> Path:
    """Writes `HPSv3.safetensors` and the configuration and tokenizer of its base to `folder` and returns it.

    Its tokens are the bytes and `words`.
    """
    write_qwen_tokenizer(folder, words)
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
        "hidden_size": sizes.text,
        "initializer_range": 0.02,
        "intermediate_size": sizes.text_mlp,
        "max_position_embeddings": 32768,
        "max_window_layers": sizes.layers,
        "model_type": "qwen2_vl",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": sizes.vision_layers,
            "embed_dim": sizes.vision,
            "mlp_ratio": sizes.vision_mlp_ratio,
            "num_heads": sizes.vision_heads,
            "in_chans": 3,
            "hidden_size": sizes.text,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "spatial_patch_size": PATCH,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": list(sizes.sections)},
        "vocab_size": 300 + len(words),  # more rows than tokens, as in the public file
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_tensors(hpsv3_weights(seed, sizes, len(words), device), folder / "HPSv3.safetensors")
    return folder


def hpsv3_weights(seed: int = 0, sizes: Sizes = TINY, more_words: int = 0, device: str = "cpu") -> dict[str, Tensor]:
    draw = Draw(seed, device)
    words = 256 + len(SPECIAL) + more_words + 1
    seen, read = sizes.vision, sizes.text
    wide = read // sizes.heads * sizes.kv_heads
    inner = sizes.vision_mlp_ratio * seen
    weights = {
        "visual.patch_embed.proj.weight": draw(seen, 3, 2, PATCH, PATCH, scale=0.05),
        **draw.norm("visual.merger.ln_q", seen),
        **draw.linear("visual.merger.mlp.0", 4 * seen, 4 * seen),
        **draw.linear("visual.merger.mlp.2", 4 * seen, read),
        "model.embed_tokens.weight": draw(words, read, scale=1.0),
        "model.norm.weight": 1 + draw(read, scale=0.1),
        "lm_head.weight": draw(words, read),
        **draw.linear("rm_head.0", read, 1024),
        **draw.linear("rm_head.3", 1024, 16),
        **draw.linear("rm_head.5", 16, 2),
    }
    for layer in range(sizes.vision_layers):
        name = f"visual.blocks.{layer}"
        weights |= draw.norm(f"{name}.norm1", seen) | draw.norm(f"{name}.norm2", seen)
        weights |= draw.linear(f"{name}.attn.qkv", seen, 3 * seen) | draw.linear(f"{name}.attn.proj", seen, seen)
        weights |= draw.linear(f"{name}.mlp.fc1", seen, inner) | draw.linear(f"{name}.mlp.fc2", inner, seen)
    for layer in range(sizes.layers):
        name = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{name}.{norm}.weight"] = 1 + draw(read, scale=0.1)
        weights |= draw.linear(f"{name}.self_attn.q_proj", read, read)
        weights |= draw.linear(f"{name}.self_attn.k_proj", read, wide) | draw.linear(
            f"{name}.self_attn.v_proj", read, wide
        )
        weights |= draw.linear(f"{name}.self_attn.o_proj", read, read, bias=False)
        weights |= draw.linear(f"{name}.mlp.gate_proj", read, sizes.text_mlp, bias=False)
        weights |= draw.linear(f"{name}.mlp.up_proj", read, sizes.text_mlp, bias=False)
        weights |= draw.linear(f"{name}.mlp.down_proj", sizes.text_mlp, read, bias=False)
    return {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
