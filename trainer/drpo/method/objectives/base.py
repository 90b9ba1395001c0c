"""The interface between the training step and an objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class ObjectiveResult:
    """The loss of one group, and plain numbers to log.

    Attributes:
        loss: a float32 scalar with its autograd graph.
        metrics: for example {"preference_magnitude": 0.41, "reference_distance": 0.08}.
    """

    loss: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """Turns one group's features and preferences into a loss."""

    def loss(self, features: dict[str, Tensor], reference: dict[str, Tensor], pairs_M2: Tensor) -> ObjectiveResult:
        """The loss of one group.

        Args:
            features: {key: (K, T, D)} of K candidates, with T tokens each and D features per token; with their graph.
            reference: the same for the images of the reference generator from the same noises; without a graph.
            pairs_M2: M (winner, loser) pairs of candidate indices, int64, such as [[3, 0], [5, 2]].
        """
        ...
