"""The loss of DrPO from given positives and negatives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from drpo.errors import DrpoError
from drpo.method.objectives.base import Group, Supports
from drpo.method.objectives.drpo import DrPOObjective


def random_group(seed: int = 0) -> Group:
    random = torch.Generator().manual_seed(seed)
    features = {"a": torch.randn(6, 3, 5, generator=random), "b": torch.randn(6, 1, 4, generator=random)}
    reference = {key: tokens + 0.3 * torch.randn(tokens.shape, generator=random) for key, tokens in features.items()}
    return Group(features=features, reference_features=reference)


def given(features: dict[str, torch.Tensor], rows: list[int], weights: list[float] | None = None) -> Supports:
    picked = {key: tokens[rows] for key, tokens in features.items()}
    return Supports(torch.zeros(len(rows), 4, 2, 2), picked, torch.tensor(weights or [1.0] * len(rows)))


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("token_sets", ["location", "joint"])
def test_given_supports_count_like_the_members_of_pairs(variant: str, token_sets: str) -> None:
    objective = DrPOObjective({"variant": variant, "token_sets": token_sets, "radii": [0.3, 0.8]})
    group = random_group()
    pairs = torch.tensor([[0, 3], [1, 3], [5, 2]])
    by_pairs = objective.loss(replace(group, pairs_M2=pairs))
    assert group.features is not None
    supports = {"positives": given(group.features, [0, 1, 5]), "negatives": given(group.features, [3, 3, 2])}
    assert objective.loss(replace(group, **supports)).loss.item() == pytest.approx(by_pairs.loss.item(), rel=1e-5)


@pytest.mark.parametrize("token_sets", ["location", "joint"])
def test_the_weights_reach_the_supports_they_belong_to(token_sets: str) -> None:
    """A support of nearly no weight changes the field nearly as little as if it were far outside all kernels."""
    objective = DrPOObjective({"token_sets": token_sets, "radii": [0.5]})
    group = random_group()
    assert group.features is not None
    random = torch.Generator().manual_seed(9)
    others = {key: torch.randn(3, *tokens.shape[1:], generator=random) for key, tokens in group.features.items()}
    negatives = given(group.features, [3])

    def loss(weights: list[float]) -> float:
        return objective.loss(
            replace(group, positives=given(others, [0, 1, 2], weights), negatives=negatives)
        ).loss.item()

    usual = loss([1.0, 1.0, 1.0])
    values = [loss([0.2 if row == light else 1.0 for row in range(3)]) for light in range(3)]
    assert len({round(value, 6) for value in [usual, *values]}) == 4
    swapped = {key: tokens[[1, 0, 2]] for key, tokens in others.items()}
    again = objective.loss(
        replace(group, positives=given(swapped, [0, 1, 2], [1.0, 0.2, 1.0]), negatives=negatives)
    ).loss.item()
    assert again == pytest.approx(values[0], rel=1e-5)


def test_supports_that_do_not_fit_are_refused() -> None:
    group = random_group()
    assert group.features is not None
    good = given(group.features, [0])
    for wrong in (replace(good, features=None), replace(good, weights_S=torch.ones(2))):
        with pytest.raises(DrpoError, match="the given images must have features like the candidates'"):
            DrPOObjective().loss(replace(group, positives=good, negatives=wrong))
