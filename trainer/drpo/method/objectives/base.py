"""What the training step asks of an objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class ObjectiveResult:
    """A scalar float32 loss with its graph, and plain numbers worth logging."""

    loss: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


class Objective(Protocol):
    """Turns one group's features and preferences into a loss.

    `features` and `reference` map a key to (K, T, D): K candidates, T tokens, D features a token, from the generator
    with its adapter on (with a graph) and off. `pairs_M2`, int64, holds M (winner, loser) candidate indices.
    """

    def loss(self, features: dict[str, Tensor], reference: dict[str, Tensor], pairs_M2: Tensor) -> ObjectiveResult: ...
