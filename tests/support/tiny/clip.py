"""A tiny random CLIP in the folder layout of the public ones (`openai/clip-vit-large-patch14`, `PickScore_v1`).

File names, keys, nesting, the saved `position_ids`, the old `eos_token_id` of 2 and the preprocessor's plain
`size: 224` are those of the public files. Only the widths and the vocabulary are small.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from support.tiny.random_weights import Draw

WIDTH, LAYERS, HEADS, SIDE, PATCH, TOKENS = 32, 2, 2, 224, 32, 77
MERGES = ["c a", "ca t</w>", "d o", "do g</w>", "r e", "re d</w>"]


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


def write_clip(folder: Path, *, projection: int = 24, hidden_act: str = "quick_gelu", seed: int = 0) -> Path:
    """Writes the model, its tokenizer and its preprocessor to `folder` and returns it."""
    vocabulary = write_tokenizer(folder)
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": hidden_act,
        "layer_norm_eps": 1e-5,
        "projection_dim": projection,
    }
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": 2.6592,
        "projection_dim": projection,
        "text_config": {
            **tower,
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "max_position_embeddings": TOKENS,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
        "vision_config": {**tower, "model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH},
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
    save_file(_weights(vocabulary, projection, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(vocabulary: int, projection: int, seed: int) -> dict[str, Tensor]:
    draw = Draw(seed)
    patches = (SIDE // PATCH) ** 2
    weights = {
        "logit_scale": torch.tensor(4.6052),
        "text_model.embeddings.position_ids": torch.arange(TOKENS)[None],
        "text_model.embeddings.token_embedding.weight": draw(vocabulary, WIDTH, scale=1.0),
        "text_model.embeddings.position_embedding.weight": draw(TOKENS, WIDTH, scale=0.5),
        "text_projection.weight": draw(projection, WIDTH),
        "vision_model.embeddings.class_embedding": draw(WIDTH, scale=1.0),
        "vision_model.embeddings.position_ids": torch.arange(patches + 1)[None],
        "vision_model.embeddings.patch_embedding.weight": draw(WIDTH, 3, PATCH, PATCH, scale=0.05),
        "vision_model.embeddings.position_embedding.weight": draw(patches + 1, WIDTH, scale=0.5),
        "visual_projection.weight": draw(projection, WIDTH),
    }
    norms = ["text_model.final_layer_norm", "vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    for tower in ("text_model", "vision_model"):
        for layer in range(LAYERS):
            name = f"{tower}.encoder.layers.{layer}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                weights |= draw.linear(f"{name}.self_attn.{part}", WIDTH, WIDTH)
            weights |= draw.linear(f"{name}.mlp.fc1", WIDTH, 2 * WIDTH)
            weights |= draw.linear(f"{name}.mlp.fc2", 2 * WIDTH, WIDTH)
            norms += [f"{name}.layer_norm1", f"{name}.layer_norm2"]
    for name in norms:
        weights |= draw.norm(name, WIDTH)
    return weights
