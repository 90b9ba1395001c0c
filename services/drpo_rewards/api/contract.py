"""The ranking contract: what goes in, what comes out, in plain pydantic.

Every transport (HTTP, gRPC, a Ray Serve handle) speaks these models, and this file imports neither torch nor ray, so
that a client anywhere can have it. A *group* is one prompt with its K candidate images; a *reward* scores each of
them; a *mixture* is a weighted set of rewards; *pairs* are (winner, loser) index pairs drawn from the group's order.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from drpo_rewards.errors import InvalidRequestError

ModelT = TypeVar("ModelT", bound=BaseModel)

MIN_IMAGES = 2
MAX_IMAGES = 256

MAX_NAME = 128  # characters of a reward's or a mixture's name
MAX_PLACE = 200  # of the name of a field in an error, which unknown keys are a part of
MAX_METADATA_BYTES = 100_000
MAX_METADATA_DEPTH = 16  # gRPC's messages end at a depth of their own; no transport may take what another cannot

Normalize = Literal["zscore", "none", "rank"]
PairStrategy = Literal["random", "extremes"]
State = Literal["ready", "busy", "unavailable"]


def _plain_json(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"must be plain JSON with finite numbers ({error})") from None
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"is {size} bytes of JSON; at most {MAX_METADATA_BYTES} are taken")
    if _depth(metadata) > MAX_METADATA_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_METADATA_DEPTH} levels")
    return metadata


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


Prompt = Annotated[str, Field(min_length=1, max_length=10_000, description="What the images were made from.")]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
AllPairs = Annotated[
    bool, Field(description="A pairwise reward compares every pair of images, not only O(K log K) of them.")
]
Metadata = Annotated[
    dict[str, Any], AfterValidator(_plain_json), Field(description="What rewards need beyond the prompt, as JSON.")
]


class Model(BaseModel):
    """Base of every contract model: an unknown key is refused, and numbers must be finite."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Clause(Model):
    """One demand of a GenEval spec: at least (include) or fewer than (exclude) `count` objects of a class."""

    class_: str = Field(alias="class", min_length=1, description="Class name as the detector knows it.")
    count: int = Field(default=1, ge=1, le=100)
    color: str | None = Field(default=None, description="Colour that at least `count` of the found objects must have.")
    position: tuple[str, int] | None = Field(
        default=None,
        description='Relation and index of an earlier clause: ["left of", 0] wants this left of clause 0\'s objects.',
    )


class GenevalSpec(Model):
    """What a GenEval prompt asks for, in the JSON of the GenEval benchmark."""

    tag: str = Field(default="", description="Task: single_object, two_object, counting, colors, position, color_attr.")
    prompt: str = ""
    include: list[Clause] = Field(min_length=1)
    exclude: list[Clause] = Field(default_factory=list)

    @model_validator(mode="after")
    def _positions_point_back(self) -> GenevalSpec:
        for index, clause in enumerate(self.include):
            if clause.position is not None and not 0 <= clause.position[1] < index:
                raise ValueError(
                    f"include[{index}].position names clause {clause.position[1]}, but only an earlier clause can be "
                    f"the reference of a position"
                )
        for index, clause in enumerate(self.exclude):
            if clause.color is not None or clause.position is not None:
                raise ValueError(f"exclude[{index}]: an exclude clause has a class and a count only")
        return self

    def to_metadata(self) -> dict[str, Any]:
        """The plain JSON dict that travels as `metadata` of a request."""
        return self.model_dump(by_alias=True, exclude_none=True)


class PairOptions(Model):
    """How many (winner, loser) pairs to draw, how, and from which seed. The same seed draws the same pairs."""

    count: int = Field(ge=1, le=65_536)
    strategy: PairStrategy = "random"
    seed: int = Field(default=0, ge=0, lt=2**63)


class Options(Model):
    """Everything of a request but its images, which travel beside it as one flat list."""

    image_list: ClassVar[str] = "images"
    fewest: ClassVar[int] = MIN_IMAGES
    most: ClassVar[int] = MAX_IMAGES

    request_id: RequestId | None = None

    def image_field(self, index: int) -> str:
        """How an error names image `index`, e.g. `images[3]`."""
        return f"{self.image_list}[{index}]"

    def check_count(self, count: int) -> None:
        """Raise InvalidRequestError unless `count` images fit this request."""
        if not self.fewest <= count <= self.most:
            asked = f"{self.fewest} to {self.most}" if self.fewest != self.most else f"exactly {self.most}"
            raise InvalidRequestError(f"{asked} images are needed; this request has {count}", field=self.image_list)


class RankOptions(Options):
    """A ranking request: score one group with every reward of a mixture, combine, order, and draw pairs."""

    prompt: Prompt
    rewards: dict[Name, float] | None = Field(
        default=None, min_length=1, description="Reward name to weight; excludes `mixture`."
    )
    mixture: Name | None = Field(default=None, description="A configured mixture; `default` where nothing is named.")
    normalize: Normalize | None = Field(default=None, description="Default: the mixture's own, `zscore` otherwise.")
    metadata: Metadata | None = None
    pairs: PairOptions | None = None
    details: bool = Field(default=False, description="Also answer each reward's details of each image.")
    all_pairs: AllPairs = False

    @field_validator("rewards")
    @classmethod
    def _weights_mean_something(cls, rewards: dict[str, float] | None) -> dict[str, float] | None:
        if rewards is not None:
            check_weights(rewards)
        return rewards

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> RankOptions:
        if self.rewards is not None and self.mixture is not None:
            raise ValueError("give either `rewards` (weights of your own) or `mixture` (a configured name), not both")
        return self


