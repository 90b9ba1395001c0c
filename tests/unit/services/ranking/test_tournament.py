"""Bradley-Terry, against cases computed by hand and another solver; tournaments of judges with a known true order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.stats import kendalltau
from support.images import picture

from drpo_rewards.errors import RewardError
from drpo_rewards.ranking.bradley_terry import PRIOR_DEVIATION, fit
from drpo_rewards.ranking.tournament import Tournament, TournamentResult, count_rounds, seeding
from drpo_rewards.rewards.base import Comparison

VARIANCE = PRIOR_DEVIATION**2


def play(
    quality: np.ndarray, noise: float = 0.0, seed: int = 0, all_pairs: bool = False
) -> tuple[TournamentResult, list[int]]:
    """Play a tournament whose judge draws from Bradley-Terry with `quality / noise`; also return the rounds' sizes."""
    random = np.random.default_rng(seed)
    tournament = Tournament(random.permutation(len(quality)).tolist(), all_pairs)
    sizes = []
    while pairs := tournament.next_round():
        assert len({frozenset(pair) for pair in pairs}) == len(pairs)
        margins = np.array([quality[first] - quality[second] for first, second in pairs])
        wins = margins > noise * random.logistic(size=len(pairs))
        tournament.record(pairs, [Comparison("first" if win else "second") for win in wins])
        sizes.append(len(pairs))
    return tournament.result(), sizes


def test_one_win_by_hand() -> None:
    """The scores are s and -s with 1 - sigmoid(2 s) = s / variance; the errors follow from the curvature."""
    strengths = fit(np.array([[0.0, 1.0], [0.0, 0.0]]))
    s = brentq(lambda x: 1 / (1 + math.exp(2 * x)) - x / VARIANCE, 0, 10)
    assert strengths.scores_K == pytest.approx([s, -s], abs=1e-8)
    chance = 1 / (1 + math.exp(-2 * s))
    apart, together = 2 * chance * (1 - chance) + 1 / VARIANCE, 1 / VARIANCE
    assert strengths.errors_K == pytest.approx([math.sqrt((1 / apart + 1 / together) / 2)] * 2, abs=1e-8)


def test_ties_and_no_games() -> None:
    nothing = fit(np.zeros((3, 3)))
    assert nothing.scores_K.tolist() == [0, 0, 0]
    assert nothing.errors_K == pytest.approx([PRIOR_DEVIATION] * 3)  # that of the prior
    tie = fit(np.array([[0, 0.5], [0.5, 0]]))
    assert tie.scores_K.tolist() == [0, 0]
    assert tie.errors_K[0] < PRIOR_DEVIATION


def test_a_cycle_of_three_is_a_tie() -> None:
    """0 beats 1, 1 beats 2, and 2 beats 0, so all scores are 0."""
    assert fit(np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])).scores_K.tolist() == [0, 0, 0]


def test_against_another_solver() -> None:
    random = np.random.default_rng(1)
    wins = random.integers(0, 4, (9, 9)) / 2.0
    np.fill_diagonal(wins, 0)

    def loss(scores: np.ndarray) -> float:
        likelihood = sum(wins[i, j] * math.log1p(math.exp(scores[j] - scores[i])) for i in range(9) for j in range(9))
        return likelihood + sum(scores**2) / (2 * VARIANCE)

    found = minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-7})
    assert fit(wins).scores_K == pytest.approx(found.x, abs=1e-4)
    assert sum(fit(wins).scores_K) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("count", [*range(2, 14), 24, 31, 32, 33, 64, 256])
def test_the_number_of_comparisons_is_bounded(count: int) -> None:
    result, sizes = play(np.arange(count, dtype=float))
    assert result.summary.comparisons == sum(sizes) <= count * math.ceil(math.log2(count))
    assert len(sizes) <= count_rounds(count)
    played = [sum(score.details.values()) for score in result.scores if score.details]
    assert min(played) > 0
    assert sum(played) == 2 * result.summary.comparisons


