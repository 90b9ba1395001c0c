"""`aesthetic` with a tiny CLIP and a head in the public layout, against the same number computed in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import plain
from support.images import odd_pictures, picture
from support.tiny.aesthetic import HEAD, head_tensors, write_aesthetic
from support.tiny.clip import HEADS, LAYERS

from drpo_rewards import rewards
from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.base import ScoreItem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_aesthetic(tmp_path_factory.mktemp("aesthetic"))


def test_the_score_is_the_linear_head_of_the_unit_vector(folder: Path) -> None:
    images = [*odd_pictures(), picture(303, 224, seed=9)]  # a rest of 79, whose half the original's crop rounds
    aesthetic = rewards.load("aesthetic", model=str(folder), device="cpu")
    weights = plain.read(folder / "model.safetensors")
    head = {name: tensor.double().numpy() for name, tensor in head_tensors().items()}
    expected = []
    for image in images:
        x = plain.unit(plain.clip_image(weights, plain.cropped(image, rounding=True), HEADS, LAYERS))
        for place in "02467":
            x = head[f"layers.{place}.weight"] @ x + head[f"layers.{place}.bias"]
        expected.append(float(x[0]))
    assert [score.value for score in aesthetic.score([ScoreItem(i, "any") for i in images])] == pytest.approx(
        expected, abs=1e-5
    )
    assert [aesthetic.score([ScoreItem(i, "other")])[0].value for i in images] == pytest.approx(expected, abs=1e-5)


def test_head_and_clip_may_be_in_different_folders(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "head.pth"
    torch.save(head_tensors(), file)
    apart = rewards.load("aesthetic", model=str(file), clip=str(folder), device="cpu")
    together = rewards.load("aesthetic", model=str(folder), device="cpu")
    item = ScoreItem(odd_pictures()[0], "any")
    assert apart.score([item]) == together.score([item])
    assert np.isfinite(apart.score([item])[0].value)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (dict(zip([f"layers.{p}.weight" for p in (0, 3, 6, 9, 11)], [torch.zeros(1)] * 5, strict=True)), "reluMSE"),
        (head_tensors("01234"), r"missing \(layers\.6"),
        (head_tensors(width=768), "needs vectors of 768 numbers"),
        ({}, "10 missing"),
    ],
)
def test_other_heads_are_refused(folder: Path, tmp_path: Path, tensors: dict[str, torch.Tensor], reason: str) -> None:
    torch.save(tensors, tmp_path / HEAD)
    with pytest.raises(WeightsError, match=reason):
        rewards.load("aesthetic", model=str(tmp_path), clip=str(folder), device="cpu")
