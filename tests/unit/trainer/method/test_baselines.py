"""Each baseline's loss and gradient against a plain float64 computation and central differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plain_baselines as plain
import pytest
import torch
from pydantic import ValidationError

from drpo.errors import ShapeError
from drpo.method.objectives import OBJECTIVES, load_objective
from drpo.method.objectives.base import Group, StatefulObjective, Supports

K, SHAPE, D = 6, (2, 2, 3), 12
PAPER_OR_RELEASED = pytest.mark.parametrize("variant", ["paper", "released"])


def draw(seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((K, D))


def tensor(array: np.ndarray, grad: bool = False) -> torch.Tensor:
    return torch.tensor(array.reshape(-1, *SHAPE)).requires_grad_(grad)


REFERENCE = draw(0)
LATENTS = REFERENCE + draw(1, 0.02)
SCORES = np.array([0.3, -1.2, 0.8, 0.8, 0.1, 2.0])
PAIRS = [(5, 1), (2, 0), (5, 0)]


def evaluate(name: str, settings: dict[str, Any], **extra: Any) -> tuple[float, np.ndarray, dict[str, float]]:
    """The loss, its gradient with respect to the latents, (K, D), and the metrics."""
    latents_KChw = tensor(LATENTS, grad=True)
    group = Group(
        latents_KChw=latents_KChw,
        reference_KChw=tensor(REFERENCE),
        pairs_M2=torch.tensor(PAIRS),
        scores_K=torch.tensor(SCORES),
    )
    objective = extra.pop("objective", None) or load_objective(name, settings)
    result = objective.loss(Group(**{**vars(group), **extra}))
    (gradient,) = torch.autograd.grad(result.loss, latents_KChw)
    return result.loss.item(), gradient.reshape(K, D).numpy(), result.metrics


def assert_same(actual: tuple[float, np.ndarray, Any], loss: float, gradient: np.ndarray) -> None:
    assert actual[0] == pytest.approx(loss, rel=1e-9, abs=1e-12)
    assert np.abs(gradient).max() > 0
    np.testing.assert_allclose(actual[1], gradient, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_dpo_paper(weight: float) -> None:
    pairs = [(LATENTS[winner], LATENTS[loser]) for winner, loser in PAIRS]

    def loss(x: np.ndarray) -> float:
        return plain.dpo_paper(x, REFERENCE, pairs, 3.0) + plain.anchor(x, REFERENCE, weight, True)

    actual = evaluate("dpo", {"beta": 3, "reference_weight": weight})
    assert_same(actual, loss(LATENTS), plain.slopes(loss, LATENTS))


def test_dpo_released() -> None:
    """All pairs of a candidate and a target, means: every candidate has the same gradient."""
    order = np.argsort(-SCORES, kind="stable")
    chosen, rejected = LATENTS[order[:2]], LATENTS[np.argsort(SCORES, kind="stable")[:3]]

    def loss(x: np.ndarray) -> float:
        return plain.dpo_released(x, REFERENCE, chosen, rejected, 30.0) + plain.anchor(x, REFERENCE, 0.2, False)

    settings = {"variant": "released", "chosen": 2, "rejected": 3}
    actual = evaluate("dpo", {**settings, "reference_weight": 0.2})
    assert_same(actual, loss(LATENTS), plain.slopes(loss, LATENTS))
    _, gradient, _ = evaluate("dpo", settings)
    np.testing.assert_allclose(gradient, np.broadcast_to(gradient[0], gradient.shape), rtol=1e-12)


@PAPER_OR_RELEASED
def test_dpo_takes_given_images(variant: str) -> None:
    """Paper: every pair of a positive and a negative. A weight of 2 is the same image twice."""
    positives, negatives = draw(2)[:2], draw(3)[:3]
    counts = {"positives": [1, 2], "negatives": [3, 1, 1]}
    chosen, rejected = np.repeat(positives, [1, 2], axis=0), np.repeat(negatives, [3, 1, 1], axis=0)

    def loss(x: np.ndarray) -> float:
        if variant == "released":
            return plain.dpo_released(x, REFERENCE, chosen, rejected, 3.0)
        return plain.dpo_paper(x, REFERENCE, [(one, other) for one in chosen for other in rejected], 3.0)

    given = {
        side: Supports(tensor(images), None, torch.tensor(counts[side], dtype=torch.float32))
        for side, images in (("positives", positives), ("negatives", negatives))
    }
    actual = evaluate("dpo", {"variant": variant, "beta": 3}, pairs_M2=None, scores_K=None, **given)
    assert_same(actual, loss(LATENTS), plain.slopes(loss, LATENTS))

    features = {"a": torch.randn(K, 2, 5, requires_grad=True)}
    reference = {"a": torch.randn(K, 2, 5)}
    objective = load_objective("dpo", {"variant": variant, "space": "features"})
    sides = {name: Supports(torch.empty(2), {"a": torch.randn(2, 2, 5)}, torch.ones(2)) for name in given}
    assert objective.loss(Group(features=features, reference_features=reference, **sides)).loss.requires_grad
    sides["negatives"] = Supports(torch.empty(2), {"a": torch.randn(2, 3, 5)}, torch.ones(2))
    with pytest.raises(ShapeError, match=r"'a' of the negatives must be \(2, 2, 5\), not \(2, 3, 5\)"):
        objective.loss(Group(features=features, reference_features=reference, **sides))


def test_dpo_begins_at_log_2_and_learns_nothing_from_equal_scores() -> None:
    """With equal scores the best and the worst of the authors' selection are the same candidates."""
    for variant in ("paper", "released"):
        loss, gradient, _ = evaluate("dpo", {"variant": variant}, reference_KChw=tensor(LATENTS))
        assert loss == pytest.approx(math.log(2))
        assert np.abs(gradient).max() > 0
    _, gradient, _ = evaluate("dpo", {"variant": "released", "chosen": 3, "rejected": 3}, scores_K=torch.ones(K))
    assert np.abs(gradient).max() == 0


