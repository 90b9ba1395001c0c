"""The configs in deploy/serve are valid and fit their rewards, and every reward scores with tiny weights."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from support import ROOT
from support.images import picture
from support.tiny.all_rewards import write_all

from drpo_rewards import rewards
from drpo_rewards.rewards.base import PairItem, ScoreItem
from drpo_rewards.rewards.checks import check_comparisons, check_scores, describe, is_pairwise, probe
from drpo_rewards.serving.config import ServiceConfig

pytestmark = pytest.mark.thorough

CONFIGS = sorted((ROOT / "deploy" / "serve").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_options_fit_the_rewards(file: Path) -> None:
    for reward in ServiceConfig.load(file).rewards.values():
        assert reward.type in rewards.CATALOGUE
        inspect.signature(rewards.load_class(reward.type)).bind(**reward.options)


def test_the_mixtures_of_the_paper() -> None:
    for name in ("one-gpu", "cpu-tiny"):
        mixtures = ServiceConfig.load(next(file for file in CONFIGS if file.stem == name)).mixtures
        assert {"clip+pickscore", "aes+pickscore", "clip+aes+pickscore"} <= mixtures.keys()


def test_every_reward_scores_on_tiny_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path / "tiny-weights")
    monkeypatch.chdir(tmp_path)
    config = ServiceConfig.load(next(file for file in CONFIGS if file.stem == "cpu-tiny"))
    every = rewards.CATALOGUE.keys() - {"remote"}  # which asks another service
    assert config.rewards.keys() == every, "serve every reward in deploy/serve/cpu-tiny.yaml"
    for name, settings in config.rewards.items():
        reward = rewards.create(settings.type, settings.options)
        prompt, metadata = probe(reward).prompt, probe(reward).metadata
        items = [ScoreItem(picture(60, 40, seed=seed), prompt, metadata) for seed in range(2)]
        if is_pairwise(reward):
            pairs = [PairItem(items[0].image, items[1].image, "a red circle"), probe(reward)]
            assert len(check_comparisons(name, reward.compare(pairs), pairs)) == 2
        else:
            items.append(probe(reward))
            assert len(check_scores(name, reward.score(items), items, metrics=describe(name, reward).metrics)) == 3
        info = describe(name, reward)
        assert info.description
        assert name in info.version
        if rewards.needed_files(settings.type, settings.options):
            assert info.license
            assert info.checkpoint
            assert "/" not in info.checkpoint, "responses must not show the folder of a checkpoint"
