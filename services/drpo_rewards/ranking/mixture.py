"""Combine the scores of several rewards into one per image, and put the images in order. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drpo_rewards.api.contract import Normalize, check_weights

# Decimals of a sum of normalised scores, which are about 1. Where it has no more of them, images are tied.
TIE_DECIMALS = 12


@dataclass(frozen=True)
class Ranking:
    """A group of K images in order. Indices are positions in the group.

    Attributes:
        combined: K scores, higher is better.
        order: K indices, best first; ties keep the group's order.
        ranks: K ranks, 0 for the best; equal scores share the smaller rank.
        all_tied: whether all combined scores are equal.
        weights: each reward's share; their absolute values sum to 1.
    """

    combined: list[float]
    order: list[int]
    ranks: list[int]
    all_tied: bool
    weights: dict[str, float]


def combine(
    scores: Mapping[str, Sequence[float]], weights: Mapping[str, float], normalize: Normalize = "zscore"
) -> Ranking:
    """Rank a group of K images by the weighted sum of their normalised scores.

    Args:
        scores: K raw scores for every reward in `weights`.
        weights: one per reward. They are divided by the sum of their absolute values, so a negative weight (a penalty)
            stays negative.
        normalize: how each reward's scores are normalised before they are added.

    Raises:
        ValueError: the weights or the scores cannot be combined.
    """
    weights = dict(sorted(weights.items()))  # sums of floats depend on the order, which means nothing here
    check_weights(weights)
    largest = max(abs(weight) for weight in weights.values())  # divide by it first: the sum of huge weights is infinite
    total = sum(abs(weight) / largest for weight in weights.values())
    shares = {name: weight / largest / total for name, weight in weights.items()}
    scores_RK = np.array([scores[name] for name in shares], dtype=np.float64)
    if scores_RK.ndim != 2 or scores_RK.shape[1] == 0:
        raise ValueError("every reward needs the same number of scores, at least one")
    if not np.isfinite(scores_RK).all():
        raise ValueError("a score is not finite; a failure is never a score")
    combined_K = np.zeros(scores_RK.shape[1])
    for share, scores_K in zip(shares.values(), scores_RK, strict=True):
        combined_K += share * NORMALIZERS[normalize](scores_K)
    if len(shares) > 1 and normalize != "none":  # otherwise rounding errors would decide where rewards cancel out
        combined_K = combined_K.round(TIE_DECIMALS) + 0.0  # which also makes -0.0 to 0.0
    order_K = np.argsort(-combined_K, kind="stable")
    ranks_K = (combined_K[None, :] > combined_K[:, None]).sum(axis=1)  # how many images are strictly better
    return Ranking(
        combined=combined_K.tolist(),
        order=order_K.tolist(),
        ranks=ranks_K.tolist(),
        all_tied=bool((combined_K == combined_K[0]).all()),
        weights=shares,
    )


def zscores(scores_K: np.ndarray) -> np.ndarray:
    """Return (score - mean) / population standard deviation of the group; zeros if all scores are equal."""
    if scores_K.min() == scores_K.max():
        return np.zeros_like(scores_K)  # the reward has no preference; avoids 0/0
    # Dividing by the largest absolute value first keeps huge scores from overflowing, and does not change z-scores.
    centred_K = scores_K / np.abs(scores_K).max()
    centred_K = centred_K - centred_K.mean()
    return centred_K / np.sqrt(np.mean(centred_K**2))


def rank_scores(scores_K: np.ndarray) -> np.ndarray:
    """Return ranks from 0 (worst) to 1 (best), evenly spaced; tied images share their mean rank."""
    if len(scores_K) == 1:
        return np.zeros_like(scores_K)
    below_K = (scores_K[None, :] < scores_K[:, None]).sum(axis=1)
    tied_K = (scores_K[None, :] == scores_K[:, None]).sum(axis=1) - 1
    return (below_K + tied_K / 2) / (len(scores_K) - 1)


def raw(scores_K: np.ndarray) -> np.ndarray:
    """Return the scores unchanged."""
    return scores_K


NORMALIZERS = {"zscore": zscores, "rank": rank_scores, "none": raw}