@PAPER_OR_RELEASED
def test_dpo_of_features_is_dpo_of_latents_for_the_features_of_one_token(variant: str) -> None:
    settings = {"variant": variant, "beta": 0.7, "chosen": 2, "rejected": 2}
    in_latents = evaluate("dpo", settings)
    latents_KChw = tensor(LATENTS, grad=True)
    group = Group(
        features={"one": latents_KChw.flatten(1).unsqueeze(1)},
        reference_features={"one": tensor(REFERENCE).flatten(1).unsqueeze(1)},
        pairs_M2=torch.tensor(PAIRS),
        scores_K=torch.tensor(SCORES),
    )
    objective = load_objective("dpo", {**settings, "space": "features"})
    assert not objective.needs.latents
    assert objective.needs.features
    result = objective.loss(group)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(in_latents[0])
    np.testing.assert_allclose(latents_KChw.grad.reshape(K, D), in_latents[1], rtol=1e-9)


def test_released_dpo_of_features_pairs_every_token_with_every_token() -> None:
    tokens = {"candidates": draw(1).reshape(K, 3, 4), "references": draw(0).reshape(K, 3, 4)}
    group = Group(
        features={"key": torch.tensor(tokens["candidates"])},
        reference_features={"key": torch.tensor(tokens["references"])},
        scores_K=torch.tensor(SCORES),
    )
    order = np.argsort(-SCORES, kind="stable")
    flat = {name: value.reshape(-1, 4) for name, value in tokens.items()}
    chosen, rejected = (
        tokens["candidates"][rows].reshape(-1, 4) for rows in (order[:2], np.argsort(SCORES, kind="stable")[:2])
    )
    objective = load_objective(
        "dpo", {"variant": "released", "space": "features", "beta": 2, "chosen": 2, "rejected": 2}
    )
    expected = plain.dpo_released(flat["candidates"], flat["references"], chosen, rejected, 2.0)
    assert objective.loss(group).loss.item() == pytest.approx(expected)


