"""The ranking contract: what every operation shares, in plain pydantic.

Every transport (HTTP, gRPC, a Ray Serve handle) carries these models. This file imports neither torch nor ray, so a
client anywhere can use it. A *group* is one prompt with its K candidate images; a *reward* scores each of
them; a *mixture* is a weighted set of rewards; *pairs* are (winner, loser) index pairs drawn from the group's order.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from drpo_rewards.api.plain_json import check_plain_json
from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.errors import InvalidRequestError

ModelT = TypeVar("ModelT", bound=BaseModel)

MIN_IMAGES = 2
MAX_IMAGES = 256

DEFAULT_MIXTURE = "default"  # used by requests that name no reward or mixture; every service has it

MAX_NAME = 128  # characters of a reward's or a mixture's name
MAX_FIELD = 200  # characters of a field's name in an error, which may contain a key that the caller chose

MAX_ERRORS = 1_000  # of one body, of which the first is named; for that all are listed, which takes longer than reading

BYTE_ORDER_MARK = "\ufeff"  # some programs begin every text in UTF-8 with it

Normalize = Literal["zscore", "none", "rank"]
PairStrategy = Literal["random", "extremes"]
State = Literal["ready", "busy", "unavailable"]


def refuse_flag(value: Any) -> Any:
    """Return a value unchanged, unless it is true or false, which pydantic would take for 1 or 0.

    Raises:
        ValueError: it is.
    """
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, not {str(value).lower()}")
    return value


Whole = Annotated[int, BeforeValidator(refuse_flag)]  # a whole number that a caller sends
PromptText = Annotated[str, Field(min_length=1, max_length=10_000, description="What the images were made from.")]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
AllPairs = Annotated[
    bool, Field(description="Let a pairwise reward compare every pair of images, not only O(K log K) pairs.")
]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(check_plain_json),
    Field(description="What rewards need beyond the prompt, as a JSON object."),
]


class Model(BaseModel):
    """Base of every contract model. In what a caller sends, unknown keys are refused, and numbers must be finite."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Answer(Model):
    """Base of what a service answers: a client ignores the keys that a newer service adds."""

    model_config = ConfigDict(extra="ignore")


class PairOptions(Model):
    """How many (winner, loser) pairs to draw, how, and from which seed. The same seed draws the same pairs.

    Attributes:
        count: M, 1 to 65536; the paper draws 12 from 24 images.
        strategy: `random`, as in the paper, or `extremes`: the best against the worst, the second best against the
            second worst, and so on.
        seed: of the random draw. Give each group of a training run its own seed.

    Example:
        PairOptions(count=12, seed=7)
    """

    count: Whole = Field(ge=1, le=65_536)
    strategy: PairStrategy = "random"
    seed: Whole = Field(default=0, ge=0, lt=2**63)


class Options(Model):
    """Everything in a request except its images, which travel with it as one flat list."""

    image_list: ClassVar[str] = "images"
    min_images: ClassVar[int] = MIN_IMAGES
    max_images: ClassVar[int] = MAX_IMAGES

    request_id: RequestId | None = None

    def image_field(self, index: int) -> str:
        """Return the name of image `index` in errors, e.g. `images[3]`."""
        return f"{self.image_list}[{index}]"

    def check_count(self, count: int) -> None:
        """Check the number of images.

        Raises:
            InvalidRequestError: `count` images are too few or too many for the request.
        """
        least, most = self.min_images, self.max_images
        if not least <= count <= most:
            needed = f"{least} to {most}" if least != most else f"exactly {most}"
            raise InvalidRequestError(f"{needed} images are needed; this request has {count}", field=self.image_list)


class TournamentSummary(Answer):
    """The comparisons behind a pairwise reward's scores, which are strengths (log-odds) fitted with Bradley-Terry.

    Example:
        TournamentSummary(comparisons=12, ties=1, flip_rate=0.08, standard_errors=[0.9, 0.8, 0.9, 1.1])
    """

    comparisons: int = Field(description="Number of judged pairs.")
    ties: int = Field(description="Comparisons that neither image won.")
    unparsed: int = Field(default=0, description="Answers that could not be read as a verdict; each counts as a tie.")
    flip_rate: float | None = Field(
        default=None,
        description="Share of comparisons whose answer changed with the order of the two images; each of them counts "
        "as a tie. None if the reward does not ask in both orders.",
    )
    standard_errors: list[float] = Field(description="Standard error of each image's score, in the unit of the scores.")


class Metric(Answer):
    """A number that a reward declares among the details of its scores, for tables and curves.

    Example:
        Metric(name="strict", description="GenEval's own score", unit="share")
    """

    name: Name = Field(description="Its key in the details.")
    description: str = Field(default="", description="What it measures.")
    unit: str = Field(default="", description="`share` is 0 to 1, which tables print as a percentage.")
    higher_is_better: bool = True


