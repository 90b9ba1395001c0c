"""The DrPO objective, compared with its closed form, computed by a second implementation in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_drift import plain_field

from drpo.errors import CatalogueError, ConfigError, DrpoError, ShapeError
from drpo.method.objectives import load_objective
from drpo.method.objectives.base import Group
from drpo.method.objectives.drpo import DrPOObjective, DrPOSettings

K, T, D = 8, 3, 5
PAIRS = torch.tensor([[0, 3], [1, 3], [0, 7], [5, 2]])


def random_features(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    features = {"a": torch.randn(K, T, D, generator=generator), "b_mean": torch.randn(K, 1, 4, generator=generator)}
    reference = {key: value + 0.3 * torch.randn(value.shape, generator=generator) for key, value in features.items()}
    return features, reference


def group(features: dict, reference: dict | None, pairs_M2: torch.Tensor) -> Group:
    return Group(features=features, reference_features=reference, pairs_M2=pairs_M2)


def sets_of(tokens_KTD: torch.Tensor, token_sets: str) -> list[np.ndarray]:
    tokens = tokens_KTD.double().numpy()
    if token_sets == "joint":
        return [tokens.reshape(-1, tokens.shape[-1])]
    return [tokens[:, t] for t in range(tokens.shape[1])]


def plain_gradients(tokens, reference, settings) -> tuple[np.ndarray, float]:
    """d loss / d features by Eq. 3, and the loss, for one key with one set of tokens, from fields in float64."""
    queries, anchors = sets_of(tokens, settings.token_sets)[0], sets_of(reference, settings.token_sets)[0]
    winners = sets_of(tokens[PAIRS[:, 0]], settings.token_sets)[0]
    losers = sets_of(tokens[PAIRS[:, 1]], settings.token_sets)[0]
    released, weight = settings.variant == "released", settings.support_weight
    options = {"kernel": settings.kernel, "released": released}
    preference, scale = plain_field(
        queries, winners, losers, settings.radii,
        positive_weights=[weight] * len(winners), negative_weights=[weight] * len(losers), **options,
    )  # fmt: skip
    to_reference, reference_scale = plain_field(
        queries, anchors, queries, settings.radii,
        positive_weights=[weight] * len(anchors), negative_weights=[weight] * len(queries),
        negatives_are_queries=released, **options,
    )  # fmt: skip
    eta, lam = settings.velocity, settings.reference_weight
    if released:
        n = queries.size
        gradient = -2 * eta / n * (preference / scale + lam * to_reference / reference_scale)
        return gradient, eta**2 * ((preference**2).sum() + lam * (to_reference**2).sum()) / n
    total = preference + lam * to_reference
    return -eta * total / scale / len(queries), eta**2 * (total**2).sum() / (2 * len(queries))


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "exponential", "cosine"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_loss_and_gradient_equal_the_closed_form(variant: str, kernel: str) -> None:
    """Eq. 3: the gradient with respect to the features is the negative field, up to a factor."""
    settings = DrPOSettings(
        variant=variant, kernel=kernel, radii=(0.2, 0.6), velocity=0.7, token_sets="joint", support_weight=5.0
    )
    features, reference = random_features()
    features["a"].requires_grad_()
    result = DrPOObjective(settings).loss(group({"a": features["a"]}, {"a": reference["a"]}, PAIRS))
    result.loss.backward()
    gradient, loss = plain_gradients(features["a"].detach(), reference["a"], settings)
    np.testing.assert_allclose(
        features["a"].grad.double().numpy().reshape(-1, D), gradient, atol=2e-4 * np.abs(gradient).max()
    )
    assert result.loss.item() == pytest.approx(loss, rel=1e-4)


def test_gradient_reaches_the_generator_as_the_field_times_its_jacobian() -> None:
    """All of Eq. 3, with a linear generator between the parameters and the features."""
    features, reference = random_features()
    weight = torch.eye(D).requires_grad_()
    tokens = features["a"] @ weight
    settings = DrPOSettings(radii=(0.5,), token_sets="joint")
    DrPOObjective(settings).loss(group({"a": tokens}, {"a": reference["a"]}, PAIRS)).loss.backward()
    gradient, _ = plain_gradients(tokens.detach(), reference["a"], settings)
    expected = features["a"].double().numpy().reshape(-1, D).T @ gradient
    np.testing.assert_allclose(weight.grad.double().numpy(), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_with_one_token_both_kinds_of_sets_are_equal(variant: str) -> None:
    features, reference = random_features()
    one, ref = {"b_mean": features["b_mean"]}, {"b_mean": reference["b_mean"]}
    losses = [
        DrPOObjective(DrPOSettings(variant=variant, token_sets=sets)).loss(group(one, ref, PAIRS)).loss
        for sets in ("location", "joint")
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_locations_do_not_depend_on_each_other() -> None:
    """With shared scales, a change at one location changes another only by a factor, not in direction."""
    features, reference = random_features()
    objective = DrPOObjective({"radii": (0.5,)})

    def gradient_at_0(tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.clone().requires_grad_()
        objective.loss(group({"a": tokens}, {"a": reference["a"]}, PAIRS)).loss.backward()
        return tokens.grad[:, 0].flatten()

    changed = features["a"].clone()
    changed[:, 2] = changed[:, 2].flip(0)
    cosine = torch.cosine_similarity(gradient_at_0(features["a"]), gradient_at_0(changed), dim=0)
    assert cosine > 0.99


def test_the_losses_of_the_keys_add_up() -> None:
    features, reference = random_features()
    objective = DrPOObjective()
    separately = sum(objective.loss(group({k: features[k]}, {k: reference[k]}, PAIRS)).loss for k in features)
    torch.testing.assert_close(objective.loss(group(features, reference, PAIRS)).loss, separately)


def test_a_reference_weight_of_zero_removes_the_reference() -> None:
    features, reference = random_features()
    objective = DrPOObjective({"reference_weight": 0.0})
    result = objective.loss(group(features, reference, PAIRS))
    other = objective.loss(group(features, {key: value + 5.0 for key, value in reference.items()}, PAIRS))
    torch.testing.assert_close(result.loss, other.loss)
    assert "reference_magnitude" not in result.metrics


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_following_the_gradient_moves_candidates_to_the_winners(variant: str) -> None:
    """Optimizing free features moves their mean from the losers' side to the winners'."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(24, 1, 2, generator=generator)
    tokens = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([tokens], lr=0.02)
    objective = DrPOObjective({"variant": variant, "kernel": "rbf", "radii": (0.5, 1.0)})
    for _ in range(40):
        order = tokens.detach()[:, 0, 0].argsort(descending=True)
        pairs = torch.stack([order[:12], order[12:]], dim=1)
        optimizer.zero_grad()
        objective.loss(group({"x": tokens}, {"x": start}, pairs)).loss.backward()
        optimizer.step()
    moved = (tokens - start).detach().mean(dim=0)[0]
    assert moved[0] > 0.2
    assert moved[0] > 3 * moved[1].abs()


