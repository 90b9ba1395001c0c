"""Rank one group: scores, order, ranks and (winner, loser) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from drpo_rewards.api.contract import (
    DEFAULT_MIXTURE,
    MAX_IMAGES,
    MIN_IMAGES,
    AllPairs,
    Answer,
    Metadata,
    Name,
    Normalize,
    Options,
    PairOptions,
    PromptText,
    RewardResult,
    check_weights,
    parse,
)
from drpo_rewards.api.question import Question
from drpo_rewards.operations.base import (
    Answers,
    Base64,
    Body,
    Mixture,
    Operation,
    ServedRewards,
    combine_answers,
    one_group,
    reward_results,
)
from drpo_rewards.ranking.pairs import draw_pairs
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.images import images_to_proto
from drpo_rewards.wire.scores import results_from_proto, results_to_proto
from drpo_rewards.wire.values import (
    NORMALIZE_FROM_PROTO,
    NORMALIZE_TO_PROTO,
    STRATEGY_FROM_PROTO,
    STRATEGY_TO_PROTO,
    metadata_from_proto,
    ordered,
    set_metadata,
)

if TYPE_CHECKING:
    from drpo_rewards.v1.ranking_pb2_grpc import RankingStub


class RankOptions(Options):
    """A ranking request without its images: score one group with every reward of a mixture, and put it in order.

    Example:
        RankOptions(prompt="a red circle", rewards={"pickscore": 1.0, "aesthetic": 0.5}, pairs=PairOptions(count=12))
    """

    prompt: PromptText
    rewards: dict[Name, float] | None = Field(
        default=None, min_length=1, description="Reward name to weight; cannot be combined with `mixture`."
    )
    mixture: Name | None = Field(default=None, description="A configured mixture; `default` if neither is given.")
    normalize: Normalize | None = Field(
        default=None, description="By default that of the mixture, or `zscore` if it has none."
    )
    metadata: Metadata | None = None
    pairs: PairOptions | None = None
    details: bool = Field(default=False, description="Also return each reward's details of each image.")
    all_pairs: AllPairs = False

    @field_validator("rewards")
    @classmethod
    def _weights_are_usable(cls, rewards: dict[str, float] | None) -> dict[str, float] | None:
        if rewards is not None:
            check_weights(rewards)
        return rewards

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> RankOptions:
        if self.rewards is not None and self.mixture is not None:
            raise ValueError("give either `rewards` (your own weights) or `mixture` (a configured name), not both")
        return self


class RankRequest(RankOptions, Body):
    """The JSON body of `POST /v1/rank`."""

    images: list[Base64] = Field(min_length=MIN_IMAGES, max_length=MAX_IMAGES)

    def split(self) -> tuple[RankOptions, list[str]]:
        return self, self.images


class RankResponse(Answer):
    """A ranked group. Indices are positions in the request's images.

    Attributes:
        combined: K combined scores, higher is better; with `zscore` about -2 to 2, and 0 on average.
        order: K indices, best first, e.g. [2, 0, 1].
        ranks: K ranks, 0 for the best, e.g. [1, 2, 0].
        pairs: M (winner, loser) indices, e.g. [(2, 1), (0, 1)].
    """

    request_id: str
    combined: list[float]
    order: list[int] = Field(description="Indices, best first; ties keep the order of the request.")
    ranks: list[int] = Field(description="Rank of each image, 0 is best; equal scores share the smaller rank.")
    pairs: list[tuple[int, int]] = Field(default_factory=list, description="(winner, loser) indices.")
    all_tied: bool = Field(description="Every combined score is the same, so nothing is preferred.")
    normalize: Normalize = "zscore"
    rewards: dict[str, RewardResult]
    timings_ms: dict[str, float] = Field(default_factory=dict)


class Rank(Operation[RankOptions, RankResponse]):
    """Rank one group of images: scores, order, ranks and pairs."""

    name = "rank"
    summary = "Rank one group of images: scores, order, ranks and pairs."
    options = RankOptions
    body = RankRequest
    response = RankResponse
    rpc_name = "Rank"
    response_message: ClassVar[Any] = pb.RankResponse

    def question(self, options: RankOptions, num_images: int, served: ServedRewards) -> Question:
        rewards = list(_find_mixture(options, served).rewards)
        return Question(rewards, one_group(options.prompt, num_images, options), options.details, options.all_pairs)

    def answer(self, options: RankOptions, question: Question, answers: Answers, served: ServedRewards) -> RankResponse:
        mixture = _find_mixture(options, served)
        normalize = options.normalize or mixture.normalize
        ranking = combine_answers(answers, mixture, normalize)
        pairs = options.pairs
        return RankResponse(
            request_id=options.request_id or "",
            combined=ranking.combined,
            order=ranking.order,
            ranks=ranking.ranks,
            pairs=draw_pairs(ranking.combined, pairs.count, pairs.strategy, pairs.seed) if pairs else [],
            all_tied=ranking.all_tied,
            normalize=normalize,
            rewards=reward_results(answers, ranking, options.details),
        )

    def stub_method(self, stub: RankingStub) -> Any:
        return stub.Rank

    def request_to_proto(self, options: RankOptions, images: Sequence[np.ndarray | bytes]) -> pb.RankRequest:
        pairs = options.pairs
        request = pb.RankRequest(
            prompt=options.prompt,
            images=images_to_proto(options, images),
            rewards=options.rewards or {},
            mixture=options.mixture or "",
            normalize=NORMALIZE_TO_PROTO[options.normalize],
            pairs=pb.PairOptions(count=pairs.count, strategy=STRATEGY_TO_PROTO[pairs.strategy], seed=pairs.seed)
            if pairs
            else None,
            details=options.details,
            all_pairs=options.all_pairs,
            request_id=options.request_id or "",
        )
        set_metadata(request, options.metadata)
        return request

    def options_from_proto(self, request: pb.RankRequest) -> RankOptions:
        fields: dict[str, Any] = {
            "request_id": request.request_id or None,
            "prompt": request.prompt,
            "metadata": metadata_from_proto(request),
            "details": request.details,
            "rewards": dict(ordered(request.rewards)) or None,
            "mixture": request.mixture or None,
            "all_pairs": request.all_pairs,
            "normalize": NORMALIZE_FROM_PROTO.get(request.normalize, f"number {request.normalize}"),
        }
        if request.HasField("pairs"):
            strategy = STRATEGY_FROM_PROTO.get(request.pairs.strategy, f"number {request.pairs.strategy}")
            fields["pairs"] = {"count": request.pairs.count, "strategy": strategy, "seed": request.pairs.seed}
        return parse(RankOptions, fields)

    def response_to_proto(self, response: RankResponse) -> pb.RankResponse:
        message = pb.RankResponse(
            request_id=response.request_id,
            combined=response.combined,
            order=response.order,
            ranks=response.ranks,
            pairs=[pb.Pair(winner=winner, loser=loser) for winner, loser in response.pairs],
            all_tied=response.all_tied,
            normalize=NORMALIZE_TO_PROTO[response.normalize],
            timings_ms=response.timings_ms,
        )
        results_to_proto(response.rewards, message.rewards)
        return message

    def response_from_proto(self, message: pb.RankResponse) -> RankResponse:
        return RankResponse(
            request_id=message.request_id,
            combined=list(message.combined),
            order=list(message.order),
            ranks=list(message.ranks),
            pairs=[(pair.winner, pair.loser) for pair in message.pairs],
            all_tied=message.all_tied,
            normalize=NORMALIZE_FROM_PROTO[message.normalize] or "zscore",
            rewards=results_from_proto(message.rewards),
            timings_ms=dict(ordered(message.timings_ms)),
        )


def _find_mixture(options: RankOptions, served: ServedRewards) -> Mixture:
    """Return the request's own weights as a mixture, or the mixture that it names."""
    if options.rewards is not None:
        served.check_rewards(options.rewards, "rewards")
        return Mixture(options.rewards)
    return served.find_mixture(options.mixture or DEFAULT_MIXTURE, "mixture")
