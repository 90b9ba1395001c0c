"""A differentiable reward in the trainer's process: scores of latents, and their gradient through the decoder.

This is the only file that builds rewards in the trainer. It knows one function of theirs, `score_differentiably`.
Candidates are decoded and scored in small batches, and the decoder's activations are computed again for the backward
pass, so the memory does not grow with the number of candidates.

Axes: K candidates of a group, N of a batch, (C, h, w) of a latent, (H, W) of an image in pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drpo.errors import ConfigError, ModelLoadError
from drpo.generators.base import OneStepGenerator
from drpo.method.objectives.base import Group
from drpo.method.objectives.reward_source import RewardSource
from drpo.shapes.embedded import reward_source
from drpo.training.tally import Tally
from drpo_rewards import rewards
from drpo_rewards.errors import RewardsError, WeightsError
from drpo_rewards.rewards.base import DifferentiableReward


class RewardGradient:
    """Scores a group's candidates with a gradient.

    Args:
        generator: decodes the latents.
        reward: the reward, on the generator's device.
        name: of the reward, for metrics.
        batch_size: candidates that are decoded and scored at once.
    """

    def __init__(
        self, generator: OneStepGenerator, reward: DifferentiableReward, *, name: str = "reward", batch_size: int = 4
    ) -> None:
        self.generator = generator
        self.reward = reward
        self.name = name
        self.batch_size = batch_size

    def add_to(self, group: Group, prompt: str, tally: Tally) -> Group:
        """The group with the reward's scores and their gradient. Its latents keep their own graph."""
        assert group.latents_KChw is not None  # an objective that needs the gradient needs the latents
        scores_K, gradient_KChw = self.compute(group.latents_KChw, prompt)
        tally.add(f"reward/{self.name}", scores_K.mean())
        tally.add(f"reward_std/{self.name}", scores_K.std(correction=0))
        return replace(group, scores_K=scores_K, reward_gradient_KChw=gradient_KChw)

    def compute(self, latents_KChw: Tensor, prompt: str) -> tuple[Tensor, Tensor]:
        """The scores (K,) of latents under a prompt, and the gradient of their sum, (K, C, h, w); both in float32."""
        scores, gradients = [], []
        for batch_NChw in latents_KChw.detach().float().split(self.batch_size):
            leaf_NChw = batch_NChw.requires_grad_()
            with torch.enable_grad():
                images_N3HW = checkpoint(self.generator.decode_float, leaf_NChw, use_reentrant=False)
                pixels_N3HW = (images_N3HW.float() * 0.5 + 0.5).clamp(0, 1)
                scores_N = self.reward.score_differentiably(pixels_N3HW, [prompt] * len(leaf_NChw))
                (gradient_NChw,) = torch.autograd.grad(scores_N.sum(), leaf_NChw)
            scores.append(scores_N.detach().float().to(leaf_NChw.device))
            gradients.append(gradient_NChw)
        return torch.cat(scores), torch.cat(gradients)

    def networks(self) -> list[nn.Module]:
        """The networks of the reward: its own, and those of its parts."""
        found, objects = [], [self.reward]
        for one in objects:
            values = list(vars(one).values())
            found += [value for value in values if isinstance(value, nn.Module)]
            objects += [value for value in values if type(value).__module__.startswith("drpo_rewards.")]
        return found


def build_reward_gradient(source: RewardSource, generator: OneStepGenerator, device: str) -> RewardGradient:
    """Builds the reward of an objective's settings on a device.

    Raises:
        ConfigError: there is no such reward, or it has no gradient, or its options are wrong.
        ModelLoadError: its files are missing or do not fit.
    """
    try:
        reward = rewards.load_differentiable(source.type, _place(source.options), device)
    except RewardsError as error:
        kind = ModelLoadError if isinstance(error, WeightsError) else ConfigError
        raise kind(f"objective.reward: {error}") from error
    return RewardGradient(generator, reward, name=source.type, batch_size=source.batch_size)


def outline_reward_gradient(source: RewardSource, generator: OneStepGenerator) -> RewardGradient | None:
    """The reward on torch's meta device, to see what memory it takes; None if it cannot be built without its weights.

    Raises:
        ConfigError: there is no such reward, or it does not fit its options or its files.
    """
    try:
        reward = rewards.outline_differentiable(source.type, _place(source.options))
    except RewardsError as error:
        raise ConfigError(f"objective.reward: {error}") from error
    return None if reward is None else RewardGradient(generator, reward, name=source.type, batch_size=source.batch_size)


def check_reward(source: RewardSource) -> None:
    """Checks that a reward exists, has a gradient, and fits its options and the files that are here.

    Raises:
        ConfigError: it is not so.
    """
    try:
        rewards.check_differentiable(source.type, _place(source.options))
    except RewardsError as error:
        raise ConfigError(f"objective.reward: {error}") from error


def _place(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the folder of the embedded reward in the place of its name."""
    model = options.get("model")
    return options if model is None else {**options, "model": reward_source(str(Path(model).expanduser()))}
