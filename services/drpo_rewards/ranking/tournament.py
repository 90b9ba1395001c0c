"""Rank K candidates by comparing two at a time: O(K log K) comparisons in rounds, and strengths fitted to the outcome.

A round pairs neighbours in the standings (a Swiss tournament), so comparisons go where the order is still open. The
comparisons of one round do not depend on each other, so they can all be made at the same time. There are 2 ceil(log2 K)
rounds of at most K / 2 comparisons, twice what sorting takes, because a judge makes mistakes. If that is at least the
number of all pairs, one round compares all pairs instead.

    tournament = Tournament(seeding(prompt, images))
    while pairs := tournament.next_round():
        tournament.record(pairs, judge(pairs))
    result = tournament.result()
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from drpo_rewards.api.contract import TournamentSummary
from drpo_rewards.api.scores import Comparison, Score
from drpo_rewards.errors import RewardError
from drpo_rewards.ranking.bradley_terry import Strengths, fit

POINTS = {"first": 1.0, "tie": 0.5, "second": 0.0}


def seeding(prompt: str, images: Sequence[np.ndarray]) -> list[int]:
    """Order the candidates by a hash of the prompt and the images, which says nothing about their quality.

    This order decides the first round and breaks ties in the standings. So a group gets the same comparisons whenever
    and in whatever order its images are sent.
    """
    text = hashlib.blake2b(prompt.encode(), digest_size=32).digest()
    digests = []
    for image in images:
        digest = hashlib.blake2b(repr(image.shape).encode(), key=text)
        digest.update(np.ascontiguousarray(image).data)
        digests.append(digest.digest())
    return sorted(range(len(images)), key=lambda index: digests[index])


def count_rounds(count: int) -> int:
    """Return the number of rounds for `count` candidates; the comparisons are at most count * ceil(log2 count)."""
    return 2 * math.ceil(math.log2(count))


@dataclass(frozen=True)
class TournamentResult:
    """One score per candidate, in the group's order, and a summary of the comparisons behind them."""

    scores: list[Score]
    summary: TournamentSummary


@dataclass
class Tournament:
    """The tournament of one group.

    Args:
        seeds: the group's candidates in the order of `seeding`. The methods below call the index into it a position.
        all_pairs: compare every pair in one round.
    """

    seeds: Sequence[int]
    all_pairs: bool = False
    _wins_KK: np.ndarray = field(init=False)
    _strengths: Strengths = field(init=False)
    _played: list[tuple[tuple[int, int], Comparison]] = field(init=False, default_factory=list)
    _rounds_left: int = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.seeds)
        if count < 2:
            raise ValueError(f"a tournament needs at least two candidates, not {count}")
        self._wins_KK = np.zeros((count, count))
        self._strengths = fit(self._wins_KK)
        self._rounds_left = count_rounds(count)
        if count_rounds(count) * (count // 2) >= count * (count - 1) // 2:
            self.all_pairs = True

    @property
    def most_comparisons(self) -> int:
        """An upper bound on the number of comparisons."""
        count = len(self.seeds)
        return count * (count - 1) // 2 if self.all_pairs else count_rounds(count) * (count // 2)

    def next_round(self) -> list[tuple[int, int]]:
        """Return the pairs to compare next, as indices into the group; none if the tournament is over."""
        if self._rounds_left == 0:
            return []
        self._rounds_left = 0 if self.all_pairs else self._rounds_left - 1
        positions = combinations(range(len(self.seeds)), 2) if self.all_pairs else self._neighbours()
        return [(self.seeds[first], self.seeds[second]) for first, second in positions]

    def record(self, pairs: Sequence[tuple[int, int]], comparisons: Sequence[Comparison]) -> None:
        """Add the judgements of the last round's pairs."""
        positions = {index: position for position, index in enumerate(self.seeds)}
        for (first, second), comparison in zip(pairs, comparisons, strict=True):
            points = POINTS[comparison.winner]
            self._wins_KK[positions[first], positions[second]] += points
            self._wins_KK[positions[second], positions[first]] += 1 - points
            self._played.append(((first, second), comparison))
        self._strengths = fit(self._wins_KK)

    def result(self) -> TournamentResult:
        """Return the scores, and a summary of the comparisons.

        Raises:
            RewardError: none of the judge's answers could be read.
        """
        played = [comparison for _, comparison in self._played]
        unparsed = sum(comparison.unparsed for comparison in played)
        asked = sum(comparison.asked for comparison in played)
        if unparsed == asked:
            raise RewardError(f"none of the judge's {asked} answers about this group could be read as a verdict")
        flips = [comparison.flipped for comparison in played if comparison.flipped is not None]
        order = np.argsort(self.seeds)  # from positions back to the group's order
        scores_K, errors_K = self._strengths.scores_K[order].tolist(), self._strengths.errors_K[order].tolist()
        records = [{"wins": 0, "ties": 0, "losses": 0} for _ in self.seeds]
        for (first, second), comparison in self._played:
            for index, judged in ((first, comparison), (second, comparison.swap())):
                records[index][{"first": "wins", "tie": "ties", "second": "losses"}[judged.winner]] += 1
        return TournamentResult(
            scores=[Score(score, dict(record)) for score, record in zip(scores_K, records, strict=True)],
            summary=TournamentSummary(
                comparisons=len(played),
                ties=sum(comparison.winner == "tie" for comparison in played),
                unparsed=unparsed,
                flip_rate=sum(flips) / len(flips) if flips else None,
                standard_errors=errors_K,
            ),
        )

    def _neighbours(self) -> list[tuple[int, int]]:
        """Pair each candidate, best first, with the nearest one below that it has not met; the others sit out.

        If their number is odd, the one that has played most sits out first.
        """
        games_KK = self._wins_KK + self._wins_KK.T
        standing = sorted(range(len(self.seeds)), key=lambda position: (-self._strengths.scores_K[position], position))
        if len(standing) % 2:
            standing.remove(max(reversed(standing), key=lambda position: games_KK[position].sum()))
        pairs = []
        while standing:
            first = standing.pop(0)
            second = next((position for position in standing if not games_KK[first, position]), None)
            if second is not None:
                standing.remove(second)
                pairs.append((min(first, second), max(first, second)))
        return pairs
