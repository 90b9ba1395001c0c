"""DRaFT: the gradient of a differentiable reward, through the decoder into the generator (Clark et al., 2024).

    L = -1/K sum_k R(D(mu_k), p) + lambda_ref / K sum_k ||mu_k - mu_ref,k||^2 - w_std std(R)

(paper, appendix C.1; the last term is an option of the authors' trainer). All but the reference term is a function of
the K rewards alone. So the training step first computes the rewards and their gradients with respect to the latents,
a few at a time, and the loss is differentiated through their first-order expansion. Value and gradient are the same,
without a graph of decoder and reward for the whole group.

Axes: K candidates of a group, (C, h, w) of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field
from torch import Tensor

from drpo.method.objectives.base import Group, Needs, ObjectiveResult
from drpo.method.objectives.latents import LatentSettings, make_settings, read, read_scores, reference_penalty
from drpo.method.objectives.reward_source import RewardSource


class DRaFTSettings(LatentSettings):
    """Settings of the objective.

    `variant: released` takes the mean over the numbers of a latent in ||.||^2, the paper the sum.

    Example:
        objective:
          name: draft
          reward: {type: pickscore, batch_size: 4}
          reference_weight: 0.0
    """

    reward: RewardSource = Field(RewardSource(), description="the differentiable reward")
    reward_weight: float = Field(1.0, gt=0, description="the weight of the mean reward")
    std_weight: float = Field(0.0, ge=0, description="w_std, the weight of the rewards' standard deviation in a group")


class DRaFTObjective:
    """The loss of a group with the rewards of its candidates.

    Args:
        settings: the settings, as a model or a mapping; None: the defaults.
    """

    settings_class: ClassVar[type[BaseModel]] = DRaFTSettings

    def __init__(self, settings: DRaFTSettings | Mapping[str, Any] | None = None) -> None:
        self.settings = make_settings(DRaFTSettings, settings)

    @property
    def needs(self) -> Needs:
        """Latents and the reward's gradient; references only if they have a weight. No ranking."""
        references = self.settings.reference_weight > 0
        return Needs(latents=True, reference_latents=references, ranking=False, reward_gradient=True)

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group (see `drpo.method.objectives.base.Objective`).

        Raises:
            ShapeError: a tensor is missing or does not fit the others.
        """
        settings = self.settings
        latents_KChw = read(group, "latents_KChw")
        gradient_KChw = read(group, "reward_gradient_KChw", like=latents_KChw).detach()
        rewards_K = expand_rewards(latents_KChw, read_scores(group, latents_KChw), gradient_KChw)
        penalty = reference_penalty(latents_KChw, group, settings)
        loss = penalty - settings.reward_weight * rewards_K.mean()
        if settings.std_weight:
            loss = loss - settings.std_weight * rewards_K.std(correction=0)
        norms_K = gradient_KChw.flatten(1).norm(dim=1)
        return ObjectiveResult(loss, {"reward_gradient_norm": norms_K.mean(), "reference_loss": penalty})


def expand_rewards(latents_KChw: Tensor, scores_K: Tensor, gradient_KChw: Tensor) -> Tensor:
    """The scores, (K,), as a function of the latents with this gradient."""
    step_KChw = latents_KChw - latents_KChw.detach()  # 0, but with a graph
    return scores_K + (gradient_KChw * step_KChw).flatten(1).sum(dim=1)
