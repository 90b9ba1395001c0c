"""Algorithm A2: the field that moves queries towards positive supports and away from negative ones.

Pure tensor code that can be read beside Appendix A of "Drifting Preference Optimization for One-Step Generative Models"
(arXiv 2606.02521): each step names its equation. Everything is computed without gradients; the field is a constant of
the loss (Eq. 16).

A group has two fields, towards its winners and towards its references, and most of their supports are its own
candidates. So every vector is measured once (`measure_points`), and a field names its supports by their rows
(`field_among`). `drift_field` does both for one field.

The distances come from inner products in float64, with the mean query as origin: the difference of two large squares
then keeps more digits than float32 has. The rest is in float32.

Two published variants differ in the supports, and in how small distances and affinities are clamped:

paper      Appendix A as written. The supports are the negatives and the positives.
released   The authors' trainer. The queries are negatives too, with weight 1. The logit of a query with itself is
           lowered by 100 / rho, so that it does not repel itself. Squared distances are clamped at 1e-8, and the
           product under the root of Eq. 22 at 1e-6. The scale of Eq. 19 is the mean over all of these supports.

Axes: Q queries, P positives, N negatives, S supports, A all vectors, each once, with the queries first, D features;
any leading batch axes are written `...`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

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

# Of rho. Far outside of any use, and far within what float32 holds as a square and as an inverse.
LEAST_RADIUS, MOST_RADIUS = 1e-6, 1e6


@dataclass(frozen=True)
class Points:
    """Queries and supports, and how far they are from the queries. None of the tensors has a gradient.

    Attributes:
        vectors_AD: (..., A, D), less the mean query, float32. The first Q are the queries.
        distances_QA: (..., Q, A), float32.
        cosines_QA: (..., Q, A), of the vectors as they were given; None if no kernel needs them.
    """

    vectors_AD: Tensor
    distances_QA: Tensor
    cosines_QA: Tensor | None

    def first(self, count: int) -> Points:
        """The first `count` of the points; the queries must be among them."""
        cosines_QA = None if self.cosines_QA is None else self.cosines_QA[..., :count]
        return Points(self.vectors_AD[..., :count, :], self.distances_QA[..., :count], cosines_QA)


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
    **options: Any,
) -> DriftField:
    """The field that moves each query towards the positives and away from the negatives (Algorithm A2).

    Args:
        queries_QD, positives_PD, negatives_ND: (..., Q, D), (..., P, D) and (..., N, D) with equal leading axes. A
            support that occurs twice counts twice.
        radii, kernel, options: see `field_among`.

    Raises:
        ShapeError: the tensors do not fit each other.
        ConfigError: the settings do not fit each other.
    """
    points = measure_points(queries_QD, positives_PD, negatives_ND, kernel=kernel)
    first, between, last = queries_QD.shape[-2], positives_PD.shape[-2], negatives_ND.shape[-2]
    rows_S = torch.arange(first, first + between + last, device=queries_QD.device)
    return field_among(points, rows_S[:between], rows_S[between:], radii, kernel=kernel, **options)


@torch.no_grad()
def measure_points(queries_QD: Tensor, *supports: Tensor, kernel: Kernel = "rbf") -> Points:
    """The queries and some supports as the points of fields, with their distances (Eq. 18).

    Args:
        queries_QD: (..., Q, D); rows 0 to Q - 1 of the points.
        supports: any number of (..., S, D), for the rows after them. The queries need not be among them.
        kernel: of the fields.

    Raises:
        ShapeError: the tensors do not fit each other, or one of them is empty.
    """
    _check_shapes(queries_QD, supports)
    # Models may run in half precision, even under autocast. The field may not: it consists of small differences.
    with _without_autocast(queries_QD.device):
        given_AD = torch.cat([queries_QD, *supports], dim=-2)
        queries = queries_QD.shape[-2]
        # Eq. 24 sums over supports with coefficients that add up to 0 in each row, so the origin does not change the
        # field. With the mean query as origin, the numbers stay small even if the features have a large offset.
        exact_AD = given_AD.double()
        exact_AD = exact_AD - exact_AD[..., :queries, :].mean(dim=-2, keepdim=True)
        squares_A = torch.linalg.vector_norm(exact_AD, dim=-1).square()
        products_QA = exact_AD[..., :queries, :] @ exact_AD.transpose(-1, -2)
        squared_QA = squares_A[..., :queries].unsqueeze(-1) + squares_A.unsqueeze(-2) - 2 * products_QA
        distances_QA = squared_QA.clamp_min_(0).sqrt_().float()
        distances_QA.diagonal(dim1=-2, dim2=-1).zero_()  # a query and itself, free of rounding
        cosines_QA = None
        if kernel == "cosine":
            directions_AD = F.normalize(given_AD.float(), dim=-1)
            cosines_QA = directions_AD[..., :queries, :] @ directions_AD.transpose(-1, -2)
        return Points(exact_AD.float(), distances_QA, cosines_QA)


@torch.no_grad()
def field_among(
    points: Points,
    positives_P: Tensor,
    negatives_N: Tensor,
    radii: Sequence[float],
    *,
    kernel: Kernel = "rbf",
    variant: Variant = "paper",
    positive_weights_P: Tensor | float = 1.0,
    negative_weights_N: Tensor | float = 1.0,
    mask_negative_diagonal: bool = False,
    share_scales: bool = False,
    normalize: bool = True,
) -> DriftField:
    """The field of the queries among measured points (Algorithm A2).

    Args:
        points: of `measure_points`, for the same kernel.
        positives_P, negatives_N: rows of the points, int64 on their device. One that occurs twice counts twice.
        radii: rho of Eq. 21, in units of the mean distance s of Eq. 19, such as (0.02, 0.05, 0.2).
        kernel: "rbf" is Eq. 21; for the others see `_logits`.
        variant: see the module's docstring.
        positive_weights_P, negative_weights_N: w of Eq. 19 and 22: one number, or (..., P) and (..., N).
        mask_negative_diagonal: negative i is query i, and does not repel it (released only).
        share_scales: take the scales of Eq. 19 and 25 over the last batch axis too, as the drifting models do for the
            locations of one feature map; otherwise each batch entry has its own scales.
        normalize: divide the field of each radius by its RMS (Eq. 25). Without it, the field fades where both supports
            pull alike.

    Raises:
        ShapeError: the weights or the masked negatives do not fit.
        ConfigError: the settings do not fit each other.
    """
    queries = points.distances_QA.shape[-2]
    _check_settings(radii, kernel, variant, mask_negative_diagonal)
    if mask_negative_diagonal and len(negatives_N) != queries:
        raise ShapeError(
            f"drift field: mask_negative_diagonal needs one negative per query, not {len(negatives_N)} negatives for "
            f"{queries} queries"
        )
    with _without_autocast(points.vectors_AD.device):
        # Eq. 18: the joint support batch B = [B-; B+].
        batch = points.distances_QA.shape[:-2]
        rows_S = torch.cat([negatives_N, positives_P])
        weights_S = torch.cat(
            [
                _expand_weights(negative_weights_N, (*batch, len(negatives_N)), points.distances_QA),
                _expand_weights(positive_weights_P, (*batch, len(positives_P)), points.distances_QA),
            ],
            dim=-1,
        )
        num_negatives = len(negatives_N)
        if variant == "released":
            rows_S = torch.cat([torch.arange(queries, device=rows_S.device), rows_S])
            weights_S = torch.cat([weights_S.new_ones(*batch, queries), weights_S], dim=-1)
            num_negatives += queries
        distances_QS = points.distances_QA.index_select(-1, rows_S)
        if variant == "released":
            distances_QS = distances_QS.clamp_min(math.sqrt(SQUARED_DISTANCE_FLOOR))

        # Eq. 19 and 20.
        weights_1S = weights_S.unsqueeze(-2)
        mean_distance = _mean(weights_1S * distances_QS, share_scales) / _mean(weights_1S, share_scales)
        distance_scale = mean_distance.clamp_min(SCALE_FLOOR)
        scale = (distance_scale / math.sqrt(points.vectors_AD.shape[-1])).clamp_min(SCALE_FLOOR)

        normalized_QS = distances_QS / distance_scale
        cosines_QS = None if points.cosines_QA is None else points.cosines_QA.index_select(-1, rows_S)
        self_mask_QS = _self_mask(normalized_QS, variant, mask_negative_diagonal)

        field_QD = torch.zeros_like(points.vectors_AD[..., :queries, :])
        magnitudes = []
        for radius in radii:
            logits_QS = _logits(normalized_QS, cosines_QS, radius, kernel)
            if self_mask_QS is not None:
                logits_QS = logits_QS - (SELF_MASK / radius) * self_mask_QS

            # Eq. 22: both softmaxes over the joint supports, and only then the split.
            squared_QS = logits_QS.softmax(dim=-1) * logits_QS.softmax(dim=-2)
            if variant == "released":
                squared_QS = squared_QS.clamp_min(AFFINITY_FLOOR)
            affinity_QS = squared_QS.sqrt() * weights_1S
            negative_QN, positive_QP = affinity_QS[..., :num_negatives], affinity_QS[..., num_negatives:]

            # Eq. 23 and 24. The coefficients of a vector that occurs in several supports are added first.
            negative_mass_Q1 = negative_QN.sum(dim=-1, keepdim=True)
            positive_mass_Q1 = positive_QP.sum(dim=-1, keepdim=True)
            coefficients_QS = torch.cat([-positive_mass_Q1 * negative_QN, negative_mass_Q1 * positive_QP], dim=-1)
            coefficients_QA = torch.zeros_like(points.distances_QA).index_add_(-1, rows_S, coefficients_QS)
            radius_field_QD = (coefficients_QA / scale) @ points.vectors_AD

            # Eq. 25 and 26.
            magnitude = _root_mean_square(radius_field_QD, share_scales).clamp_min(math.sqrt(MEAN_SQUARE_FLOOR))
            field_QD.addcdiv_(radius_field_QD, magnitude if normalize else torch.ones_like(magnitude))
            magnitudes.append(magnitude)
        return DriftField(field_QD, scale, distance_scale, tuple(magnitudes))


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    known = torch.amp.is_autocast_available(device.type)  # the meta device, which has only shapes, is not
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _logits(distances_QS: Tensor, cosines_QS: Tensor | None, radius: float, kernel: Kernel) -> Tensor:
    """The logits L of Eq. 21, (..., Q, S). `distances_QS` is D_ij, the distance in units of the mean distance s."""
    if kernel == "rbf":
        return distances_QS.square() * (-0.5 / radius**2)
    if kernel == "laplacian":
        return distances_QS * (-1 / radius)
    if kernel == "exponential":
        # The paper gives no formula for this kernel. This is the usual one, the RBF without the square. (In the
        # authors' trainer, the name means the Laplacian.)
        return distances_QS * (-0.5 / radius**2)
    assert cosines_QS is not None  # the points were measured for this kernel
    return cosines_QS / radius


def _mean(values: Tensor, over_batch: bool) -> Tensor:
    """The mean over the last two axes, with `over_batch` over the last three; the number of axes stays the same."""
    axes = (-3, -2, -1) if over_batch and values.ndim > 2 else (-2, -1)
    return values.mean(dim=axes, keepdim=True)


def _root_mean_square(values: Tensor, over_batch: bool) -> Tensor:
    """The root of the mean square over the axes of `_mean`. A long sum in float32 would lose digits."""
    squares_1 = torch.linalg.vector_norm(values, dim=-1, keepdim=True).double().square()
    return (_mean(squares_1, over_batch) / values.shape[-1]).sqrt().float()


def _expand_weights(weights_S: Tensor | float, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """One float32 weight per support, in this shape (..., S)."""
    if not isinstance(weights_S, Tensor):
        return like.new_full(shape, weights_S)
    try:
        return weights_S.to(like).expand(shape)
    except RuntimeError as error:
        raise ShapeError(
            f"drift field: weights of shape {tuple(weights_S.shape)} do not fit supports {shape}; give one number, or "
            "one weight per support"
        ) from error


def _self_mask(distances_QS: Tensor, variant: Variant, negatives_too: bool) -> Tensor | None:
    """A mask (Q, S) that is 1 where a support is the query itself. The released supports begin with the queries."""
    if variant == "paper":
        return None
    num_queries, num_supports = distances_QS.shape[-2:]
    mask_QS = distances_QS.new_zeros(num_queries, num_supports)
    mask_QS.diagonal().fill_(1.0)
    if negatives_too:
        mask_QS.diagonal(num_queries).fill_(1.0)
    return mask_QS


def _check_shapes(queries_QD: Tensor, supports: Sequence[Tensor]) -> None:
    shapes = [tuple(tensor.shape) for tensor in (queries_QD, *supports)]
    listed = ", ".join(map(str, shapes))
    if min(len(shape) for shape in shapes) < 2 or len({(shape[:-2], shape[-1]) for shape in shapes}) > 1:
        raise ShapeError(
            "drift field: queries and supports must be (..., Q, D) and (..., S, D) with equal batch axes and D, not "
            f"{listed}"
        )
    if 0 in (size for shape in shapes for size in shape):
        raise ShapeError(f"drift field: queries and supports must not be empty: {listed}")


def _check_settings(radii: Sequence[float], kernel: str, variant: str, mask_negative_diagonal: bool) -> None:
    if not radii or not all(LEAST_RADIUS <= radius <= MOST_RADIUS for radius in radii):
        between = f"{LEAST_RADIUS:g} to {MOST_RADIUS:g}"
        raise ConfigError(f"drift field: radii must be one or more numbers of {between}, not {list(radii)}")
    if kernel not in get_args(Kernel):
        raise ConfigError(f"drift field: there is no kernel {kernel!r}; choose from {', '.join(get_args(Kernel))}")
    if variant not in get_args(Variant):
        raise ConfigError(f"drift field: there is no variant {variant!r}; choose from {', '.join(get_args(Variant))}")
    if mask_negative_diagonal and variant != "released":
        raise ConfigError("drift field: mask_negative_diagonal needs variant='released'")
