"""The service `shapes-clip`: the embedded CLIP beside GenEval."""

from __future__ import annotations

import numpy as np

from drpo.checks import make_paths_absolute
from drpo.checks.plan import Plan
from drpo.checks.rewards import check_rewards
from drpo.config import load_config
from drpo.shapes.assets import clip_path
from drpo.shapes.served_clip import EmbeddedClip
from drpo_rewards.rewards.base import ScoreItem
from drpo_rewards.rewards.clip import ClipScore


def test_it_gives_the_scores_of_the_embedded_weights() -> None:
    random = np.random.default_rng(0)
    items = [ScoreItem(random.integers(0, 256, (64, 64, 3), dtype=np.uint8), "a red star", None) for _ in range(3)]
    expected = ClipScore(model=str(clip_path())).score(items)
    assert EmbeddedClip().score(items) == expected
    assert len({score.value for score in expected}) == 3


def test_a_run_can_be_ranked_by_it() -> None:
    changes = ["rewards.service=shapes-clip", "rewards.weights={clip: 1, geneval: 1}"]
    config = make_paths_absolute(load_config("shapes", changes))
    assert {finding.state for finding in check_rewards(Plan(config))} == {"ok"}
    unknown = make_paths_absolute(load_config("shapes", ["rewards.service=shapes-clip", "rewards.weights={clp: 1}"]))
    found = [finding.found for finding in check_rewards(Plan(unknown)) if finding.state == "wrong"]
    assert found == ["rewards.weights: the service shapes-clip.yaml has no reward 'clp'; did you mean clip?"]
