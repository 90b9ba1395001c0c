"""Preparation of pictures and text for the Qwen-VL models, without their processors, which need torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from drpo_rewards.rewards.files.weights import load_tokenizer
from drpo_rewards.rewards.shared.preprocess import check_aspect, normalize, scale_pixels

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


def encode_pixels(processor: Qwen2VLImageProcessorPil, pixels_N3HW: Tensor) -> dict[str, Tensor]:
    """Make the inputs of `encode_images` from N images of one size in 0..1, differentiably and on their device."""
    patch, merge, repeats = processor.patch_size, processor.merge_size, processor.temporal_patch_size
    size: Any = processor.size
    old_height, old_width = pixels_N3HW.shape[2:]
    height, width = smart_resize(
        old_height, old_width, patch * merge, min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"]
    )
    pixels_N3HW = normalize(scale_pixels(pixels_N3HW, height, width))
    rows, columns = height // patch, width // patch
    blocks = pixels_N3HW.unflatten(3, (columns // merge, merge, patch)).unflatten(2, (rows // merge, merge, patch))
    # The order of patches is that of blocks of merge x merge patches, and a still picture repeats itself in time.
    ordered = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).expand(*[-1] * 6, repeats, -1, -1)
    count = len(pixels_N3HW)
    return {
        "pixel_values": ordered.reshape(count * rows * columns, -1),
        "image_grid_thw": torch.tensor([[1, rows, columns]] * count, device=pixels_N3HW.device),
    }


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
