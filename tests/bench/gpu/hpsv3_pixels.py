"""HPSv3 as a differentiable function of pixels, as DRaFT needs it. The reward itself takes uint8 pictures.

Axes: N pictures, (H, W) pixels of a picture, L patches of all pictures, D numbers of a patch, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from drpo_rewards.rewards.hpsv3 import PIXELS, HPSv3
from drpo_rewards.rewards.shared.qwen_vl import encode_texts


def score_pixels(reward: HPSv3, images_N3HW: Tensor, prompt: str) -> Tensor:
    """The scores (N,) of pictures in [-1, 1], which one prompt describes; differentiable in the pictures."""
    network: Any = reward.network
    patches_LD, grids_N3 = to_patches(reward, images_N3HW)
    count = len(images_N3HW)
    texts = encode_texts(
        reward.tokenizer,
        [reward.conversation(prompt)] * count,
        grids_N3,
        reward.processor.merge_size,
        padding_side="right",
    )
    device = images_N3HW.device
    at_reward_N = (texts["input_ids"] == reward.reward_id).int().argmax(dim=1).to(device)
    inputs = {name: tensor.to(device) for name, tensor in texts.items()}
    length = inputs["input_ids"].shape[1]
    positions_3NT = torch.arange(length, device=device).expand(3, count, length)
    hidden_NTD = network(
        **inputs,
        pixel_values=patches_LD,
        image_grid_thw=grids_N3.to(device),
        position_ids=positions_3NT,
        use_cache=False,
    ).last_hidden_state
    rows_N = torch.arange(count, device=device)
    return reward.head(hidden_NTD[rows_N, at_reward_N].float())[:, 0]


def to_patches(reward: HPSv3, images_N3HW: Tensor) -> tuple[Tensor, Tensor]:
    """The network's patches (L, D), and the grid (N, 3) of each picture, as the reward's image processor makes them."""
    processor = reward.processor
    patch, merge, frames = processor.patch_size, processor.merge_size, processor.temporal_patch_size
    count, channels, height, width = images_N3HW.shape
    height, width = smart_resize(height, width, patch * merge, PIXELS, PIXELS)
    pixels_N3HW = (images_N3HW.float() * 0.5 + 0.5).clamp(0, 1)
    pixels_N3HW = F.interpolate(pixels_N3HW, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (
        pixels_N3HW.new_tensor(numbers)[:, None, None] for numbers in (processor.image_mean, processor.image_std)
    )
    rows, columns = height // patch, width // patch
    split = ((pixels_N3HW - mean) / std).reshape(
        count, channels, rows // merge, merge, patch, columns // merge, merge, patch
    )
    # The patches of a square of merge x merge follow each other; a still picture is repeated for each frame.
    ordered = split.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
    patches_LD = ordered.reshape(count * rows * columns, channels * frames * patch**2)
    return patches_LD, torch.tensor([[1, rows, columns]] * count)
