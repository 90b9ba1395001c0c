"""Preparation of pictures and text for the Qwen-VL models, without their processors, which need torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil

from drpo_rewards.rewards.files.weights import load_tokenizer
from drpo_rewards.rewards.shared.preprocess import check_aspect

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"  # stands for one picture in a text

_PAD = "<|image_pad|>"


def qwen_tokenizer(model: str | Path) -> Any:
    """Load the tokenizer in a folder. Raises WeightsError if it cannot be read."""
    return load_tokenizer(AutoTokenizer, model, "tokenizer.json", "vocab.json")


def encode_images(processor: Qwen2VLImageProcessorPil, images: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Make the network's picture inputs.

    They are `pixel_values`, (patches of all pictures, pixels of a patch), and `image_grid_thw`, (pictures, 3).
    """
    for image in images:
        check_aspect(image)
    return dict(processor(images=list(images), return_tensors="pt", input_data_format="channels_last"))


def encode_texts(
    tokenizer: Any, texts: Sequence[str], image_grid_thw: Tensor, merge_size: int, padding_side: str
) -> dict[str, Tensor]:
    """Make the network's text inputs `input_ids`, `attention_mask` and `mm_token_type_ids`, each (texts, T).

    Each IMAGE in the texts stands for the next picture of `image_grid_thw`. Its placeholder is repeated, so that there
    is one for every token that the model has for that picture.
    """
    counts = iter((image_grid_thw.prod(dim=-1) // merge_size**2).tolist())
    expanded = []
    for text in texts:
        head, *tails = text.split(_PAD)
        expanded.append(head + "".join(_PAD * next(counts) + tail for tail in tails))
    if next(counts, None) is not None:
        raise ValueError("there are more pictures than placeholders in the texts")
    tokens = dict(tokenizer(expanded, padding=True, padding_side=padding_side, return_tensors="pt"))
    pad = tokenizer.convert_tokens_to_ids(_PAD)
    types_NT = (tokens["input_ids"] == pad).to(torch.int32)  # 1 for the tokens of pictures
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "mm_token_type_ids": types_NT,
    }
