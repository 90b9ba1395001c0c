"""The interface between the training step and an objective.

An objective says what it needs of a group, and the training step computes that and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from pydantic import BaseModel
from torch import Tensor

Features = dict[str, Tensor]
"""{key: (N, T, D)} of a feature map, with T tokens for each of N inputs and D features per token."""


@dataclass(frozen=True)
class Needs:
    """What an objective needs of a group.

    Attributes:
        latents: the candidates' latents.
        features: the candidates' features.
        reference_latents: the latents of the reference generator from the same noises.
        reference_features: their features.
        ranking: scores of the candidates, and pairs of a winner and a loser.
        takes_queries: the loss moves only `Group.queries_Q`, so that `training.selection: rollouts` can be used.
        arranged_noise: the objective arranges the noises of the group (`NoiseArranger`).
        actions: not the candidates themselves are decoded and ranked, but changed ones (`Explorer`).
        reward_gradient: scores of a differentiable reward, and their gradient with respect to the latents.
        takes_supports: instead of a ranking, the loss takes given positives and negatives, as in offline training.
    """

    latents: bool = False
    features: bool = False
    reference_latents: bool = False
    reference_features: bool = False
    ranking: bool = True
    takes_queries: bool = False
    arranged_noise: bool = False
    actions: bool = False
    reward_gradient: bool = False
    takes_supports: bool = False


@dataclass(frozen=True)
class Supports:
    """S given images of a group, all of them positives or all negatives; without a graph.

    Attributes:
        latents_SChw: their latents.
        features: their features {key: (S, T, D)}; None if the objective needs no features.
        weights_S: how much each of them counts, float32; 1 for an image of the group's own prompt.
    """

    latents_SChw: Tensor
    features: Features | None
    weights_S: Tensor


@dataclass(frozen=True)
class Group:
    """One prompt's K candidates and what is known about them. What the objective does not need is None.

    Attributes:
        latents_KChw: the candidates' latents, with their graph.
        features: the candidates' features {key: (K, T, D)}, with their graph.
        reference_KChw: the latents of the reference generator from the same noises, without a graph.
        reference_features: their features {key: (K, T, D)}, without a graph.
        pairs_M2: M (winner, loser) pairs of candidate indices, int64, such as [[3, 0], [5, 2]].
        queries_Q: indices of the candidates that are moved, int64; None: all of them.
        scores_K: the combined scores of the candidates, or those of the differentiable reward, float32; higher is
            better.
        actions_KChw: the latents that were decoded and ranked in place of the candidates', without a graph.
        reward_gradient_KChw: the gradient of each candidate's score with respect to its latent, without a graph.
        positives, negatives: images that are given, in offline training, in the place of pairs and scores.
    """

    latents_KChw: Tensor | None = None
    features: Features | None = None
    reference_KChw: Tensor | None = None
    reference_features: Features | None = None
    pairs_M2: Tensor | None = None
    queries_Q: Tensor | None = None
    scores_K: Tensor | None = None
    actions_KChw: Tensor | None = None
    reward_gradient_KChw: Tensor | None = None
    positives: Supports | None = None
    negatives: Supports | None = None


@dataclass(frozen=True)
class ObjectiveResult:
    """The loss of one group, and numbers to log.

    Attributes:
        loss: a float32 scalar with its autograd graph.
        metrics: scalars, such as "preference_magnitude" and "reference_distance". They stay on the
            device of the loss: the training step moves those of all groups at once, so that none has to wait.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """Turns one group into a loss.

    Its class is built from its settings: a mapping, a `settings_class`, or None for the defaults.

    Attributes:
        settings_class: the pydantic model of the settings, the keys of a preset's section `objective`.
        settings: the settings; if the objective needs a `reward_gradient`, their `reward` is a `RewardSource`.
    """

    settings_class: ClassVar[type[BaseModel]]
    settings: Any

    @property
    def needs(self) -> Needs:
        """What the settings need of a group."""
        ...

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group. Its gradient flows into `latents_KChw` and `features` only."""
        ...


@runtime_checkable
class NoiseArranger(Protocol):
    """What an objective has if it needs `arranged_noise`."""

    def arrange_noise(self, noise_KChw: Tensor, random: torch.Generator) -> Tensor:
        """The noises of a group, made from K independent ones. Each must still be standard normal."""
        ...


@runtime_checkable
class Explorer(Protocol):
    """What an objective has if it needs `actions`."""

    def explore(self, latents_KChw: Tensor, noise_KChw: Tensor) -> Tensor:
        """The latents to decode and rank, from the candidates' latents and noises. It needs no graph."""
        ...


@runtime_checkable
class StatefulObjective(Protocol):
    """What an objective has if it remembers something from step to step. All workers then have the same state."""

    def observations(self) -> Any:
        """What this worker saw since the last step; small and picklable."""
        ...

    def end_step(self, observations: list[Any]) -> None:
        """Updates the state from the observations of all workers, in the order of their numbers."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state, for a checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        ...