class TournamentSummary(Model):
    """How a pairwise reward came to its scores: strengths (log-odds) that Bradley-Terry fits to its comparisons."""

    comparisons: int = Field(description="Pairs that were judged.")
    ties: int = Field(description="Those in which neither image won.")
    unparsed: int = Field(default=0, description="Answers that could not be read as a verdict; each counts as a tie.")
    flip_rate: float | None = Field(
        default=None,
        description="Share of the comparisons whose answer changed with the order of the two images, and that are ties "
        "therefore; where the reward asks both orders.",
    )
    standard_errors: list[float] = Field(description="Of each image's score, in the same unit.")


class Metric(Model):
    """A number that a reward declares among the details of its scores, for tables and curves.

    Example:
        Metric(name="strict", description="GenEval's own score", unit="share")
    """

    name: Name = Field(description="Its key in the details.")
    description: str = Field(default="", description="What it measures.")
    unit: str = Field(default="", description="`share` is 0 to 1, which tables print as a percentage.")
    higher_is_better: bool = True


class RewardScores(Model):
    """One reward's raw scores of the group's images, in the order in which the images were sent."""

    scores: list[float]
    version: str
    details: list[dict[str, Any] | None] | None = None
    metrics: dict[str, list[float]] | None = Field(
        default=None, description="The metrics that the reward declares, one number an image; given with `details`."
    )
    tournament: TournamentSummary | None = Field(default=None, description="Of a pairwise reward.")


class RewardResult(RewardScores):
    """A reward's scores and what they counted for."""

    weight: float = Field(description="Its share of the mixture, after normalising the weights to sum 1.")


class RankResponse(Model):
    """A ranked group. Indices are positions in the request's images; `order[0]` is the best one."""

    request_id: str
    combined: list[float]
    order: list[int] = Field(description="Indices, best first; ties keep the order of the request.")
    ranks: list[int] = Field(description="Rank of each image, 0 is best; equal scores share the smaller rank.")
    pairs: list[tuple[int, int]] = Field(default_factory=list, description="(winner, loser) indices.")
    all_tied: bool = Field(description="Every combined score is the same, so nothing is preferred.")
    normalize: Normalize = "zscore"
    rewards: dict[str, RewardResult]
    timings_ms: dict[str, float] = Field(default_factory=dict)


class ModelInfo(Model):
    """What `GET /v1/models` says of one reward or mixture."""

    name: str
    kind: Literal["reward", "mixture"] = "reward"
    description: str = Field(default="", description="What it measures.")
    mode: Literal["pointwise", "pairwise"] = Field(
        default="pointwise", description="Scores each image by itself, or compares two."
    )
    version: str = ""
    checkpoint: str | None = Field(default=None, description="The weights behind it: hub id or file name.")
    revision: str | None = Field(default=None, description="Revision or hash of the checkpoint.")
    license: str | None = Field(default=None, description="Licence of the checkpoint.")
    state: State = Field(default="ready", description="Whether it answers just now; busy: its queue is full.")
    range: tuple[float, float] | None = Field(default=None, description="Lowest and highest score, where bounded.")
    higher_is_better: bool = True
    needs_metadata: bool = False
    metrics: list[Metric] = Field(default_factory=list, description="Numbers that a reward's details hold.")
    weights: dict[str, float] | None = Field(default=None, description="A mixture's rewards.")
    normalize: Normalize | None = Field(default=None, description="A mixture's normalisation.")


class ModelList(Model):
    """Body of `GET /v1/models`."""

    models: list[ModelInfo]


class RewardReadiness(Model):
    """Whether a reward could really score an image just now."""

    ready: bool
    message: str = ""
    milliseconds: float = 0.0


class Readiness(Model):
    """Body of `GET /health/ready`: ready when every reward is."""

    ready: bool
    rewards: dict[str, RewardReadiness]


class Problem(BaseModel):
    """An error over HTTP (RFC 9457, `application/problem+json`) with this service's own members after `instance`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    request_id: str | None = None
    reward: str | None = None
    field: str | None = None
    retry_after_s: float | None = None


def check_weights(weights: dict[str, float]) -> None:
    """Raise ValueError unless `weights` names a reward and holds finite weights of which not all are 0."""
    if not weights:
        raise ValueError("name at least one reward")
    for name, weight in weights.items():
        if not abs(weight) < float("inf"):  # also catches NaN
            raise ValueError(f"the weight of {name!r} is {weight}; weights must be finite numbers")
    if all(weight == 0 for weight in weights.values()):
        raise ValueError("all weights are 0, so nothing would be ranked")


def parse(model: type[ModelT], data: Any) -> ModelT:
    """Validate a dict (or JSON bytes) as `model`; what is wrong becomes an InvalidRequestError naming the field."""
    try:
        return model.model_validate_json(data) if isinstance(data, bytes | str) else model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = _path(first["loc"]) or None
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        where = f"`{field}`: " if field else ""
        message = first["msg"].removeprefix("Value error, ")  # pydantic's word for what a validator of ours raised
        raise InvalidRequestError(f"{where}{message}{more}", field=field) from None


def _path(location: tuple[int | str, ...]) -> str:
    """A place in a body as one writes it: `groups[1].prompt`; cut off where a key of the caller's makes it endless."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    return place if len(place) <= MAX_PLACE else place[: MAX_PLACE - 3] + "..."
