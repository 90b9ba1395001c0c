"""Draw (winner, loser) pairs from a group's scores. A tie is not a preference, so a pair is never tied."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drpo_rewards.api.contract import PairStrategy
from drpo_rewards.errors import InvalidRequestError


def draw_pairs(
    scores: Sequence[float], count: int, strategy: PairStrategy = "random", seed: int = 0
) -> list[tuple[int, int]]:
    """Draw (winner, loser) index pairs; the same scores and seed give the same pairs.

    `random` is the paper's strategy: each pair is two different images drawn uniformly and put in order, redrawn while
    tied. Pairs are drawn independently, so one may occur twice. It gives `count` pairs, or none if all images are tied.
    `extremes` pairs the best with the worst, the second best with the second worst, and so on, and leaves out
    tied pairs.

    Args:
        scores: K combined scores.
        count: M, how many pairs.
        strategy: `random` or `extremes`.
        seed: of the `random` strategy.

    Raises:
        InvalidRequestError: `extremes` with 2 * count > K.
    """
    if strategy == "extremes":
        return _pair_extremes(scores, count)
    scores_K = np.asarray(scores, dtype=np.float64)
    # All ordered pairs with a strict preference. Drawing uniformly from them equals redrawing ties.
    winners, losers = np.nonzero(scores_K[:, None] > scores_K[None, :])
    if len(winners) == 0:
        return []
    drawn = np.random.default_rng(seed).integers(len(winners), size=count)
    return list(zip(winners[drawn].tolist(), losers[drawn].tolist(), strict=True))


def _pair_extremes(scores: Sequence[float], count: int) -> list[tuple[int, int]]:
    if 2 * count > len(scores):
        raise InvalidRequestError(
            f"`extremes` pairs the best {count} with the worst {count}, which needs {2 * count} images; this group "
            f"has {len(scores)}. Ask for at most {len(scores) // 2} pairs.",
            field="pairs.count",
        )
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    candidates = [(order[rank], order[-1 - rank]) for rank in range(count)]
    return [(winner, loser) for winner, loser in candidates if scores[winner] > scores[loser]]
