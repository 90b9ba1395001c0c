"""The settings of the differentiable reward that an objective follows. `drpo.training.reward_gradient` builds it."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from drpo.config.section import Section


class RewardSource(Section):
    """A reward of `drpo_rewards` with a gradient, built in each worker.

    Example:
        reward:
          type: pickscore
          options: {model: models/PickScore_v1, dtype: bfloat16}
          batch_size: 4
    """

    model_config = ConfigDict(frozen=True)

    type: str = Field(
        default="pickscore", description="a reward of the catalogue with a gradient, or package.module:Class"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description='arguments of the reward; model "shapes" is the CLIP in the package'
    )
    batch_size: int = Field(
        default=4, ge=1, description="candidates decoded and scored at once; fewer need less memory"
    )
