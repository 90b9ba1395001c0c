"""A tiny random Qwen3-VL in the layout of `Qwen/Qwen3-VL-2B-Instruct`, or of the larger models.

The small public models have no `lm_head.weight`: it is tied to the token embeddings. The larger ones have one, several
weight files, and an index of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from support.tiny.qwen_tokenizer import SPECIAL, TOKEN, write_qwen_tokenizer
from support.tiny.random_weights import Draw, save_tensors

VISION, VISION_HEADS, PATCH, TEXT, HEADS, KV_HEADS, HEAD, LAYERS, GRID = 32, 2, 16, 32, 2, 1, 16, 2, 6
SECTIONS = [4, 2, 2]  # of a head's 8 frequencies: time, height, width, interleaved
DEEPSTACK = [0]  # the vision layers whose output also goes into the first text layers
WORDS = 256 + len(SPECIAL) + 8  # more rows than tokens, as in the public files
THETA = 5000000


@dataclass(frozen=True)
class Sizes:
    """The sizes of the two towers."""

    vision: int = VISION
    vision_mlp: int = 2 * VISION
    vision_heads: int = VISION_HEADS
    vision_layers: int = LAYERS
    text: int = TEXT
    text_mlp: int = 2 * TEXT
    heads: int = HEADS
    kv_heads: int = KV_HEADS
    head: int = HEAD
    layers: int = LAYERS
    grid: int = GRID
    sections: tuple[int, ...] = tuple(SECTIONS)
    deepstack: tuple[int, ...] = tuple(DEEPSTACK)
    words: int = WORDS


TINY = Sizes()

# Text and images are placed as in the public template, which has no system prompt.
TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def write_qwen3_vl(
    folder: Path,
    seed: int = 0,
    sharded: bool = False,
    words: Sequence[str] = (),
    sizes: Sizes = TINY,
    device: str = "cpu",
) -> Path:
    """Writes the checkpoint to `folder` and returns the folder. Its tokens are the bytes and `words`."""
    write_qwen_tokenizer(folder, words)
    documents = {
        "config.json": _config(sizes, tied=not sharded),
        "generation_config.json": {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
        | {"bos_token_id": TOKEN["<|endoftext|>"], "pad_token_id": TOKEN["<|endoftext|>"]}
        | {"eos_token_id": [TOKEN["<|im_end|>"], TOKEN["<|endoftext|>"]]},
        "preprocessor_config.json": _pixels(65536, 16777216) | {"image_processor_type": "Qwen2VLImageProcessorFast"},
        "video_preprocessor_config.json": _pixels(4096, 25165824) | {"video_processor_type": "Qwen3VLVideoProcessor"},
        "chat_template.json": {"chat_template": TEMPLATE},
    }
    weights = qwen3_vl_weights(seed, sizes, device)
    if sharded:
        weights["lm_head.weight"] = Draw(seed + 1, device)(sizes.words, sizes.text).to(torch.bfloat16)
        halves = [sorted(weights)[::2], sorted(weights)[1::2]]
        files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        for file, names in zip(files, halves, strict=True):
            save_tensors({name: weights[name] for name in names}, folder / file)
        weight_map = {name: file for file, names in zip(files, halves, strict=True) for name in names}
        size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        documents["model.safetensors.index.json"] = {"metadata": {"total_size": size}, "weight_map": weight_map}
    else:
        save_tensors(weights, folder / "model.safetensors")
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    return folder


def _pixels(least: int, most: int) -> dict[str, object]:
    half = [0.5, 0.5, 0.5]
    sizes = {"size": {"shortest_edge": least, "longest_edge": most}, "patch_size": PATCH, "merge_size": 2}
    return (
        sizes
        | {"temporal_patch_size": 2, "image_mean": half, "image_std": half}
        | {"processor_class": "Qwen3VLProcessor"}
    )


def _config(sizes: Sizes, tied: bool) -> dict[str, object]:
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "image_token_id": TOKEN["<|image_pad|>"],
        "model_type": "qwen3_vl",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": TOKEN["<|endoftext|>"],
            "dtype": "bfloat16",
            "eos_token_id": TOKEN["<|im_end|>"],
            "head_dim": sizes.head,
            "hidden_act": "silu",
            "hidden_size": sizes.text,
            "initializer_range": 0.02,
            "intermediate_size": sizes.text_mlp,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "num_attention_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "num_key_value_heads": sizes.kv_heads,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": list(sizes.sections), "rope_type": "default"},
            "rope_theta": THETA,
            "tie_word_embeddings": tied,
            "use_cache": True,
            "vocab_size": sizes.words,
        },
        "tie_word_embeddings": tied,
        "transformers_version": "4.57.0.dev0",
        "video_token_id": TOKEN["<|video_pad|>"],
        "vision_config": {
            "deepstack_visual_indexes": list(sizes.deepstack),
            "depth": sizes.vision_layers,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": sizes.vision,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": sizes.vision_mlp,
            "model_type": "qwen3_vl",
            "num_heads": sizes.vision_heads,
            "num_position_embeddings": sizes.grid**2,
            "out_hidden_size": sizes.text,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "vision_end_token_id": TOKEN["<|vision_end|>"],
        "vision_start_token_id": TOKEN["<|vision_start|>"],
    }


def qwen3_vl_weights(seed: int = 0, sizes: Sizes = TINY, device: str = "cpu") -> dict[str, Tensor]:
    draw = Draw(seed, device)
    seen, read, head = sizes.vision, sizes.text, sizes.head
    weights = {
        "model.language_model.embed_tokens.weight": draw(sizes.words, read, scale=1.0),
        "model.language_model.norm.weight": 1 + draw(read, scale=0.1),
        "model.visual.patch_embed.proj.weight": draw(seen, 3, 2, PATCH, PATCH, scale=0.05),
        "model.visual.patch_embed.proj.bias": draw(seen, scale=0.1),
        "model.visual.pos_embed.weight": draw(sizes.grid**2, seen, scale=0.5),
    }
    mergers = [
        ("merger", seen),
        *((f"deepstack_merger_list.{index}", 4 * seen) for index in range(len(sizes.deepstack))),
    ]
    for merger, width in mergers:  # the first one normalises each patch, the others four patches at once
        name = f"model.visual.{merger}"
        weights |= draw.norm(f"{name}.norm", width) | draw.linear(f"{name}.linear_fc1", 4 * seen, 4 * seen)
        weights |= draw.linear(f"{name}.linear_fc2", 4 * seen, read)
    for layer in range(sizes.vision_layers):
        name = f"model.visual.blocks.{layer}"
        weights |= draw.norm(f"{name}.norm1", seen) | draw.norm(f"{name}.norm2", seen)
        weights |= draw.linear(f"{name}.attn.qkv", seen, 3 * seen)
        weights |= draw.linear(f"{name}.attn.proj", seen, seen)
        weights |= draw.linear(f"{name}.mlp.linear_fc1", seen, sizes.vision_mlp)
        weights |= draw.linear(f"{name}.mlp.linear_fc2", sizes.vision_mlp, seen)
    for layer in range(sizes.layers):
        name = f"model.language_model.layers.{layer}"
        for norm, width in (("input_layernorm", read), ("post_attention_layernorm", read)):
            weights[f"{name}.{norm}.weight"] = 1 + draw(width, scale=0.1)
        for part, heads in (("q", sizes.heads), ("k", sizes.kv_heads), ("v", sizes.kv_heads)):
            weights |= draw.linear(f"{name}.self_attn.{part}_proj", read, heads * head, bias=False)
        for part in ("q", "k"):
            weights[f"{name}.self_attn.{part}_norm.weight"] = 1 + draw(head, scale=0.1)
        weights |= draw.linear(f"{name}.self_attn.o_proj", sizes.heads * head, read, bias=False)
        weights |= draw.linear(f"{name}.mlp.gate_proj", read, sizes.text_mlp, bias=False)
        weights |= draw.linear(f"{name}.mlp.up_proj", read, sizes.text_mlp, bias=False)
        weights |= draw.linear(f"{name}.mlp.down_proj", sizes.text_mlp, read, bias=False)
    return {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
