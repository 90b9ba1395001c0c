"""The base class of the operations, and the types that they work with.

One file of this folder describes a whole operation: its options, its JSON body, its response, how both travel as
protobuf, the question that it asks the rewards, and how their answers become the response. All of that is plain data
and pure functions, so the client and the gateway use the same file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, Field

from drpo_rewards.api.contract import Model, Normalize, Options, RewardResult, RewardScores
from drpo_rewards.api.question import GroupToScore, Question, ReplicaAnswer
from drpo_rewards.errors import InvalidRequestError, UnknownRewardError
from drpo_rewards.ranking.mixture import Ranking, combine
from drpo_rewards.v1 import ranking_pb2 as pb

if TYPE_CHECKING:
    from drpo_rewards.v1.ranking_pb2_grpc import RankingStub

Base64 = Annotated[
    str, Field(description="A PNG, JPEG or WebP file in base64, or a data: URI.", json_schema_extra={"format": "byte"})
]

OptionsT = TypeVar("OptionsT", bound=Options)
ResponseT = TypeVar("ResponseT", bound=Model)


class Body(Model):
    """Base of the JSON bodies: options with the images inside.

    Attributes:
        may_repeat_images: whether the answer may contain the texts that the images came as.
    """

    may_repeat_images: ClassVar[bool] = False

    def split(self) -> tuple[Options, list[str]]:
        """Return the options, and the images' base64 texts in order."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mixture:
    """Weighted rewards, and how their scores are normalised before they are added."""

    rewards: Mapping[str, float]
    normalize: Normalize = "zscore"


@dataclass(frozen=True)
class ServedRewards:
    """The names of a service's rewards, and its mixtures by name."""

    names: Collection[str]
    mixtures: Mapping[str, Mixture]

    def find_mixture(self, name: str, field: str) -> Mixture:
        """Find a mixture by its name.

        Raises:
            UnknownRewardError: there is no such mixture; the error names `field`.
        """
        if name not in self.mixtures:
            known = ", ".join(self.mixtures)
            raise UnknownRewardError(f"no mixture {name!r}; the mixtures are: {known}", field=field)
        return self.mixtures[name]

    def find_model(self, name: str) -> Mixture:
        """Find the mixture of this name, or make one of the raw scores of the reward of this name.

        Raises:
            UnknownRewardError: there is no such mixture or reward; the error names the field `model`.
        """
        if name in self.mixtures:
            return self.mixtures[name]
        self.check_rewards([name], "model")
        return Mixture({name: 1.0}, "none")

    def check_rewards(self, names: Collection[str], field: str) -> None:
        """Check that the service has these rewards.

        Raises:
            UnknownRewardError: one does not exist; the error names `field`.
        """
        for name in names:
            if name not in self.names:
                known = ", ".join(self.names)
                also = f", the mixtures: {', '.join(self.mixtures)}" if field == "model" else ""
                raise UnknownRewardError(f"no reward {name!r}; the rewards are: {known}{also}", field=field)


Answers = Mapping[str, ReplicaAnswer]


class Operation(ABC, Generic[OptionsT, ResponseT]):
    """One call of the service: `POST /v1/NAME`, a method of gRPC, and `call(operation, ...)` of the client.

    Attributes:
        name: names the HTTP route, the client's method, and the operation in metrics and logs.
        summary: one line for the OpenAPI document.
        options: the class of everything in a request except its images.
        body: the class of the JSON body.
        response: the class of the response.
        http_response: the type of what `http_answer` returns; None if it is the response.
        other_paths: further HTTP paths that other services' clients call, each with the class of its JSON body.
        rpc_name: the name of its gRPC method; None if it has no protobuf messages.
        response_message: the class of its protobuf response.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    options: type[OptionsT]
    body: type[Body]
    response: type[ResponseT]
    http_response: ClassVar[Any] = None
    other_paths: ClassVar[Mapping[str, type[Body]]] = MappingProxyType({})
    rpc_name: ClassVar[str | None] = None
    response_message: ClassVar[Any] = None

    @abstractmethod
    def question(self, options: OptionsT, num_images: int, served: ServedRewards) -> Question:
        """Say which rewards score which of the request's `num_images` images.

        Raises:
            UnknownRewardError: the options name a reward or mixture that the service does not have.
        """

    @abstractmethod
    def answer(self, options: OptionsT, question: Question, answers: Answers, served: ServedRewards) -> ResponseT:
        """Make the response from the answers of the rewards in the question."""

    def http_answer(self, options: OptionsT, response: ResponseT) -> BaseModel:
        """Return what HTTP sends. Clients of other services may expect another shape than ours."""
        return response

    # -- protobuf, for operations that gRPC offers too -------------------------------------------------------

    def stub_method(self, stub: RankingStub) -> Any:
        """The method of the generated client stub."""
        raise self._no_grpc()

    def request_to_proto(self, options: OptionsT, images: Sequence[np.ndarray | bytes]) -> Any:
        """Make the request's message. Arrays travel as RGB8, lossless; a file's bytes as they are."""
        raise self._no_grpc()

    def options_from_proto(self, request: Any) -> OptionsT:
        """Read everything but the images.

        Raises:
            InvalidRequestError: the options are not valid.
        """
        raise self._no_grpc()

    def images_of(self, request: Any) -> list[pb.Image]:
        """The request's images as one flat list."""
        return list(request.images)

    def response_to_proto(self, response: ResponseT) -> Any:
        """Make the response's message."""
        raise self._no_grpc()

    def response_from_proto(self, message: Any) -> ResponseT:
        """Read the response's message."""
        raise self._no_grpc()

    def _no_grpc(self) -> InvalidRequestError:
        return InvalidRequestError(f"{self.name} is not offered over gRPC; use an http:// or serve:// address")


def one_group(prompt: str, num_images: int, options: Any, prompt_field: str = "prompt") -> list[GroupToScore]:
    """Return the single group of a request whose images all belong to one prompt."""
    fields = [options.image_field(index) for index in range(num_images)]
    return [GroupToScore(prompt, fields, options.metadata, prompt_field=prompt_field)]


def combine_answers(answers: Answers, mixture: Mixture, normalize: Normalize | None = None) -> Ranking:
    """Rank one group by the weighted scores of several rewards. If lower scores are better, they count negatively."""
    weights = {name: weight * answers[name].sign for name, weight in mixture.rewards.items()}
    scores = {name: [score.value for score in answers[name].scores] for name in mixture.rewards}
    return combine(scores, weights, normalize or mixture.normalize)


def reward_scores(answer: ReplicaAnswer, images: slice, group: int, details: bool) -> RewardScores:
    """Return one group's part of a reward's answer.

    Args:
        answer: the reward's answer for all groups.
        images: the group's images in the answer.
        group: the group's index.
        details: whether details were requested.
    """
    return RewardScores(
        scores=[score.value for score in answer.scores[images]],
        version=answer.version,
        details=[score.details for score in answer.scores[images]] if details else None,
        metrics={name: values[images] for name, values in answer.metrics.items()} or None if details else None,
        tournament=answer.tournaments[group] if answer.tournaments else None,
    )


def reward_results(answers: Answers, ranking: Ranking, details: bool) -> dict[str, RewardResult]:
    """Return each reward's scores and weight, for a request of one group."""
    return {
        name: RewardResult(weight=ranking.weights[name], **reward_scores(answer, slice(None), 0, details).model_dump())
        for name, answer in answers.items()
    }
