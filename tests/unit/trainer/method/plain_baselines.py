"""The baselines' losses a second time: numpy in float64, one candidate after the other, with everything detached given.

`latents` is (K, D); targets, actions, old latents and gradients are fixed numbers here, as behind a stop-gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def norm2(a: Array, b: Array, paper: bool) -> float:
    total = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    return float(total if paper else total / len(a))


def anchor(latents: Array, reference: Array, weight: float, paper: bool) -> float:
    return weight * sum(norm2(a, r, paper) for a, r in zip(latents, reference, strict=True)) / len(latents)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def dpo_paper(latents: Array, reference: Array, pairs: Sequence[tuple[Array, Array]], beta: float) -> float:
    losses = []
    for mu, ref in zip(latents, reference, strict=True):
        for chosen, rejected in pairs:
            g = -norm2(mu, chosen, True) + norm2(mu, rejected, True)
            g_ref = -norm2(ref, chosen, True) + norm2(ref, rejected, True)
            losses.append(-log_sigmoid(beta * (g - g_ref)))
    return sum(losses) / len(losses)


def dpo_released(latents: Array, reference: Array, chosen: Array, rejected: Array, beta: float) -> float:
    def s(batch: Array, targets: Array) -> float:
        return -float(np.mean([norm2(a, y, False) for a in batch for y in targets]))

    g = s(latents, chosen) - s(latents, rejected)
    g_ref = s(reference, chosen) - s(reference, rejected)
    return -log_sigmoid(beta * (g - g_ref))


def action(latent: Array, noise: Array, sigma: float) -> Array:
    return latent + sigma * (noise - noise.mean()) / np.sqrt(np.mean((noise - noise.mean()) ** 2))


def log_density(a: Array, mu: Array, sigma: float) -> float:
    return -0.5 * float(np.mean(((a - mu) / sigma) ** 2))


def pso(
    latents: Array,
    reference: Array,
    actions: Array,
    scores: Array,
    sigma: float,
    beta: float,
    clip: float,
    limit: float,
) -> float:
    ratios = []
    for a, mu, ref in zip(actions, latents, reference, strict=True):
        q = float(np.clip(log_density(a, mu, sigma) - log_density(a, ref, sigma), -limit, limit))
        ratios.append(math.log(float(np.clip(math.exp(q), 1 - clip, 1 + clip))) if clip else q)
    losses = []
    for first in range(0, len(scores) - 1, 2):
        winner, loser = (first, first + 1) if scores[first] > scores[first + 1] else (first + 1, first)
        if scores[first] != scores[first + 1]:
            losses.append(-log_sigmoid(beta * (ratios[winner] - ratios[loser])))
    return sum(losses) / len(losses) if losses else 0.0


def clipped_gain(new: float, old: float, advantage: float, clip: float, limit: float) -> float:
    ratio = math.exp(float(np.clip(new - old, -limit, limit)))
    return min(ratio * advantage, float(np.clip(ratio, 1 - clip, 1 + clip)) * advantage)


def k3(new: float, old: float) -> float:
    return math.exp(new - old) - 1 - (new - old)


def grpo_paper(
    latents: Array,
    old: Array,
    actions: Array,
    scores: Array,
    sigma: float,
    clip: float,
    scale: float,
    most: float,
    kl: float,
) -> float:
    z = (scores - scores.mean()) / np.sqrt(np.mean((scores - scores.mean()) ** 2))
    gains, divergences = [], []
    for a, mu, mu_old, value in zip(actions, latents, old, z, strict=True):
        new, before = log_density(a, mu, sigma), log_density(a, mu_old, sigma)
        gains.append(clipped_gain(new, before, float(np.clip(scale * value, -most, most)), clip, 10.0))
        divergences.append(k3(new, before))
    return -float(np.mean(gains)) + kl * float(np.mean(divergences))


def grpo_released(
    latents: Array, old: Array, scores: Array, anchors: int, power: float, temperature: float, clip: float, most: float
) -> float:
    centred = scores - scores.mean()
    length = sum(abs(r) ** power for r in centred) ** (1 / power)
    gains = []
    for a in range(anchors):

        def log_shares(mu: Array) -> list[float]:
            closeness = [-norm2(x, mu, False) / temperature for x in old]
            return [c - math.log(sum(math.exp(other) for other in closeness)) for c in closeness]

        for new, before, r in zip(log_shares(latents[a]), log_shares(old[a]), centred, strict=True):
            advantage = float(np.clip(math.sqrt(len(scores)) * r / length, -most, most))
            gains.append(clipped_gain(new, before, advantage, clip, 10.0))
    return -float(np.mean(gains))


def vgg_flow(latents: Array, reference: Array, gradients: Array, scale: float, limit: float, paper: bool) -> float:
    losses = []
    for mu, ref, g in zip(latents, reference, gradients, strict=True):
        length = math.sqrt(sum(x * x for x in g))
        losses.append(norm2(mu, ref + scale * g * min(length, limit) / length, paper))
    return float(np.mean(losses))


def draft(rewards: Array, weight: float, std_weight: float) -> float:
    mean = sum(rewards) / len(rewards)
    return -weight * mean - std_weight * math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))


def slopes(function: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    """The gradient of a function by central differences."""
    result = np.empty_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        result[index] = (function(up) - function(down)) / (2 * step)
    return result
