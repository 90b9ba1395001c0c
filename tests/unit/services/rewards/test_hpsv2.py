"""HPSv2 on a tiny checkpoint in open_clip's layout, against the same number computed in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import plain
from support.images import PROMPTS, odd_pictures, picture
from support.tiny.hpsv2 import HEADS, LAYERS, hpsv2_weights, write_hpsv2

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, WeightsError
from drpo_rewards.rewards.base import Reward, ScoreItem
from drpo_rewards.rewards.shared.preprocess import pad_square

pytestmark = pytest.mark.thorough

ITEMS = [ScoreItem(image, PROMPTS[index % len(PROMPTS)]) for index, image in enumerate(odd_pictures())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_hpsv2(tmp_path_factory.mktemp("hpsv2"))
    return write_hpsv2(folder, file="HPS_v2_compressed.pt", seed=1)


@pytest.fixture(scope="module")
def hpsv2(folder: Path) -> Reward:
    return rewards.load("hpsv2", model=str(folder), device="cpu")


def padded(image: np.ndarray, side: int = 224) -> plain.Array:
    """Scale with PIL's antialiased bicubic on floating-point channels, and pad with black: (3, side, side) in 0..1."""
    height, width = image.shape[:2]
    new = round(width * side / max(width, height)), round(height * side / max(width, height))
    canvas = np.zeros((3, side, side))
    x, y = (side - new[0]) // 2, (side - new[1]) // 2
    for channel in range(3):
        plane = Image.fromarray((image[..., channel] / 255).astype(np.float32), mode="F")
        canvas[channel, y : y + new[1], x : x + new[0]] = np.asarray(plane.resize(new, Image.BICUBIC))
    return canvas


def normalized(pixels_3SS: plain.Array) -> plain.Array:
    return (pixels_3SS - plain.CLIP_MEAN[:, None, None]) / plain.CLIP_STD[:, None, None]


def open_clip_layers(weights: plain.Weights, tower: str, x: plain.Array, *, causal: bool) -> plain.Array:
    for layer in range(LAYERS):
        name = f"{tower}transformer.resblocks.{layer}"
        h = plain.layer_norm(weights, f"{name}.ln_1", x, 1e-5)
        q, k, v = np.split(h @ weights[f"{name}.attn.in_proj_weight"].T + weights[f"{name}.attn.in_proj_bias"], 3, 1)
        x = x + plain.linear(weights, f"{name}.attn.out_proj", plain.attention(q, k, v, HEADS, causal=causal))
        h = plain.gelu(plain.linear(weights, f"{name}.mlp.c_fc", plain.layer_norm(weights, f"{name}.ln_2", x, 1e-5)))
        x = x + plain.linear(weights, f"{name}.mlp.c_proj", h)
    return x


def cosine(folder: Path, pixels_3SS: plain.Array, prompt: str, file: str = "HPS_v2.1_compressed.pt") -> float:
    state = torch.load(folder / file, weights_only=True)["state_dict"]
    weights = {name: tensor.double().numpy() for name, tensor in state.items()}
    x = plain.patches(pixels_3SS, weights["visual.conv1.weight"])
    x = np.concatenate([weights["visual.class_embedding"][None], x]) + weights["visual.positional_embedding"]
    x = open_clip_layers(weights, "visual.", plain.layer_norm(weights, "visual.ln_pre", x, 1e-5), causal=False)
    image = plain.layer_norm(weights, "visual.ln_post", x[0], 1e-5) @ weights["visual.proj"]
    ids = plain.clip_ids(folder, prompt.replace("<|endoftext|>", "< |endoftext|>"))
    x = weights["token_embedding.weight"][ids] + weights["positional_embedding"][: len(ids)]
    x = plain.layer_norm(weights, "ln_final", open_clip_layers(weights, "", x, causal=True), 1e-5)
    return float(plain.unit(image) @ plain.unit(x[-1] @ weights["text_projection"]))


def test_the_score_is_the_cosine_of_the_padded_picture(hpsv2: Reward, folder: Path) -> None:
    expected = [cosine(folder, normalized(padded(item.image)), item.prompt) for item in ITEMS]
    assert [score.value for score in hpsv2.score(ITEMS)] == pytest.approx(expected, abs=1e-5)
    assert [hpsv2.score([item])[0].value for item in ITEMS] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("image", [*odd_pictures(), picture(224, 100), picture(8, 640)], ids=lambda i: str(i.shape))
def test_pixels(image: np.ndarray) -> None:
    np.testing.assert_allclose(pad_square(image, 224).numpy(), padded(image), rtol=0, atol=1e-6)


def test_a_centre_crop_or_padding_after_normalization_scores_differently(hpsv2: Reward, folder: Path) -> None:
    item = ScoreItem(picture(300, 200, seed=11), "a red circle")
    right = hpsv2.score([item])[0].value
    cropped = cosine(folder, plain.cropped(item.image, rounding=False), item.prompt)
    grey = normalized(padded(item.image))
    grey[:, :37], grey[:, -37:] = 0, 0  # 224 x 149 of it are picture
    assert abs(right - cropped) > 1e-3
    assert abs(right - cosine(folder, grey, item.prompt)) > 1e-3


def test_both_releases(hpsv2: Reward, folder: Path) -> None:
    old = rewards.load("hpsv2", model=str(folder), device="cpu", version=2.0)
    pixels = normalized(padded(ITEMS[0].image))
    assert old.score(ITEMS[:1])[0].value == pytest.approx(
        cosine(folder, pixels, ITEMS[0].prompt, "HPS_v2_compressed.pt"), abs=1e-5
    )
    assert (hpsv2.version, old.version) == tuple(f"hpsv{v}-1/{folder.name}/float32" for v in ("2.1", "2.0"))
    with pytest.raises(ConfigError, match="version is '3'"):
        rewards.load("hpsv2", model=str(folder), version="3")


def test_html_in_prompts_is_unescaped_as_in_open_clip(hpsv2: Reward) -> None:
    image = ITEMS[0].image
    scores = hpsv2.score([ScoreItem(image, "cat & dog"), ScoreItem(image, "cat &amp;amp; dog")])
    assert scores[0].value == pytest.approx(scores[1].value, abs=1e-6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (hpsv2_weights(600), "no dict 'state_dict'"),  # not wrapped: a bare CLIP
        ({"state_dict": {}}, "does not hold an open_clip model"),
        ({"state_dict": {k: v for k, v in hpsv2_weights(600).items() if "ln_post" not in k}}, "2 missing"),
        ({"state_dict": hpsv2_weights(600) | {"score_head.weight": torch.zeros(1)}}, "1 unexpected"),
        ({"state_dict": hpsv2_weights(600) | {"ln_final.weight": torch.zeros(3)}}, "1 of another shape"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: dict[str, object], reason: str) -> None:
    torch.save(content, tmp_path / "HPS_v2.1_compressed.pt")
    with pytest.raises(WeightsError, match=reason) as caught:
        rewards.load("hpsv2", model=str(tmp_path), device="cpu")
    assert "HPS_v2.1_compressed.pt" in str(caught.value)
