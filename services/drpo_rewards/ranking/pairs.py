"""Draw (winner, loser) pairs from a group's scores. A tie is no preference, so a pair is never tied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drpo_rewards.api.contract import PairStrategy
from drpo_rewards.errors import InvalidRequestError


def draw_pairs(
    scores: Sequence[float], count: int, strategy: PairStrategy = "random", seed: int = 0
) -> list[tuple[int, int]]:
    """(winner, loser) index pairs; the same scores and seed give the same pairs.

    `random` is the paper's: each pair is two different images drawn uniformly and put in order, redrawn while tied.
    Pairs are drawn independently, so one may come twice. It gives `count` pairs, or none where all images are tied.
    `extremes` sets the best against the worst, the second best against the second worst, and so on; pairs that turn
    out tied are left out. It raises InvalidRequestError unless 2 * count <= K.
    """
    if strategy == "extremes":
        return _extremes(scores, count)
    scores_K = np.asarray(scores, dtype=np.float64)
    # All ordered pairs with a strict preference. Drawing uniformly from them is what redrawing ties comes to.
    winners, losers = np.nonzero(scores_K[:, None] > scores_K[None, :])
    if len(winners) == 0:
        return []
    drawn = np.random.default_rng(seed).integers(len(winners), size=count)
    return list(zip(winners[drawn].tolist(), losers[drawn].tolist(), strict=True))


def _extremes(scores: Sequence[float], count: int) -> list[tuple[int, int]]:
    if 2 * count > len(scores):
        raise InvalidRequestError(
            f"`extremes` takes the top {count} against the bottom {count}, which needs {2 * count} images; this group "
            f"has {len(scores)}. Ask for at most {len(scores) // 2} pairs.",
            field="pairs.count",
        )
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    candidates = [(order[place], order[-1 - place]) for place in range(count)]
    return [(winner, loser) for winner, loser in candidates if scores[winner] > scores[loser]]
