"""Choose which number of a reward an evaluation shows: a metric that the reward declares, or its raw score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drpo.errors import EvaluationError
from drpo_rewards import RankResponse
from drpo_rewards.api.contract import ModelInfo

Declarations = Mapping[str, ModelInfo]
"""What the service declares about each reward, by the reward's name."""


@dataclass(frozen=True)
class ShownMetric:
    """The number by which an evaluation judges an image.

    Attributes:
        reward: the name of the reward.
        metric: the name of a metric that the reward declares; None: the raw score.
        description: what the number measures, as the reward describes it; "" if there is no description.
        percentage: whether the number is a share (0 to 1) that is shown in percent.
        higher_is_better: whether a larger number is a better one.

    Example:
        ShownMetric("geneval", "strict", "GenEval's own score", percentage=True)
    """

    reward: str
    metric: str | None = None
    description: str = ""
    percentage: bool = False
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """`REWARD` or `REWARD/METRIC`: the key of the number in `ScoredImage.rewards`."""
        return self.reward if self.metric is None else f"{self.reward}/{self.metric}"

    def of(self, numbers: Mapping[str, float]) -> float:
        """The shown number of an image, 0 to 100 for a percentage."""
        return 100.0 * numbers[self.name] if self.percentage else numbers[self.name]


def choose_metric(
    response: RankResponse, declared: Declarations, reward: str | None = None, metric: str | None = None
) -> ShownMetric:
    """Chooses the number to show.

    Args:
        response: a ranking with the scores and metrics of every reward that took part.
        declared: what the service declares about its rewards.
        reward: the reward; None: the first one of the response.
        metric: a metric that this reward declares; None: the first one, or the raw score if it declares none.

    Raises:
        EvaluationError: the reward has no scores in the response, or does not declare the metric.
    """
    if reward is not None and reward not in response.rewards:
        raise EvaluationError(
            f"evaluation.reward: the response has no scores of {reward!r}, only of {', '.join(response.rewards)}"
        )
    name = reward if reward is not None else next(iter(response.rewards))
    info = declared.get(name)
    scored = response.rewards[name].metrics or {}
    metrics = {entry.name: entry for entry in (info.metrics if info else ()) if entry.name in scored}
    if metric is not None and metric not in metrics:
        raise EvaluationError(f"evaluation.metric: {_no_metric(name, metric, list(metrics))}")
    return (
        show_metric(info.model_copy(update={"metrics": list(metrics.values())}), metric) if info else ShownMetric(name)
    )


def show_metric(info: ModelInfo, metric: str | None = None) -> ShownMetric:
    """The number of a reward to show: a metric that it declares; None: its first one, or its raw score without any."""
    if not info.metrics:
        return ShownMetric(info.name, description=info.description, higher_is_better=info.higher_is_better)
    shown = next((one for one in info.metrics if one.name == metric), info.metrics[0])
    return ShownMetric(
        info.name,
        shown.name,
        shown.description,
        percentage=shown.unit == "share",
        higher_is_better=shown.higher_is_better,
    )


def _no_metric(reward: str, metric: str, metrics: Sequence[str]) -> str:
    declared = f"it declares {', '.join(metrics)}" if metrics else "it declares none"
    return f"the reward {reward!r} has no metric {metric!r}; {declared}"
