"""The supports of a group's preference field: members of its pairs, or images that are given.

Axes: K candidates, S given images, P positives, N negatives, M pairs, T tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drpo.errors import ConfigError, ShapeError
from drpo.method.objectives.base import Features, Group, Supports
from drpo.transfer import move


@dataclass(frozen=True)
class FoundSupports:
    """The positives and the negatives of a group, by their rows among some images.

    Attributes:
        images: features {key: (S, T, D)} without a graph; None: the rows are those of the candidates.
        positives_P, negatives_N: rows, int64, on the device of the features.
        positive_weights_P, negative_weights_N: how much each counts.
    """

    images: Features | None
    positives_P: Tensor
    negatives_N: Tensor
    positive_weights_P: Tensor
    negative_weights_N: Tensor


def find_supports(group: Group, features: Features) -> FoundSupports:
    """The given positives and negatives of a group, or the members of its pairs.

    Args:
        group: one with pairs, or with positives and negatives.
        features: its features {key: (K, T, D)}.

    Raises:
        ShapeError: they do not fit the features.
        ConfigError: there are neither pairs nor given images.
    """
    if group.positives is not None and group.negatives is not None:
        positives, negatives = (_check_given(side, features) for side in (group.positives, group.negatives))
        images = {key: torch.cat([positives[key], negatives[key]]) for key in features}
        weights = (group.positives.weights_S, group.negatives.weights_S)
        rows_S = torch.arange(sum(map(len, weights)), device=weights[0].device)
        return FoundSupports(images, rows_S[: len(weights[0])], rows_S[len(weights[0]) :], *weights)
    candidates, device = next((len(tokens), tokens.device) for tokens in features.values())
    winners_M, losers_M = move(_check_pairs(group.pairs_M2, candidates), device).T
    ones_M = torch.ones(len(winners_M), device=device)
    return FoundSupports(None, winners_M, losers_M, ones_M, ones_M)


def _check_given(supports: Supports, features: Features) -> Features:
    given = supports.features or {}
    for key, tokens in features.items():
        shape = tuple(given[key].shape) if key in given else None
        if shape is None or shape[1:] != tokens.shape[1:] or shape[0] != len(supports.weights_S):
            raise ShapeError(
                f"DrPO: the given images must have features like the candidates' {tuple(tokens.shape)} and one weight "
                f"each: {key!r} is {shape}, with {len(supports.weights_S)} weights"
            )
    return {key: given[key].detach().float() for key in features}


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
