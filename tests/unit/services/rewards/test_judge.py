"""The judge on tiny Qwen3-VL checkpoints in both public layouts, against the same numbers computed in plain numpy."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import plain
from support.images import SPECIAL, picture
from support.plain import merge_order, rms_norm, rotated
from support.tiny.judge import write_judge
from support.tiny.qwen3_vl import (
    GRID,
    HEAD,
    HEADS,
    KV_HEADS,
    LAYERS,
    PATCH,
    THETA,
    VISION,
    VISION_HEADS,
    write_qwen3_vl,
)
from support.tiny.qwen_tokenizer import TOKEN

from drpo_rewards import rewards
from drpo_rewards.errors import WeightsError
from drpo_rewards.ranking.tournament import Tournament, seeding
from drpo_rewards.rewards.base import PairItem
from drpo_rewards.rewards.checks import check_comparisons, describe
from drpo_rewards.rewards.judge.qwen3_vl import Qwen3VLBackend
from drpo_rewards.rewards.judge.reward import Judge

pytestmark = pytest.mark.thorough

QUESTION = (Path(rewards.__file__).parent / "judge" / "prompt.txt").read_text().strip()
AXIS = [0, 1, 2, 0, 1, 2, 0, 0]  # time, height or width: whose position turns each of a head's 8 frequencies

PAIRS = [
    PairItem(picture(300, 300, seed=1), picture(256, 320, seed=2), "a red circle"),
    PairItem(picture(301, 203, seed=3), picture(97, 260, "L", seed=4), SPECIAL),
    PairItem(picture(40, 30, "RGBA", seed=5), picture(520, 310, seed=6), 'Two {prompt} """, ein Bär & 猫. ' * 20),
]


@pytest.fixture(scope="module", params=["tied", "sharded"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen3_vl(tmp_path_factory.mktemp(request.param), seed=3, sharded=request.param == "sharded")


@pytest.fixture(scope="module")
def opinionated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judge(tmp_path_factory.mktemp("opinionated"))


def resized(image: np.ndarray, most: int = 1024 * 1024) -> plain.Array:
    """Scale to sides that are multiples of 32, from 256 x 256 to `most` pixels in total: (3, H, W) in -1..1."""
    height, width = image.shape[:2]
    high, wide = round(height / 32) * 32, round(width / 32) * 32
    if high * wide > most:
        scale = math.sqrt(height * width / most)
        high, wide = math.floor(height / scale / 32) * 32, math.floor(width / scale / 32) * 32
    elif high * wide < 65536:
        scale = math.sqrt(65536 / (height * width))
        high, wide = math.ceil(height * scale / 32) * 32, math.ceil(width * scale / 32) * 32
    return (np.asarray(Image.fromarray(image).resize((wide, high), Image.BICUBIC)) / 255 * 2 - 1).transpose(2, 0, 1)


def spread(side: int) -> plain.Array:
    """Return the weight of each learned position at each of `side` positions, (side, GRID); the ends coincide."""
    at = np.linspace(0, GRID - 1, side)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(GRID)))


