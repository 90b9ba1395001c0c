"""What each reward counts in the rankings of a run, and how scores are normalised.

Settings may leave both to the service, so `choices.json` keeps them: a run does not go on with other rankings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from drpo.config import Config, RewardsConfig
from drpo.errors import ConfigError
from drpo.training import collective
from drpo.training.choices import read_choices, remember
from drpo.training.ranking_client import make_ranking_client
from drpo_rewards.api.contract import DEFAULT_MIXTURE, ModelInfo, Normalize
from drpo_rewards.errors import RewardsError


class Mixture(BaseModel):
    """How a run is ranked.

    Attributes:
        weights: of each reward. Only their ratios count.
        normalize: how the scores of a reward are normalised before they are added.
    """

    weights: dict[str, float]
    normalize: Normalize = "zscore"

    def ranks_like(self, other: Mixture) -> bool:
        """Whether both give the same rankings."""
        mine, theirs = self.shares(), other.shares()
        same = mine.keys() == theirs.keys() and all(math.isclose(mine[name], theirs[name]) for name in mine)
        return same and self.normalize == other.normalize

    def shares(self) -> dict[str, float]:
        """The weights, divided by the sum of their absolute values."""
        total = sum(map(abs, self.weights.values())) or 1.0
        return {name: weight / total for name, weight in self.weights.items()}

    def __str__(self) -> str:
        return f"{' + '.join(f'{weight:.12g} {name}' for name, weight in self.weights.items())} ({self.normalize})"


def resolve_mixture(rewards: RewardsConfig, models: Sequence[ModelInfo]) -> Mixture:
    """How a service ranks: as the settings say, or as the mixture that they mean.

    Args:
        rewards: the settings.
        models: what the service offers.
    """
    mixtures = {model.name: model for model in models if model.kind == "mixture"}
    mixture = mixtures.get(rewards.mixture or DEFAULT_MIXTURE) if rewards.weights is None else None
    weights = rewards.weights or (mixture.weights if mixture is not None else None)
    normalize = rewards.normalize or (mixture.normalize if mixture is not None else None) or "zscore"
    everything = {model.name: 1.0 for model in models if model.kind == "reward"}
    return Mixture(weights=dict(weights or everything), normalize=normalize)


def settle_mixture(config: Config, run_dir: Path) -> None:
    """Keeps how a run is ranked, if it is. Every worker must call this.

    Raises:
        DrpoError: it was ranked in another way so far.
    """
    found = collective.call_together(lambda: _ask(config, run_dir) if collective.rank() == 0 else None)
    remember(run_dir, "mixture", lambda: found.model_dump() if found is not None else None)


def _ask(config: Config, run_dir: Path) -> Mixture | None:
    """What the service makes of the settings; None if it is not there now: its rankings are waited for."""
    try:
        with make_ranking_client(config.rewards) as client:
            now = resolve_mixture(config.rewards, client.models())
    except RewardsError:
        return None
    if problem := find_other_mixture(run_dir, now):
        raise ConfigError(problem)
    return now


def find_other_mixture(run_dir: Path, now: Mixture) -> str:
    """Why a run cannot go on with these rankings; "" if it can, as far as is known."""
    try:
        before = Mixture.model_validate(read_choices(run_dir)["mixture"])
    except (KeyError, ValidationError):
        return ""
    if before.ranks_like(now):
        return ""
    return (
        f"the steps of {run_dir.name} so far were ranked by {before}, and this service would rank by {now}; use a "
        "service whose mixture is the former"
    )
