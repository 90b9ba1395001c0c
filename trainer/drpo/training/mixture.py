"""What each reward counts in the rankings of a run.

Settings may leave that to the service, so `choices.json` keeps it: a run does not go on with other rankings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from drpo.config import Config, RewardsConfig
from drpo.errors import ConfigError
from drpo.training import collective
from drpo.training.choices import read_choices, remember
from drpo.training.ranking_client import make_ranking_client
from drpo_rewards.api.contract import DEFAULT_MIXTURE, ModelInfo
from drpo_rewards.errors import RewardsError

Weights = dict[str, float]


def resolve_weights(rewards: RewardsConfig, models: Sequence[ModelInfo]) -> Weights:
    """What each reward counts: as the settings say, or the mixture of the service that they mean.

    Args:
        rewards: the settings.
        models: what the service offers.
    """
    if rewards.weights is not None:
        return dict(rewards.weights)
    mixtures = {model.name: model for model in models if model.kind == "mixture"}
    mixture = mixtures.get(rewards.mixture or DEFAULT_MIXTURE)
    if mixture is not None and mixture.weights is not None:
        return dict(mixture.weights)
    return {model.name: 1.0 for model in models if model.kind == "reward"}


def settle_weights(config: Config, run_dir: Path) -> None:
    """Keeps what each reward counts, of a run that ranks. Every worker must call this.

    Raises:
        ConfigError: the rankings of the run so far were others.
    """
    weights = collective.call_together(lambda: _ask(config, run_dir) if collective.rank() == 0 else None)
    remember(run_dir, "weights", lambda: weights)


def _ask(config: Config, run_dir: Path) -> Weights | None:
    """What the service makes of the settings; None if it is not there now: its rankings are waited for."""
    try:
        with make_ranking_client(config.rewards) as client:
            weights = resolve_weights(config.rewards, client.models())
    except RewardsError:
        return None
    if problem := find_other_weights(run_dir, weights):
        raise ConfigError(problem)
    return weights


def find_other_weights(run_dir: Path, weights: Mapping[str, float]) -> str:
    """Why a run cannot go on with rankings in which the rewards count so much; "" if it can, as far as is known."""
    earlier = read_choices(run_dir).get("weights")
    if earlier is None or earlier == dict(weights):
        return ""
    return (
        f"the steps of {run_dir.name} so far were ranked by {_in_words(earlier)}, and this service would rank by "
        f"{_in_words(weights)}; use a service whose mixture is the former"
    )


def _in_words(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{weight:g} x {name}" for name, weight in weights.items())
