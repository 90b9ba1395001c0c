"""What travels between the gateway and a reward's replicas: a question about groups of images, and the answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from drpo_rewards.api.contract import TournamentSummary
from drpo_rewards.api.scores import Comparison, Score
from drpo_rewards.errors import RewardsError


@dataclass(frozen=True)
class GroupToScore:
    """One group of a question: its prompt, and how errors name its images.

    Attributes:
        prompt: what the images were made from.
        fields: one name an image, e.g. `images[0]`.
        metadata: what rewards need beyond the prompt.
        prefix: goes before every other field that a reward finds fault with, e.g. `groups[1].`
    """

    prompt: str
    fields: list[str]
    metadata: dict[str, Any] | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Question:
    """What an operation asks: each of `rewards` scores each group.

    Attributes:
        rewards: names of rewards that the service has.
        groups: their images follow each other in the request's flat list of images.
        details: whether the rewards' details are wanted.
        all_pairs: a pairwise reward compares every pair of a group's images.
        one_pair: a pairwise reward judges the two images once, and no scores are fitted to its judgement.
    """

    rewards: Sequence[str]
    groups: Sequence[GroupToScore]
    details: bool = False
    all_pairs: bool = False
    one_pair: bool = False


@dataclass(frozen=True)
class Batch:
    """One call of a reward, as the metrics count it.

    Attributes:
        images: how many it scored.
        milliseconds: how long it took.
        waiting: images that were left in the replica's queue when it began.
    """

    images: int
    milliseconds: float
    waiting: int


@dataclass(frozen=True)
class ReplicaAnswer:
    """What one reward answers to a question.

    An error travels as a value: it is an expected outcome, and its traceback stays in the replica.

    Attributes:
        version: the reward's own version text.
        sign: -1 where a lower score is the better one, else 1.
        score_ms: time of the batches that held images of this call.
        batches: those whose first image was of this call, so that each is counted once.
        scores: one an image, in the order of the question.
        metrics: the numbers that the reward declares, by name, one an image; where details are wanted.
        comparisons: judgements of a pairwise reward, one a pair.
        tournaments: how a pairwise reward came to its scores, one a group.
        other_kind: the reward scores where it was asked to compare, or the other way round. There is nothing else then.
        error: why there is no answer.
    """

    version: str
    sign: int = 1
    score_ms: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    tournaments: list[TournamentSummary] = field(default_factory=list)
    other_kind: bool = False
    error: RewardsError | None = None
