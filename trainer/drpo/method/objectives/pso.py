"""PSO in one step: pairwise sample optimization (Miao et al., 2025), with the authors' Gaussian actions.

    a_k = mu_old,k + sigma u_k          u_k: the candidate's own noise, with mean 0 and variance 1
    l(a) = -1/2 mean [((a - mu) / sigma)^2],  q = log clip(exp(clip(l - l_ref, -m, m)), 1 - c, 1 + c)
    L = -mean log sigma(beta (q_winner - q_loser)) + lambda_ref / K sum_k ||mu_k - mu_ref,k||^2

The images of the actions are ranked. Neighbours (0, 1), (2, 3), ... are the pairs; the better score wins, ties are left
out, and so is the last candidate of an odd number. Outside [1 - c, 1 + c] a ratio has no gradient.

The paper names this baseline without a formula, so this is the authors' trainer in both variants, which differ only in
||.||^2 (the sum, or the mean over the numbers of a latent).

Axes: K candidates of a group, M pairs, (C, h, w) of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
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
    reference_penalty,
)


class PSOSettings(LatentSettings):
    """Settings of the objective.

    Example:
        objective:
          name: pso
          sigma: 0.05
          beta: 50
    """

    sigma: float = Field(0.05, gt=0, description="standard deviation of an action, in units of the latents")
    beta: float = Field(50.0, gt=0, description="inverse temperature of the pairs")
    clip: float = Field(0.1, ge=0, lt=1, description="c: ratios are clipped to 1 - c ... 1 + c; 0: they are not")
    max_log_ratio: float = Field(10.0, gt=0, description="m, the largest absolute value of a log ratio")


class PSOObjective:
    """The loss of a group whose actions are ranked.

    Args:
        settings: the settings, as a model or a mapping; None: the defaults.
    """

    settings_class: ClassVar[type[BaseModel]] = PSOSettings

    def __init__(self, settings: PSOSettings | Mapping[str, Any] | None = None) -> None:
        self.settings = make_settings(PSOSettings, settings)

    @property
    def needs(self) -> Needs:
        """Latents, references, and a ranking of actions."""
        return Needs(latents=True, reference_latents=True, actions=True)

    def explore(self, latents_KChw: Tensor, noise_KChw: Tensor) -> Tensor:
        """The actions a_k."""
        return explore_with_noise(latents_KChw, noise_KChw, self.settings.sigma)

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group (see `drpo.method.objectives.base.Objective`).

        Raises:
            ShapeError: a tensor is missing or does not fit the others.
        """
        settings = self.settings
        latents_KChw = read(group, "latents_KChw")
        reference_KChw = read(group, "reference_KChw", like=latents_KChw).detach()
        actions_KChw = read(group, "actions_KChw", like=latents_KChw).detach()
        scores_K = read_scores(group, latents_KChw)

        log_ratio_K = log_probability(actions_KChw, latents_KChw, settings.sigma)
        log_ratio_K = log_ratio_K - log_probability(actions_KChw, reference_KChw, settings.sigma)
        log_ratio_K = log_ratio_K.clamp(-settings.max_log_ratio, settings.max_log_ratio)
        if settings.clip:
            log_ratio_K = log_ratio_K.exp().clamp(1 - settings.clip, 1 + settings.clip).log()

        pairs = len(scores_K) // 2
        gap_M = scores_K[: 2 * pairs].view(pairs, 2).diff(dim=1)[:, 0]  # positive: the second one wins
        margin_M = log_ratio_K[: 2 * pairs].view(pairs, 2).diff(dim=1)[:, 0] * gap_M.sign()
        decided_M = gap_M != 0
        losses_M = F.softplus(-settings.beta * margin_M) * decided_M
        loss = losses_M.sum() / decided_M.sum().clamp_min(1)
        metrics = {
            "margin": margin_M.sum() / decided_M.sum().clamp_min(1),
            "log_ratio": log_ratio_K.abs().mean(),
            "tied_pairs": 1 - decided_M.float().mean(),
        }
        return ObjectiveResult(loss + reference_penalty(latents_KChw, group, settings), metrics)
