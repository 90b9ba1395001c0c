"""The drift field, compared with a second implementation in float64, and properties of every drift field."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_drift import plain_field

from drpo.errors import ConfigError, DrpoError, ShapeError
from drpo.method.drift import drift_field, field_among, measure_points

KERNELS = ("rbf", "laplacian", "exponential", "cosine")
VARIANTS = ("paper", "released")
RADII = {"rbf": (0.2, 0.5, 1.0), "laplacian": (0.05, 0.2, 0.5), "exponential": (0.3, 1.0), "cosine": (0.1, 0.5)}


def draw(*shape: int, seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return offset + scale * torch.randn(*shape, generator=generator)


def assert_close_field(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 2e-4) -> None:
    # The field is RMS-normalized per radius: an absolute tolerance is a relative one.
    np.testing.assert_allclose(actual.double().numpy(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_field_equals_the_plain_computation(kernel: str, variant: str) -> None:
    queries, positives, negatives = draw(6, 5), draw(4, 5, seed=1, offset=0.5), draw(7, 5, seed=2)
    actual = drift_field(queries, positives, negatives, RADII[kernel], kernel=kernel, variant=variant)
    expected, s_z = plain_field(
        queries, positives, negatives, RADII[kernel], kernel=kernel, released=variant == "released"
    )
    assert_close_field(actual.field_QD, expected)
    assert actual.scale.item() == pytest.approx(s_z, rel=1e-5)
    assert actual.distance_scale.item() == pytest.approx(s_z * 5**0.5, rel=1e-5)
    assert len(actual.magnitudes) == len(RADII[kernel])


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_equal_the_plain_computation(variant: str) -> None:
    queries, positives, negatives = draw(5, 3), draw(4, 3, seed=1), draw(6, 3, seed=2)
    positive_weights, negative_weights = draw(4, seed=3).abs() + 0.1, draw(6, seed=4).abs() + 0.1
    actual = drift_field(
        queries,
        positives,
        negatives,
        (0.2, 1.0),
        variant=variant,
        positive_weights_P=positive_weights,
        negative_weights_N=negative_weights,
    )
    expected, _ = plain_field(
        queries,
        positives,
        negatives,
        (0.2, 1.0),
        released=variant == "released",
        positive_weights=positive_weights,
        negative_weights=negative_weights,
    )
    assert_close_field(actual.field_QD, expected)


def test_the_released_settings_equal_the_plain_computation() -> None:
    """Laplacian, radii (0.02, 0.05, 0.2), weights 3000, both fields. The smallest radii reach every clamp."""
    queries, reference = draw(8, 6), draw(8, 6, seed=1)
    positives, negatives = queries[[0, 1, 1, 4]], queries[[2, 3, 5, 2]]
    radii = (0.02, 0.05, 0.2)
    weights = {"positive_weights_P": 3000.0, "negative_weights_N": 3000.0}
    preference = drift_field(queries, positives, negatives, radii, kernel="laplacian", variant="released", **weights)
    expected, _ = plain_field(
        queries, positives, negatives, radii, kernel="laplacian", released=True,
        positive_weights=[3000.0] * 4, negative_weights=[3000.0] * 4,
    )  # fmt: skip
    assert_close_field(preference.field_QD, expected, 1e-3)

    to_reference = drift_field(
        queries,
        reference,
        queries,
        radii,
        kernel="laplacian",
        variant="released",
        mask_negative_diagonal=True,
        **weights,
    )
    expected, _ = plain_field(
        queries, reference, queries, radii, kernel="laplacian", released=True,
        positive_weights=[3000.0] * 8, negative_weights=[3000.0] * 8, negatives_are_queries=True,
    )  # fmt: skip
    assert_close_field(to_reference.field_QD, expected, 1e-3)


def test_a_support_that_occurs_twice_counts_twice() -> None:
    queries, positives, negatives = draw(5, 4), draw(3, 4, seed=1), draw(4, 4, seed=2)
    twice = drift_field(queries, positives[[0, 1, 2, 1]], negatives, (0.5,))
    expected, _ = plain_field(queries, positives[[0, 1, 2, 1]], negatives, (0.5,))
    assert_close_field(twice.field_QD, expected)
    assert not torch.allclose(twice.field_QD, drift_field(queries, positives, negatives, (0.5,)).field_QD, atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_supports_that_are_the_queries_themselves(variant: str) -> None:
    """As in training, every support is a query, so some distances are exactly 0, and supports repeat."""
    queries = draw(8, 4, offset=100.0, scale=0.1)  # with a large offset, inner products would lose the differences
    winners, losers = [0, 1, 1, 5], [2, 3, 3, 0]
    actual = drift_field(queries, queries[winners], queries[losers], (0.05, 0.3), variant=variant)
    q = queries.double().numpy()
    expected, _ = plain_field(q, q[winners], q[losers], (0.05, 0.3), released=variant == "released")
    assert_close_field(actual.field_QD, expected, 1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_identical_features_give_no_field(variant: str) -> None:
    same = torch.ones(6, 3)
    result = drift_field(same, same[:2], same[2:4], (0.02, 0.2), variant=variant)
    assert torch.isfinite(result.field_QD).all()
    assert result.field_QD.abs().max() < 1e-3


def test_the_field_points_from_the_negatives_to_the_positives() -> None:
    queries = draw(16, 2, scale=0.1)
    right, left = torch.tensor([[1.0, 0.0]]).repeat(4, 1), torch.tensor([[-1.0, 0.0]]).repeat(4, 1)
    field = drift_field(queries, right, left, (0.5, 1.0)).field_QD
    assert (field[:, 0] > 0).all()
    assert field[:, 0].abs().mean() > 10 * field[:, 1].abs().mean()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_batch_gives_the_fields_of_its_entries(kernel: str, variant: str) -> None:
    queries, positives, negatives = draw(2, 3, 5, 4), draw(2, 3, 4, 4, seed=1), draw(2, 3, 6, 4, seed=2)
    weights = draw(2, 3, 4, seed=3).abs() + 0.1
    settings_ = {"kernel": kernel, "variant": variant}
    batched = drift_field(queries, positives, negatives, (0.3, 1.0), positive_weights_P=weights, **settings_)
    assert batched.field_QD.shape == (2, 3, 5, 4)
    assert batched.scale.shape == (2, 3, 1, 1)
    for b in range(2):
        for c in range(3):
            single = drift_field(
                queries[b, c],
                positives[b, c],
                negatives[b, c],
                (0.3, 1.0),
                positive_weights_P=weights[b, c],
                **settings_,
            )
            torch.testing.assert_close(batched.field_QD[b, c], single.field_QD, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(batched.scale[b, c], single.scale)


def test_shared_scales_are_computed_over_the_whole_batch() -> None:
    """Two entries of different spread: separate scales make their fields equal, shared scales keep the proportion."""
    one = draw(1, 6, 4)
    queries = torch.cat([one, 3 * one])
    wide = (5.0,)  # wide enough that the kernel is flat, and only the scales matter
    separate = drift_field(queries, queries[:, :2], queries[:, 2:4], wide)
    torch.testing.assert_close(separate.field_QD[0], separate.field_QD[1], atol=1e-5, rtol=1e-4)
    shared = drift_field(queries, queries[:, :2], queries[:, 2:4], wide, share_scales=True)
    assert shared.scale.numel() == 1
    assert shared.scale.item() == pytest.approx(separate.scale.mean().item(), rel=1e-5)
    assert shared.field_QD.square().mean().item() == pytest.approx(1.0, rel=1e-4)
    assert (shared.field_QD[1].norm() / shared.field_QD[0].norm()).item() == pytest.approx(3.0, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), variant=st.sampled_from(VARIANTS), kernel=st.sampled_from(KERNELS))
def test_order_does_not_matter(seed: int, variant: str, kernel: str) -> None:
    """The field is equivariant to the order of the queries, and invariant to that of the supports."""
    queries, positives, negatives = draw(7, 3, seed=seed), draw(4, 3, seed=seed + 1), draw(5, 3, seed=seed + 2)
    generator = torch.Generator().manual_seed(seed)
    order_q, order_p, order_n = (torch.randperm(n, generator=generator) for n in (7, 4, 5))
    options = {"variant": variant, "kernel": kernel}
    field = drift_field(queries, positives, negatives, (0.5, 1.0), **options).field_QD
    shuffled = drift_field(queries[order_q], positives[order_p], negatives[order_n], (0.5, 1.0), **options).field_QD
    torch.testing.assert_close(shuffled, field[order_q], atol=1e-4, rtol=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 50.0), shift=st.floats(-20.0, 20.0))
def test_scale_and_origin_of_the_features_do_not_matter(seed: int, factor: float, shift: float) -> None:
    """Eq. 19, 20 and 25 remove the scale, and the coefficients of Eq. 24 add up to 0, which removes the origin."""
    queries, positives, negatives = draw(6, 3, seed=seed), draw(4, 3, seed=seed + 1), draw(5, 3, seed=seed + 2)
    field = drift_field(queries, positives, negatives, (0.5, 1.0)).field_QD
    moved = drift_field(*(factor * x + shift for x in (queries, positives, negatives)), (0.5, 1.0)).field_QD
    torch.testing.assert_close(moved, field, atol=5e-3, rtol=5e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), kernel=st.sampled_from(KERNELS))
def test_swapping_the_supports_reverses_the_field(seed: int, kernel: str) -> None:
    """V(B+, B-) = -V(B-, B+) in the paper's variant, because Eq. 22 does not distinguish B+ from B-."""
    queries, ups, downs = draw(6, 3, seed=seed), draw(4, 3, seed=seed + 1), draw(5, 3, seed=seed + 2)
    field = drift_field(queries, ups, downs, (0.5,), kernel=kernel).field_QD
    swapped = drift_field(queries, downs, ups, (0.5,), kernel=kernel).field_QD
    torch.testing.assert_close(swapped, -field, atol=1e-4, rtol=1e-3)


