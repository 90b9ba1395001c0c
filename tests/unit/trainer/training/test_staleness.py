"""`training.staleness: 1`: the first groups of a step are ranked with the weights of the step before it."""

from __future__ import annotations

import copy

import pytest
import torch

from drpo.config import TrainingConfig
from drpo.data.prompts import PromptOrder
from drpo.training.sampling import GroupSeed


def mean_redness(trainer, records, step: int) -> float:
    """What the reward of the tests says about the pictures of a step, with the present weights."""
    scores = []
    for number, record in enumerate(records):
        noise_KChw = trainer.runner._draw_noise(GroupSeed(0, step, number), "noise")
        with torch.no_grad():
            latents_KChw = trainer.generator.sample(noise_KChw, trainer.generator.encode_prompts([record.prompt]))
        images_KHWC = trainer.generator.decode(latents_KChw).astype(float)
        scores.append((images_KHWC[..., 0] - images_KHWC[..., 1:].mean(axis=-1)).mean())
    return sum(scores) / len(scores)


def test_early_groups_are_ranked_with_the_weights_of_the_step_before(make_trainer, records) -> None:
    stale, usual = make_trainer(staleness=1), make_trainer()
    before = mean_redness(stale, records, 1)
    first = [trainer.run_step(records, upcoming) for trainer, upcoming in ((stale, records), (usual, ()))]
    assert first[0]["loss"] == first[1]["loss"]  # the first step has no early groups
    after = mean_redness(stale, records, 1)
    assert abs(after - before) > 1e-2
    second = [trainer.run_step(records) for trainer in (stale, usual)]
    assert [line["reward/reward"] for line in second] == pytest.approx([before, after], abs=1e-6)
    assert second[0]["images"] == second[1]["images"] == 18
    assert second[0]["groups"] == 3
    assert not stale.runner._early


def test_only_as_many_groups_are_early_as_may_be_in_flight(make_trainer, records) -> None:
    trainer = make_trainer(staleness=1, groups_in_flight=2)
    trainer.run_step(records, records)
    assert sorted(trainer.runner._early) == [(1, 0), (1, 1)]


def test_a_run_goes_on_bit_for_bit_from_a_step_without_early_groups(make_trainer, records) -> None:
    whole, resumed = make_trainer(staleness=1), make_trainer(staleness=1)
    whole.run_step(records, records)
    whole.run_step(records)  # the step of a checkpoint
    state = copy.deepcopy(whole.state_dict())
    whole.run_step(records, records)
    whole.run_step(records)
    resumed.load_state_dict(state)
    resumed.run_step(records, records)
    resumed.run_step(records)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters, resumed.parameters, strict=True))


def test_no_group_is_early_at_a_checkpoint_and_at_the_end(make_trainer, records) -> None:
    order = PromptOrder(records)
    trainer = make_trainer(staleness=1, steps=6, checkpoint_every=2, groups_per_step=2)
    taken = []
    for trainer.step in range(6):
        taken.append(trainer.take_prompts(order))
    assert [len(upcoming) for _, upcoming in taken] == [2, 0, 2, 0, 2, 0]
    assert all(taken[step][1] == taken[step + 1][0] for step in (0, 2, 4))
    assert make_trainer(steps=6, checkpoint_every=2, groups_per_step=2).take_prompts(order) == (order.take(0, 2), ())


def test_staleness_without_a_pipeline_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.staleness 1 needs training\.pipeline true"):
        TrainingConfig(staleness=1, pipeline=False)
