"""The parts of a run: what it is built from, what ranks its candidates or stands for that, and the trainer of both.

A worker of a run and `drpo profile` take the same steps, in this order, because each needs what the one before made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from drpo.config import Config
from drpo.data.prompts import PromptOrder, load_prompts
from drpo.data.training import refuse_overlap
from drpo.generators import OneStepGenerator
from drpo.method.features import FeatureMap
from drpo.method.objectives import Objective
from drpo.training import collective
from drpo.training.build import (
    build_feature_map,
    build_generator,
    build_objective,
    build_reward_gradient,
    ranks_candidates,
)
from drpo.training.encoding import encode_preferences
from drpo.training.offline import OfflineSupervision
from drpo.training.random_state import seed_everything
from drpo.training.ranking import BackgroundRanker, Ranker
from drpo.training.reward_gradient import RewardGradient
from drpo.training.trainer import DrPOTrainer

Supervision = BackgroundRanker | OfflineSupervision | None
"""What says which images are better, if anything but the objective's own reward does."""


@dataclass(frozen=True)
class Parts:
    """What a run is built from."""

    generator: OneStepGenerator
    feature_map: FeatureMap | None
    objective: Objective
    reward_gradient: RewardGradient | None


def build_parts(config: Config, device: str) -> Parts:
    """Loads the generator with a fresh adapter, the feature map, the objective and its differentiable reward."""
    torch.set_num_threads(config.training.threads_per_worker)
    seed_everything(config.run.seed)  # so every worker starts with the same adapter
    generator = build_generator(config, device=device)
    seed_everything(config.run.seed + 1 + collective.rank())
    objective = build_objective(config)
    feature_map = build_feature_map(config, objective, generator, device=device)
    return Parts(generator, feature_map, objective, build_reward_gradient(objective, generator, device=device))


def supervise(
    config: Config,
    generator: OneStepGenerator,
    make_ranker: Callable[[], Ranker],
    stack: ExitStack,
    held_out: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> tuple[Supervision, PromptOrder]:
    """What supervises a run, and the order of its prompts.

    Args:
        config: the run's settings.
        generator: encodes the images of given preferences.
        make_ranker: makes what ranks, if the candidates are ranked.
        stack: closes it.
        held_out: evaluation prompts that given preferences may not have.
        progress: called with the number of preferences that are encoded.

    Raises:
        DrpoError: the prompts or preferences cannot be read, or hold one of `held_out`.
    """
    supervision: Supervision = None
    if config.offline is not None:
        supervision = OfflineSupervision(encode_preferences(config, generator, progress), config.offline, generator)
        records = supervision.records
        refuse_overlap(records, held_out)
    else:
        records = load_prompts(config.prompts)
        if ranks_candidates(config):
            supervision = stack.enter_context(BackgroundRanker(make_ranker))
    return supervision, PromptOrder(records, seed=config.run.seed, balance_tasks=config.prompts.balance_tasks)


def make_trainer(config: Config, name: str, parts: Parts, supervision: Supervision) -> DrPOTrainer:
    """The trainer of a run with this name."""
    return DrPOTrainer(
        parts.generator,
        parts.feature_map,
        parts.objective,
        supervision,
        config.training,
        config.optimizer,
        seed=config.run.seed,
        name=name,
        reward_gradient=parts.reward_gradient,
    )
