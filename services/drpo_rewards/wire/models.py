"""Conversion of models and readiness to protobuf messages and back."""

from __future__ import annotations

import json
from collections.abc import Sequence

from drpo_rewards.api.contract import Metric, ModelInfo, Readiness, RewardReadiness, State
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.values import NORMALIZE_FROM_PROTO, NORMALIZE_TO_PROTO, ordered

_STATE_TO_PROTO: dict[State, pb.Model.State] = {
    "ready": pb.Model.STATE_READY,
    "busy": pb.Model.STATE_BUSY,
    "unavailable": pb.Model.STATE_UNAVAILABLE,
}
_STATE_FROM_PROTO: dict[int, State] = {number: name for name, number in _STATE_TO_PROTO.items()}


def models_to_proto(models: Sequence[ModelInfo]) -> pb.ListModelsResponse:
    message = pb.ListModelsResponse()
    for info in models:
        entry = message.models.add(
            name=info.name,
            kind=pb.Model.KIND_MIXTURE if info.kind == "mixture" else pb.Model.KIND_REWARD,
            description=info.description,
            pairwise=info.mode == "pairwise",
            version=info.version,
            checkpoint=info.checkpoint or "",
            revision=info.revision or "",
            license=info.license or "",
            state=_STATE_TO_PROTO[info.state],
            higher_is_better=info.higher_is_better,
            needs_metadata=info.needs_metadata,
            metadata_schema=json.dumps(info.metadata_schema) if info.metadata_schema is not None else "",
            needs_in_prompt=info.needs_in_prompt,
            weights=info.weights or {},
            normalize=NORMALIZE_TO_PROTO[info.normalize],
            metrics=[pb.Metric(**metric.model_dump()) for metric in info.metrics],
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
            mode="pairwise" if entry.pairwise else "pointwise",
            version=entry.version,
            checkpoint=entry.checkpoint or None,
            revision=entry.revision or None,
            license=entry.license or None,
            state=_STATE_FROM_PROTO.get(entry.state, "ready"),  # older services do not send it
            range=(entry.lowest, entry.highest) if entry.HasField("lowest") else None,
            higher_is_better=entry.higher_is_better,
            needs_metadata=entry.needs_metadata,
            metadata_schema=json.loads(entry.metadata_schema) if entry.metadata_schema else None,
            needs_in_prompt=entry.needs_in_prompt,
            weights=dict(ordered(entry.weights)) or None,
            normalize=NORMALIZE_FROM_PROTO[entry.normalize],
            metrics=[
                Metric(
                    name=metric.name,
                    description=metric.description,
                    unit=metric.unit,
                    higher_is_better=metric.higher_is_better,
                )
                for metric in entry.metrics
            ],
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
        for name, state in ordered(message.rewards)
    }
    return Readiness(ready=message.ready, rewards=states)
