"""Steps of the baselines with a real tiny generator: what is computed for them, chunks, and what a checkpoint holds."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from support.rewards import DifferentiableRedness, Redness

from drpo.errors import ConfigError
from drpo.method.objectives import load_objective
from drpo.method.objectives.reward_source import RewardSource
from drpo.training.reward_gradient import RewardGradient, build_reward_gradient, check_reward

OBJECTIVES: list[tuple[str, dict[str, Any]]] = [
    ("draft", {"reference_weight": 0.1, "std_weight": 0.2}),
    ("vgg_flow", {"reward_scale": 0.5}),
    ("dpo", {"beta": 0.5}),
    ("dpo", {"variant": "released", "chosen": 2, "rejected": 2}),
    ("dpo", {"space": "features", "beta": 0.5, "reference_weight": 0.1}),
    ("pso", {"clip": 0.9, "sigma": 5.0}),
    ("grpo", {}),
    ("grpo", {"variant": "released"}),
]


@pytest.mark.parametrize(("name", "settings"), OBJECTIVES, ids=lambda value: str(value))
def test_chunks_have_the_gradient_of_the_whole(make_trainer, records, name, settings):
    """Also for objectives that explore, arrange noises or follow a reward's gradient; one step moves the adapter."""
    gradients, lines = [], []
    for chunk_size in (None, 4):
        trainer = make_trainer(objective=load_objective(name, settings), chunk_size=chunk_size, pairs=3)
        torch.manual_seed(1)
        for parameter in trainer.parameters:
            torch.nn.init.normal_(parameter, std=0.1)
        lines.append(trainer.run_step(records[:2]))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainer.parameters]))
    whole, chunked = gradients
    assert whole.norm() > 0
    assert (whole - chunked).norm() < 2e-3 * whole.norm()
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=1e-3, abs=1e-5)
    needs = load_objective(name, settings).needs
    assert ("reward/reward" in lines[0]) is needs.ranking
    assert ("reward/redness" in lines[0]) is needs.reward_gradient


def test_draft_raises_its_reward_and_vgg_flow_nears_its_targets(make_trainer, records):
    for name, settings in (("draft", {}), ("vgg_flow", {"reward_scale": 100})):
        trainer = make_trainer(objective=load_objective(name, settings), lr=2e-2)
        lines = [trainer.run_step(records) for _ in range(6)]
        assert lines[0]["seconds"]["reward_gradient"] > 0
        if name == "draft":
            assert lines[-1]["reward/redness"] > lines[0]["reward/redness"] + 3
            assert lines[0]["loss"] == pytest.approx(-lines[0]["reward/redness"], rel=1e-5)
        else:
            assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]


def test_the_reward_gradient_is_that_of_the_whole_group_without_checkpoints(make_trainer):
    generator = make_trainer().generator
    latents = generator.noise(5, torch.Generator().manual_seed(4))
    scores, gradient = RewardGradient(generator, DifferentiableRedness(), batch_size=2).compute(latents, "a red star")
    leaf = latents.clone().requires_grad_()
    pixels = (generator.decode_float(leaf) / 2 + 0.5).clamp(0, 1)
    expected = DifferentiableRedness().score_differentiably(pixels, ["a red star"] * 5)
    torch.testing.assert_close(scores, expected.detach(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), leaf)[0], rtol=1e-3, atol=1e-5)
    assert not gradient.requires_grad


class Watching(Redness):
    """Remembers the images that it scores."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[np.ndarray] = []

    def score(self, items):
        self.images += [item.image for item in items]
        return super().score(items)


def test_the_images_of_the_actions_are_ranked(make_trainer, records):
    """A huge sigma gives other images than the candidates': those of mu + sigma u."""
    reward = Watching()
    trainer = make_trainer(reward=reward, objective=load_objective("pso", {"sigma": 30.0}), candidates=4)
    noises = []
    original = trainer.generator.noise
    trainer.generator.noise = lambda count, generator: noises.append(original(count, generator)) or noises[-1]
    trainer.runner.accumulate(0, [(0, records[0])])
    with torch.no_grad():
        conditions = trainer.generator.encode_prompts([records[0].prompt])
        latents = trainer.generator.sample(noises[0], conditions)
        shown = trainer.generator.decode(trainer.runner.objective.explore(latents, noises[0]))
        plain = trainer.generator.decode(latents)
    assert all(np.array_equal(a, b) for a, b in zip(reward.images, shown, strict=True))
    assert not np.array_equal(shown, plain)


def test_neighbours_are_generated_from_arranged_noises(make_trainer, records):
    """Released GRPO with a small sigma: all candidates of a group are nearly the same picture."""
    images = {}
    for sigma in (0.01, 0.99):
        reward = Watching()
        objective = load_objective("grpo", {"variant": "released", "sigma": sigma})
        make_trainer(reward=reward, objective=objective).run_step(records[:1])
        images[sigma] = np.stack(reward.images).astype(float)
    assert images[0.01].std(axis=0).mean() < 0.2 * images[0.99].std(axis=0).mean()


def test_the_limit_of_vgg_flow_survives_a_checkpoint_bit_for_bit(make_trainer, records):
    def new():
        return make_trainer(objective=load_objective("vgg_flow", {"reward_scale": 0.5}))

    def run(trainer, count):
        keys = ("loss", "grad_norm", "clipped_gradients", "reward/redness")
        return [{key: line[key] for key in keys} for line in (trainer.run_step(records) for _ in range(count))]

    expected = run(new(), 4)
    first, second = new(), new()
    assert run(first, 2) == expected[:2]
    assert first.state_dict()["objective"]["max_norm"] != 1.0
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert run(second, 2) == expected[2:]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"type": "geneval"}, "geneval.*has no gradient.*Choose one of aesthetic"),
        ({"type": "judge"}, "judge.*has no gradient"),
        ({"type": "pickscor"}, "no reward 'pickscor'"),
        ({"type": "clip", "options": {"model": "shapes", "modle": 1}}, "has no option 'modle'; did you mean model"),
        ({"type": "clip", "options": {"model": "/nowhere"}}, "nowhere"),
    ],
)
def test_a_wrong_reward_is_refused_before_a_start(source, message):
    with pytest.raises(ConfigError, match=rf"objective\.reward: .*{message}"):
        check_reward(RewardSource(**source))


def test_a_reward_of_ones_own_is_built_by_its_path(make_trainer):
    source = RewardSource(type="support.rewards:DifferentiableRedness", batch_size=3)
    check_reward(source)
    generator = make_trainer().generator
    scores_K, _ = build_reward_gradient(source, generator, "cpu").compute(generator.noise(4), "a red star")
    assert scores_K.shape == (4,)
