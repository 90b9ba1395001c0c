"""ImageReward on a tiny checkpoint in the public layout, against the same number computed in plain numpy."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from support import plain
from support.images import PROMPTS, odd_pictures, picture
from support.tiny.image_reward import TEXT_HEADS, TEXT_LAYERS, VISION_HEADS, VISION_LAYERS, write_image_reward

from drpo_rewards import rewards
from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import Reward, ScoreItem

pytestmark = pytest.mark.thorough

ITEMS = [ScoreItem(image, PROMPTS[index % len(PROMPTS)]) for index, image in enumerate(odd_pictures())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_reward(tmp_path_factory.mktemp("image_reward"))


@pytest.fixture(scope="module")
def image_reward(folder: Path) -> Reward:
    return rewards.load("image_reward", model=str(folder), device="cpu")


def word_pieces(folder: Path, text: str) -> list[int]:
    """Split a text without special tokens into BERT's tokens, greedily, the longest first."""
    words = (folder / "vocab.txt").read_text().splitlines()
    ids = [words.index("[CLS]")]
    text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text):
        pieces, start = [], 0
        while start < len(word):
            ends = (end for end in range(len(word), start, -1) if ("##" if start else "") + word[start:end] in words)
            end = next(ends, None)
            if end is None:
                pieces = [words.index("[UNK]")]
                break
            pieces.append(words.index(("##" if start else "") + word[start:end]))
            start = end
        ids += pieces
    return [*ids[:34], words.index("[SEP]")]


def plain_score(folder: Path, item: ScoreItem, *, rounding: bool = True) -> float:
    state = torch.load(folder / "ImageReward.pt", weights_only=True)
    weights = {name: tensor.double().numpy() for name, tensor in state.items()}
    see, read = "blip.visual_encoder", "blip.text_encoder"
    x = plain.patches(plain.cropped(item.image, rounding=rounding), weights[f"{see}.patch_embed.proj.weight"])
    x = np.concatenate([weights[f"{see}.cls_token"][0], x + weights[f"{see}.patch_embed.proj.bias"]])
    x = x + weights[f"{see}.pos_embed"][0]
    for layer in range(VISION_LAYERS):
        name = f"{see}.blocks.{layer}"
        h = plain.linear(weights, f"{name}.attn.qkv", plain.layer_norm(weights, f"{name}.norm1", x, 1e-6))
        x = x + plain.linear(weights, f"{name}.attn.proj", plain.attention(*np.split(h, 3, 1), VISION_HEADS))
        h = plain.gelu(plain.linear(weights, f"{name}.mlp.fc1", plain.layer_norm(weights, f"{name}.norm2", x, 1e-6)))
        x = x + plain.linear(weights, f"{name}.mlp.fc2", h)
    seen = plain.layer_norm(weights, f"{see}.norm", x, 1e-6)

    ids = word_pieces(folder, item.prompt)
    t = weights[f"{read}.embeddings.word_embeddings.weight"][ids]
    t = t + weights[f"{read}.embeddings.position_embeddings.weight"][: len(ids)]
    t = plain.layer_norm(weights, f"{read}.embeddings.LayerNorm", t, 1e-12)
    for layer in range(TEXT_LAYERS):
        name = f"{read}.encoder.layer.{layer}"
        for part in ("attention", "crossattention"):
            source = t if part == "attention" else seen
            q = plain.linear(weights, f"{name}.{part}.self.query", t)
            k, v = (plain.linear(weights, f"{name}.{part}.self.{which}", source) for which in ("key", "value"))
            h = plain.linear(weights, f"{name}.{part}.output.dense", plain.attention(q, k, v, TEXT_HEADS))
            t = plain.layer_norm(weights, f"{name}.{part}.output.LayerNorm", t + h, 1e-12)
        h = plain.linear(
            weights, f"{name}.output.dense", plain.gelu(plain.linear(weights, f"{name}.intermediate.dense", t))
        )
        t = plain.layer_norm(weights, f"{name}.output.LayerNorm", t + h, 1e-12)
    h = t[0]
    for place in "02467":
        h = plain.linear(weights, f"mlp.layers.{place}", h)
    return float((h[0] - 0.16717362830052426) / 1.0333394966054072)


def broken(prompt: str) -> str:
    """Break BERT's special tokens in a prompt into ordinary words."""
    return prompt.replace("[SEP]", "[ SEP]")


def test_the_score_is_the_normalised_head_of_the_first_token(image_reward: Reward, folder: Path) -> None:
    expected = [plain_score(folder, ScoreItem(item.image, broken(item.prompt))) for item in ITEMS]
    assert [score.value for score in image_reward.score(ITEMS)] == pytest.approx(expected, abs=1e-5)
    assert [image_reward.score([item])[0].value for item in ITEMS] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("width", "same"), [(226, True), (227, False), (228, True), (231, False)])
def test_the_crop_rounds(image_reward: Reward, folder: Path, width: int, same: bool) -> None:
    """A crop that floors, as transformers' does, is a pixel off if (long side - 224) % 4 is 3."""
    item = ScoreItem(picture(width, 224, seed=width), "a red circle")
    score = image_reward.score([item])[0].value
    assert score == pytest.approx(plain_score(folder, item, rounding=True), abs=1e-5)
    assert (abs(score - plain_score(folder, item, rounding=False)) < 1e-4) == same


def test_a_prompt_cannot_contain_special_tokens(image_reward: Reward) -> None:
    image = ITEMS[0].image
    text, same = image_reward.score([ScoreItem(image, "a [SEP] cat"), ScoreItem(image, "a [ sep ] cat")])
    assert text.value == pytest.approx(same.value, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda keys: keys.pop("mlp.layers.7.bias"), r"1 missing \(head\.layers\.7\.bias"),
        (lambda keys: keys.update(reward_head=torch.zeros(1)), r"1 unexpected \(reward_head"),
        (lambda keys: keys.pop("blip.visual_encoder.pos_embed"), "are not ImageReward's"),
        (lambda keys: [keys.pop(k) for k in list(keys) if "crossattention" in k], "missing"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: object, reason: str) -> None:
    file = write_image_reward(tmp_path) / "ImageReward.pt"
    keys = torch.load(file, weights_only=True)
    change(keys)  # type: ignore[operator]
    torch.save(keys, file)
    with pytest.raises(WeightsError, match=reason) as caught:
        rewards.load("image_reward", model=str(tmp_path), device="cpu")
    assert str(file) in str(caught.value)


def test_the_configuration_file_is_needed(tmp_path: Path) -> None:
    (write_image_reward(tmp_path) / "med_config.json").unlink()
    with pytest.raises(WeightsError, match=r"no med_config\.json in the folder"):
        rewards.load("image_reward", model=str(tmp_path), device="cpu")
