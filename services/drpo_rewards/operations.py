"""The four calls of the service, each as its options, its JSON body and its answer. Plain pydantic, as the contract is.

Whatever the call, what travels is *options* and one flat list of images. Only a JSON body has its images inside, as
base64 of PNG, JPEG or WebP files (or `data:` URIs of them); `split` takes them out again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from drpo_rewards.api.contract import (
    MAX_IMAGES,
    MIN_IMAGES,
    AllPairs,
    Metadata,
    Model,
    Name,
    Options,
    Prompt,
    RankOptions,
    RankResponse,
    RequestId,
    RewardResult,
    RewardScores,
)
from drpo_rewards.errors import InvalidRequestError

MAX_GROUPS = 64
MAX_SCORE_IMAGES = 1024


Base64 = Annotated[
    str, Field(description="A PNG, JPEG or WebP file in base64, or a data: URI.", json_schema_extra={"format": "byte"})
]


class RankRequest(RankOptions):
    """The JSON body of `POST /v1/rank`."""

    images: list[Base64] = Field(min_length=MIN_IMAGES, max_length=MAX_IMAGES)

    def split(self) -> tuple[RankOptions, list[str]]:
        return self, self.images


class GroupOptions(Model):
    """One group of a score request, whose images are the next `num_images` of those that were sent."""

    prompt: Prompt
    num_images: int = Field(ge=1, le=MAX_IMAGES)
    metadata: Metadata | None = None


class ScoreOptions(Options):
    """A batch of groups, each scored with the same rewards. Nothing is combined or ordered, so one image is a group."""

    fewest: ClassVar[int] = 1
    most: ClassVar[int] = MAX_SCORE_IMAGES

    groups: list[GroupOptions] = Field(min_length=1, max_length=MAX_GROUPS)
    rewards: list[Name] | None = Field(
        default=None, min_length=1, max_length=64, description="Names; default: those of the mixture `default`."
    )
    details: bool = Field(default=False, description="Also answer each reward's details of each image.")
    all_pairs: AllPairs = False

    def image_field(self, index: int) -> str:
        for number, group in enumerate(self.groups):
            if index < group.num_images:
                return f"groups[{number}].images[{index}]"
            index -= group.num_images
        return f"images[{index}]"

    def check_count(self, count: int) -> None:
        super().check_count(count)
        wanted = sum(group.num_images for group in self.groups)
        if count != wanted:
            raise InvalidRequestError(f"the groups have {wanted} images together, and {count} came", field="groups")


class ScoreGroup(Model):
    """One group of the JSON body of `POST /v1/score`."""

    prompt: Prompt
    images: list[Base64] = Field(min_length=1, max_length=MAX_IMAGES)
    metadata: Metadata | None = None


class ScoreRequest(Model):
    """The JSON body of `POST /v1/score`."""

    groups: list[ScoreGroup] = Field(min_length=1, max_length=MAX_GROUPS)
    rewards: list[Name] | None = Field(
        default=None, min_length=1, max_length=64, description="Names; default: those of the mixture `default`."
    )
    details: bool = False
    all_pairs: AllPairs = False
    request_id: RequestId | None = None

    def split(self) -> tuple[ScoreOptions, list[str]]:
        groups = [
            GroupOptions(prompt=group.prompt, num_images=len(group.images), metadata=group.metadata)
            for group in self.groups
        ]
        options = self.model_dump(exclude={"groups"}) | {"groups": groups}
        return ScoreOptions.model_validate(options), [image for group in self.groups for image in group.images]


class ScoredGroup(Model):
    """One group's raw scores by reward."""

    rewards: dict[str, RewardScores]


class ScoreResponse(Model):
    """The groups in the order of the request."""

    request_id: str
    groups: list[ScoredGroup]
    timings_ms: dict[str, float] = Field(default_factory=dict)


class CompareOptions(Options):
    """Which of two images is better, by a pairwise reward's judgement or by the scores of pointwise ones."""

    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 2

    prompt: Prompt
    model: Name = Field(default="default", description="A reward, pairwise or pointwise, or a configured mixture.")
    metadata: Metadata | None = None
    details: bool = Field(default=False, description="Also answer what the rewards say beyond the winner.")


class CompareRequest(CompareOptions):
    """The JSON body of `POST /v1/compare`."""

    images: list[Base64] = Field(min_length=2, max_length=2)

    def split(self) -> tuple[CompareOptions, list[str]]:
        return self, self.images


Winner = Literal["first", "second", "tie"]


class Verdict(Model):
    """What a pairwise reward made of two images."""

    reward: str
    version: str
    confidence: float | None = Field(default=None, ge=0, le=1, description="Its own, where it has one.")
    flipped: bool | None = Field(
        default=None, description="The answer changed with the order of the two images; where both orders are asked."
    )
    unparsed: int = Field(default=0, description="Answers that could not be read; each counts as a tie.")
    details: dict[str, Any] | None = None


class CompareResponse(Model):
    """The winner, and from what it follows: one verdict, or the combined score of either image."""

    request_id: str
    model: str
    winner: Winner
    verdict: Verdict | None = Field(default=None, description="Of a pairwise reward.")
    combined: list[float] | None = Field(default=None, description="Of pointwise rewards; the higher one wins.")
    rewards: dict[str, RewardResult] = Field(default_factory=dict, description="Of pointwise rewards.")
    timings_ms: dict[str, float] = Field(default_factory=dict)


class RerankOptions(Options):
    """Images sorted for a query, in the shape that rerank services share."""

    image_list: ClassVar[str] = "documents"
    fewest: ClassVar[int] = 1

    model: Name = Field(default="default", description="A reward, or a configured mixture.")
    query: Prompt
    top_n: int | None = Field(default=None, ge=1, description="Answer only the best ones.")
    metadata: Metadata | None = None

    def document(self, index: int) -> Any | None:
        """Document `index` as it was sent, where the answer is to have it."""
        return None


class RerankResult(Model):
    """One image; `index` is its place in the request's documents."""

    index: int
    relevance_score: float
    document: Any | None = Field(default=None, description="The document as it was sent, where that was asked for.")


class RerankUsage(Model):
    """Rerank clients expect one. Images are what is counted here; there are no tokens."""

    images: int
    total_tokens: int = 0


class RerankResponse(Model):
    """Results, best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: RerankUsage


OptionsT = TypeVar("OptionsT", bound=Options)
AnswerT = TypeVar("AnswerT", bound=Model)


@dataclass(frozen=True)
class Operation(Generic[OptionsT, AnswerT]):
    """One call: `POST /v1/NAME`, gRPC's method of that name, the gateway's method for handles."""

    name: str
    options: type[OptionsT]
    answer: type[AnswerT]


RANK = Operation("rank", RankOptions, RankResponse)
SCORE = Operation("score", ScoreOptions, ScoreResponse)
COMPARE = Operation("compare", CompareOptions, CompareResponse)
RERANK = Operation("rerank", RerankOptions, RerankResponse)
OPERATIONS: dict[str, Operation[Any, Any]] = {each.name: each for each in (RANK, SCORE, COMPARE, RERANK)}
