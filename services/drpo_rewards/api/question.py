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
        fields: one name per image, e.g. `images[0]`.
        metadata: what rewards need beyond the prompt.
        prefix: put before any other field of this group that an error names, e.g. `groups[1].`
        prompt_field: how errors name the prompt.
    """

    prompt: str
    fields: list[str]
    metadata: dict[str, Any] | None = None
    prefix: str = ""
    prompt_field: str = "prompt"


@dataclass(frozen=True)
class Question:
    """What an operation asks of the rewards: each of them scores each group.

    Attributes:
        rewards: names of rewards that the service has.
        groups: in the order of their images in the request's flat list.
        details: whether the rewards' details are requested.
        all_pairs: whether a pairwise reward compares every pair of a group's images.
        one_pair: whether a pairwise reward only judges the two images, so that no scores are fitted.
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
        images: how many were scored.
        milliseconds: how long the call took.
        waiting: images that were left in the replica's queue when the call began.
    """

    images: int
    milliseconds: float
    waiting: int


@dataclass(frozen=True)
class ReplicaAnswer:
    """One reward's answer to a question.

    An error travels as a value: it is an expected outcome, and its traceback stays in the replica.

    Attributes:
        version: the reward's `version`.
        sign: -1 if lower scores are better, otherwise 1.
        score_ms: milliseconds of the batches that held images of this call.
        batches: the batches whose first image came with this call, so that each batch is counted once.
        scores: one per image, in the order of the question.
        metrics: by name, the numbers that the reward declares, one per image; empty unless details were requested.
        comparisons: a pairwise reward's judgements, one per pair.
        tournaments: the comparisons behind a pairwise reward's scores, one summary per group.
        other_kind: the reward was asked to score but compares, or the other way round. Then the answer holds no scores.
        error: why the question could not be answered; None if it was.
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
