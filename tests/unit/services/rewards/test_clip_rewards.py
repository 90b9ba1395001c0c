"""PickScore and CLIP on a tiny checkpoint in the public layout, against the same numbers computed in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import plain
from support.images import PROMPTS, SPECIAL, odd_pictures, picture
from support.tiny.clip import HEADS, LAYERS, write_clip
from transformers import CLIPImageProcessor

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, InvalidImageError
from drpo_rewards.rewards.base import Reward, ScoreItem
from drpo_rewards.rewards.checks import describe
from drpo_rewards.rewards.shared.preprocess import clip_pixels, crop_square, crop_squares

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pickscore(folder: Path) -> Reward:
    return rewards.load("pickscore", model=str(folder), device="cpu", dtype="float32")


def cosine(folder: Path, image: np.ndarray, prompt: str) -> float:
    weights = plain.read(folder / "model.safetensors")
    ids = plain.clip_ids(folder, prompt.replace("<|endoftext|>", "< |endoftext|>"))
    text = plain.unit(plain.clip_text(weights, ids, HEADS, LAYERS))
    seen = plain.unit(plain.clip_image(weights, plain.cropped(image, rounding=False), HEADS, LAYERS))
    return float(text @ seen)


ITEMS = [ScoreItem(image, PROMPTS[index % len(PROMPTS)]) for index, image in enumerate(odd_pictures())]


def test_pickscore_is_the_scaled_cosine(pickscore: Reward, folder: Path) -> None:
    scores = [score.value for score in pickscore.score(ITEMS)]
    scale = float(np.exp(np.float32(4.6052)))
    assert scores == pytest.approx([scale * cosine(folder, item.image, item.prompt) for item in ITEMS], abs=1e-4)
    assert [score / scale for score in scores] == pytest.approx(
        [cosine(folder, item.image, item.prompt) for item in ITEMS], abs=1e-6
    )


def test_clip_is_the_cosine(folder: Path) -> None:
    clip = rewards.load("clip", model=str(folder), device="cpu")
    scores = [score.value for score in clip.score(ITEMS)]
    assert scores == pytest.approx([cosine(folder, item.image, item.prompt) for item in ITEMS], abs=1e-6)
    assert describe("clip", clip).range == (-1, 1)


def test_a_score_does_not_depend_on_the_batch(pickscore: Reward) -> None:
    together = [score.value for score in pickscore.score(ITEMS)]
    assert together == pytest.approx([pickscore.score([item])[0].value for item in ITEMS], abs=1e-4)  # of about 20


def test_pixels_match_the_models_preprocessor(folder: Path) -> None:
    """Its file has the oldest format: a plain `size: 224` and no type of processor."""
    images = odd_pictures()
    processor = CLIPImageProcessor.from_pretrained(folder)
    expected = torch.cat([processor(images=image, return_tensors="pt")["pixel_values"] for image in images])
    torch.testing.assert_close(
        clip_pixels(crop_squares(images, 224, "floor"), CPU, torch.float32), expected, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("width", [301, 302, 303, 304, 305, 306])
@pytest.mark.parametrize("rounding", [False, True])
def test_the_crop_of_an_odd_surplus(width: int, rounding: bool) -> None:
    image = picture(width, 224, seed=width)
    crop = crop_square(image, 224, "round" if rounding else "floor")
    colours = crop.transpose(2, 0, 1) / 255
    expected = plain.cropped(image, rounding=rounding)
    np.testing.assert_allclose((colours - plain.CLIP_MEAN[:, None, None]) / plain.CLIP_STD[:, None, None], expected)


def test_the_two_crops_differ_if_the_surplus_modulo_4_is_3() -> None:
    same = [
        np.array_equal(*(crop_square(picture(width, 224), 224, crop) for crop in ("floor", "round")))
        for width in (224, 225, 226, 227, 228, 229, 230, 231)
    ]
    assert same == [True, True, True, False, True, True, True, False]


def test_a_prompt_cannot_end_the_text_early(pickscore: Reward) -> None:
    image = odd_pictures()[0]
    early, whole = pickscore.score([ScoreItem(image, SPECIAL.split("<|endoftext|>")[0]), ScoreItem(image, SPECIAL)])
    assert early.value != pytest.approx(whole.value, abs=1e-3)


def test_an_extreme_aspect_ratio_is_refused(pickscore: Reward) -> None:
    with pytest.raises(InvalidImageError, match="2000x8"):
        pickscore.score([ScoreItem(np.zeros((8, 2000, 3), np.uint8), "a line")])


def test_its_attributes(pickscore: Reward, folder: Path) -> None:
    assert pickscore.version == f"pickscore-1/{folder.name}/float32"


@pytest.mark.parametrize(("options", "reason"), [({"device": "abacus"}, "device"), ({"dtype": "int3"}, "dtype")])
def test_invalid_options_are_refused(folder: Path, options: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        rewards.load("pickscore", model=str(folder), **options)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_similar_scores(folder: Path, pickscore: Reward, dtype: str) -> None:
    half = rewards.load("pickscore", model=str(folder), device="cpu", dtype=dtype)
    near = [score.value for score in pickscore.score(ITEMS)]
    assert [score.value for score in half.score(ITEMS)] == pytest.approx(near, abs=2.0)  # of +-100
