"""HPSv3 on a tiny checkpoint in the public layout, against the same number computed in plain numpy."""

from __future__ import annotations

import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import plain
from support.images import SPECIAL, picture
from support.plain import merge_order, rms_norm, rotated
from support.tiny.hpsv3 import HEADS, KV_HEADS, LAYERS, PATCH, SECTIONS, TEXT, VISION, VISION_HEADS, write_hpsv3
from support.tiny.qwen_tokenizer import TOKEN

from drpo_rewards import rewards
from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import Reward, ScoreItem
from drpo_rewards.rewards.hpsv3 import HPSv3
from drpo_rewards.rewards.shared.qwen_vl import encode_images

pytestmark = pytest.mark.thorough

REWARD_ID = 256 + len(TOKEN)
INSTRUCTION = (Path(rewards.__file__).parent / "hpsv3_instruction.txt").read_text()

ITEMS = [
    ScoreItem(picture(224, 224, seed=1), "a red circle"),
    ScoreItem(picture(301, 203, seed=2), SPECIAL),
    ScoreItem(picture(97, 260, "L", seed=3), "Two {cats} {text_prompt}, left of ein Bär & 猫. " * 3),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hpsv3(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture(scope="module")
def hpsv3(folder: Path) -> Reward:
    return rewards.load("hpsv3", model=str(folder), device="cpu")


def resized(image: np.ndarray) -> plain.Array:
    """Scale to sides that are multiples of 28, about 448 x 448 pixels in total: (3, H, W) in CLIP's colours."""
    height, width = image.shape[:2]
    high, wide = round(height / 28) * 28, round(width / 28) * 28
    if high * wide != 448 * 448:
        scale = 448 / math.sqrt(height * width)
        turn = math.floor if high * wide > 448 * 448 else math.ceil
        high, wide = turn(height * scale / 28) * 28, turn(width * scale / 28) * 28
    scaled = np.asarray(Image.fromarray(image).resize((wide, high), Image.BICUBIC)) / 255
    return ((scaled - plain.CLIP_MEAN) / plain.CLIP_STD).transpose(2, 0, 1)


def see(weights: plain.Weights, image: np.ndarray) -> plain.Array:
    """Compute a picture's tokens, (tokens, TEXT)."""
    pixels = resized(image)
    places = merge_order(pixels.shape[1] // PATCH, pixels.shape[2] // PATCH)
    kernel = weights["visual.patch_embed.proj.weight"].reshape(VISION, -1)
    cut = [pixels[:, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH] for y, x in places]
    x = (
        np.stack([np.stack([patch, patch], axis=1).reshape(-1) for patch in cut]) @ kernel.T
    )  # the picture twice in time
    width = VISION // VISION_HEADS
    frequencies = 10000.0 ** -(np.arange(0, width // 2, 2) / (width // 2))
    angles = np.concatenate([np.outer([p[axis] for p in places], frequencies) for axis in (0, 1)], axis=1)
    for layer in range(LAYERS):
        name = f"visual.blocks.{layer}"
        h = plain.linear(weights, f"{name}.attn.qkv", plain.layer_norm(weights, f"{name}.norm1", x, 1e-6))
        q, k, v = np.split(h, 3, axis=1)
        q, k = (
            np.concatenate([rotated(part, angles) for part in np.split(both, VISION_HEADS, axis=1)], axis=1)
            for both in (q, k)
        )
        x = x + plain.linear(weights, f"{name}.attn.proj", plain.attention(q, k, v, VISION_HEADS))
        h = plain.linear(weights, f"{name}.mlp.fc1", plain.layer_norm(weights, f"{name}.norm2", x, 1e-6))
        x = x + plain.linear(weights, f"{name}.mlp.fc2", plain.quick_gelu(h))
    x = plain.layer_norm(weights, "visual.merger.ln_q", x, 1e-6).reshape(-1, 4 * VISION)
    return plain.linear(weights, "visual.merger.mlp.2", plain.gelu(plain.linear(weights, "visual.merger.mlp.0", x)))


def token_ids(prompt: str, image_tokens: int) -> list[int]:
    """Tokenize the whole conversation. The tiny tokenizer has one token per byte."""
    for special in (*TOKEN, "<|Reward|>"):
        prompt = prompt.replace(special, "< " + special[1:])

    def words(text: str) -> list[int]:
        return list(unicodedata.normalize("NFC", text).encode())

    head, tail = INSTRUCTION.split("{text_prompt}")
    return [
        TOKEN["<|im_start|>"],
        *words("system\nYou are a helpful assistant."),
        TOKEN["<|im_end|>"],
        *words("\n"),
        TOKEN["<|im_start|>"],
        *words("user\n"),
        TOKEN["<|vision_start|>"],
        *[TOKEN["<|image_pad|>"]] * image_tokens,
        TOKEN["<|vision_end|>"],
        *words(head + prompt + tail + "\nPlease provide the overall ratings of this image: "),
        REWARD_ID,
        *words("\n\nEND\n"),
        TOKEN["<|im_end|>"],
        *words("\n"),
        TOKEN["<|im_start|>"],
        *words("assistant\n"),
    ]


def mrope(ids: list[int], grid: tuple[int, int]) -> plain.Array:
    """Compute Qwen2-VL's three-dimensional positions, (3, T), with which HPSv3 was not trained."""
    start = ids.index(TOKEN["<|image_pad|>"])
    rows, columns = grid
    after = start + max(rows, columns) + np.arange(len(ids) - start - rows * columns)
    seen = [np.full(rows * columns, start), start + np.repeat(np.arange(rows), columns)]
    seen.append(start + np.tile(np.arange(columns), rows))
    return np.stack([np.concatenate([np.arange(start), axis, after]) for axis in seen])


def plain_score(folder: Path, item: ScoreItem, *, three_dimensional: bool = False) -> float:
    file = load_file(folder / "HPSv3.safetensors")
    weights = {name: tensor.double().numpy() for name, tensor in file.items()}
    seen = see(weights, item.image)
    ids = token_ids(item.prompt, len(seen))
    x = weights["model.embed_tokens.weight"][ids]
    x[[index for index, token in enumerate(ids) if token == TOKEN["<|image_pad|>"]]] = seen
    grid = resized(item.image).shape
    positions = np.tile(np.arange(len(ids)), (3, 1))
    if three_dimensional:
        positions = mrope(ids, (grid[1] // 28, grid[2] // 28))
    width = TEXT // HEADS
    frequencies = 1e6 ** -(np.arange(0, width, 2) / width)
    axis_of = np.repeat(np.arange(3), SECTIONS)
    angles = positions[axis_of].T * frequencies
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        h = rms_norm(weights, f"{name}.input_layernorm", x)
        q, k, v = (plain.linear(weights, f"{name}.self_attn.{part}_proj", h) for part in "qkv")
        q = np.concatenate([rotated(part, angles) for part in np.split(q, HEADS, axis=1)], axis=1)
        k = np.concatenate([rotated(part, angles) for part in np.split(k, KV_HEADS, axis=1)], axis=1)
        k, v = (np.repeat(part, HEADS // KV_HEADS, axis=0).reshape(len(ids), -1) for part in (k, v))
        x = x + plain.linear(weights, f"{name}.self_attn.o_proj", plain.attention(q, k, v, HEADS, causal=True))
        h = rms_norm(weights, f"{name}.post_attention_layernorm", x)
        gate = plain.linear(weights, f"{name}.mlp.gate_proj", h)
        h = gate / (1 + np.exp(-gate)) * plain.linear(weights, f"{name}.mlp.up_proj", h)
        x = x + plain.linear(weights, f"{name}.mlp.down_proj", h)
    h = rms_norm(weights, "model.norm", x)[ids.index(REWARD_ID)]
    h = np.maximum(plain.linear(weights, "rm_head.0", h), 0)
    h = np.maximum(plain.linear(weights, "rm_head.3", h), 0)
    return float(plain.linear(weights, "rm_head.5", h)[0])


def test_the_score_is_the_heads_mean_at_the_reward_token(hpsv3: Reward, folder: Path) -> None:
    expected = [plain_score(folder, item) for item in ITEMS]
    assert [score.value for score in hpsv3.score(ITEMS)] == pytest.approx(expected, abs=1e-5)
    assert [hpsv3.score([item])[0].value for item in ITEMS] == pytest.approx(expected, abs=1e-5)


def test_three_dimensional_positions_score_differently(hpsv3: Reward, folder: Path) -> None:
    wrong = plain_score(folder, ITEMS[0], three_dimensional=True)
    assert abs(hpsv3.score(ITEMS[:1])[0].value - wrong) > 1e-3


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (301, 203), (97, 260), (16, 11), (1030, 640)])
def test_pixels(hpsv3: HPSv3, size: tuple[int, int]) -> None:
    image = picture(*size, seed=size[0])
    pixels = resized(image)
    expected = [
        np.repeat(pixels[:, None, y * 14 : y * 14 + 14, x * 14 : x * 14 + 14], 2, axis=1).reshape(-1)
        for y, x in merge_order(pixels.shape[1] // 14, pixels.shape[2] // 14)
    ]
    encoded = encode_images(hpsv3.processor, [image])
    np.testing.assert_allclose(encoded["pixel_values"].numpy(), np.stack(expected), rtol=0, atol=1e-6)
    if size == (512, 512):
        assert encoded["image_grid_thw"].tolist() == [[1, 32, 32]]


def test_the_second_output_is_in_the_details(hpsv3: Reward) -> None:
    details = hpsv3.score(ITEMS[:1])[0].details
    assert details is not None
    assert math.isfinite(details["log_sigma"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda keys: keys.pop("rm_head.5.bias"), r"1 missing \(5\.bias"),
        (lambda keys: keys.pop("visual.merger.ln_q.bias"), "1 missing"),
        (lambda keys: keys.update({"model.layers.0.lora_A.weight": torch.zeros(1)}), "1 unexpected"),
        (lambda keys: keys.pop("model.embed_tokens.weight"), "not HPSv3"),
        (lambda keys: keys.update({"model.embed_tokens.weight": torch.zeros(300, TEXT)}), "300 tokens"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: object, reason: str) -> None:
    file = write_hpsv3(tmp_path) / "HPSv3.safetensors"
    keys = load_file(file)
    change(keys)  # type: ignore[operator]
    save_file(keys, file)
    with pytest.raises(WeightsError, match=reason) as caught:
        rewards.load("hpsv3", model=str(tmp_path), device="cpu")
    assert "HPSv3.safetensors" in str(caught.value)


def test_a_folder_with_the_weights_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "HPSv3.safetensors").symlink_to(folder / "HPSv3.safetensors")
    apart = rewards.load("hpsv3", model=str(tmp_path), base=str(folder), device="cpu")
    assert apart.version == f"hpsv3-1/{tmp_path.name}/float32"
