"""Strengths behind pairwise judgements (Bradley and Terry, 1952): i beats j with probability 1 / (1 + exp(s_j - s_i)).

A tie counts as half a win for either side. Every strength has the prior N(0, PRIOR_DEVIATION^2), so that a candidate
that always won, or met nobody, has a finite one. Newton's method finds them: the log posterior is strictly concave.
(`choix`, the library for this, does not offer half wins together with an uncertainty.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PRIOR_DEVIATION = 2.0
_TOLERANCE = 1e-10
_DIGITS = 9  # results are rounded, so that the solver's last bits cannot make equal records unequal


@dataclass(frozen=True)
class Strengths:
    """The strengths of K candidates.

    Attributes:
        scores_K: log-odds; they sum to 0.
        errors_K: standard errors of the log-odds: those of the posterior, by Laplace's approximation.
    """

    scores_K: np.ndarray
    errors_K: np.ndarray


def fit(wins_KK: np.ndarray) -> Strengths:
    """Fit strengths to a record of games.

    Args:
        wins_KK: entry (i, j) is how often i beat j, where a tie counts 0.5 for both; the diagonal is 0.
    """
    games_KK = wins_KK + wins_KK.T
    scores_K = np.zeros(len(wins_KK))
    while True:
        gradient_K, curvature_KK = _derivatives(wins_KK, games_KK, scores_K)
        if np.abs(gradient_K).max() < _TOLERANCE:
            break
        step_K = np.linalg.solve(curvature_KK, gradient_K)
        scale = 1.0
        while scale > 1e-6 and _log_posterior(wins_KK, scores_K + scale * step_K) < _log_posterior(wins_KK, scores_K):
            scale /= 2  # a full step may overshoot if the start is far off
        if scale * np.abs(step_K).max() < _TOLERANCE:
            break
        scores_K = scores_K + scale * step_K
    errors_K = np.sqrt(np.diag(np.linalg.inv(curvature_KK)))
    return Strengths(scores_K.round(_DIGITS) + 0.0, errors_K.round(_DIGITS))  # + 0.0: no negative zero


def _log_posterior(wins_KK: np.ndarray, scores_K: np.ndarray) -> float:
    margins_KK = scores_K[:, None] - scores_K[None, :]
    likelihood = -(wins_KK * np.logaddexp(0, -margins_KK)).sum()
    return float(likelihood - (scores_K**2).sum() / (2 * PRIOR_DEVIATION**2))


def _derivatives(wins_KK: np.ndarray, games_KK: np.ndarray, scores_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient of the log posterior, and its negative Hessian."""
    chances_KK = 1 / (1 + np.exp(scores_K[None, :] - scores_K[:, None]))
    gradient_K = wins_KK.sum(axis=1) - (games_KK * chances_KK).sum(axis=1) - scores_K / PRIOR_DEVIATION**2
    spread_KK = games_KK * chances_KK * (1 - chances_KK)
    curvature_KK = np.diag(spread_KK.sum(axis=1) + PRIOR_DEVIATION**-2) - spread_KK
    return gradient_K, curvature_KK
