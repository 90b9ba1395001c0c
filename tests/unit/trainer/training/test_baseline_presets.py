"""The six methods train on the embedded models, by their presets, and on a tiny generator of each layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.local_ranker import LocalRanker
from support.rewards import DifferentiableRedness, Redness
from support.tiny.sd_turbo import write_tiny_pipeline
from support.tiny.sdxl_turbo import write_tiny_xl_pipeline

from drpo.checks.plan import Plan
from drpo.checks.settings import check_settings
from drpo.config import load_config
from drpo.data.prompts import load_prompts
from drpo.shapes.assets import GENERATORS
from drpo.training.build import (
    asks_rewards,
    build_feature_map,
    build_generator,
    build_objective,
    build_reward_gradient,
    ranks_candidates,
)
from drpo.training.ranking import BackgroundRanker
from drpo.training.trainer import DrPOTrainer

METHODS = ["drpo", "draft", "vgg-flow", "dpo", "pso", "grpo"]

LAYOUTS: dict[str, Callable[[Path], Path]] = {"sd-turbo": write_tiny_pipeline, "sdxl-turbo": write_tiny_xl_pipeline}
"""Generators besides the embedded ones: how a tiny one of each layout is written."""


def train_two_steps(preset: str, overrides: list[str], differentiable: dict[str, Any] | None = None) -> list[dict]:
    """Two steps of a preset in this process, ranked by redness."""
    config = load_config(preset, ["training.candidates=4", "training.groups_per_step=2", *overrides])
    if differentiable is not None and "reward" in config.objective.settings:
        config.objective.settings["reward"].clear()
        config.objective.settings["reward"].update(differentiable)
    torch.manual_seed(0)
    objective = build_objective(config)
    generator = build_generator(config)
    with BackgroundRanker(lambda: LocalRanker("redness", Redness())) as ranker:
        trainer = DrPOTrainer(
            generator,
            build_feature_map(config, objective, generator),
            objective,
            ranker if ranks_candidates(config) else None,
            config.training,
            config.optimizer,
            reward_gradient=build_reward_gradient(objective, generator),
        )
        before = torch.cat([parameter.detach().flatten().clone() for parameter in trainer.parameters])
        records = load_prompts(config.prompts)[:2]
        lines = [trainer.run_step(records) for _ in range(2)]
        after = torch.cat([parameter.detach().flatten() for parameter in trainer.parameters])
    assert not torch.equal(before, after)
    return lines


@pytest.mark.thorough
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("method", METHODS)
def test_a_preset_of_shapes_trains(method: str, generator: str) -> None:
    lines = train_two_steps("shapes" if method == "drpo" else f"shapes-{method}", [f"model.generator={generator}"])
    assert all(line["groups_dropped"] == 0 for line in lines)
    assert lines[0]["grad_norm"] > 0  # later PSO's may be 0, where its ratios are clipped
    assert ("reward/clip" in lines[0]) is (method in ("draft", "vgg-flow"))


@pytest.mark.thorough
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_on_the_layout(method: str, layout: str, tmp_path: Path) -> None:
    generator = LAYOUTS[layout](tmp_path / "generator")
    overrides = [f"model.generator={generator}", "training.chunk_size=3"]
    overrides += ["features.name=raw_latent", "features.path=null", "features.options={}"] if method == "drpo" else []
    reward = {"type": f"{DifferentiableRedness.__module__}:{DifferentiableRedness.__name__}"}
    lines = train_two_steps("shapes" if method == "drpo" else f"shapes-{method}", overrides, reward)
    assert all(line["groups_dropped"] == 0 for line in lines)
    assert lines[0]["grad_norm"] > 0  # later PSO's may be 0, where its ratios are clipped


@pytest.mark.parametrize("method", METHODS[1:])
def test_the_objectives_of_the_presets_are_right(method: str) -> None:
    findings = list(check_settings(Plan(load_config(f"shapes-{method}"))))
    assert [finding for finding in findings if finding.state != "ok"] == []


@pytest.mark.parametrize(
    ("preset", "to_train", "to_evaluate"),
    [
        ("shapes", True, True),
        ("shapes-dpo", True, True),
        ("shapes-draft", False, True),
        ("shapes-vgg-flow", False, True),
        ("shapes-offline", False, True),
        ("sd-turbo-offline", False, False),  # has no evaluation
    ],
)
def test_a_service_is_asked_by_objectives_that_rank_and_by_an_evaluation(
    preset: str, to_train: bool, to_evaluate: bool
) -> None:
    config = load_config(preset)
    assert ranks_candidates(config) is to_train
    assert asks_rewards(config) is Plan(config).asks_rewards is (to_train or to_evaluate)
    trained_only = load_config(preset, ["evaluation.enabled=false"])
    assert asks_rewards(trained_only) is Plan(trained_only).asks_rewards is to_train
    assert Plan(trained_only, "evaluate").asks_rewards
    assert not Plan(config, "sample").asks_rewards


def test_preferences_are_refused_where_the_objective_needs_scores() -> None:
    for method in METHODS:
        config = load_config("shapes" if method == "drpo" else f"shapes-{method}", ["offline.path=preferences.jsonl"])
        states = [one.state for one in check_settings(Plan(config)) if one.about == "objective.name"]
        assert states == ["ok" if method in ("drpo", "dpo") else "wrong"], method


def test_staleness_is_refused_where_no_ranking_of_the_candidates_is_waited_for() -> None:
    def find_wrong(preset: str) -> list[str]:
        findings = check_settings(Plan(load_config(preset, ["training.staleness=1"])))
        return [one.named for one in findings if one.about == "training.staleness"]

    assert find_wrong("shapes") == find_wrong("shapes-dpo") == []
    for method in ("draft", "vgg-flow", "pso", "grpo"):
        assert find_wrong(f"shapes-{method}") == [
            f"training.staleness: 1 cannot be used with objective.name {method.replace('-', '_')}"
        ]
    (found,) = find_wrong("shapes-offline")
    assert "cannot be used with given preferences" in found
