from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Normalize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORMALIZE_UNSPECIFIED: _ClassVar[Normalize]
    NORMALIZE_ZSCORE: _ClassVar[Normalize]
    NORMALIZE_NONE: _ClassVar[Normalize]
    NORMALIZE_RANK: _ClassVar[Normalize]

class Winner(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WINNER_UNSPECIFIED: _ClassVar[Winner]
    WINNER_FIRST: _ClassVar[Winner]
    WINNER_SECOND: _ClassVar[Winner]
    WINNER_TIE: _ClassVar[Winner]
NORMALIZE_UNSPECIFIED: Normalize
NORMALIZE_ZSCORE: Normalize
NORMALIZE_NONE: Normalize
NORMALIZE_RANK: Normalize
WINNER_UNSPECIFIED: Winner
WINNER_FIRST: Winner
WINNER_SECOND: Winner
WINNER_TIE: Winner

class Image(_message.Message):
    __slots__ = ("encoded", "rgb8")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    RGB8_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    rgb8: Rgb8
    def __init__(self, encoded: _Optional[bytes] = ..., rgb8: _Optional[_Union[Rgb8, _Mapping]] = ...) -> None: ...

class Rgb8(_message.Message):
    __slots__ = ("width", "height", "data")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    data: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class PairOptions(_message.Message):
    __slots__ = ("count", "strategy", "seed")
    class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STRATEGY_UNSPECIFIED: _ClassVar[PairOptions.Strategy]
        STRATEGY_RANDOM: _ClassVar[PairOptions.Strategy]
        STRATEGY_EXTREMES: _ClassVar[PairOptions.Strategy]
    STRATEGY_UNSPECIFIED: PairOptions.Strategy
    STRATEGY_RANDOM: PairOptions.Strategy
    STRATEGY_EXTREMES: PairOptions.Strategy
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    count: int
    strategy: PairOptions.Strategy
    seed: int
    def __init__(self, count: _Optional[int] = ..., strategy: _Optional[_Union[PairOptions.Strategy, str]] = ..., seed: _Optional[int] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("prompt", "images", "rewards", "mixture", "normalize", "metadata", "pairs", "details", "request_id", "all_pairs")
    class RewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    MIXTURE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ALL_PAIRS_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    rewards: _containers.ScalarMap[str, float]
    mixture: str
    normalize: Normalize
    metadata: _struct_pb2.Struct
    pairs: PairOptions
    details: bool
    request_id: str
    all_pairs: bool
    def __init__(self, prompt: _Optional[str] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., rewards: _Optional[_Mapping[str, float]] = ..., mixture: _Optional[str] = ..., normalize: _Optional[_Union[Normalize, str]] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., pairs: _Optional[_Union[PairOptions, _Mapping]] = ..., details: _Optional[bool] = ..., request_id: _Optional[str] = ..., all_pairs: _Optional[bool] = ...) -> None: ...

class Tournament(_message.Message):
    __slots__ = ("comparisons", "ties", "unparsed", "flip_rate", "standard_errors")
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    TIES_FIELD_NUMBER: _ClassVar[int]
    UNPARSED_FIELD_NUMBER: _ClassVar[int]
    FLIP_RATE_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERRORS_FIELD_NUMBER: _ClassVar[int]
    comparisons: int
    ties: int
    unparsed: int
    flip_rate: float
    standard_errors: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, comparisons: _Optional[int] = ..., ties: _Optional[int] = ..., unparsed: _Optional[int] = ..., flip_rate: _Optional[float] = ..., standard_errors: _Optional[_Iterable[float]] = ...) -> None: ...

class MetricValues(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class RewardResult(_message.Message):
    __slots__ = ("scores", "weight", "version", "details", "tournament", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: MetricValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[MetricValues, _Mapping]] = ...) -> None: ...
    SCORES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    TOURNAMENT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    weight: float
    version: str
    details: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    tournament: Tournament
    metrics: _containers.MessageMap[str, MetricValues]
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., weight: _Optional[float] = ..., version: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., tournament: _Optional[_Union[Tournament, _Mapping]] = ..., metrics: _Optional[_Mapping[str, MetricValues]] = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("winner", "loser")
    WINNER_FIELD_NUMBER: _ClassVar[int]
    LOSER_FIELD_NUMBER: _ClassVar[int]
    winner: int
    loser: int
    def __init__(self, winner: _Optional[int] = ..., loser: _Optional[int] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("request_id", "combined", "order", "ranks", "pairs", "all_tied", "normalize", "rewards", "timings_ms")
    class RewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: RewardResult
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[RewardResult, _Mapping]] = ...) -> None: ...
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    COMBINED_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    ALL_TIED_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    combined: _containers.RepeatedScalarFieldContainer[float]
    order: _containers.RepeatedScalarFieldContainer[int]
    ranks: _containers.RepeatedScalarFieldContainer[int]
    pairs: _containers.RepeatedCompositeFieldContainer[Pair]
    all_tied: bool
    normalize: Normalize
    rewards: _containers.MessageMap[str, RewardResult]
    timings_ms: _containers.ScalarMap[str, float]
    def __init__(self, request_id: _Optional[str] = ..., combined: _Optional[_Iterable[float]] = ..., order: _Optional[_Iterable[int]] = ..., ranks: _Optional[_Iterable[int]] = ..., pairs: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ..., all_tied: _Optional[bool] = ..., normalize: _Optional[_Union[Normalize, str]] = ..., rewards: _Optional[_Mapping[str, RewardResult]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ScoreGroup(_message.Message):
    __slots__ = ("prompt", "images", "metadata")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    metadata: _struct_pb2.Struct
    def __init__(self, prompt: _Optional[str] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("groups", "rewards", "details", "request_id", "all_pairs")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ALL_PAIRS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[ScoreGroup]
    rewards: _containers.RepeatedScalarFieldContainer[str]
    details: bool
    request_id: str
    all_pairs: bool
    def __init__(self, groups: _Optional[_Iterable[_Union[ScoreGroup, _Mapping]]] = ..., rewards: _Optional[_Iterable[str]] = ..., details: _Optional[bool] = ..., request_id: _Optional[str] = ..., all_pairs: _Optional[bool] = ...) -> None: ...

class RewardScores(_message.Message):
    __slots__ = ("scores", "version", "details", "tournament", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: MetricValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[MetricValues, _Mapping]] = ...) -> None: ...
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    TOURNAMENT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    version: str
    details: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    tournament: Tournament
    metrics: _containers.MessageMap[str, MetricValues]
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., version: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., tournament: _Optional[_Union[Tournament, _Mapping]] = ..., metrics: _Optional[_Mapping[str, MetricValues]] = ...) -> None: ...

class ScoredGroup(_message.Message):
    __slots__ = ("rewards",)
    class RewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: RewardScores
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[RewardScores, _Mapping]] = ...) -> None: ...
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    rewards: _containers.MessageMap[str, RewardScores]
    def __init__(self, rewards: _Optional[_Mapping[str, RewardScores]] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("request_id", "groups", "timings_ms")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    groups: _containers.RepeatedCompositeFieldContainer[ScoredGroup]
    timings_ms: _containers.ScalarMap[str, float]
    def __init__(self, request_id: _Optional[str] = ..., groups: _Optional[_Iterable[_Union[ScoredGroup, _Mapping]]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("prompt", "images", "model", "metadata", "details", "request_id")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    model: str
    metadata: _struct_pb2.Struct
    details: bool
    request_id: str
    def __init__(self, prompt: _Optional[str] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., model: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., details: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("reward", "version", "confidence", "details", "flipped", "unparsed")
    REWARD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    FLIPPED_FIELD_NUMBER: _ClassVar[int]
    UNPARSED_FIELD_NUMBER: _ClassVar[int]
    reward: str
    version: str
    confidence: float
    details: _struct_pb2.Struct
    flipped: bool
    unparsed: int
    def __init__(self, reward: _Optional[str] = ..., version: _Optional[str] = ..., confidence: _Optional[float] = ..., details: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., flipped: _Optional[bool] = ..., unparsed: _Optional[int] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("request_id", "model", "winner", "verdict", "combined", "rewards", "timings_ms")
    class RewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: RewardResult
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[RewardResult, _Mapping]] = ...) -> None: ...
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WINNER_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    COMBINED_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    winner: Winner
    verdict: Verdict
    combined: _containers.RepeatedScalarFieldContainer[float]
    rewards: _containers.MessageMap[str, RewardResult]
    timings_ms: _containers.ScalarMap[str, float]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., winner: _Optional[_Union[Winner, str]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., combined: _Optional[_Iterable[float]] = ..., rewards: _Optional[_Mapping[str, RewardResult]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("model", "query", "documents", "top_n", "metadata", "request_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    query: str
    documents: _containers.RepeatedCompositeFieldContainer[Image]
    top_n: int
    metadata: _struct_pb2.Struct
    request_id: str
    def __init__(self, model: _Optional[str] = ..., query: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., top_n: _Optional[int] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class RerankResult(_message.Message):
    __slots__ = ("index", "relevance_score")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_SCORE_FIELD_NUMBER: _ClassVar[int]
    index: int
    relevance_score: float
    def __init__(self, index: _Optional[int] = ..., relevance_score: _Optional[float] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("id", "model", "results", "images")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    results: _containers.RepeatedCompositeFieldContainer[RerankResult]
    images: int
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., results: _Optional[_Iterable[_Union[RerankResult, _Mapping]]] = ..., images: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "kind", "description", "version", "lowest", "highest", "higher_is_better", "needs_metadata", "weights", "normalize", "pairwise", "checkpoint", "revision", "license", "state", "metrics", "metadata_schema", "needs_in_prompt")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Model.State]
        STATE_READY: _ClassVar[Model.State]
        STATE_BUSY: _ClassVar[Model.State]
        STATE_UNAVAILABLE: _ClassVar[Model.State]
    STATE_UNSPECIFIED: Model.State
    STATE_READY: Model.State
    STATE_BUSY: Model.State
    STATE_UNAVAILABLE: Model.State
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Model.Kind]
        KIND_REWARD: _ClassVar[Model.Kind]
        KIND_MIXTURE: _ClassVar[Model.Kind]
    KIND_UNSPECIFIED: Model.Kind
    KIND_REWARD: Model.Kind
    KIND_MIXTURE: Model.Kind
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOWEST_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    NEEDS_METADATA_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    PAIRWISE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    METADATA_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    NEEDS_IN_PROMPT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Model.Kind
    description: str
    version: str
    lowest: float
    highest: float
    higher_is_better: bool
    needs_metadata: bool
    weights: _containers.ScalarMap[str, float]
    normalize: Normalize
    pairwise: bool
    checkpoint: str
    revision: str
    license: str
    state: Model.State
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    metadata_schema: str
    needs_in_prompt: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Model.Kind, str]] = ..., description: _Optional[str] = ..., version: _Optional[str] = ..., lowest: _Optional[float] = ..., highest: _Optional[float] = ..., higher_is_better: _Optional[bool] = ..., needs_metadata: _Optional[bool] = ..., weights: _Optional[_Mapping[str, float]] = ..., normalize: _Optional[_Union[Normalize, str]] = ..., pairwise: _Optional[bool] = ..., checkpoint: _Optional[str] = ..., revision: _Optional[str] = ..., license: _Optional[str] = ..., state: _Optional[_Union[Model.State, str]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., metadata_schema: _Optional[str] = ..., needs_in_prompt: _Optional[str] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "description", "unit", "higher_is_better")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    unit: str
    higher_is_better: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., unit: _Optional[str] = ..., higher_is_better: _Optional[bool] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class ReadyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RewardReadiness(_message.Message):
    __slots__ = ("ready", "message", "milliseconds")
    READY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    message: str
    milliseconds: float
    def __init__(self, ready: _Optional[bool] = ..., message: _Optional[str] = ..., milliseconds: _Optional[float] = ...) -> None: ...

class ReadyResponse(_message.Message):
    __slots__ = ("ready", "rewards")
    class RewardsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: RewardReadiness
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[RewardReadiness, _Mapping]] = ...) -> None: ...
    READY_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    rewards: _containers.MessageMap[str, RewardReadiness]
    def __init__(self, ready: _Optional[bool] = ..., rewards: _Optional[_Mapping[str, RewardReadiness]] = ...) -> None: ...
