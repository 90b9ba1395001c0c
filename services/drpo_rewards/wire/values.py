"""Conversion of values that several messages share: enumerations, JSON, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from drpo_rewards.api.contract import Normalize, PairStrategy
from drpo_rewards.v1 import ranking_pb2 as pb

NORMALIZE_TO_PROTO: dict[Normalize | None, pb.Normalize] = {
    "zscore": pb.NORMALIZE_ZSCORE,
    "none": pb.NORMALIZE_NONE,
    "rank": pb.NORMALIZE_RANK,
    None: pb.NORMALIZE_UNSPECIFIED,
}
NORMALIZE_FROM_PROTO: dict[int, Normalize | None] = {number: name for name, number in NORMALIZE_TO_PROTO.items()}

STRATEGY_TO_PROTO: dict[PairStrategy, pb.PairOptions.Strategy] = {
    "random": pb.PairOptions.STRATEGY_RANDOM,
    "extremes": pb.PairOptions.STRATEGY_EXTREMES,
}
STRATEGY_FROM_PROTO: dict[int, PairStrategy] = {
    **{number: name for name, number in STRATEGY_TO_PROTO.items()},
    pb.PairOptions.STRATEGY_UNSPECIFIED: "random",
}


def ordered(entries: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The entries of a protobuf map by name.

    Such a map has no order: Python's differs from one process to the next, and texts and sums would follow it.
    """
    return sorted(entries.items())


def set_metadata(message: Any, metadata: dict[str, Any] | None) -> None:
    """Fill a message's field `metadata`; None leaves it out."""
    if metadata is not None:
        message.metadata.SetInParent()  # so that an empty one is present too
        message.metadata.update(metadata)


def metadata_from_proto(message: Any) -> dict[str, Any] | None:
    """Read a message's field `metadata`."""
    return struct_to_dict(message.metadata) if message.HasField("metadata") else None


def struct_to_dict(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Read a Struct. All of its numbers are doubles; whole ones become int again, as in the JSON that was sent.

    A number that is not finite is kept; the contract refuses it.
    """
    return {key: _read_value(value) for key, value in ordered(struct.fields)}


def _read_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return struct_to_dict(value.struct_value)
    if kind == "list_value":
        return [_read_value(item) for item in value.list_value.values]
    if kind == "number_value" and value.number_value.is_integer() and abs(value.number_value) < 2**53:
        return int(value.number_value)
    return None if kind in (None, "null_value") else getattr(value, kind)
