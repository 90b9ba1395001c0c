"""A tiny random CLIP in the folder layout of the public ones (`openai/clip-vit-large-patch14`, `PickScore_v1`).

File names, keys, nesting, the saved `position_ids`, the old `eos_token_id` of 2 and the preprocessor's plain
`size: 224` are those of the public files. Only the widths and the vocabulary are small.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from support.tiny.random_weights import Draw, save_tensors

WIDTH, LAYERS, HEADS, SIDE, PATCH, TOKENS = 32, 2, 2, 224, 32, 77
MERGES = ["c a", "ca t</w>", "d o", "do g</w>", "r e", "re d</w>"]


@dataclass(frozen=True)
class Tower:
    """The sizes of one of the two towers."""

    hidden_size: int = WIDTH
    intermediate_size: int = 2 * WIDTH
    num_hidden_layers: int = LAYERS
    num_attention_heads: int = HEADS


@dataclass(frozen=True)
class ClipSizes:
    """The sizes of a CLIP."""

    vision: Tower = Tower()
    text: Tower = Tower()
    patch: int = PATCH
    projection: int = 24
    vocabulary: int = 0  # at least this many rows
    dtype: torch.dtype = torch.float32


def byte_letters() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def write_tokenizer(folder: Path) -> int:
    """Writes CLIP's tokenizer with six merges, and returns the number of tokens. The last one is the end of text."""
    letters = byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in MERGES)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True})
    )
    return len(tokens)


def write_clip(
    folder: Path,
    *,
    sizes: ClipSizes = ClipSizes(),
    hidden_act: str = "quick_gelu",
    seed: int = 0,
    device: str = "cpu",
) -> Path:
    """Writes the model, its tokenizer and its preprocessor to `folder` and returns it."""
    vocabulary = max(write_tokenizer(folder), sizes.vocabulary)
    projection = sizes.projection
    tower = {"hidden_act": hidden_act, "layer_norm_eps": 1e-5, "projection_dim": projection}
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": 2.6592,
        "projection_dim": projection,
        "text_config": {
            **tower,
            **asdict(sizes.text),
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "max_position_embeddings": TOKENS,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
        "vision_config": {**tower, **asdict(sizes.vision)}
        | {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": sizes.patch},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": 224,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "CLIPFeatureExtractor",
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "resample": 3,
                "size": 224,
            }
        )
    )
    save_tensors(_weights(vocabulary, sizes, Draw(seed, device)), folder / "model.safetensors")
    return folder


def _weights(vocabulary: int, sizes: ClipSizes, draw: Draw) -> dict[str, Tensor]:
    patches = (SIDE // sizes.patch) ** 2
    text, vision = sizes.text.hidden_size, sizes.vision.hidden_size
    weights = {
        "logit_scale": torch.tensor(4.6052),
        "text_model.embeddings.position_ids": torch.arange(TOKENS)[None],
        "text_model.embeddings.token_embedding.weight": draw(vocabulary, text, scale=1.0),
        "text_model.embeddings.position_embedding.weight": draw(TOKENS, text, scale=0.5),
        "text_projection.weight": draw(sizes.projection, text),
        "vision_model.embeddings.class_embedding": draw(vision, scale=1.0),
        "vision_model.embeddings.position_ids": torch.arange(patches + 1)[None],
        "vision_model.embeddings.patch_embedding.weight": draw(vision, 3, sizes.patch, sizes.patch, scale=0.05),
        "vision_model.embeddings.position_embedding.weight": draw(patches + 1, vision, scale=0.5),
        "visual_projection.weight": draw(sizes.projection, vision),
    }
    weights |= draw.norm("text_model.final_layer_norm", text)
    for name in ("pre_layrnorm", "post_layernorm"):
        weights |= draw.norm(f"vision_model.{name}", vision)
    for tower, tower_sizes in (("text_model", sizes.text), ("vision_model", sizes.vision)):
        width, inner = tower_sizes.hidden_size, tower_sizes.intermediate_size
        for layer in range(tower_sizes.num_hidden_layers):
            name = f"{tower}.encoder.layers.{layer}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                weights |= draw.linear(f"{name}.self_attn.{part}", width, width)
            weights |= draw.linear(f"{name}.mlp.fc1", width, inner) | draw.linear(f"{name}.mlp.fc2", inner, width)
            weights |= draw.norm(f"{name}.layer_norm1", width) | draw.norm(f"{name}.layer_norm2", width)
    return {name: tensor if tensor.dtype == torch.int64 else tensor.to(sizes.dtype) for name, tensor in weights.items()}
