"""A tiny random ImageReward in the public layout: a bare state dict, `med_config.json` and BERT's vocabulary."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from torch import Tensor

from support.tiny.random_weights import Draw

VISION, TEXT, VISION_LAYERS, TEXT_LAYERS, TEXT_HEADS, SIDE, PATCH = 128, 48, 2, 2, 4, 224, 56
VISION_HEADS = 2  # of 64 features each
MLP = (1024, 128, 64, 16, 1)
WORDS = ["a", "red", "circle", "two", "cat", "##s", "left", "of", "dog", "very", "long", "prompt", "##en"]


def vocabulary() -> list[str]:
    letters = [*string.ascii_lowercase, *string.digits, *(f"##{c}" for c in string.ascii_lowercase + string.digits)]
    punctuation = list(string.punctuation)
    return ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *punctuation, *letters, *WORDS[1:]]


def write_image_reward(folder: Path, seed: int = 0) -> Path:
    """Writes the model, its configuration and BERT's tokenizer to `folder` and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    words = list(dict.fromkeys(vocabulary()))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))
    (folder / "med_config.json").write_text(
        json.dumps(
            {
                "architectures": ["BertModel"],
                "attention_probs_dropout_prob": 0.1,
                "hidden_act": "gelu",
                "hidden_dropout_prob": 0.1,
                "hidden_size": TEXT,
                "initializer_range": 0.02,
                "intermediate_size": 2 * TEXT,
                "layer_norm_eps": 1e-12,
                "max_position_embeddings": 64,
                "model_type": "bert",
                "num_attention_heads": TEXT_HEADS,
                "num_hidden_layers": TEXT_LAYERS,
                "pad_token_id": 0,
                "type_vocab_size": 2,
                "vocab_size": len(words) + 2,
                "encoder_width": TEXT,  # wrong, as in the public file
                "add_cross_attention": True,
            }
        )
    )
    torch.save(_weights(len(words) + 2, seed), folder / "ImageReward.pt")
    return folder


def _weights(words: int, seed: int) -> dict[str, Tensor]:
    draw = Draw(seed)
    vision, text = "blip.visual_encoder", "blip.text_encoder"
    weights = {
        f"{vision}.cls_token": draw(1, 1, VISION, scale=1.0),
        f"{vision}.pos_embed": draw(1, (SIDE // PATCH) ** 2 + 1, VISION, scale=0.5),
        f"{vision}.patch_embed.proj.weight": draw(VISION, 3, PATCH, PATCH, scale=0.02),
        f"{vision}.patch_embed.proj.bias": draw(VISION, scale=0.1),
        **draw.norm(f"{vision}.norm", VISION),
        f"{text}.embeddings.position_ids": torch.arange(64)[None],
        f"{text}.embeddings.word_embeddings.weight": draw(words, TEXT, scale=1.0),
        f"{text}.embeddings.position_embeddings.weight": draw(64, TEXT, scale=0.5),
        **draw.norm(f"{text}.embeddings.LayerNorm", TEXT),
        **draw.linear("blip.vision_proj", VISION, 16),
        **draw.linear("blip.text_proj", TEXT, 16),
    }
    for layer in range(VISION_LAYERS):
        name = f"{vision}.blocks.{layer}"
        weights |= draw.norm(f"{name}.norm1", VISION) | draw.norm(f"{name}.norm2", VISION)
        weights |= draw.linear(f"{name}.attn.qkv", VISION, 3 * VISION) | draw.linear(
            f"{name}.attn.proj", VISION, VISION
        )
        weights |= draw.linear(f"{name}.mlp.fc1", VISION, 2 * VISION) | draw.linear(
            f"{name}.mlp.fc2", 2 * VISION, VISION
        )
    for layer in range(TEXT_LAYERS):
        name = f"{text}.encoder.layer.{layer}"
        for part, inside in (("attention", TEXT), ("crossattention", VISION)):
            weights |= draw.linear(f"{name}.{part}.self.query", TEXT, TEXT)
            weights |= draw.linear(f"{name}.{part}.self.key", inside, TEXT)
            weights |= draw.linear(f"{name}.{part}.self.value", inside, TEXT)
            weights |= draw.linear(f"{name}.{part}.output.dense", TEXT, TEXT)
            weights |= draw.norm(f"{name}.{part}.output.LayerNorm", TEXT)
        weights |= draw.linear(f"{name}.intermediate.dense", TEXT, 2 * TEXT)
        weights |= draw.linear(f"{name}.output.dense", 2 * TEXT, TEXT) | draw.norm(f"{name}.output.LayerNorm", TEXT)
    for index, inputs, outputs in zip("02467", (TEXT, *MLP[:-1]), MLP, strict=True):
        weights |= draw.linear(f"mlp.layers.{index}", inputs, outputs)
    return weights
