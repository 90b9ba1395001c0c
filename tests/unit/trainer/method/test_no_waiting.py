"""No objective waits for its device: on torch's meta device, where tensors have no numbers, reading one is an error."""

from __future__ import annotations

import pytest
import torch

from drpo.method.objectives import OBJECTIVES, load_objective
from drpo.method.objectives.base import Group, Supports
from drpo.training.tally import Tally

K, META = 6, torch.device("meta")


def latents(grad: bool = False) -> torch.Tensor:
    return torch.zeros(K, 4, 2, 2, device=META, requires_grad=grad)


def features(grad: bool = False) -> dict[str, torch.Tensor]:
    shapes = {"a_mean": (K, 1, 5), "a_std": (K, 1, 5), "b_mean_2": (K, 4, 3)}
    return {key: torch.zeros(shape, device=META, requires_grad=grad) for key, shape in shapes.items()}


def given() -> Supports:
    kept = {key: tokens[:2] for key, tokens in features().items()}
    return Supports(latents()[:2], kept, torch.ones(2, device=META))


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_and_its_metrics_stay_on_the_device(name: str, variant: str) -> None:
    objective = load_objective(name, {"variant": variant, "reference_weight": 0.2})
    group = Group(
        latents_KChw=latents(grad=True),
        features=features(grad=True),
        reference_KChw=latents(),
        reference_features=features(),
        pairs_M2=torch.tensor([[0, 1], [2, 3], [2, 1]]),  # pairs and scores come from the rewards, through the CPU
        scores_K=torch.arange(6.0),
        actions_KChw=latents(),
        reward_gradient_KChw=latents(),
    )
    result = objective.loss(group)
    result.loss.backward()
    assert {one.device.type for one in [result.loss, *result.metrics.values()]} == {"meta"}
    tally = Tally()
    for metric, value in result.metrics.items():
        tally.add(metric, value)
    assert not tally.counts  # they are still on their way


@pytest.mark.parametrize("settings", [{}, {"variant": "released"}, {"reference": "perceptual"}, {"kernel": "cosine"}])
def test_drpo_with_given_supports_and_queries_stays_on_the_device(settings: dict) -> None:
    objective = load_objective("drpo", settings)
    group = Group(features=features(grad=True), reference_features=features(), positives=given(), negatives=given())
    objective.loss(group).loss.backward()
    rollouts = Group(
        features=features(grad=True),
        reference_features=features(),
        pairs_M2=torch.tensor([[0, 1]]),
        queries_Q=torch.tensor([4, 5]),
    )
    objective.loss(rollouts).loss.backward()


def test_the_metrics_of_a_step_travel_together() -> None:
    tally = Tally()
    tally.add("loss", torch.tensor(1.5, requires_grad=True))
    tally.add("loss", torch.tensor(2.5))
    tally.add("reward", 7.0)
    assert tally.settle(torch.tensor(0.25)) == 0.25
    assert tally.means() == {"loss": 2.0, "reward": 7.0}
    assert tally.settle(torch.zeros(())) == 0.0
    assert tally.counts == {"loss": 2, "reward": 1}
