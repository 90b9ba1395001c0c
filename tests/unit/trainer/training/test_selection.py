"""Rollouts: which candidates are kept and chosen, and the training step with them."""

from __future__ import annotations

import pytest
import torch
from support.rewards import FailsOn
from test_step import gradients, steps

from drpo.config import RolloutsConfig, load_config
from drpo.data.prompts import PromptRecord
from drpo.errors import ConfigError
from drpo.training.selection import Rollouts
from drpo_rewards.ranking.pairs import draw_pairs
from drpo_rewards.rewards.base import Score


def noise(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_rounds_go_on_until_both_classes_have_enough() -> None:
    rollouts = Rollouts(RolloutsConfig(supports=2, keep=3), seed=0)
    rollouts.add(noise(1, 2, 3), [1.0, 0.0, 0.49])
    assert not rollouts.complete
    assert rollouts.select() is None
    rollouts.add(noise(4, 5, 6, 7), [0.5, 0.0, 0.0, 0.0])
    assert rollouts.complete
    selection = rollouts.select()
    chosen = selection.noise_KChw.flatten().tolist()
    assert set(chosen[:2]) == {1, 4}, "those that passed"
    assert len(chosen) == 5, "3 of the 5 that failed are kept"
    assert set(chosen[2:]) < {2, 3, 5, 6, 7}
    assert selection.scores_K[:2].min() >= 0.5 > selection.scores_K[2:].max()
    assert selection.pairs_M2.tolist() == [[0, 2], [1, 3]], "each winner and each loser once"
    assert selection.queries_Q.tolist() == [0, 1, 4], "all but the losers"


def test_what_is_kept_is_a_random_choice_that_the_seed_determines() -> None:
    def kept(seed: int) -> list[float]:
        rollouts = Rollouts(RolloutsConfig(supports=2, keep=2), seed)
        rollouts.add(noise(*range(40)), [1.0] * 20 + [0.0] * 20)
        return rollouts.select().noise_KChw.flatten().tolist()

    assert kept(0) == kept(0)
    assert len({tuple(kept(seed)) for seed in range(20)}) > 10
    counts = torch.zeros(40)
    for seed in range(400):
        counts[[int(value) for value in kept(seed)]] += 1
    assert counts.min() > 20, "each of the 20 of a class is kept in 40 of 400 runs, with a deviation of 6"
    assert counts.max() < 65


class Parity:
    """Passes images whose first pixel is even, so that about half of the images of any prompt pass."""

    version = "1"

    def __init__(self) -> None:
        self.calls = 0

    def score(self, items):
        self.calls += 1
        return [Score(float(item.image.flat[0] % 2 == 0)) for item in items]


class Never:
    version = "1"

    def score(self, items):
        return [Score(0.0) for _ in items]


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_a_step_with_rollouts(make_trainer, records, chunk_size) -> None:
    settings = {"selection": "rollouts", "rollouts": {"supports": 4, "keep": 6, "rounds": 9}, "chunk_size": chunk_size}
    reward = Parity()
    trainer = make_trainer(reward=reward, normalize="none", **settings)
    (line,) = steps(trainer, records, 1)
    assert (line["groups"], line["groups_tied"], line["groups_dropped"]) == (3, 0, 0)
    assert line["rollout_rounds"] == pytest.approx(reward.calls / 3)
    assert line["rollout_rounds"] > 1, "6 candidates are not 4 and 4"
    assert line["images"] > 6 * reward.calls, "the chosen ones are generated again"
    assert all(gradient.norm() > 0 for gradient in gradients(trainer)[1::2])

    again = make_trainer(reward=Parity(), normalize="none", **settings)
    assert steps(again, records, 1)[0]["loss"] == line["loss"]


def test_a_prompt_without_both_classes_is_skipped(make_trainer) -> None:
    settings = {"selection": "rollouts", "rollouts": {"supports": 2, "rounds": 3}}
    trainer = make_trainer(reward=Never(), normalize="none", **settings)
    line = trainer.run_step([PromptRecord("a red circle")])
    assert (line["groups"], line["groups_tied"], line["images"], line["loss"]) == (1, 1, 18, None)
    failing = make_trainer(reward=FailsOn(), normalize="none", **settings)
    line = failing.run_step([PromptRecord("blue")])
    assert (line["groups"], line["groups_tied"], line["groups_dropped"]) == (1, 0, 1)


def test_the_released_sets_are_the_best_and_the_worst_once_each() -> None:
    """`extremes` with 8 pairs of 24 candidates: top 8, bottom 8, no repeats, and no pair of equal rewards."""
    scores = [(7 * i) % 24 / 10 for i in range(24)]
    winners, losers = zip(*draw_pairs(scores, 8, "extremes"), strict=True)
    by_score = sorted(range(24), key=lambda index: scores[index])
    assert set(winners) == set(by_score[-8:])
    assert set(losers) == set(by_score[:8])
    tied = [1.0] * 20 + [0.0] * 4
    assert all(tied[winner] > tied[loser] for winner, loser in draw_pairs(tied, 8, "extremes"))
    assert len(draw_pairs(tied, 8, "extremes")) == 4


def test_rollouts_need_scores_that_are_not_normalized() -> None:
    with pytest.raises(ConfigError, match=r"set rewards\.normalize to none, not null"):
        load_config("shapes", ["training.selection=rollouts"])
    config = load_config("shapes", ["training.selection=rollouts", "rewards.normalize=none"])
    assert config.training.rollouts.rounds == 4
    with pytest.raises(ConfigError, match=r"keep \(4\) must be at least supports \(8\)"):
        load_config("shapes", ["training.rollouts.keep=4"])
