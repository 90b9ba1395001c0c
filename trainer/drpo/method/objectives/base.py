"""The interface between the training step and an objective.

An objective says what it needs of a group, and the training step computes that and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from pydantic import BaseModel
from torch import Tensor

Features = dict[str, Tensor]
"""{key: (N, T, D)} of a feature map, with T tokens for each of N inputs and D features per token."""


@dataclass(frozen=True)
class Needs:
    """What an objective needs of a group.

    Attributes:
        latents: the candidates' latents.
        features: the candidates' features.
        reference_latents: the latents of the reference generator from the same noises.
        reference_features: their features.
        ranking: scores of the candidates, and pairs of a winner and a loser.
        takes_supports: instead of a ranking, the loss takes given positives and negatives, as in offline training.
    """

    latents: bool = False
    features: bool = False
    reference_latents: bool = False
    reference_features: bool = False
    ranking: bool = True
    takes_supports: bool = False


@dataclass(frozen=True)
class Supports:
    """S given images of a group, all of them positives or all negatives; without a graph.

    Attributes:
        latents_SChw: their latents.
        features: their features {key: (S, T, D)}; None if the objective needs no features.
        weights_S: how much each of them counts, float32; 1 for an image of the group's own prompt.
    """

    latents_SChw: Tensor
    features: Features | None
    weights_S: Tensor


@dataclass(frozen=True)
class Group:
    """One prompt's K candidates and what is known about them. What the objective does not need is None.

    Attributes:
        latents_KChw: the candidates' latents, with their graph.
        features: the candidates' features {key: (K, T, D)}, with their graph.
        reference_KChw: the latents of the reference generator from the same noises, without a graph.
        reference_features: their features {key: (K, T, D)}, without a graph.
        pairs_M2: M (winner, loser) pairs of candidate indices, int64, such as [[3, 0], [5, 2]].
        queries_Q: indices of the candidates that are moved, int64; None: all of them.
        scores_K: the combined scores of the candidates, float32; higher is better.
        positives, negatives: images that are given, in offline training, in the place of pairs and scores.
    """

    latents_KChw: Tensor | None = None
    features: Features | None = None
    reference_KChw: Tensor | None = None
    reference_features: Features | None = None
    pairs_M2: Tensor | None = None
    queries_Q: Tensor | None = None
    scores_K: Tensor | None = None
    positives: Supports | None = None
    negatives: Supports | None = None


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
    """Turns one group into a loss.

    Its class is built from its settings: a mapping, a `settings_class`, or None for the defaults.

    Attributes:
        settings_class: the pydantic model of the settings, the keys of a preset's section `objective`.
    """

    settings_class: ClassVar[type[BaseModel]]

    @property
    def needs(self) -> Needs:
        """What the settings need of a group."""
        ...

    def loss(self, group: Group) -> ObjectiveResult:
        """The loss of one group. Its gradient flows into `latents_KChw` and `features` only."""
        ...
