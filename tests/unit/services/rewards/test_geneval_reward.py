"""The GenEval reward with its shapes detector, on pictures that the tests draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drpo_rewards.errors import ConfigError, InvalidRequestError
from drpo_rewards.rewards import create
from drpo_rewards.rewards.base import Reward, ScoreItem
from drpo_rewards.rewards.checks import check_scores, describe, probe


def squares(*places: tuple[int, int], color: tuple[int, int, int] = (220, 30, 30)) -> np.ndarray:
    picture = np.full((64, 64, 3), 240, dtype=np.uint8)
    for x, y in places:
        picture[y : y + 14, x : x + 14] = color
    return picture


@pytest.fixture(scope="module")
def reward() -> Reward:
    return create("geneval", {"detector": "shapes", "score": "graded"})


def spec(**clause: Any) -> dict[str, Any]:
    return {"tag": "colors", "include": [{"class": "square", **clause}]}


def test_details_have_both_numbers_and_reasons(reward: Reward) -> None:
    picture = squares((10, 10))
    right, wrong = reward.score([ScoreItem(picture, "", spec(color="red")), ScoreItem(picture, "", spec(color="blue"))])
    assert right.value == 1
    assert right.details is not None
    assert wrong.details is not None
    (found,) = right.details.pop("objects")
    assert wrong.details.pop("objects") == [found]
    assert right.details == {"strict": 1, "graded": 1.0, "reasons": []}
    assert wrong.value == 0.5
    assert wrong.details == {"strict": 0, "graded": 0.5, "reasons": ["expected 1 blue square, found red"]}
    assert (found["class"], found["color"]) == ("square", "red")
    assert found["score"] > 0.9
    assert np.allclose(found["box"], [10, 10, 24, 24], atol=1)


def test_details_name_every_object_that_was_found(reward: Reward) -> None:
    (score,) = reward.score([ScoreItem(squares((5, 5), (40, 40)), "", {"include": [{"class": "circle"}]})])
    assert score.details is not None
    assert [(one["class"], one["color"]) for one in score.details["objects"]] == [("square", "red")] * 2


def test_score_strict_is_the_benchmarks_number() -> None:
    strict = create("geneval", {"score": "strict"})
    score = strict.score([ScoreItem(squares((10, 10)), "", spec(color="blue"))])[0]
    assert score.value == 0
    assert score.details is not None
    assert score.details["graded"] == 0.5


def test_a_score_does_not_depend_on_the_batch(reward: Reward) -> None:
    items = [ScoreItem(squares(*places), "", spec(count=2)) for places in ([(5, 5)], [(5, 5), (40, 40)], [])]
    together = [score.value for score in reward.score(items)]
    assert together == [0.5, 1.0, 0.0]
    assert together == [reward.score([item])[0].value for item in items]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "needs the prompt's GenEval spec"),
        ({"tag": "colors"}, "not a GenEval spec"),
        (spec(color="mauve"), "color 'mauve'"),
        ({"include": [{"class": "dog"}]}, "class 'dog'"),
        ({"include": [{"class": "star"}, {"class": "ring", "position": ["near", 0]}]}, "position 'near'"),
        ({"include": [{"class": "star"}], "exclude": [{"class": "dog"}]}, "class 'dog'"),
    ],
)
def test_a_spec_that_the_detector_cannot_check_is_refused(
    reward: Reward, metadata: dict[str, Any] | None, reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as caught:
        reward.score([ScoreItem(squares(), "", metadata)])
    assert caught.value.field == "metadata"


def test_its_description_and_probe(reward: Reward) -> None:
    info = describe("geneval", reward)
    assert info.range == (0, 1)
    assert info.needs_metadata
    assert len(check_scores("geneval", reward.score([probe(reward)]), [probe(reward)], metrics=info.metrics)) == 1


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("geneva", {}, "no reward 'geneva'"),
        ("geneval", {"detector": "none"}, "no detector 'none'"),
        ("geneval", {"score": "soft"}, "graded or strict"),
        ("geneval", {"color": "red"}, "has no option 'color'"),
        ("no.such.module:Reward", {}, "cannot load"),
        ("collections:OrderedDict", {}, "needs a `version`"),
    ],
)
def test_rewards_that_cannot_be_built(kind: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        create(kind, options)
