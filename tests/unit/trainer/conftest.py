"""A tiny generator on disk, and a trainer whose ranker runs in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from support.local_ranker import LocalRanker
from support.rewards import DifferentiableRedness, Redness
from support.tiny.sd_turbo import write_tiny_pipeline

from drpo.config import LoraConfig, OptimizerConfig, TrainingConfig
from drpo.data.prompts import PromptRecord
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.method.features import load_feature_map
from drpo.method.objectives import load_objective
from drpo.training.ranking import BackgroundRanker
from drpo.training.reward_gradient import RewardGradient
from drpo.training.trainer import DrPOTrainer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture
def records() -> list[PromptRecord]:
    return [PromptRecord("a red circle"), PromptRecord("two green squares"), PromptRecord("a blue triangle")]


@pytest.fixture
def make_trainer(tiny: Path) -> Iterator[Callable[..., DrPOTrainer]]:
    """Makes a trainer of the tiny generator; further keywords are settings of TrainingConfig.

    A feature map may also be a function that makes one for the generator.
    """
    with ExitStack() as stack:

        def make(
            reward: Any = None,
            feature_map: Any = None,
            objective: Any = None,
            lr: float = 5e-2,
            pipeline_folder: Path = tiny,
            normalize: Any = "zscore",
            **settings: Any,
        ) -> DrPOTrainer:
            torch.manual_seed(0)
            scores = LocalRanker("reward", reward or Redness(), normalize)
            ranker = stack.enter_context(BackgroundRanker(lambda: scores))
            generator = SDTurboGenerator.load(pipeline_folder, lora=LoraConfig(rank=4))
            objective = objective or load_objective("drpo", {"radii": [0.2, 0.5, 1.0]})
            gradient = RewardGradient(generator, DifferentiableRedness(), name="redness", batch_size=4)
            return DrPOTrainer(
                generator,
                feature_map(generator) if callable(feature_map) else feature_map or load_feature_map("raw_latent"),
                objective,
                ranker if objective.needs.ranking else None,
                TrainingConfig(**{"candidates": 6, "pairs": 8, "groups_per_step": 3, **settings}),
                OptimizerConfig(lr=lr),
                reward_gradient=gradient if objective.needs.reward_gradient else None,
            )

        yield make
