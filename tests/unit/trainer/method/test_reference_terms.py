"""What keeps a generator near its base: the terms of the paper's Table 4, against float64 computations by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_drift import plain_field
from pydantic import ValidationError

from drpo.errors import ShapeError
from drpo.method.objectives.base import Group, Needs
from drpo.method.objectives.drpo import DrPOObjective

K = 6
PAIRS = torch.tensor([[0, 3], [1, 3], [0, 5]])
RADII = [0.2, 0.6]


def random_group(seed: int = 0) -> Group:
    random = torch.Generator().manual_seed(seed)
    features = {"a": torch.randn(K, 3, 5, generator=random), "b": torch.randn(K, 1, 4, generator=random)}
    reference = {key: value + 0.3 * torch.randn(value.shape, generator=random) for key, value in features.items()}
    latents_KChw = torch.randn(K, 4, 2, 2, generator=random)
    return Group(
        latents_KChw=latents_KChw,
        features=features,
        reference_KChw=latents_KChw + 0.2 * torch.randn(latents_KChw.shape, generator=random),
        reference_features=reference,
        pairs_M2=PAIRS,
    )


def preference_loss(group: Group, queries: list[int] | None = None) -> float:
    """The loss without any reference: half the squared length of V_pref, by Eq. 16 and 17, summed over the keys."""
    rows, total = queries or list(range(K)), 0.0
    for tokens_KTD in group.features.values():
        tokens = tokens_KTD.detach().double().numpy().reshape(K, -1, tokens_KTD.shape[-1])

        def joint(index: list[int], tokens: np.ndarray = tokens) -> np.ndarray:
            return tokens[index].reshape(-1, tokens.shape[-1])

        winners, losers = PAIRS.T.tolist()
        field, _ = plain_field(joint(rows), joint(winners), joint(losers), RADII)
        total += (field**2).sum() / (2 * len(field))
    return total


def make(**settings) -> DrPOObjective:
    return DrPOObjective({"radii": RADII, "token_sets": "joint", **settings})


def test_perceptual_is_the_mean_squared_difference_of_each_key() -> None:
    group = random_group()
    group.features["a"].requires_grad_()
    plain = make(reference="none").loss(group)
    assert plain.loss.item() == pytest.approx(preference_loss(group), rel=1e-4)
    result = make(reference="perceptual", reference_weight=0.7).loss(group)
    differences = {
        key: (group.features[key].detach().double() - group.reference_features[key].double()).numpy() for key in "ab"
    }
    expected = sum((difference**2).mean() for difference in differences.values())
    assert result.loss.item() == pytest.approx(preference_loss(group) + 0.7 * expected, rel=1e-4)
    gradient = torch.autograd.grad(result.loss - plain.loss, group.features["a"])[0]
    by_hand = 0.7 * 2 * differences["a"] / differences["a"].size
    np.testing.assert_allclose(gradient.numpy(), by_hand, atol=1e-6)
    assert "reference_magnitude" not in result.metrics
    assert result.metrics["reference_distance"] > 0


def test_the_losses_of_the_keys_are_added_or_averaged() -> None:
    group = random_group()
    added, averaged = (make(key_reduction=how).loss(group).loss.item() for how in ("sum", "mean"))
    single = [
        make()
        .loss(
            Group(
                **{
                    **vars(group),
                    "features": {key: group.features[key]},
                    "reference_features": {key: group.reference_features[key]},
                }
            )
        )
        .loss.item()
        for key in "ab"
    ]
    assert added == pytest.approx(sum(single))
    assert averaged == pytest.approx(sum(single) / 2)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_latent_anchor_is_added_to_any_reference(variant: str) -> None:
    group = random_group()
    group.latents_KChw.requires_grad_()
    difference = (group.latents_KChw.detach() - group.reference_KChw).double().numpy()
    for reference in ("drift", "perceptual", "none"):
        without = make(variant=variant, reference=reference).loss(group)
        result = make(variant=variant, reference=reference, latent_anchor_weight=0.3).loss(group)
        assert (result.loss - without.loss).item() == pytest.approx(0.3 * (difference**2).mean(), rel=1e-3)
        assert result.metrics["latent_distance"] == pytest.approx((difference**2).mean(), rel=1e-5)
        gradient = torch.autograd.grad(result.loss, group.latents_KChw)[0]
        np.testing.assert_allclose(gradient.numpy(), 0.3 * 2 * difference / difference.size, atol=1e-7)
    with pytest.raises(ShapeError, match="latent anchor"):
        make(latent_anchor_weight=0.3, reference="none").loss(Group(features=group.features, pairs_M2=PAIRS))


@pytest.mark.parametrize("scale", ["rms", "raw", "coherent"])
@pytest.mark.parametrize("token_sets", ["joint", "location"])
def test_the_reference_field_has_the_named_length(scale: str, token_sets: str) -> None:
    """One key of one token, for which the two kinds of sets are the same."""
    group = random_group()
    group = replace(
        group, features={"b": group.features["b"]}, reference_features={"b": (group.reference_features or {})["b"]}
    )
    ours = make(token_sets=token_sets, reference_scale=scale, reference_weight=0.7).loss(group).loss.item()
    tokens, reference = (one["b"].double().numpy()[:, 0] for one in (group.features, group.reference_features or {}))
    winners, losers = PAIRS.T.tolist()
    preference, _ = plain_field(tokens, tokens[winners], tokens[losers], RADII)
    pull, _ = plain_field(tokens, reference, tokens, RADII, normalized=scale != "raw")
    if scale == "coherent":
        pull = pull * np.sqrt((preference.mean(axis=0) ** 2).mean())
    assert ours == pytest.approx(((preference + 0.7 * pull) ** 2).sum() / (2 * K), rel=1e-4)


def test_a_raw_reference_field_fades_near_the_base() -> None:
    def pull(scale: str, noise: float) -> float:
        """The squared length of V_ref, from the losses with and without it at a large weight."""
        group = random_group()
        near = {key: value + noise * torch.ones_like(value) for key, value in group.features.items()}
        weight = 1e4
        loss = make(reference_scale=scale, reference_weight=weight).loss(replace(group, reference_features=near)).loss
        return loss.item() / weight**2

    assert pull("raw", 0.01) < 0.01 * pull("raw", 0.5)
    assert pull("rms", 0.01) == pytest.approx(pull("rms", 0.5), rel=0.05)


def test_a_scale_needs_a_field() -> None:
    with pytest.raises(ValidationError, match="reference_scale is for reference: drift; reference: none has no field"):
        make(reference="none", reference_scale="raw")


def test_without_a_weight_nothing_of_the_reference_is_needed() -> None:
    nothing = Needs(features=True, takes_queries=True, takes_supports=True)
    for settings in (
        {"reference": "none"},
        {"reference_weight": 0},
        {"reference": "perceptual", "reference_weight": 0},
    ):
        assert make(**settings).needs == nothing
    assert make(reference="perceptual").needs == replace(nothing, reference_features=True)
    anchored = make(reference="none", latent_anchor_weight=1.0)
    assert anchored.needs == replace(nothing, latents=True, reference_latents=True)
    with pytest.raises(ValidationError, match="drift"):
        make(reference="l2")


def test_only_the_queries_are_moved() -> None:
    """Winners and losers may be candidates that are no queries; all terms leave those alone."""
    group = random_group()
    queries = [0, 1, 2, 4]
    some = Group(**{**vars(group), "queries_Q": torch.tensor(queries)})
    for tensor in (*some.features.values(), some.latents_KChw):
        tensor.requires_grad_()
    plain = make(reference="none").loss(some)
    assert plain.loss.item() == pytest.approx(preference_loss(some, queries), rel=1e-4)
    for settings in ({}, {"variant": "released"}, {"reference": "perceptual"}):
        result = make(latent_anchor_weight=0.5, **settings).loss(some)
        for gradient in torch.autograd.grad(result.loss, [*some.features.values(), some.latents_KChw]):
            assert torch.equal(gradient[[3, 5]], torch.zeros_like(gradient[[3, 5]]))
            assert (gradient[queries].flatten(1).norm(dim=1) > 0).all()