def test_half_precision_inputs_are_computed_in_float32_even_under_autocast() -> None:
    queries, positives, negatives = (draw(8, 16, seed=s).bfloat16() for s in range(3))
    expected = drift_field(queries.float(), positives.float(), negatives.float(), (0.1, 0.5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = drift_field(queries, positives, negatives, (0.1, 0.5))
    assert actual.field_QD.dtype == torch.float32
    assert torch.equal(actual.field_QD, expected.field_QD)


def test_the_field_has_no_gradient() -> None:
    queries = draw(4, 3).requires_grad_()
    result = drift_field(queries, queries[:2], queries[2:], (0.5,))
    assert not result.field_QD.requires_grad
    assert not result.scale.requires_grad


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((draw(4, 3), draw(2, 4), draw(2, 3), (0.5,)), {}, ShapeError),
        ((draw(2, 4, 3), draw(2, 3), draw(2, 3), (0.5,)), {}, ShapeError),
        ((draw(4, 3), draw(0, 3), draw(2, 3), (0.5,)), {}, ShapeError),
        ((draw(4, 3), draw(2, 3), draw(2, 3), ()), {}, ConfigError),
        ((draw(4, 3), draw(2, 3), draw(2, 3), (0.5, 0.0)), {}, ConfigError),
        ((draw(4, 3), draw(2, 3), draw(2, 3), (1e-300,)), {}, ConfigError),
        ((draw(4, 3), draw(2, 3), draw(2, 3), (0.5,)), {"kernel": "gauss"}, ConfigError),
        ((draw(4, 3), draw(2, 3), draw(2, 3), (0.5,)), {"variant": "ours"}, ConfigError),
        ((draw(4, 3), draw(2, 3), draw(4, 3), (0.5,)), {"mask_negative_diagonal": True}, ConfigError),
        (
            (draw(4, 3), draw(2, 3), draw(2, 3), (0.5,)),
            {"variant": "released", "mask_negative_diagonal": True},
            ShapeError,
        ),
        ((draw(4, 3), draw(2, 3), draw(2, 3), (0.5,)), {"positive_weights_P": torch.ones(3)}, ShapeError),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple, options: dict, error: type[DrpoError]) -> None:
    with pytest.raises(error) as caught:
        drift_field(*arguments, **options)
    assert isinstance(caught.value, DrpoError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("kernel", KERNELS)
def test_fields_among_the_same_points_equal_fields_of_their_own(kernel: str) -> None:
    """As in training: two fields whose supports are mostly the queries themselves, from one measurement."""
    queries, reference = draw(2, 8, 6), draw(2, 8, 6, seed=1)
    points = measure_points(queries, reference, kernel=kernel)
    winners, losers = torch.tensor([0, 1, 1, 4]), torch.tensor([2, 3, 5, 2])
    rows = torch.arange(16)
    preference = field_among(points.first(8), winners, losers, RADII[kernel], kernel=kernel)
    to_reference = field_among(points, rows[8:], rows[:8], RADII[kernel], kernel=kernel)
    for found, positives, negatives in (
        (preference, queries[:, winners], queries[:, losers]),
        (to_reference, reference, queries),
    ):
        own = drift_field(queries, positives, negatives, RADII[kernel], kernel=kernel)
        torch.testing.assert_close(found.field_QD, own.field_QD, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.scale, own.scale)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_the_field_is_as_exact_as_float32_at_real_widths(offset: float) -> None:
    """Candidates that differ little, with an offset far larger than their differences, and 1,000 features."""
    queries = draw(12, 1000, scale=0.05) + offset
    winners, losers = [0, 1, 4, 7], [2, 3, 5, 9]
    actual = drift_field(queries, queries[winners], queries[losers], (0.3, 1.0)).field_QD
    q = queries.double().numpy()
    expected, _ = plain_field(q, q[winners], q[losers], (0.3, 1.0))
    np.testing.assert_allclose(actual.double().numpy(), expected, atol=2e-5, rtol=0)