def test_half_precision_features_get_a_float32_loss() -> None:
    features, reference = random_features()
    half = {key: value.bfloat16().requires_grad_() for key, value in features.items()}
    result = DrPOObjective().loss(group(half, {key: value.bfloat16() for key, value in reference.items()}, PAIRS))
    assert result.loss.dtype == torch.float32
    result.loss.backward()
    assert all(torch.isfinite(value.grad).all() and value.grad.dtype == torch.bfloat16 for value in half.values())


def test_metrics_are_finite_scalars_without_a_graph() -> None:
    features, reference = random_features()
    metrics = DrPOObjective().loss(group(features, reference, PAIRS)).metrics
    assert set(metrics) == {"preference_magnitude", "reference_magnitude", "reference_distance", "field_cosine"}
    assert all(value.shape == () and value.isfinite() and not value.requires_grad for value in metrics.values())


def test_released_defaults_are_those_of_the_authors_launch_command() -> None:
    settings = DrPOSettings.model_validate({"variant": "released"})
    assert (settings.kernel, settings.support_weight, settings.token_sets) == ("laplacian", 3000.0, "joint")
    assert settings.radii == (0.02, 0.05, 0.2)
    assert DrPOSettings(variant="released", kernel="rbf").kernel == "rbf"
    assert DrPOSettings().kernel == "rbf"
    assert DrPOSettings.model_validate(settings.model_dump()) == settings


def test_the_catalogue_loads_by_name_and_refuses_unknown_names() -> None:
    assert isinstance(load_objective("drpo", {"kernel": "cosine"}), DrPOObjective)
    with pytest.raises(CatalogueError, match="choose from dpo, draft, drpo, grpo"):
        load_objective("ppo")


def test_what_does_not_fit_is_refused() -> None:
    features, reference = random_features()
    objective = DrPOObjective()
    cases: list[tuple[dict, dict, torch.Tensor, type[DrpoError]]] = [
        ({}, {}, PAIRS, ShapeError),
        (features, {"a": reference["a"]}, PAIRS, ShapeError),
        ({"a": features["a"]}, {"a": reference["a"][:4]}, PAIRS, ShapeError),
        ({"a": features["a"][:, 0]}, {"a": reference["a"][:, 0]}, PAIRS, ShapeError),
        (features, reference, PAIRS.float(), ShapeError),
        (features, reference, PAIRS.T, ShapeError),
        (features, reference, torch.tensor([[0, K]]), ShapeError),
        (features, reference, torch.empty(0, 2, dtype=torch.int64), ConfigError),
    ]
    for candidates, anchors, pairs, error in cases:
        with pytest.raises(error):
            objective.loss(group(candidates, anchors, pairs))