def actions(sigma: float, noise: np.ndarray) -> np.ndarray:
    return np.stack([plain.action(mu, z, sigma) for mu, z in zip(LATENTS, noise, strict=True)])


@pytest.mark.parametrize("name", ["pso", "grpo"])
def test_an_action_is_the_latent_plus_its_own_normalized_noise(name: str) -> None:
    noise = 3 * draw(7) + 1
    objective: Any = load_objective(name, {"sigma": 0.07})
    explored = objective.explore(tensor(LATENTS), tensor(noise))
    np.testing.assert_allclose(explored.reshape(K, D), actions(0.07, noise), rtol=1e-12)


@pytest.mark.parametrize("clip", [0.0, 0.1, 0.9])
def test_pso(clip: float) -> None:
    taken = actions(0.05, draw(7))

    def loss(x: np.ndarray) -> float:
        return plain.pso(x, REFERENCE, taken, SCORES, 0.05, 50.0, clip, 10.0) + plain.anchor(x, REFERENCE, 0.1, True)

    actual = evaluate("pso", {"clip": clip, "reference_weight": 0.1}, actions_KChw=tensor(taken))
    assert_same(actual, loss(LATENTS), plain.slopes(loss, LATENTS, 1e-7))
    assert actual[2]["tied_pairs"] == pytest.approx(1 / 3)


def test_pso_has_no_gradient_where_its_ratio_is_clipped_or_all_pairs_tie() -> None:
    far = tensor(LATENTS + 100 * (LATENTS - REFERENCE))
    for extra in ({"actions_KChw": far}, {"actions_KChw": tensor(LATENTS), "scores_K": torch.ones(K)}):
        _, gradient, _ = evaluate("pso", {}, **extra)
        assert np.abs(gradient).max() == 0


