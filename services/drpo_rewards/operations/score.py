"""Score a batch of groups. The scores are neither combined nor put in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from drpo_rewards.api.contract import (
    DEFAULT_MIXTURE,
    MAX_IMAGES,
    AllPairs,
    Answer,
    Metadata,
    Model,
    Name,
    Options,
    PromptText,
    RequestId,
    RewardScores,
    Whole,
    parse,
)
from drpo_rewards.api.question import GroupToScore, Question
from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.operations.base import (
    Answers,
    Base64,
    Body,
    Operation,
    ServedRewards,
    reward_scores,
)
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.images import images_to_proto
from drpo_rewards.wire.scores import scores_from_proto, scores_to_proto
from drpo_rewards.wire.values import metadata_from_proto, ordered, set_metadata

if TYPE_CHECKING:
    from drpo_rewards.v1.ranking_pb2_grpc import RankingStub

MAX_GROUPS = 64
MAX_SCORE_IMAGES = 1024

RewardNames = Annotated[
    list[Name] | None,
    Field(min_length=1, max_length=64, description="Names of rewards; by default those of the mixture `default`."),
]


class GroupOptions(Model):
    """One group of a score request, whose images are the next `num_images` in the request."""

    prompt: PromptText
    num_images: Whole = Field(ge=1, le=MAX_IMAGES)
    metadata: Metadata | None = None


class ScoreOptions(Options):
    """A batch of groups, each scored with the same rewards. Nothing is compared, so one image can be a group.

    Example:
        ScoreOptions(groups=[GroupOptions(prompt="a cat", num_images=2)], rewards=["pickscore"])
    """

    min_images: ClassVar[int] = 1
    max_images: ClassVar[int] = MAX_SCORE_IMAGES

    groups: list[GroupOptions] = Field(min_length=1, max_length=MAX_GROUPS)
    rewards: RewardNames = None
    details: bool = Field(default=False, description="Also return each reward's details of each image.")
    all_pairs: AllPairs = False

    def image_field(self, index: int) -> str:
        for group_index, group in enumerate(self.groups):
            if index < group.num_images:
                return f"groups[{group_index}].images[{index}]"
            index -= group.num_images
        return f"images[{index}]"

    def check_count(self, count: int) -> None:
        super().check_count(count)
        needed = sum(group.num_images for group in self.groups)
        if count != needed:
            message = f"the groups need {needed} images in total; this request has {count}"
            raise InvalidRequestError(message, field="groups")

    def slices(self) -> Iterator[slice]:
        """Yield each group's part of the flat list of images."""
        start = 0
        for group in self.groups:
            yield slice(start, start + group.num_images)
            start += group.num_images


class ScoreGroup(Model):
    """One group of the JSON body of `POST /v1/score`."""

    prompt: PromptText
    images: list[Base64] = Field(min_length=1, max_length=MAX_IMAGES)
    metadata: Metadata | None = None


class ScoreRequest(Body):
    """The JSON body of `POST /v1/score`."""

    groups: list[ScoreGroup] = Field(min_length=1, max_length=MAX_GROUPS)
    rewards: RewardNames = None
    details: bool = False
    all_pairs: AllPairs = False
    request_id: RequestId | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_the_other_path(cls, sent: Any) -> Any:
        """Say where vLLM's call is taken, which has the same path in vLLM but other keys."""
        if isinstance(sent, dict) and "groups" not in sent and {"text_1", "data_1", "queries"} & sent.keys():
            raise ValueError("these are the keys of vLLM's call, which this service takes at POST /score")
        return sent

    def split(self) -> tuple[ScoreOptions, list[str]]:
        groups = [
            GroupOptions(prompt=group.prompt, num_images=len(group.images), metadata=group.metadata)
            for group in self.groups
        ]
        options = self.model_dump(exclude={"groups"}) | {"groups": groups}
        return ScoreOptions.model_validate(options), [image for group in self.groups for image in group.images]


class ScoredGroup(Answer):
    """One group's raw scores by reward."""

    rewards: dict[str, RewardScores]


class ScoreResponse(Answer):
    """The scored groups in the order of the request."""

    request_id: str
    groups: list[ScoredGroup]
    timings_ms: dict[str, float] = Field(default_factory=dict)


class ScoreGroups(Operation[ScoreOptions, ScoreResponse]):
    """Score a batch of groups, without combining the scores."""

    name = "score"
    summary = "Raw scores of a batch of groups, not combined."
    options = ScoreOptions
    body = ScoreRequest
    response = ScoreResponse
    rpc_name = "Score"
    response_message: ClassVar[Any] = pb.ScoreResponse

    def question(self, options: ScoreOptions, num_images: int, served: ServedRewards) -> Question:
        names = list(dict.fromkeys(options.rewards or served.find_mixture(DEFAULT_MIXTURE, "rewards").rewards))
        served.check_rewards(names, "rewards")
        fields = [options.image_field(index) for index in range(num_images)]
        groups = [
            GroupToScore(group.prompt, fields[images], group.metadata, prefix=f"groups[{index}].")
            for index, (group, images) in enumerate(zip(options.groups, options.slices(), strict=True))
        ]
        return Question(names, groups, options.details, options.all_pairs)

    def answer(
        self, options: ScoreOptions, question: Question, answers: Answers, served: ServedRewards
    ) -> ScoreResponse:
        groups = [
            ScoredGroup(
                rewards={
                    name: reward_scores(answer, images, index, options.details) for name, answer in answers.items()
                }
            )
            for index, images in enumerate(options.slices())
        ]
        return ScoreResponse(request_id=options.request_id or "", groups=groups)

    def stub_method(self, stub: RankingStub) -> Any:
        return stub.Score

    def request_to_proto(self, options: ScoreOptions, images: Sequence[np.ndarray | bytes]) -> pb.ScoreRequest:
        remaining = images_to_proto(options, images)
        request = pb.ScoreRequest(
            rewards=options.rewards or [],
            details=options.details,
            all_pairs=options.all_pairs,
            request_id=options.request_id or "",
        )
        for group in options.groups:
            entry = request.groups.add(prompt=group.prompt, images=[next(remaining) for _ in range(group.num_images)])
            set_metadata(entry, group.metadata)
        return request

    def options_from_proto(self, request: pb.ScoreRequest) -> ScoreOptions:
        groups = [
            {"prompt": group.prompt, "num_images": len(group.images), "metadata": metadata_from_proto(group)}
            for group in request.groups
        ]
        fields = {
            "request_id": request.request_id or None,
            "groups": groups,
            "rewards": list(request.rewards) or None,
            "details": request.details,
            "all_pairs": request.all_pairs,
        }
        return parse(ScoreOptions, fields)

    def images_of(self, request: pb.ScoreRequest) -> list[pb.Image]:
        return [image for group in request.groups for image in group.images]

    def response_to_proto(self, response: ScoreResponse) -> pb.ScoreResponse:
        message = pb.ScoreResponse(request_id=response.request_id, timings_ms=response.timings_ms)
        for group in response.groups:
            entry = message.groups.add()
            for name, scores in group.rewards.items():
                scores_to_proto(scores, entry.rewards[name])
        return message

    def response_from_proto(self, message: pb.ScoreResponse) -> ScoreResponse:
        groups = [
            ScoredGroup(
                rewards={name: RewardScores(**scores_from_proto(entry)) for name, entry in ordered(group.rewards)}
            )
            for group in message.groups
        ]
        return ScoreResponse(request_id=message.request_id, groups=groups, timings_ms=dict(ordered(message.timings_ms)))
