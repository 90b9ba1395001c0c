"""Values that several messages share: enumerations, JSON, metadata."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from drpo_rewards.api.contract import Normalize, PairStrategy
from drpo_rewards.v1 import ranking_pb2 as pb

NORMALIZE: dict[Normalize | None, pb.Normalize] = {
    "zscore": pb.NORMALIZE_ZSCORE,
    "none": pb.NORMALIZE_NONE,
    "rank": pb.NORMALIZE_RANK,
    None: pb.NORMALIZE_UNSPECIFIED,
}
NORMALIZE_BACK: dict[int, Normalize | None] = {number: name for name, number in NORMALIZE.items()}

STRATEGY: dict[PairStrategy, pb.PairOptions.Strategy] = {
    "random": pb.PairOptions.STRATEGY_RANDOM,
    "extremes": pb.PairOptions.STRATEGY_EXTREMES,
}
STRATEGY_BACK: dict[int, PairStrategy] = {
    **{number: name for name, number in STRATEGY.items()},
    pb.PairOptions.STRATEGY_UNSPECIFIED: "random",
}


def set_metadata(message: Any, metadata: dict[str, Any] | None) -> None:
    """Fill a message's field `metadata`; None leaves it out."""
    if metadata is not None:
        message.metadata.SetInParent()  # so that an empty one is there as well
        message.metadata.update(metadata)


def metadata_from_proto(message: Any) -> dict[str, Any] | None:
    """Read a message's field `metadata`."""
    return struct_to_dict(message.metadata) if message.HasField("metadata") else None


def struct_to_dict(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Read a Struct. Its numbers are all doubles; whole ones become int again, as JSON would have had them.

    A number that is not finite stays, for the contract to refuse.
    """
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return struct_to_dict(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value" and value.number_value.is_integer() and abs(value.number_value) < 2**53:
        return int(value.number_value)
    return None if kind in (None, "null_value") else getattr(value, kind)
