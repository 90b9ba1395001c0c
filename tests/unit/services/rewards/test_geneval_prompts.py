"""What GenEval's rules ask of a prompt about shapes that comes without a spec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drpo.shapes.prompts import prompts
from drpo_rewards import rewards
from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.geneval.prompts import read_spec


def test_every_prompt_of_the_shapes_world_is_read_as_its_own_spec() -> None:
    """The prompts were made from the specs, by other code."""
    for record in prompts("test"):
        spec: dict[str, Any] = {"exclude": [], **(read_spec(record.prompt) or {})}
        assert spec == {key: record.metadata[key] for key in ("include", "exclude")}, record.prompt


@pytest.mark.parametrize(
    ("prompt", "include"),
    [
        ("A Red  circle.", [{"class": "circle", "count": 1, "color": "red"}]),
        ("two stars !", [{"class": "star", "count": 2}]),
        ("the photo of a moon", [{"class": "moon", "count": 1}]),
        ("one ring and three bars", [{"class": "ring", "count": 1}, {"class": "bar", "count": 3}]),
    ],
)
def test_prompts_in_other_words(prompt: str, include: list[Any]) -> None:
    assert (read_spec(prompt) or {})["include"] == include


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat",
        "a ring of a star",
        "a red circle on blue",
        "no circle",
        "a circle, a star and a ring",
        "a circle without a star",
    ],
)
def test_a_prompt_that_is_not_wholly_understood_is_refused(prompt: str) -> None:
    assert read_spec(prompt) is None
    item = ScoreItem(np.zeros((8, 8, 3), np.uint8), prompt)
    with pytest.raises(
        InvalidRequestError, match=r"GenEval spec as `metadata` \(in the .*without metadata: a form like"
    ):
        rewards.load("geneval").score([item])


def test_it_scores_like_the_spec() -> None:
    picture = np.full((64, 64, 3), 238, np.uint8)
    picture[20:44, 20:44] = (214, 38, 40)  # a red square
    items = [ScoreItem(picture, "a red square"), ScoreItem(picture, "a blue square"), ScoreItem(picture, "two stars")]
    values = [score.value for score in rewards.load("geneval", score="strict").score(items)]
    assert values == [1.0, 0.0, 0.0]
