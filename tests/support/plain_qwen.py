"""What the Qwen-VL models have beyond `support.plain`, in float64 numpy."""

from __future__ import annotations

import numpy as np

from support import plain


def merge_order(rows: int, columns: int) -> list[tuple[int, int]]:
    """Patches in the order of the model: square by square of four."""
    return [(y + dy, x + dx) for y in range(0, rows, 2) for x in range(0, columns, 2) for dy in (0, 1) for dx in (0, 1)]


def rotated(x: plain.Array, angles: plain.Array) -> plain.Array:
    """(T, D) of one head turned by (T, D / 2) angles, the second half being the partners of the first."""
    half = x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=1)


def rms_norm(weights: plain.Weights, name: str, x: plain.Array) -> plain.Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weights[f"{name}.weight"]