def test_grpo_paper() -> None:
    taken = actions(0.05, draw(7))

    def loss(x: np.ndarray) -> float:
        gain = plain.grpo_paper(x, LATENTS, taken, SCORES, 0.05, 0.2, 1.0, 1.5, 0.3)
        return gain + plain.anchor(x, REFERENCE, 0.05, True)

    settings = {"max_advantage": 1.5, "kl_weight": 0.3}
    actual = evaluate("grpo", settings, actions_KChw=tensor(taken))
    expected = plain.slopes(loss, LATENTS, 1e-7)
    np.testing.assert_allclose(actual[1], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert actual[0] == pytest.approx(loss(LATENTS), rel=1e-5)


def test_grpo_released() -> None:
    latents = LATENTS[:4]

    def loss(x: np.ndarray) -> float:
        gain = plain.grpo_released(x, LATENTS, SCORES, 4, 0.8, 1.0, 0.2, 5.0)
        return gain + 0.02 * sum(plain.norm2(a, r, False) for a, r in zip(x[:4], REFERENCE[:4], strict=True)) / 4

    loss_value, gradient, _ = evaluate("grpo", {"variant": "released"})
    assert loss_value == pytest.approx(loss(LATENTS), abs=1e-12)
    expected = plain.slopes(loss, LATENTS, 1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert np.abs(gradient[: len(latents)]).min() > 0
    assert np.abs(gradient[len(latents) :]).max() == 0, "only anchors move"


@PAPER_OR_RELEASED
def test_grpo_learns_nothing_from_equal_scores(variant: str) -> None:
    settings = {"variant": variant, "reference_weight": 0}
    _, gradient, _ = evaluate("grpo", settings, actions_KChw=tensor(draw(3)), scores_K=torch.ones(K))
    assert np.abs(gradient).max() == 0


def test_grpo_neighbours_share_a_base_and_stay_standard_normal() -> None:
    objective: Any = load_objective("grpo", {"variant": "released"})
    assert objective.needs.arranged_noise
    assert not objective.needs.actions
    noise = torch.randn(4000, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    arranged = objective.arrange_noise(noise, torch.Generator().manual_seed(2))
    base = arranged.mean(dim=0)
    assert base.std().item() == pytest.approx(math.sqrt(1 - 0.09), abs=0.1)
    assert (arranged - base).std().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(arranged, objective.arrange_noise(noise, torch.Generator().manual_seed(2)))


GRADIENTS = draw(9, 0.5)


@PAPER_OR_RELEASED
def test_vgg_flow(variant: str) -> None:
    def loss(x: np.ndarray) -> float:
        fit = plain.vgg_flow(x, REFERENCE, GRADIENTS, 7.0, 1.6, variant == "paper")
        return fit + plain.anchor(x, REFERENCE, 0.2, variant == "paper")

    settings = {"variant": variant, "reward_scale": 7, "max_gradient_norm": 1.6, "reference_weight": 0.2}
    actual = evaluate("vgg_flow", settings, reward_gradient_KChw=tensor(GRADIENTS))
    assert_same(actual, loss(LATENTS), plain.slopes(loss, LATENTS))
    assert 0 < actual[2]["clipped_gradients"] < 1


def test_the_limit_of_vgg_flow_is_a_quantile_of_the_last_groups_and_is_restored() -> None:
    objective: Any = load_objective("vgg_flow", {"norm_quantile": 0.75})
    assert isinstance(objective, StatefulObjective)
    for gradients in (10 * GRADIENTS, GRADIENTS):  # only the second group counts
        evaluate("vgg_flow", {}, objective=objective, reward_gradient_KChw=tensor(gradients))
    assert objective.max_norm == 1.0
    norms = np.linalg.norm(GRADIENTS, axis=1)
    other = [9.0, 0.5]
    objective.end_step([objective.observations(), other, []])
    assert objective.max_norm == pytest.approx(np.quantile([*norms, *other], 0.75), rel=1e-6)
    before = objective.max_norm
    objective.end_step([objective.observations(), []])  # a step without groups
    assert objective.max_norm == before
    restored: Any = load_objective("vgg_flow", {})
    restored.load_state_dict(objective.state_dict())
    assert restored.max_norm == before


def test_vgg_flow_without_a_limit_and_with_a_gradient_of_zero() -> None:
    whole = evaluate("vgg_flow", {"max_gradient_norm": None}, reward_gradient_KChw=tensor(GRADIENTS))
    assert whole[2]["clipped_gradients"] == 0
    still = evaluate("vgg_flow", {}, reward_gradient_KChw=tensor(np.zeros((K, D))))
    assert np.isfinite(still[1]).all()


@PAPER_OR_RELEASED
def test_draft(variant: str) -> None:
    """A quadratic reward, so that the gradient of its standard deviation is checked too."""

    def rewards(x: np.ndarray) -> np.ndarray:
        return 3 - np.square(x - 0.5).sum(axis=1)

    def loss(x: np.ndarray) -> float:
        return plain.draft(rewards(x), 2.0, 0.4) + plain.anchor(x, REFERENCE, 0.1, variant == "paper")

    gradients = -2 * (LATENTS - 0.5)
    settings = {"variant": variant, "reward_weight": 2, "std_weight": 0.4, "reference_weight": 0.1}
    extra = {"scores_K": torch.tensor(rewards(LATENTS)), "reward_gradient_KChw": tensor(gradients)}
    assert_same(evaluate("draft", settings, **extra), loss(LATENTS), plain.slopes(loss, LATENTS))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_an_objective_says_what_it_needs_and_what_is_missing(name: str) -> None:
    objective = load_objective(name)
    needs = objective.needs
    assert needs.latents or needs.features
    with pytest.raises(ShapeError):
        objective.loss(Group())
    with pytest.raises(ValidationError, match="sigmma"):
        load_objective(name, {"sigmma": 1})


def test_a_tensor_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match="scores_K must be"):
        evaluate("pso", {}, actions_KChw=tensor(LATENTS), scores_K=torch.ones(K + 1))
    with pytest.raises(ShapeError, match="no actions_KChw"):
        evaluate("pso", {})
