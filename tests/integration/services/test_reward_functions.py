"""The reward functions of docs/trainers/, called as each trainer calls them."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from support.guides import read_blocks
from support.service import Served

pytestmark = pytest.mark.integration

COLORS = [(36, 88, 206), (214, 38, 40), (36, 88, 206)]
PROMPTS = ("a red circle", "a red circle", "a blue circle")
SPECS = tuple({"include": [{"class": "circle", "color": color, "count": 1}]} for color in ("red", "red", "blue"))
RIGHT = [False, True, True]


def draw() -> list[Image.Image]:
    pictures = []
    for color in COLORS:
        pictures.append(Image.new("RGB", (64, 64), (238, 238, 236)))
        ImageDraw.Draw(pictures[-1]).ellipse((18, 20, 44, 46), fill=color)
    return pictures


IMAGES = torch.tensor(np.stack([np.asarray(picture) for picture in draw()])).permute(0, 3, 1, 2) / 255


def load(name: str, service: Served) -> dict[str, Any]:
    """The names that a page's file defines, with the address of the tests' service."""
    (block,) = [block for block in read_blocks("python") if block.file_name == name]
    names: dict[str, Any] = {}
    exec(block.text.replace("http://127.0.0.1:8000", service.http_url), names)
    return names


def check(scores: Any) -> None:
    assert len(scores) == 3
    assert [score == 1 for score in scores] == RIGHT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_trl(served: Served, dtype: torch.dtype) -> None:
    """DDPOTrainer makes a tensor of the scores. It trains with this function in tests/clients/test_trl.py."""
    reward = load("ddpo_reward.py", served)["reward"]
    for metadata in (SPECS, ({}, {}, {})):
        scores, info = reward(IMAGES.to(dtype), PROMPTS, metadata)
        check(torch.as_tensor(scores, device="cpu").tolist())
        assert info == {}


@pytest.mark.parametrize("images", [IMAGES, (IMAGES * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()])
def test_flow_grpo(served: Served, images: Any) -> None:
    """`multi_score` gives the device to functions that take it, and weights each score."""
    drpo_score = load("drpo_score.py", served)["drpo_score"]
    assert "device" in drpo_score.__code__.co_varnames
    scores, _ = drpo_score("cuda")(images, list(PROMPTS), np.array(SPECS))
    check([1.0 * score for score in scores])
    check(torch.as_tensor(scores).float().tolist())


@pytest.mark.parametrize("images", [IMAGES, (IMAGES * 255).round().to(torch.uint8)])
async def test_verl(served: Served, images: torch.Tensor) -> None:
    """The manager of visual rewards calls by keyword, one image in each call, many at the same time; now in uint8."""
    compute_score = load("compute_score.py", served)["compute_score"]
    calls = [
        compute_score(data_source="d", solution_image=image, ground_truth=prompt, extra_info={"metadata": spec}, key=1)
        for image, prompt, spec in zip(images, PROMPTS, SPECS, strict=True)
    ]
    check([answer["score"] for answer in await asyncio.gather(*calls)])


def test_unirl(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its base class loads the model at the start, and takes a list of floats for the images of a request."""

    class LocalRewardBackend:
        def __init__(self, device: str) -> None:
            self._load_model()  # type: ignore[attr-defined]

    base = ModuleType("unirl.reward.local.base")
    base.LocalRewardBackend = LocalRewardBackend  # type: ignore[attr-defined]
    for name in ("unirl", "unirl.reward", "unirl.reward.local"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    backend = load("drpo_backend.py", served)["DrpoReward"](config=None, base_device="cpu")
    request = SimpleNamespace(images=draw(), prompts=list(PROMPTS), metadata=[*SPECS[:2], None])
    scores = backend._compute_model_rewards(request)
    assert isinstance(scores, list)
    check(scores)
