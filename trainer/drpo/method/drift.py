"""Algorithm A2: the field that moves queries towards positive supports and away from negative ones.

Pure tensor code that can be read beside Appendix A of "Drifting Preference Optimization for One-Step Generative Models"
(arXiv 2606.02521): each step names its equation. Everything is computed in float32 and without gradients; the field is
a constant of the loss (Eq. 16).

Two published variants differ in the supports, and in how small distances and affinities are clamped:

paper      Appendix A as written. The supports are the negatives and the positives.
released   The authors' trainer. The queries are negatives too, with weight 1. The logit of a query with itself is
           lowered by 100 / rho, so that it does not repel itself. Squared distances are clamped at 1e-8, and the
           product under the root of Eq. 22 at 1e-6. The scale of Eq. 19 is the mean over all of these supports.

Axes: Q queries, P positives, N negatives, S supports, D features; any leading batch axes are written `...`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from drpo.errors import ConfigError, ShapeError

Kernel = Literal["rbf", "laplacian", "exponential", "cosine"]
Variant = Literal["paper", "released"]

# The paper gives no values for its three epsilons; these are from the authors' trainer.
SCALE_FLOOR = 1e-3  # eps_s of Eq. 19 and eps_z of Eq. 20
MEAN_SQUARE_FLOOR = 1e-8  # eps_v of Eq. 25

# Clamps and mask of the released variant.
SQUARED_DISTANCE_FLOOR = 1e-8
AFFINITY_FLOOR = 1e-6
SELF_MASK = 100.0


@dataclass(frozen=True)
class DriftField:
    """The result of one call of Algorithm A2. None of its tensors has a gradient.

    Attributes:
        field_QD: (..., Q, D), V of Eq. 26, a displacement in normalized coordinates z / scale.
        scale: (..., 1, 1), s_z of Eq. 20.
        distance_scale: (..., 1, 1), s of Eq. 19, the mean distance between queries and supports.
        magnitudes: for each radius (..., 1, 1), the RMS by which Eq. 25 divides V.
    """

    field_QD: Tensor
    scale: Tensor
    distance_scale: Tensor
    magnitudes: tuple[Tensor, ...]


@torch.no_grad()
def drift_field(
    queries_QD: Tensor,
    positives_PD: Tensor,
    negatives_ND: Tensor,
    radii: Sequence[float],
    *,
    kernel: Kernel = "rbf",
    variant: Variant = "paper",
    positive_weights_P: Tensor | float = 1.0,
    negative_weights_N: Tensor | float = 1.0,
    mask_negative_diagonal: bool = False,
    share_scales: bool = False,
) -> DriftField:
    """The field that moves each query towards the positives and away from the negatives (Algorithm A2).

    Args:
        queries_QD, positives_PD, negatives_ND: (..., Q, D), (..., P, D) and (..., N, D) with equal leading axes. A
            support that occurs twice counts twice.
        radii: rho of Eq. 21, in units of the mean distance s of Eq. 19, such as (0.02, 0.05, 0.2).
        kernel: "rbf" is Eq. 21; for the others see `_logits`.
        variant: see the module's docstring.
        positive_weights_P, negative_weights_N: w of Eq. 19 and 22: one number, or (..., P) and (..., N).
        mask_negative_diagonal: negative i is query i, and does not repel it (released only).
        share_scales: take the scales of Eq. 19 and 25 over the whole batch, as the drifting models do for the
            locations of one feature map; otherwise each batch entry has its own scales.

    Raises:
        ShapeError: the tensors do not fit each other.
        ConfigError: the settings do not fit each other.
    """
    _check_arguments(queries_QD, positives_PD, negatives_ND, radii, kernel, variant, mask_negative_diagonal)
    # Models may run in half precision, even under autocast. The field may not: it consists of small differences.
    with torch.autocast(queries_QD.device.type, enabled=False):
        queries_QD, positives_PD, negatives_ND = queries_QD.float(), positives_PD.float(), negatives_ND.float()
        weights_S = torch.cat(
            [_weights(negatives_ND, negative_weights_N), _weights(positives_PD, positive_weights_P)], dim=-1
        )
        if variant == "released":
            query_weights_Q = queries_QD.new_ones(queries_QD.shape[:-1])
            weights_S = torch.cat([query_weights_Q, weights_S], dim=-1)
            negatives_ND = torch.cat([queries_QD, negatives_ND], dim=-2)
        return _field(
            queries_QD,
            torch.cat([negatives_ND, positives_PD], dim=-2),
            weights_S,
            num_negatives=negatives_ND.shape[-2],
            self_mask_QS=_self_mask(queries_QD, weights_S.shape[-1], variant, mask_negative_diagonal),
            radii=radii,
            kernel=kernel,
            variant=variant,
            share_scales=share_scales,
        )


def _field(
    queries_QD: Tensor,
    supports_SD: Tensor,
    weights_S: Tensor,
    *,
    num_negatives: int,
    self_mask_QS: Tensor | None,
    radii: Sequence[float],
    kernel: Kernel,
    variant: Variant,
    share_scales: bool,
) -> DriftField:
    """Eq. 18-26 over the joint support batch B = [B-; B+] whose first `num_negatives` rows are B-."""
    # Eq. 18, computed from differences: inner products would round, and equal vectors would get a distance above 0.
    distances_QS = torch.cdist(queries_QD, supports_SD, compute_mode="donot_use_mm_for_euclid_dist")
    if variant == "released":
        distances_QS = distances_QS.clamp_min(math.sqrt(SQUARED_DISTANCE_FLOOR))

    # Eq. 19 and 20.
    weights_1S = weights_S.unsqueeze(-2)
    mean_distance = _mean(weights_1S * distances_QS, share_scales) / _mean(weights_1S, share_scales)
    distance_scale = mean_distance.clamp_min(SCALE_FLOOR)
    scale = (distance_scale / math.sqrt(queries_QD.shape[-1])).clamp_min(SCALE_FLOOR)

    # Eq. 24 sums over normalized supports. The coefficients of a row add up to 0, so the origin does not change the
    # field. With the mean query as origin, the numbers stay small even if the features have a large offset.
    origin_1D = queries_QD.mean(dim=-2, keepdim=True)
    supports_normalized_SD = (supports_SD - origin_1D) / scale

    field_QD = torch.zeros_like(queries_QD)
    magnitudes = []
    for radius in radii:
        logits_QS = _logits(queries_QD, supports_SD, distances_QS / distance_scale, radius, kernel)
        if self_mask_QS is not None:
            logits_QS = logits_QS - (SELF_MASK / radius) * self_mask_QS

        # Eq. 22: both softmaxes over the joint supports, and only then the split.
        squared_QS = logits_QS.softmax(dim=-1) * logits_QS.softmax(dim=-2)
        if variant == "released":
            squared_QS = squared_QS.clamp_min(AFFINITY_FLOOR)
        affinity_QS = squared_QS.sqrt() * weights_1S
        negative_QN, positive_QP = affinity_QS[..., :num_negatives], affinity_QS[..., num_negatives:]

        # Eq. 23 and 24.
        negative_mass_Q1 = negative_QN.sum(dim=-1, keepdim=True)
        positive_mass_Q1 = positive_QP.sum(dim=-1, keepdim=True)
        coefficients_QS = torch.cat([-positive_mass_Q1 * negative_QN, negative_mass_Q1 * positive_QP], dim=-1)
        radius_field_QD = coefficients_QS @ supports_normalized_SD

        # Eq. 25 and 26.
        magnitude = _mean(radius_field_QD.square(), share_scales).clamp_min(MEAN_SQUARE_FLOOR).sqrt()
        field_QD = field_QD + radius_field_QD / magnitude
        magnitudes.append(magnitude)
    return DriftField(field_QD, scale, distance_scale, tuple(magnitudes))


def _logits(queries_QD: Tensor, supports_SD: Tensor, distances_QS: Tensor, radius: float, kernel: Kernel) -> Tensor:
    """The logits L of Eq. 21, (..., Q, S). `distances_QS` is D_ij, the distance in units of the mean distance s."""
    if kernel == "rbf":
        return -distances_QS.square() / (2 * radius**2)
    if kernel == "laplacian":
        return -distances_QS / radius
    if kernel == "exponential":
        # The paper gives no formula for this kernel. This is the usual one, the RBF without the square. (In the
        # authors' trainer, the name means the Laplacian.)
        return -distances_QS / (2 * radius**2)
    return F.normalize(queries_QD, dim=-1) @ F.normalize(supports_SD, dim=-1).transpose(-1, -2) / radius


def _mean(values: Tensor, over_batch: bool) -> Tensor:
    """The mean over the last two axes, or over all of them; the number of axes stays the same."""
    axes = tuple(range(values.ndim)) if over_batch else (-2, -1)
    return values.mean(dim=axes, keepdim=True)


def _weights(supports_SD: Tensor, weights_S: Tensor | float) -> Tensor:
    """One float32 weight per support, (..., S)."""
    weights = torch.as_tensor(weights_S, dtype=torch.float32, device=supports_SD.device)
    try:
        return weights.expand(supports_SD.shape[:-1])
    except RuntimeError as error:
        raise ShapeError(
            f"drift field: weights of shape {tuple(weights.shape)} do not fit supports {tuple(supports_SD.shape)}; "
            "give one number, or one weight per support"
        ) from error


def _self_mask(queries_QD: Tensor, num_supports: int, variant: Variant, negatives_too: bool) -> Tensor | None:
    """A mask (Q, S) that is 1 where a support is the query itself. The released supports begin with the queries."""
    if variant == "paper":
        return None
    num_queries = queries_QD.shape[-2]
    mask_QS = queries_QD.new_zeros(num_queries, num_supports)
    mask_QS.diagonal().fill_(1.0)
    if negatives_too:
        mask_QS.diagonal(num_queries).fill_(1.0)
    return mask_QS


def _check_arguments(
    queries_QD: Tensor,
    positives_PD: Tensor,
    negatives_ND: Tensor,
    radii: Sequence[float],
    kernel: str,
    variant: str,
    mask_negative_diagonal: bool,
) -> None:
    shapes = [tuple(tensor.shape) for tensor in (queries_QD, positives_PD, negatives_ND)]
    if min(len(shape) for shape in shapes) < 2 or len({(shape[:-2], shape[-1]) for shape in shapes}) > 1:
        raise ShapeError(
            "drift field: queries, positives and negatives must be (..., Q, D), (..., P, D), (..., N, D) with equal "
            f"batch axes and D, not {shapes[0]}, {shapes[1]}, {shapes[2]}"
        )
    if 0 in (size for shape in shapes for size in shape):
        raise ShapeError(f"drift field: queries and supports must not be empty: {shapes[0]}, {shapes[1]}, {shapes[2]}")
    if not radii or min(radii) <= 0:
        raise ConfigError(f"drift field: radii must be one or more positive numbers, not {list(radii)}")
    if kernel not in get_args(Kernel):
        raise ConfigError(f"drift field: there is no kernel {kernel!r}; choose from {', '.join(get_args(Kernel))}")
    if variant not in get_args(Variant):
        raise ConfigError(f"drift field: there is no variant {variant!r}; choose from {', '.join(get_args(Variant))}")
    if mask_negative_diagonal and variant != "released":
        raise ConfigError("drift field: mask_negative_diagonal needs variant='released'")
    if mask_negative_diagonal and shapes[0] != shapes[2]:
        raise ShapeError(
            f"drift field: mask_negative_diagonal needs one negative per query, not negatives {shapes[2]} for queries "
            f"{shapes[0]}"
        )
