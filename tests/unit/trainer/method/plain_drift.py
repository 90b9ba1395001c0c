"""A second implementation of Appendix A and of the authors' trainer, with which `drpo.method.drift` is compared.

It shares no code with the project. It computes in float64, one scalar after the other, as the equations are written.
"""

from __future__ import annotations

import math

import numpy as np


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b)))


def kernel_logit(kernel, query, support, normalized_distance, rho):
    if kernel == "rbf":
        return -(normalized_distance**2) / (2 * rho**2)
    if kernel == "laplacian":
        return -normalized_distance / rho
    if kernel == "exponential":
        return -normalized_distance / (2 * rho**2)
    return cosine(query, support) / rho


def plain_field(
    queries,
    positives,
    negatives,
    radii,
    *,
    kernel="rbf",
    released=False,
    positive_weights=None,
    negative_weights=None,
    negatives_are_queries=False,
    normalized=True,
):
    """V (Q, D) in coordinates divided by s_z, and s_z, for one set of queries."""
    q, d = len(queries), len(queries[0])
    positive_weights = [1.0] * len(positives) if positive_weights is None else list(positive_weights)
    negative_weights = [1.0] * len(negatives) if negative_weights is None else list(negative_weights)
    supports = [*negatives, *positives]
    weights = [*negative_weights, *positive_weights]
    num_negatives = len(negatives)
    masked = set()
    if released:
        supports = [*queries, *supports]
        weights = [1.0] * q + weights
        masked = {(i, i) for i in range(q)}
        if negatives_are_queries:
            masked |= {(i, q + i) for i in range(q)}
        num_negatives += q
    count = len(supports)

    distances = np.zeros((q, count))
    for i in range(q):
        for j in range(count):
            distances[i, j] = distance(queries[i], supports[j])
            if released:
                distances[i, j] = max(distances[i, j], 1e-4)

    weighted = sum(weights[j] * distances[i, j] for i in range(q) for j in range(count)) / (q * count)
    s = max(1e-3, weighted / (sum(weights) / count))
    s_z = max(1e-3, s / math.sqrt(d))

    total = np.zeros((q, d))
    for rho in radii:
        logits = np.zeros((q, count))
        for i in range(q):
            for j in range(count):
                logits[i, j] = kernel_logit(kernel, queries[i], supports[j], distances[i, j] / s, rho)
                if (i, j) in masked:
                    logits[i, j] -= 100.0 / rho
        affinity = np.zeros((q, count))
        for i in range(q):
            for j in range(count):
                over_supports = 1.0 / sum(math.exp(min(logits[i, k] - logits[i, j], 700)) for k in range(count))
                over_queries = 1.0 / sum(math.exp(min(logits[k, j] - logits[i, j], 700)) for k in range(q))
                product = over_supports * over_queries
                if released:
                    product = max(product, 1e-6)
                affinity[i, j] = math.sqrt(product) * weights[j]
        field = np.zeros((q, d))
        for i in range(q):
            negative_mass = sum(affinity[i, j] for j in range(num_negatives))
            positive_mass = sum(affinity[i, j] for j in range(num_negatives, count))
            for c in range(d):
                attraction = sum(affinity[i, j] * float(supports[j][c]) / s_z for j in range(num_negatives, count))
                repulsion = sum(affinity[i, j] * float(supports[j][c]) / s_z for j in range(num_negatives))
                field[i, c] = negative_mass * attraction - positive_mass * repulsion
        rms = math.sqrt(max(1e-8, sum(float(v) ** 2 for v in field.flatten()) / (q * d)))
        total += field / rms if normalized else field
    return total, s_z
