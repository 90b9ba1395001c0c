"""Compare two images: by a pairwise reward's judgement, or by the scores of pointwise rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from drpo_rewards.api.contract import Answer, Metadata, Name, Options, PromptText, RewardResult, parse
from drpo_rewards.api.question import Question, ReplicaAnswer
from drpo_rewards.operations.base import (
    Answers,
    Base64,
    Body,
    Operation,
    ServedRewards,
    combine_answers,
    one_group,
    reward_results,
)
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.images import images_to_proto
from drpo_rewards.wire.scores import results_from_proto, results_to_proto
from drpo_rewards.wire.values import metadata_from_proto, ordered, set_metadata, struct_to_dict

if TYPE_CHECKING:
    from drpo_rewards.v1.ranking_pb2_grpc import RankingStub

Winner = Literal["first", "second", "tie"]

_WINNER_TO_PROTO: dict[Winner, pb.Winner] = {"first": pb.WINNER_FIRST, "second": pb.WINNER_SECOND, "tie": pb.WINNER_TIE}
_WINNER_FROM_PROTO: dict[int, Winner] = {number: name for name, number in _WINNER_TO_PROTO.items()}


class CompareOptions(Options):
    """A request to say which of two images is better.

    Example:
        CompareOptions(prompt="a red circle", model="judge")
    """

    min_images: ClassVar[int] = 2
    max_images: ClassVar[int] = 2

    prompt: PromptText
    model: Name = Field(default="default", description="A reward, pairwise or pointwise, or a configured mixture.")
    metadata: Metadata | None = None
    details: bool = Field(default=False, description="Also return what the rewards report beyond the winner.")


class CompareRequest(CompareOptions, Body):
    """The JSON body of `POST /v1/compare`."""

    images: list[Base64] = Field(min_length=2, max_length=2)

    def split(self) -> tuple[CompareOptions, list[str]]:
        return self, self.images


class Verdict(Answer):
    """A pairwise reward's judgement of two images."""

    reward: str
    version: str
    confidence: float | None = Field(default=None, ge=0, le=1, description="The reward's confidence, if it gives one.")
    flipped: bool | None = Field(
        default=None,
        description="Whether the answer changed with the order of the two images; None if only one order was asked.",
    )
    unparsed: int = Field(default=0, description="Answers that could not be read; each counts as a tie.")
    details: dict[str, Any] | None = None


class CompareResponse(Answer):
    """The winner, and what decided it: a pairwise reward's verdict, or the combined score of each image."""

    request_id: str
    model: str
    winner: Winner
    verdict: Verdict | None = Field(default=None, description="Only for a pairwise reward.")
    combined: list[float] | None = Field(default=None, description="Only for pointwise rewards; the higher one wins.")
    rewards: dict[str, RewardResult] = Field(default_factory=dict, description="Only for pointwise rewards.")
    timings_ms: dict[str, float] = Field(default_factory=dict)


class Compare(Operation[CompareOptions, CompareResponse]):
    """Say which of two images is better."""

    name = "compare"
    summary = "The better one of two images."
    options = CompareOptions
    body = CompareRequest
    response = CompareResponse
    rpc_name = "Compare"
    response_message: ClassVar[Any] = pb.CompareResponse

    def question(self, options: CompareOptions, num_images: int, served: ServedRewards) -> Question:
        rewards = list(served.find_model(options.model).rewards)
        group = one_group(options.prompt, num_images, options)
        return Question(rewards, group, options.details, one_pair=options.model not in served.mixtures)

    def answer(
        self, options: CompareOptions, question: Question, answers: Answers, served: ServedRewards
    ) -> CompareResponse:
        response = CompareResponse(request_id=options.request_id or "", model=options.model, winner="tie")
        answer = answers[question.rewards[0]]
        if question.one_pair and answer.comparisons:
            verdict = _make_verdict(options.model, answer)
            return response.model_copy(update={"winner": answer.comparisons[0].winner, "verdict": verdict})
        ranking = combine_answers(answers, served.find_model(options.model))
        return response.model_copy(
            update={
                "winner": _pick_winner(*ranking.combined),
                "combined": ranking.combined,
                "rewards": reward_results(answers, ranking, options.details),
            }
        )

    def stub_method(self, stub: RankingStub) -> Any:
        return stub.Compare

    def request_to_proto(self, options: CompareOptions, images: Sequence[np.ndarray | bytes]) -> pb.CompareRequest:
        request = pb.CompareRequest(
            prompt=options.prompt,
            images=images_to_proto(options, images),
            model=options.model,
            details=options.details,
            request_id=options.request_id or "",
        )
        set_metadata(request, options.metadata)
        return request

    def options_from_proto(self, request: pb.CompareRequest) -> CompareOptions:
        fields = {
            "request_id": request.request_id or None,
            "prompt": request.prompt,
            "metadata": metadata_from_proto(request),
            "details": request.details,
        }
        return parse(CompareOptions, fields | ({"model": request.model} if request.model else {}))

    def response_to_proto(self, response: CompareResponse) -> pb.CompareResponse:
        message = pb.CompareResponse(
            request_id=response.request_id,
            model=response.model,
            winner=_WINNER_TO_PROTO[response.winner],
            combined=response.combined or [],
            timings_ms=response.timings_ms,
        )
        if response.verdict is not None:
            verdict = response.verdict
            entry = pb.Verdict(**verdict.model_dump(exclude={"details"}))
            if verdict.details is not None:
                entry.details.update(verdict.details)
            message.verdict.CopyFrom(entry)
        results_to_proto(response.rewards, message.rewards)
        return message

    def response_from_proto(self, message: pb.CompareResponse) -> CompareResponse:
        return CompareResponse(
            request_id=message.request_id,
            model=message.model,
            winner=_WINNER_FROM_PROTO[message.winner],
            verdict=_verdict_from_proto(message.verdict) if message.HasField("verdict") else None,
            combined=list(message.combined) or None,
            rewards=results_from_proto(message.rewards),
            timings_ms=dict(ordered(message.timings_ms)),
        )


def _make_verdict(reward: str, answer: ReplicaAnswer) -> Verdict:
    judgement = answer.comparisons[0]
    return Verdict(
        reward=reward,
        version=answer.version,
        confidence=judgement.confidence,
        flipped=judgement.flipped,
        unparsed=judgement.unparsed,
        details=judgement.details,
    )


def _verdict_from_proto(entry: pb.Verdict) -> Verdict:
    return Verdict(
        reward=entry.reward,
        version=entry.version,
        confidence=entry.confidence if entry.HasField("confidence") else None,
        flipped=entry.flipped if entry.HasField("flipped") else None,
        unparsed=entry.unparsed,
        details=struct_to_dict(entry.details) if entry.HasField("details") else None,
    )


def _pick_winner(first: float, second: float) -> Winner:
    if first == second:
        return "tie"
    return "first" if first > second else "second"
