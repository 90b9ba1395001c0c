"""VGG-Flow in one step: regression on a target that lies along the reward's gradient (Liu et al., 2025).

    mu_target = mu_ref + lambda_r clip(dR/dmu)
    L = 1/K sum_k ||mu_k - mu_target,k||^2 + lambda_ref / K sum_k ||mu_k - mu_ref,k||^2

(paper, appendix C.2, with eta = 1). The gradient of each candidate is clipped to a norm tau. After a step, tau becomes
a quantile of the unclipped norms in the last group of every worker, as in the authors' trainer.

Axes: K candidates of a group, (C, h, w) of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from drpo.method.objectives.base import Group, Needs, ObjectiveResult
from drpo.method.objectives.latents import LatentSettings, make_settings, read, reference_penalty, squared_distance
from drpo.method.objectives.reward_source import RewardSource


class VGGFlowSettings(LatentSettings):
    """Settings of the objective.

    `variant: released` takes the mean over the numbers of a latent in ||.||^2, the paper the sum.

    Example:
        objective:
          name: vgg_flow
          reward: {type: pickscore, batch_size: 4}
          reward_scale: 1000
    """

    reward: RewardSource = Field(RewardSource(), description="the differentiable reward")
    reward_scale: float = Field(1000.0, gt=0, description="lambda_r, the length of the target's step per gradient")
    max_gradient_norm: float | None = Field(
        1.0, gt=0, description="tau in the first step: the largest norm of a candidate's gradient; null: no limit"
    )
    norm_quantile: float = Field(
        0.8, ge=0, le=1, description="the later tau is this quantile of the norms in the last groups of a step"
    )


class VGGFlowObjective:
    """The loss of a group with the reward's gradient, and the limit tau that follows from step to step.

    Args:
        settings: the settings, as a model or a mapping; None: the defaults.

    Attributes:
        max_norm: tau; None: no limit.
    """

    settings_class: ClassVar[type[BaseModel]] = VGGFlowSettings

    def __init__(self, settings: VGGFlowSettings | Mapping[str, Any] | None = None) -> None:
        self.settings = make_settings(VGGFlowSettings, settings)
        self.max_norm = self.settings.max_gradient_norm
        self._last_norms_K: Tensor | None = None

    @property
    def needs(self) -> Needs:
        """Latents, references, and the reward's gradient. No ranking."""
        return Needs(latents=True, reference_latents=True, ranking=False, reward_gradient=True)

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group (see `drpo.method.objectives.base.Objective`).

        Raises:
            ShapeError: a tensor is missing or does not fit the others.
        """
        settings = self.settings
        latents_KChw = read(group, "latents_KChw")
        reference_KChw = read(group, "reference_KChw", like=latents_KChw).detach()
        gradient_KChw = read(group, "reward_gradient_KChw", like=latents_KChw).detach()
        norms_K = gradient_KChw.flatten(1).norm(dim=1)
        factors_K = torch.ones_like(norms_K)
        if self.max_norm is not None:
            factors_K = (self.max_norm / norms_K.clamp_min(torch.finfo(norms_K.dtype).tiny)).clamp_max(1.0)
        target_KChw = reference_KChw + settings.reward_scale * factors_K[:, None, None, None] * gradient_KChw
        loss = squared_distance(latents_KChw, target_KChw, settings.variant).mean()
        self._last_norms_K = norms_K.detach()
        metrics = {
            "reward_gradient_norm": norms_K.mean(),
            "clipped_gradients": (factors_K < 1).float().mean(),
        }
        return ObjectiveResult(loss + reference_penalty(latents_KChw, group, settings), metrics)

    def observations(self) -> list[float]:
        """The unclipped norms of this worker's last group."""
        norms_K, self._last_norms_K = self._last_norms_K, None
        return [] if norms_K is None else norms_K.tolist()

    def end_step(self, observations: list[list[float]]) -> None:
        """Sets tau for the next step. A step without a group leaves it unchanged."""
        norms = [norm for worker in observations for norm in worker]
        if self.max_norm is not None and norms:
            self.max_norm = torch.tensor(norms).quantile(self.settings.norm_quantile).item()

    def state_dict(self) -> dict[str, Any]:
        """Tau."""
        return {"max_norm": self.max_norm}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores tau."""
        self.max_norm = state["max_norm"]