def tanh_gelu(x: plain.Array) -> plain.Array:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def see(weights: plain.Weights, image: np.ndarray) -> tuple[plain.Array, plain.Array, tuple[int, int]]:
    """Compute a picture's tokens, what is added to them after the first text layer, and their rows and columns."""
    pixels = resized(image)
    rows, columns = pixels.shape[1] // PATCH, pixels.shape[2] // PATCH
    places = merge_order(rows, columns)
    cut = [pixels[:, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH] for y, x in places]
    kernel = weights["model.visual.patch_embed.proj.weight"].reshape(VISION, -1)
    x = np.stack([np.stack([patch, patch], axis=1).reshape(-1) for patch in cut]) @ kernel.T
    x = x + weights["model.visual.patch_embed.proj.bias"]
    learned = weights["model.visual.pos_embed.weight"].reshape(GRID, GRID, VISION)
    everywhere = np.einsum("yr,xc,rcd->yxd", spread(rows), spread(columns), learned)
    x = x + np.stack([everywhere[place] for place in places])
    width = VISION // VISION_HEADS
    frequencies = 10000.0 ** -(np.arange(0, width // 2, 2) / (width // 2))
    angles = np.concatenate([np.outer([place[axis] for place in places], frequencies) for axis in (0, 1)], axis=1)
    deep = None
    for layer in range(LAYERS):
        name = f"model.visual.blocks.{layer}"
        h = plain.linear(weights, f"{name}.attn.qkv", plain.layer_norm(weights, f"{name}.norm1", x, 1e-6))
        q, k, v = np.split(h, 3, axis=1)
        q, k = (
            np.concatenate([rotated(part, angles) for part in np.split(both, VISION_HEADS, axis=1)], axis=1)
            for both in (q, k)
        )
        x = x + plain.linear(weights, f"{name}.attn.proj", plain.attention(q, k, v, VISION_HEADS))
        h = plain.linear(weights, f"{name}.mlp.linear_fc1", plain.layer_norm(weights, f"{name}.norm2", x, 1e-6))
        x = x + plain.linear(weights, f"{name}.mlp.linear_fc2", tanh_gelu(h))
        if layer == 0:
            name = "model.visual.deepstack_merger_list.0"
            deep = fold(weights, name, plain.layer_norm(weights, f"{name}.norm", x.reshape(-1, 4 * VISION), 1e-6))
    name = "model.visual.merger"
    seen = fold(weights, name, plain.layer_norm(weights, f"{name}.norm", x, 1e-6).reshape(-1, 4 * VISION))
    assert deep is not None
    return seen, deep, (rows // 2, columns // 2)


def fold(weights: plain.Weights, name: str, x: plain.Array) -> plain.Array:
    return plain.linear(weights, f"{name}.linear_fc2", plain.gelu(plain.linear(weights, f"{name}.linear_fc1", x)))


def conversation(prompt: str, tokens: list[int], added: dict[str, int]) -> list[int]:
    """Tokenize the conversation: a token is a byte or an added word. `tokens` has the number per picture."""
    for special in (*TOKEN, *added):
        prompt = prompt.replace(special, "< " + special[1:])
    asked = QUESTION.replace("{prompt}", prompt.replace('"""', "'''"))

    def words(text: str) -> list[int]:
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(map(re.escape, added))})", text) if added else [text]:
            ids += [added[piece]] if piece in added else unicodedata.normalize("NFC", piece).encode()
        return ids

    def shown(count: int) -> list[int]:
        return [TOKEN["<|vision_start|>"], *[TOKEN["<|image_pad|>"]] * count, TOKEN["<|vision_end|>"]]

    first, second = tokens
    user = [*words("user\nImage A:\n"), *shown(first), *words("\nImage B:\n"), *shown(second), *words(f"\n{asked}")]
    answer = words('assistant\n{"winner":"')
    start, end = TOKEN["<|im_start|>"], TOKEN["<|im_end|>"]
    return [start, *user, end, *words("\n"), start, *answer]


def positions_of(ids: list[int], grids: list[tuple[int, int]]) -> plain.Array:
    """Compute positions, (3, T). Text counts up, a picture has rows and columns and adds its longer side."""
    remaining, positions, position, index = iter(grids), [], 0, 0
    while index < len(ids):
        if ids[index] != TOKEN["<|image_pad|>"]:
            positions.append((position, position, position))
            position, index = position + 1, index + 1
            continue
        rows, columns = next(remaining)
        positions += [(position, position + y, position + x) for y in range(rows) for x in range(columns)]
        position, index = position + max(rows, columns), index + rows * columns
    return np.array(positions, dtype=np.float64).T


def plain_logits(folder: Path, pair: PairItem) -> list[float]:
    """Compute the logits of A, B and tie."""
    files = sorted(folder.glob("*.safetensors"))
    weights = {name: tensor.double().numpy() for file in files for name, tensor in load_file(file).items()}
    looks = [see(weights, image) for image in (pair.first, pair.second)]
    added = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    own = {token["content"]: int(index) for index, token in added.items() if not token["special"]}
    ids = conversation(pair.prompt, [len(seen) for seen, _, _ in looks], own)
    pads = [index for index, token in enumerate(ids) if token == TOKEN["<|image_pad|>"]]
    words = weights["model.language_model.embed_tokens.weight"]
    x = words[ids]
    x[pads] = np.concatenate([seen for seen, _, _ in looks])
    frequencies = THETA ** -(np.arange(0, HEAD, 2) / HEAD)
    angles = positions_of(ids, [grid for _, _, grid in looks])[AXIS].T * frequencies
    for layer in range(LAYERS):
        name = f"model.language_model.layers.{layer}"
        h = rms_norm(weights, f"{name}.input_layernorm", x)
        q, k, v = (plain.linear(weights, f"{name}.self_attn.{part}_proj", h) for part in "qkv")
        q, k = (
            np.concatenate(
                [
                    rotated(rms_norm(weights, f"{name}.self_attn.{part}_norm", own), angles)
                    for own in np.split(both, heads, axis=1)
                ],
                axis=1,
            )
            for part, both, heads in (("q", q, HEADS), ("k", k, KV_HEADS))
        )
        k, v = (np.concatenate([part] * (HEADS // KV_HEADS), axis=1) for part in (k, v))
        x = x + plain.linear(weights, f"{name}.self_attn.o_proj", plain.attention(q, k, v, HEADS, causal=True))
        h = rms_norm(weights, f"{name}.post_attention_layernorm", x)
        gate = plain.linear(weights, f"{name}.mlp.gate_proj", h)
        h = gate / (1 + np.exp(-gate)) * plain.linear(weights, f"{name}.mlp.up_proj", h)
        x = x + plain.linear(weights, f"{name}.mlp.down_proj", h)
        if layer == 0:
            x[pads] += np.concatenate([deep for _, deep, _ in looks])
    h = rms_norm(weights, "model.language_model.norm", x[-1:])[0]
    return (weights.get("lm_head.weight", words)[[ord("A"), ord("B"), ord("t")]] @ h).tolist()


def test_logits_of_the_three_verdicts(folder: Path) -> None:
    """They are the same in a batch of conversations of different lengths and alone."""
    backend = Qwen3VLBackend(model=str(folder), device="cpu")
    expected = [plain_logits(folder, pair) for pair in PAIRS]
    with torch.inference_mode():
        np.testing.assert_allclose(backend.logits(PAIRS).numpy(), expected, rtol=0, atol=2e-5)
        again = backend.logits([PAIRS[0], PAIRS[0].swap(), *PAIRS[:2]])  # images that come several times
        np.testing.assert_allclose(again[[0, 2, 3]].numpy(), [expected[0], *expected[:2]], rtol=0, atol=2e-5)
        np.testing.assert_allclose(again[1].numpy(), plain_logits(folder, PAIRS[0].swap()), rtol=0, atol=2e-5)
        for pair, logits in zip(PAIRS, expected, strict=True):
            np.testing.assert_allclose(backend.logits([pair])[0].numpy(), logits, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (301, 203), (97, 260), (16, 11), (1500, 1100)])
def test_pixels(opinionated: Path, size: tuple[int, int]) -> None:
    from drpo_rewards.rewards.shared.qwen_vl import encode_images

    backend = Qwen3VLBackend(model=str(opinionated), device="cpu")
    image = picture(*size, seed=size[0])
    pixels = resized(image)
    expected = [
        np.repeat(pixels[:, None, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH], 2, axis=1).reshape(-1)
        for y, x in merge_order(pixels.shape[1] // PATCH, pixels.shape[2] // PATCH)
    ]
    found = encode_images(backend.processor, [image])["pixel_values"].numpy()
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-6)


def test_verdicts_and_confidence(opinionated: Path) -> None:
    """The verdict, its confidence, and `flipped` follow from the plain logits of both orders."""
    judge = rewards.load("judge", model=str(opinionated), device="cpu")
    pairs = [PairItem(picture(64, 64, seed=seed), picture(64, 64, seed=seed + 50), "a red circle") for seed in range(5)]
    winners = ["first", "second", "tie"]
    found = check_comparisons("judge", judge.compare(pairs), pairs)  # type: ignore[arg-type]
    for pair, comparison in zip(pairs, found, strict=True):
        chances = [plain.softmax(np.array(plain_logits(opinionated, shown))) for shown in (pair, pair.swap())]
        answers = [winners[int(chances[0].argmax())], ["second", "first", "tie"][int(chances[1].argmax())]]
        assert comparison.flipped == (answers[0] != answers[1])
        assert comparison.winner == (answers[0] if answers[0] == answers[1] else "tie")
        if not comparison.flipped:
            assert comparison.confidence == pytest.approx(np.mean([max(each) for each in chances]), abs=1e-5)
    assert len({comparison.winner for comparison in found}) > 1


def test_it_ranks(opinionated: Path) -> None:
    """A tournament of few comparisons gives nearly the same order as all pairs."""
    judge = rewards.load("judge", model=str(opinionated), device="cpu")
    assert isinstance(judge, Judge)
    images = [picture(64, 64, seed=seed) for seed in range(8)]
    wins = np.zeros(8)
    pairs = list(combinations(range(8), 2))
    comparisons = judge.compare([PairItem(images[a], images[b], "a red circle") for a, b in pairs])
    for (a, b), comparison in zip(pairs, comparisons, strict=True):
        wins[[a, b]] += {"first": (1, 0), "second": (0, 1), "tie": (0.5, 0.5)}[comparison.winner]
    tournament = Tournament(seeding("a red circle", images))
    while pairs := tournament.next_round():
        tournament.record(pairs, judge.compare([PairItem(images[a], images[b], "a red circle") for a, b in pairs]))
    result = tournament.result()
    assert result.summary.comparisons <= 24
    assert np.corrcoef(wins, [score.value for score in result.scores])[0, 1] > 0.8
    assert len(set(wins)) > 2


def test_what_it_says_of_itself(folder: Path) -> None:
    judge = rewards.load("judge", model=str(folder), device="cpu")
    info = describe("judge", judge)
    assert info.mode == "pairwise"
    assert info.version == f"judge-1/transformers/{folder.name}/float32"
    assert (info.checkpoint, info.license) == (folder.name, "Apache-2.0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda keys: keys.pop("model.visual.merger.norm.bias"), r"1 missing \(model.visual.merger.norm.bias"),
        (lambda keys: keys.update({"model.language_model.lora_A": torch.zeros(1)}), "1 unexpected"),
        (lambda keys: keys.update({"model.visual.pos_embed.weight": torch.zeros(9, VISION)}), "1 of another shape"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: object, reason: str) -> None:
    file = write_qwen3_vl(tmp_path) / "model.safetensors"
    keys = load_file(file)
    change(keys)  # type: ignore[operator]
    save_file(keys, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=reason):
        rewards.load("judge", model=str(tmp_path), device="cpu")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "vocab.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_qwen3_vl(tmp_path) / name).unlink()
    with pytest.raises(WeightsError, match=name):
        rewards.load("judge", model=str(tmp_path), device="cpu")