class RewardScores(Answer):
    """One reward's raw scores of the group's images, in the order in which the images were sent."""

    scores: list[float]
    version: str
    details: list[dict[str, Any] | None] | None = None
    metrics: dict[str, list[float]] | None = Field(
        default=None, description="The metrics that the reward declares, one number per image; only with `details`."
    )
    tournament: TournamentSummary | None = Field(default=None, description="Only for a pairwise reward.")


class RewardResult(RewardScores):
    """A reward's scores, and their weight in the mixture."""

    weight: float = Field(description="This reward's share of the mixture; the absolute values sum to 1.")


class ModelInfo(Answer):
    """One reward or mixture of the service, as `GET /v1/models` lists it."""

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
    state: State = Field(default="ready", description="Whether it can answer now; `busy`: its queue is full.")
    range: tuple[float, float] | None = Field(default=None, description="Lowest and highest score, if bounded.")
    higher_is_better: bool = True
    needs_metadata: bool = False
    metadata_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the metadata that it reads; None: it reads none, or does not say."
    )
    needs_in_prompt: str = Field(default="", description="What a prompt must have beyond any text, in words.")
    metrics: list[Metric] = Field(default_factory=list, description="Numbers that a reward's details hold.")
    weights: dict[str, float] | None = Field(default=None, description="A mixture's rewards.")
    normalize: Normalize | None = Field(default=None, description="A mixture's normalisation.")


class ModelList(Answer):
    """Every reward and mixture of a service."""

    models: list[ModelInfo]


class NamedModel(ModelInfo):
    """A ModelInfo with the members by which clients of OpenAI's API list models. HTTP sends it."""

    id: str = Field(description="The name.")
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "drpo-rewards"

    @classmethod
    def of(cls, info: ModelInfo) -> NamedModel:
        """Give a model these members."""
        return cls(id=info.name, **info.model_dump())


class NamedModelList(ModelList):
    """Body of `GET /v1/models`: our own list, and under `data` the list that clients of OpenAI's API read."""

    object: Literal["list"] = "list"
    data: list[NamedModel]

    @classmethod
    def of(cls, listed: ModelList) -> NamedModelList:
        """Give a list these members."""
        return cls(models=listed.models, data=[NamedModel.of(info) for info in listed.models])


class RewardReadiness(Answer):
    """Whether a reward has just scored an image, and the reason if it could not."""

    ready: bool
    message: str = ""
    milliseconds: float = 0.0


class Readiness(Answer):
    """Body of `GET /health/ready`: ready when every reward is."""

    ready: bool
    rewards: dict[str, RewardReadiness]


class Problem(BaseModel):
    """An error over HTTP (RFC 9457, `application/problem+json`). The fields after `instance` are our own."""

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
    """Check the weights of rewards.

    Raises:
        ValueError: there are none, one is not finite, or all are 0.
    """
    if not weights:
        raise ValueError("name at least one reward")
    for name, weight in weights.items():
        if not abs(weight) < float("inf"):  # also catches NaN
            raise ValueError(f"the weight of {name!r} is {weight}; weights must be finite numbers")
    if all(weight == 0 for weight in weights.values()):
        raise ValueError("all weights are 0, so nothing would be ranked")


def parse(model: type[ModelT], data: Any) -> ModelT:
    """Validate a dict, or JSON as bytes or text.

    Raises:
        InvalidRequestError: the data is not valid; the error names the first field at fault.
    """
    if isinstance(data, bytes | bytearray) and data.startswith(BYTE_ORDER_MARK.encode()):
        data = data.removeprefix(BYTE_ORDER_MARK.encode())
    elif isinstance(data, str):
        data = data.removeprefix(BYTE_ORDER_MARK)
    try:
        is_json = isinstance(data, bytes | bytearray | str)
        return model.model_validate_json(data) if is_json else model.model_validate(data)
    except ValidationError as error:
        if error.error_count() > MAX_ERRORS:
            found = f"{error.error_count()} keys or values are not as the API describes them"
            raise InvalidRequestError(found) from None
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = _path(first["loc"]) or None
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        where = f"`{field}`: " if field else ""
        message = first["msg"].removeprefix("Value error, ")  # pydantic adds this to messages of our validators
        if first["type"] == "extra_forbidden":
            message = f"there is no such key{did_you_mean(str(first['loc'][-1])[:MAX_NAME], model.model_fields)}"
        raise InvalidRequestError(f"{where}{message}{more}", field=field) from None


def _path(location: tuple[int | str, ...]) -> str:
    """Format a location in a body, e.g. `groups[1].prompt`. It is cut off, because a caller may send any key."""
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location).removeprefix(".")
    return path if len(path) <= MAX_FIELD else path[: MAX_FIELD - 3] + "..."
