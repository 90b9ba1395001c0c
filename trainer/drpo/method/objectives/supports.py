"""The supports of a group's preference field: members of its pairs, or images that are given.

Axes: K candidates, S supports of one side, M pairs, T tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drpo.errors import ConfigError, ShapeError
from drpo.method.objectives.base import Features, Group, Supports


@dataclass(frozen=True)
class Side:
    """The positives or the negatives: their features {key: (S, T, D)} without a graph, and their weights."""

    features: Features
    weights_S: Tensor

    def of(self, key: str) -> tuple[Tensor, Tensor]:
        """The features (S, T, D) of one key, and the weights (S,)."""
        return self.features[key], self.weights_S


def find_supports(group: Group, features: Features) -> tuple[Side, Side]:
    """The positives and the negatives: the given ones, or the members of the pairs.

    Args:
        group: one with pairs, or with positives and negatives.
        features: its features {key: (K, T, D)}.

    Raises:
        ShapeError: they do not fit the features.
        ConfigError: there are neither pairs nor given images.
    """
    if group.positives is not None and group.negatives is not None:
        return _check_given(group.positives, features), _check_given(group.negatives, features)
    candidates, device = next((len(tokens), tokens.device) for tokens in features.values())
    winners_M, losers_M = _check_pairs(group.pairs_M2, candidates).T.to(device)
    weights_M = torch.ones(len(winners_M), device=device)

    def pick(rows_M: Tensor) -> Side:
        return Side({key: tokens.detach()[rows_M].float() for key, tokens in features.items()}, weights_M)

    return pick(winners_M), pick(losers_M)


def _check_given(supports: Supports, features: Features) -> Side:
    given = supports.features or {}
    for key, tokens in features.items():
        shape = tuple(given[key].shape) if key in given else None
        if shape is None or shape[1:] != tokens.shape[1:] or shape[0] != len(supports.weights_S):
            raise ShapeError(
                f"DrPO: the given images must have features like the candidates' {tuple(tokens.shape)} and one weight "
                f"each: {key!r} is {shape}, with {len(supports.weights_S)} weights"
            )
    return Side({key: given[key].detach().float() for key in features}, supports.weights_S)


def _check_pairs(pairs_M2: Tensor | None, candidates: int) -> Tensor:
    if pairs_M2 is None or not len(pairs_M2):
        raise ConfigError(
            "DrPO: the group has no pairs (all candidates tied), so there is nothing to learn; leave it out of the step"
        )
    if pairs_M2.ndim != 2 or pairs_M2.shape[1] != 2 or pairs_M2.dtype != torch.int64:
        raise ShapeError(f"DrPO: pairs must be int64 (M, 2), not {pairs_M2.dtype} {tuple(pairs_M2.shape)}")
    if pairs_M2.min() < 0 or pairs_M2.max() >= candidates:
        raise ShapeError("DrPO: a pair has the index of a candidate that is not in the group")
    return pairs_M2
