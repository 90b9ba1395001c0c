"""A service of the shipped config, and three pictures for it."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from clients.environments import QUERY, Task
from PIL import Image, ImageDraw
from support.service import Served, serve_config

from drpo_rewards import RankingClient
from drpo_rewards.api.images import encode_png, to_rgb


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """What `drpo-rewards serve` serves without a config."""
    with serve_config(tmp_path_factory.mktemp("served"), "shapes") as running:
        yield running


@pytest.fixture(scope="session")
def task(served: Served) -> Task:
    """A picture without the circle, one with a blue circle, and in between the right one."""
    pictures = []
    for color in (None, (214, 38, 40), (36, 88, 206)):
        picture = Image.new("RGB", (64, 64), (238, 238, 236))
        if color:
            ImageDraw.Draw(picture).ellipse((18, 20, 44, 46), fill=color)
        pictures.append(encode_png(to_rgb(picture)))
    with RankingClient(served.http_url) as client:
        order = client.rank(QUERY, pictures).order
    assert order == [1, 2, 0]
    uris = [f"data:image/png;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    return Task(served.http_url, uris, order)
