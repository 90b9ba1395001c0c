"""The differentiable door of every reward that has one: the score of `score`, and a gradient that predicts changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.images import picture
from support.tiny.aesthetic import write_aesthetic
from support.tiny.clip import write_clip
from support.tiny.hpsv2 import write_hpsv2
from support.tiny.hpsv3 import write_hpsv3
from support.tiny.image_reward import write_image_reward
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2VLImageProcessorPil

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.shared.preprocess import crop_pixels, crop_square
from drpo_rewards.rewards.shared.qwen_vl import encode_images, encode_pixels

WRITERS: dict[str, Callable[[Path], Any]] = {
    "aesthetic": write_aesthetic,
    "clip": write_clip,
    "hpsv2": write_hpsv2,
    "hpsv3": write_hpsv3,
    "image_reward": write_image_reward,
    "pickscore": write_clip,
}
PROMPTS = ["a red cat", "a dog &amp; <|endoftext|> two cats"]


@pytest.fixture(scope="module", params=WRITERS)
def reward(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder)
    options = {"model": str(folder), "device": "cpu", "dtype": "float32"}
    return request.param, rewards.load_differentiable(request.param, options)


def side_of(reward: Any) -> int:
    """A side at which the reward does not scale a picture."""
    if hasattr(reward, "clip"):
        return reward.clip.side
    return reward.network.side if hasattr(reward.network, "side") else 448


def tensors(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def test_the_score_is_that_of_a_service(reward: tuple[str, Any]) -> None:
    name, model = reward
    images = [picture(side_of(model), side_of(model), seed=seed) for seed in range(2)]
    expected = [
        score.value
        for score in model.score([ScoreItem(image, text) for image, text in zip(images, PROMPTS, strict=True)])
    ]
    scores_N = model.score_differentiably(tensors(images), PROMPTS)
    assert scores_N.dtype == torch.float32
    assert scores_N.tolist() == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]) > 1e-4, name


def test_a_picture_of_another_size_is_scaled_as_for_a_service(reward: tuple[str, Any]) -> None:
    """The libraries' bicubic filters differ by rounding to bytes only, so the scores nearly agree."""
    _, model = reward
    smooth_13HW = functional.interpolate(tensors([picture(9, 8, seed=4)]), (300, 270), mode="bicubic").clamp(0, 1)
    image = (smooth_13HW[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    expected = model.score([ScoreItem(image, PROMPTS[0])])[0].value
    score = model.score_differentiably(tensors([image]), PROMPTS[:1]).item()
    assert score == pytest.approx(expected, abs=0.02 * max(1.0, abs(expected)))


def test_the_gradient_predicts_a_small_change(reward: tuple[str, Any]) -> None:
    _, model = reward
    images_N3HW = tensors([picture(40, 48, seed=seed) for seed in range(2)]) * 0.6 + 0.2
    images_N3HW.requires_grad_()
    scores_N = model.score_differentiably(images_N3HW, PROMPTS)
    (gradient_N3HW,) = torch.autograd.grad(scores_N.sum(), images_N3HW)
    norms_N = gradient_N3HW.flatten(1).norm(dim=1)
    assert (norms_N > 0).all()
    step_N3HW = 0.05 * gradient_N3HW / norms_N[:, None, None, None]
    with torch.no_grad():
        up_N, down_N = (
            model.score_differentiably(images_N3HW + sign * step_N3HW, PROMPTS).double() for sign in (1, -1)
        )
    torch.testing.assert_close((up_N - down_N) / 0.1, norms_N.double(), rtol=0.05, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (90, 50)])
@pytest.mark.parametrize("crop", ["floor", "round"])
def test_crops_are_those_of_pictures(size: tuple[int, int], crop: Any) -> None:
    image = picture(*size, seed=1)
    expected = torch.from_numpy(crop_square(image, 32, crop).copy()).permute(2, 0, 1).float() / 255
    assert (crop_pixels(tensors([image]), 32, crop)[0] - expected).abs().max() < 0.02


def test_patches_are_those_of_the_processor() -> None:
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 84 * 84, "longest_edge": 84 * 84})
    images = [picture(84, 84, seed=seed) for seed in range(2)]
    expected, actual = encode_images(processor, images), encode_pixels(processor, tensors(images))
    torch.testing.assert_close(actual["pixel_values"], torch.as_tensor(expected["pixel_values"]), atol=1e-5, rtol=0)
    assert actual["image_grid_thw"].tolist() == torch.as_tensor(expected["image_grid_thw"]).tolist()


@pytest.mark.parametrize("name", ["geneval", "judge"])
def test_a_reward_without_a_gradient_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}.*has no gradient.*Choose one of aesthetic, clip, hpsv2, hpsv3"):
        rewards.load_differentiable(name, {})