@pytest.mark.parametrize("count", [2, 5, 6, 24, 64])
def test_a_judge_without_errors(count: int) -> None:
    quality = np.random.default_rng(count).permutation(count).astype(float)
    result, _ = play(quality)
    scores = [score.value for score in result.scores]
    assert kendalltau(scores, quality).statistic > 0.9
    assert np.argmax(scores) == np.argmax(quality)
    assert np.argmin(scores) == np.argmin(quality)


def test_a_noisy_judge() -> None:
    """With about a quarter of the answers wrong, the order is still found over twenty groups, best with all pairs."""
    taus: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(20):
        quality = np.random.default_rng(seed).normal(size=24)
        for all_pairs, found in taus.items():
            result, _ = play(quality, noise=0.6, seed=seed, all_pairs=all_pairs)
            found.append(kendalltau([score.value for score in result.scores], quality).statistic)
    assert np.mean(taus[False]) > 0.6
    assert np.mean(taus[True]) > np.mean(taus[False])


def test_standard_errors_are_calibrated() -> None:
    """For qualities drawn from the prior, about two thirds of the scores are within one standard error of the truth."""
    inside = []
    for seed in range(30):
        quality = np.random.default_rng(seed).normal(scale=PRIOR_DEVIATION, size=16)
        result, _ = play(quality - quality.mean(), noise=1.0, seed=seed, all_pairs=True)
        errors = result.summary.standard_errors
        inside += [
            abs(score.value - (q - quality.mean())) < error
            for score, q, error in zip(result.scores, quality, errors, strict=True)
        ]
    assert 0.58 < np.mean(inside) < 0.88


def test_all_pairs() -> None:
    result, sizes = play(np.arange(24.0), all_pairs=True)
    assert sizes == [24 * 23 // 2]
    assert np.argsort([score.value for score in result.scores]).tolist() == list(range(24))
    assert result.scores[23].details == {"wins": 23, "ties": 0, "losses": 0}


def test_the_same_group_in_any_order() -> None:
    """Scores do not depend on the order of the images; another prompt gives another tournament."""
    images = [picture(12, 10, seed=seed) for seed in range(11)]
    worth = {image.tobytes(): float(rank) for rank, image in enumerate(images)}

    def scores(order: list[int], prompt: str) -> dict[int, float]:
        sent = [images[index] for index in order]
        tournament = Tournament(seeding(prompt, sent))
        while pairs := tournament.next_round():
            first = [worth[sent[a].tobytes()] > worth[sent[b].tobytes()] for a, b in pairs]
            tournament.record(pairs, [Comparison("first" if better else "second") for better in first])
        result = tournament.result()
        return {index: score.value for index, score in zip(order, result.scores, strict=True)}

    expected = scores(list(range(11)), "a cat")
    assert expected == scores(list(range(11)), "a cat")
    assert expected == scores([7, 3, 10, 0, 1, 9, 8, 2, 6, 4, 5], "a cat")
    assert seeding("a cat", images) != seeding("a dog", images)


def test_the_summary_counts_ties_flips_and_unparsed_answers() -> None:
    tournament = Tournament([2, 0, 1])
    pairs = tournament.next_round()
    assert pairs == [(2, 0), (2, 1), (0, 1)]
    tournament.record(
        pairs,
        [
            Comparison("first", flipped=False, asked=2),
            Comparison("tie", flipped=True, asked=2),
            Comparison("tie", flipped=None, unparsed=1, asked=2),
        ],
    )
    assert tournament.next_round() == []
    summary = tournament.result().summary
    assert (summary.comparisons, summary.ties, summary.unparsed, summary.flip_rate) == (3, 2, 1, 0.5)
    assert [score.details for score in tournament.result().scores] == [
        {"wins": 0, "ties": 1, "losses": 1},
        {"wins": 0, "ties": 2, "losses": 0},
        {"wins": 1, "ties": 1, "losses": 0},
    ]


def test_a_tournament_without_a_readable_answer_fails() -> None:
    tournament = Tournament([0, 1])
    tournament.record(tournament.next_round(), [Comparison("tie", unparsed=2, asked=2)])
    with pytest.raises(RewardError, match="none of the judge's 2 answers"):
        tournament.result()
