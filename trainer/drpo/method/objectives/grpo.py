"""GRPO in one step: a clipped policy gradient. The paper and the authors' trainer compute different things.

paper      Appendix C.4. The action of a candidate is its latent plus sigma times its own noise, scaled to mean 0 and
           variance 1. The images of the actions are ranked. A is the z-score of the combined score, clipped. The log
           probability of the action is l(a) = -1/2 mean [((a - mu) / sigma)^2].
released   Neighbours. The noises of a group are sqrt(1 - sigma^2) base + sigma delta_k, with one base for the group.
           The candidates themselves are ranked. Some of them are anchors; the log probability of candidate i for anchor
           a is log softmax_i (-mean (x_i - mu_a)^2 / T). A = sqrt(K) (r - mean r) / ||r - mean r||_p, clipped.

Both then minimize, with rho = exp(clip(l - l_old, -m, m)),

    L = -mean min(rho A, clip(rho, 1 - eps, 1 + eps) A) + lambda_ref mean ||mu - mu_ref||^2
        + beta_kl mean (rho - 1 - log rho)

Each group is used for one update, so rho = 1, and the clipping never acts: the loss is about 0, and only its gradient
says something. The neighbours' noises are exchangeable, so the first candidates are as random a choice of anchors as
any.

Axes: K candidates of a group, A anchors, (C, h, w) of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from drpo.method.objectives.base import Group, Needs, ObjectiveResult
from drpo.method.objectives.latents import (
    LatentSettings,
    explore_with_noise,
    log_probability,
    make_settings,
    read,
    read_scores,
    squared_distance,
)

_NO_SPREAD = 1e-6  # scores that differ by less tell nothing


class GRPOSettings(LatentSettings):
    """Settings of the objective.

    `variant: released` changes two defaults: sigma 0.3, reference_weight 0.02. It alone reads `anchors`,
    `advantage_power` and `temperature`.

    Example:
        objective:
          name: grpo
          sigma: 0.05
          clip: 0.2
          reference_weight: 0.05
    """

    released_defaults: ClassVar[Mapping[str, Any]] = {"sigma": 0.3, "reference_weight": 0.02}

    reference_weight: float = Field(
        0.05, ge=0, description="lambda_ref, the weight of the squared distance between candidates and references"
    )
    sigma: float = Field(
        0.05, gt=0, lt=1, description="how far actions (paper) or the noises of neighbours (released) are spread"
    )
    clip: float = Field(0.2, gt=0, lt=1, description="eps: no gain from ratios outside 1 - eps ... 1 + eps")
    max_log_ratio: float = Field(10.0, gt=0, description="m, the largest absolute value of a log ratio")
    advantage_scale: float = Field(1.0, gt=0, description="alpha, a factor of the advantages")
    max_advantage: float = Field(5.0, gt=0, description="the largest absolute value of an advantage")
    kl_weight: float = Field(0.0, ge=0, description="beta_kl")
    anchors: int = Field(4, ge=1, description="released: the candidates whose probabilities are compared")
    advantage_power: float = Field(0.8, gt=0, description="released: p of the norm that scales the advantages")
    temperature: float = Field(1.0, gt=0, description="released: T of the softmax over neighbours")


class GRPOObjective:
    """The loss of a ranked group.

    Args:
        settings: the settings, as a model or a mapping; None: the defaults.
    """

    settings_class: ClassVar[type[BaseModel]] = GRPOSettings

    def __init__(self, settings: GRPOSettings | Mapping[str, Any] | None = None) -> None:
        self.settings = make_settings(GRPOSettings, settings)

    @property
    def needs(self) -> Needs:
        """Latents and a ranking, in the paper's form of actions; references only if they have a weight."""
        settings = self.settings
        paper, references = settings.variant == "paper", settings.reference_weight > 0
        return Needs(latents=True, reference_latents=references, actions=paper, arranged_noise=not paper)

    def arrange_noise(self, noise_KChw: Tensor, random: torch.Generator) -> Tensor:
        """Released: neighbours around one base noise."""
        base_1Chw = torch.randn(noise_KChw[:1].shape, generator=random, device=random.device).to(noise_KChw)
        return math.sqrt(1 - self.settings.sigma**2) * base_1Chw + self.settings.sigma * noise_KChw

    def explore(self, latents_KChw: Tensor, noise_KChw: Tensor) -> Tensor:
        """Paper: the actions."""
        return explore_with_noise(latents_KChw, noise_KChw, self.settings.sigma)

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group (see `drpo.method.objectives.base.Objective`).

        Raises:
            ShapeError: a tensor is missing or does not fit the others.
        """
        settings = self.settings
        latents_KChw = read(group, "latents_KChw")
        scores_K = read_scores(group, latents_KChw)
        if settings.variant == "paper":
            moving_KChw = latents_KChw
            actions_KChw = read(group, "actions_KChw", like=latents_KChw).detach()
            advantages = self._limit(standardize(scores_K))  # (K,)
            log_probabilities = log_probability(actions_KChw, latents_KChw, settings.sigma)  # (K,)
        else:
            moving_KChw = latents_KChw[: settings.anchors]
            advantages = self._limit(scale_by_norm(scores_K, settings.advantage_power))  # (K,), for each anchor
            log_probabilities = log_neighbours(latents_KChw.detach(), moving_KChw, settings.temperature)  # (A, K)

        log_ratio = log_probabilities - log_probabilities.detach()  # the old policy is the present one
        log_ratio = log_ratio.clamp(-settings.max_log_ratio, settings.max_log_ratio)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
        loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        if settings.kl_weight:
            loss = loss + settings.kl_weight * (ratio - 1 - log_ratio).mean()
        metrics = {"advantage": advantages.abs().mean()}
        if settings.reference_weight:
            reference_KChw = read(group, "reference_KChw", like=latents_KChw).detach()[: len(moving_KChw)]
            distance = squared_distance(moving_KChw, reference_KChw, settings.variant).mean()
            loss = loss + settings.reference_weight * distance
            metrics["reference_loss"] = settings.reference_weight * distance
        return ObjectiveResult(loss, metrics)

    def _limit(self, advantages_K: Tensor) -> Tensor:
        settings = self.settings
        return (settings.advantage_scale * advantages_K).clamp(-settings.max_advantage, settings.max_advantage)


def standardize(scores_K: Tensor) -> Tensor:
    """z-scores, with the standard deviation of the group's K scores; zeros if they are equal."""
    return (scores_K - scores_K.mean()) / (scores_K.std(correction=0) + _NO_SPREAD)


def scale_by_norm(scores_K: Tensor, power: float) -> Tensor:
    """sqrt(K) (r - mean r) / ||r - mean r||_p; zeros if the scores are equal."""
    centred_K = scores_K - scores_K.mean()
    norm = centred_K.abs().pow(power).sum().pow(1 / power)
    return torch.where(norm > _NO_SPREAD, math.sqrt(len(scores_K)) * centred_K / norm, 0.0)


def log_neighbours(candidates_KChw: Tensor, anchors_AChw: Tensor, temperature: float) -> Tensor:
    """log softmax over the candidates of their closeness to each anchor, (A, K)."""
    gaps_AKD = (candidates_KChw.unsqueeze(0) - anchors_AChw.unsqueeze(1)).flatten(2)
    return (-gaps_AKD.square().mean(dim=2) / temperature).log_softmax(dim=1)
