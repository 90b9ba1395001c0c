"""A tiny random ImageReward in the public layout: a bare state dict, `med_config.json` and BERT's vocabulary."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from support.tiny.random_weights import Draw, on_cpu

VISION, TEXT, VISION_LAYERS, TEXT_LAYERS, TEXT_HEADS, SIDE, PATCH = 128, 48, 2, 2, 4, 224, 56
VISION_HEADS = 2  # of 64 features each
MLP = (1024, 128, 64, 16, 1)
TOKENS = 64


@dataclass(frozen=True)
class Sizes:
    """The sizes of the two towers."""

    vision: int = VISION
    vision_layers: int = VISION_LAYERS
    text: int = TEXT
    text_layers: int = TEXT_LAYERS
    text_heads: int = TEXT_HEADS
    mlp_ratio: int = 2
    patch: int = PATCH
    tokens: int = TOKENS
    vocabulary: int = 0  # at least this many rows
    dtype: torch.dtype = torch.float32


TINY = Sizes()
WORDS = ["a", "red", "circle", "two", "cat", "##s", "left", "of", "dog", "very", "long", "prompt", "##en"]


def vocabulary() -> list[str]:
    letters = [*string.ascii_lowercase, *string.digits, *(f"##{c}" for c in string.ascii_lowercase + string.digits)]
    punctuation = list(string.punctuation)
    return ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *punctuation, *letters, *WORDS[1:]]


def write_image_reward(folder: Path, seed: int = 0, sizes: Sizes = TINY, device: str = "cpu") -> Path:
    """Writes the model, its configuration and BERT's tokenizer to `folder` and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    words = list(dict.fromkeys(vocabulary()))
    rows = max(len(words) + 2, sizes.vocabulary)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))
    (folder / "med_config.json").write_text(
        json.dumps(
            {
                "architectures": ["BertModel"],
                "attention_probs_dropout_prob": 0.1,
                "hidden_act": "gelu",
                "hidden_dropout_prob": 0.1,
                "hidden_size": sizes.text,
                "initializer_range": 0.02,
                "intermediate_size": sizes.mlp_ratio * sizes.text,
                "layer_norm_eps": 1e-12,
                "max_position_embeddings": sizes.tokens,
                "model_type": "bert",
                "num_attention_heads": sizes.text_heads,
                "num_hidden_layers": sizes.text_layers,
                "pad_token_id": 0,
                "type_vocab_size": 2,
                "vocab_size": rows,
                "encoder_width": sizes.text,  # wrong, as in the public file
                "add_cross_attention": True,
            }
        )
    )
    torch.save(on_cpu(_weights(rows, sizes, Draw(seed, device))), folder / "ImageReward.pt")
    return folder


def _weights(words: int, sizes: Sizes, draw: Draw) -> dict[str, Tensor]:
    vision, text = "blip.visual_encoder", "blip.text_encoder"
    seen, read = sizes.vision, sizes.text
    inner_seen, inner_read = sizes.mlp_ratio * seen, sizes.mlp_ratio * read
    weights = {
        f"{vision}.cls_token": draw(1, 1, seen, scale=1.0),
        f"{vision}.pos_embed": draw(1, (SIDE // sizes.patch) ** 2 + 1, seen, scale=0.5),
        f"{vision}.patch_embed.proj.weight": draw(seen, 3, sizes.patch, sizes.patch, scale=0.02),
        f"{vision}.patch_embed.proj.bias": draw(seen, scale=0.1),
        **draw.norm(f"{vision}.norm", seen),
        f"{text}.embeddings.position_ids": torch.arange(sizes.tokens)[None],
        f"{text}.embeddings.word_embeddings.weight": draw(words, read, scale=1.0),
        f"{text}.embeddings.position_embeddings.weight": draw(sizes.tokens, read, scale=0.5),
        **draw.norm(f"{text}.embeddings.LayerNorm", read),
        **draw.linear("blip.vision_proj", seen, 16),
        **draw.linear("blip.text_proj", read, 16),
    }
    for layer in range(sizes.vision_layers):
        name = f"{vision}.blocks.{layer}"
        weights |= draw.norm(f"{name}.norm1", seen) | draw.norm(f"{name}.norm2", seen)
        weights |= draw.linear(f"{name}.attn.qkv", seen, 3 * seen) | draw.linear(f"{name}.attn.proj", seen, seen)
        weights |= draw.linear(f"{name}.mlp.fc1", seen, inner_seen) | draw.linear(f"{name}.mlp.fc2", inner_seen, seen)
    for layer in range(sizes.text_layers):
        name = f"{text}.encoder.layer.{layer}"
        for part, inside in (("attention", read), ("crossattention", seen)):
            weights |= draw.linear(f"{name}.{part}.self.query", read, read)
            weights |= draw.linear(f"{name}.{part}.self.key", inside, read)
            weights |= draw.linear(f"{name}.{part}.self.value", inside, read)
            weights |= draw.linear(f"{name}.{part}.output.dense", read, read)
            weights |= draw.norm(f"{name}.{part}.output.LayerNorm", read)
        weights |= draw.linear(f"{name}.intermediate.dense", read, inner_read)
        weights |= draw.linear(f"{name}.output.dense", inner_read, read) | draw.norm(f"{name}.output.LayerNorm", read)
    for index, inputs, outputs in zip("02467", (read, *MLP[:-1]), MLP, strict=True):
        weights |= draw.linear(f"mlp.layers.{index}", inputs, outputs)
    return {name: tensor if tensor.dtype == torch.int64 else tensor.to(sizes.dtype) for name, tensor in weights.items()}
