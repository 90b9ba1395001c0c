"""The recipe of the CLIP: which pictures a caption describes, and a model that a reward loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from drpo.shapes.assets import clip_path
from drpo.shapes.pretrain.clip import ClipRecipe, contrastive_loss, describes, draw_batch, pretrain_clip
from drpo.shapes.pretrain.coupling import NUM_MODES
from drpo.shapes.pretrain.data import train_prompts
from drpo.shapes.prompts import prompts
from drpo.shapes.world import Shape, render, sample_scene
from drpo_rewards import rewards
from drpo_rewards.rewards.base import ScoreItem

STAR, MOON = Shape("star", "red", 20, 32, 20), Shape("moon", "blue", 44, 30, 20)
RED_STAR = {"include": [{"class": "star", "count": 1, "color": "red"}]}
STAR_LEFT_OF_MOON = {
    "include": [{"class": "moon", "count": 1}, {"class": "star", "count": 1, "position": ["left of", 0]}]
}
TWO_STARS = {"include": [{"class": "star", "count": 2}]}


@pytest.mark.parametrize(
    ("metadata", "scene", "expected"),
    [
        (RED_STAR, [STAR], True),
        (RED_STAR, [MOON], False),
        (RED_STAR, [STAR, MOON], False),
        (RED_STAR, [Shape("star", "blue", 20, 32, 20)], False),
        (TWO_STARS, [STAR, Shape("star", "blue", 50, 32, 20)], True),
        (TWO_STARS, [STAR], False),
        (STAR_LEFT_OF_MOON, [MOON, STAR], True),
        (STAR_LEFT_OF_MOON, [STAR, MOON], True),
        (STAR_LEFT_OF_MOON, [Shape("star", "red", 44, 32, 20), Shape("moon", "blue", 20, 30, 20)], False),
        (STAR_LEFT_OF_MOON, [Shape("star", "red", 28, 10, 20), Shape("moon", "blue", 32, 50, 20)], False),
    ],
)
def test_a_caption_describes_exactly_what_it_names(metadata: dict, scene: list[Shape], expected: bool) -> None:
    assert describes(metadata, scene) is expected


def test_every_scene_of_a_specification_is_described_by_it() -> None:
    rng = np.random.default_rng(0)
    for record in prompts("validation"):
        assert describes(record.metadata, sample_scene(record.metadata, rng)), record.prompt


def test_a_batch_has_a_right_and_a_wrong_picture_of_each_drawn_caption() -> None:
    batch = draw_batch(12, 5, np.random.default_rng(3))
    assert batch.pictures_N3HW.shape == (24, 3, 64, 64)
    own_N = torch.cat([batch.true_NP[:12].diagonal(), batch.true_NP[12:].diagonal()])
    assert own_N.tolist() == [True] * 12 + [False] * 12
    assert len(batch.prompts_P) == 17
    assert (batch.patches_NT2.amax(dim=(1, 2)) > 0).all(), "every picture shows something"
    assert (batch.patches_NT2[:, 0] == 0).any(), "and some background"
    assert NUM_MODES == 16
    assert batch.prompts_P.max() < len(train_prompts())


def test_the_contrastive_loss_counts_every_true_partner_as_right() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [5.0, 5.0, 5.0]])
    true = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    shares = [
        (np.exp(2) + np.exp(1)) / (np.exp(2) + np.exp(1) + 1),
        np.exp(3) / (np.exp(3) + 2),
    ]  # the last row has no true partner and does not count
    assert contrastive_loss(logits, true).item() == pytest.approx(-np.log(shares).mean(), rel=1e-6)


def test_the_recipe_trains_a_clip_that_a_reward_loads(tmp_path: Path) -> None:
    pretrain_clip(ClipRecipe.tiny(), tmp_path)
    reward = rewards.load("clip", model=str(tmp_path / "clip"), device="cpu")
    picture = render([STAR], np.random.default_rng(0))
    scores = [score.value for score in reward.score([ScoreItem(picture, text) for text in ("a red star", "two moons")])]
    assert scores[0] != scores[1]


def test_the_shipped_clip_prefers_the_picture_that_fits() -> None:
    """On captions that it was not trained on, with drawings right by the rule of `describes`, or of another caption."""
    reward = rewards.load("clip", model=str(clip_path()), device="cpu")
    rng = np.random.default_rng(1)
    records = [record for task in ("single_object", "colors", "two_object") for record in prompts("validation", task)]
    hits = []
    for record, other in zip(records, records[1:] + records[:1], strict=True):
        right, wrong = (render(sample_scene(chosen.metadata, rng), rng) for chosen in (record, other))
        if describes(record.metadata, sample_scene(other.metadata, rng)):
            continue
        good, bad = (
            score.value for score in reward.score([ScoreItem(image, record.prompt) for image in (right, wrong)])
        )
        hits.append(good > bad)
    assert np.mean(hits) > 0.85
    assert sum(file.stat().st_size for file in clip_path().iterdir()) < 5_000_000
