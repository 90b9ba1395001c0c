"""The contract's models to protobuf messages and back. Used by both ends of gRPC, so that they cannot disagree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import json_format, struct_pb2

from drpo_rewards.contract import (
    ModelInfo,
    Normalize,
    RankOptions,
    RankResponse,
    Readiness,
    RewardReadiness,
    RewardResult,
    parse,
)
from drpo_rewards.errors import InvalidImageError, RewardsError, from_code
from drpo_rewards.v1 import ranking_pb2 as pb

# A key of the trailing metadata that carries an error's typed members as JSON.
ERROR_METADATA = "drpo-error"

_NORMALIZE: dict[Normalize | None, pb.Normalize] = {
    "zscore": pb.NORMALIZE_ZSCORE,
    "none": pb.NORMALIZE_NONE,
    "rank": pb.NORMALIZE_RANK,
    None: pb.NORMALIZE_UNSPECIFIED,
}
_NORMALIZE_BACK: dict[int, Normalize | None] = {number: name for name, number in _NORMALIZE.items()}
_STRATEGY = {"random": pb.PairOptions.STRATEGY_RANDOM, "extremes": pb.PairOptions.STRATEGY_EXTREMES}
_STRATEGY_BACK = {number: name for name, number in _STRATEGY.items()} | {pb.PairOptions.STRATEGY_UNSPECIFIED: "random"}


def request_to_proto(options: RankOptions, images: Sequence[np.ndarray | bytes]) -> pb.RankRequest:
    """Arrays travel as RGB8, lossless; a file's bytes as they are."""
    request = pb.RankRequest(
        prompt=options.prompt,
        rewards=options.rewards or {},
        mixture=options.mixture or "",
        normalize=_NORMALIZE[options.normalize],
        details=options.details,
        request_id=options.request_id or "",
    )
    for image in images:
        if isinstance(image, bytes):
            request.images.add(encoded=image)
        else:
            height, width, _ = image.shape
            request.images.add(rgb8=pb.Rgb8(width=width, height=height, data=image.tobytes()))
    if options.metadata is not None:
        request.metadata.update(options.metadata)
    if options.pairs is not None:
        pairs = options.pairs
        request.pairs.CopyFrom(pb.PairOptions(count=pairs.count, strategy=_STRATEGY[pairs.strategy], seed=pairs.seed))
    return request


def options_from_proto(request: pb.RankRequest) -> RankOptions:
    """Everything but the images; raises InvalidRequestError as the HTTP body would."""
    fields: dict[str, Any] = {
        "prompt": request.prompt,
        "rewards": dict(request.rewards) or None,
        "mixture": request.mixture or None,
        "normalize": _NORMALIZE_BACK.get(request.normalize, f"number {request.normalize}"),
        "metadata": struct_to_dict(request.metadata) if request.HasField("metadata") else None,
        "details": request.details,
        "request_id": request.request_id or None,
    }
    if request.HasField("pairs"):
        strategy = _STRATEGY_BACK.get(request.pairs.strategy, f"number {request.pairs.strategy}")
        fields["pairs"] = {"count": request.pairs.count, "strategy": strategy, "seed": request.pairs.seed}
    return parse(RankOptions, fields)


def image_from_proto(image: pb.Image, field: str) -> bytes | tuple[bytes, int, int]:
    """A file's bytes, or RGB8 data with its width and height."""
    kind = image.WhichOneof("content")
    if kind == "encoded":
        return image.encoded
    if kind == "rgb8":
        return image.rgb8.data, image.rgb8.width, image.rgb8.height
    raise InvalidImageError(f"{field} has no content", field=field)


def response_to_proto(response: RankResponse) -> pb.RankResponse:
    message = pb.RankResponse(
        request_id=response.request_id,
        combined=response.combined,
        order=response.order,
        ranks=response.ranks,
        pairs=[pb.Pair(winner=winner, loser=loser) for winner, loser in response.pairs],
        all_tied=response.all_tied,
        normalize=_NORMALIZE[response.normalize],
        timings_ms=response.timings_ms,
    )
    for name, result in response.rewards.items():
        entry = message.rewards[name]
        entry.scores.extend(result.scores)
        entry.weight, entry.version = result.weight, result.version
        for details in result.details or []:
            entry.details.add().update(details or {})
    return message


def response_from_proto(message: pb.RankResponse) -> RankResponse:
    rewards = {
        name: RewardResult(
            scores=list(entry.scores),
            weight=entry.weight,
            version=entry.version,
            details=[struct_to_dict(details) or None for details in entry.details] or None,
        )
        for name, entry in message.rewards.items()
    }
    return RankResponse(
        request_id=message.request_id,
        combined=list(message.combined),
        order=list(message.order),
        ranks=list(message.ranks),
        pairs=[(pair.winner, pair.loser) for pair in message.pairs],
        all_tied=message.all_tied,
        normalize=_NORMALIZE_BACK[message.normalize] or "zscore",
        rewards=rewards,
        timings_ms=dict(message.timings_ms),
    )


def models_to_proto(models: Sequence[ModelInfo]) -> pb.ListModelsResponse:
    message = pb.ListModelsResponse()
    for info in models:
        entry = message.models.add(
            name=info.name,
            kind=pb.Model.KIND_MIXTURE if info.kind == "mixture" else pb.Model.KIND_REWARD,
            description=info.description,
            version=info.version,
            higher_is_better=info.higher_is_better,
            needs_metadata=info.needs_metadata,
            weights=info.weights or {},
            normalize=_NORMALIZE[info.normalize],
        )
        if info.range is not None:
            entry.lowest, entry.highest = info.range
    return message


def models_from_proto(message: pb.ListModelsResponse) -> list[ModelInfo]:
    return [
        ModelInfo(
            name=entry.name,
            kind="mixture" if entry.kind == pb.Model.KIND_MIXTURE else "reward",
            description=entry.description,
            version=entry.version,
            range=(entry.lowest, entry.highest) if entry.HasField("lowest") else None,
            higher_is_better=entry.higher_is_better,
            needs_metadata=entry.needs_metadata,
            weights=dict(entry.weights) or None,
            normalize=_NORMALIZE_BACK[entry.normalize],
        )
        for entry in message.models
    ]


def readiness_to_proto(readiness: Readiness) -> pb.ReadyResponse:
    message = pb.ReadyResponse(ready=readiness.ready)
    for name, state in readiness.rewards.items():
        message.rewards[name].CopyFrom(pb.RewardReadiness(**state.model_dump()))
    return message


def readiness_from_proto(message: pb.ReadyResponse) -> Readiness:
    states = {
        name: RewardReadiness(ready=state.ready, message=state.message, milliseconds=state.milliseconds)
        for name, state in message.rewards.items()
    }
    return Readiness(ready=message.ready, rewards=states)


def error_to_metadata(error: RewardsError) -> str:
    """The error's typed members as one line of ASCII JSON; its message travels as the status' details."""
    members = {
        "code": error.code,
        "reward": error.reward,
        "field": error.field,
        "retry_after_s": error.retry_after_s,
        "request_id": error.request_id,
    }
    return json.dumps({name: value for name, value in members.items() if value is not None})


def error_from_metadata(text: str, message: str) -> RewardsError:
    members = json.loads(text)
    return from_code(members.pop("code", "internal"), message, **members)


def struct_to_dict(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct's numbers are all doubles; whole ones become int again, as JSON would have had them."""
    return _whole(json_format.MessageToDict(struct))


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
