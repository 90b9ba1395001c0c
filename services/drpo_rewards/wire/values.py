"""Values that several messages share: enumerations and JSON."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from drpo_rewards.api.contract import Normalize
from drpo_rewards.v1 import ranking_pb2 as pb

NORMALIZE: dict[Normalize | None, pb.Normalize] = {
    "zscore": pb.NORMALIZE_ZSCORE,
    "none": pb.NORMALIZE_NONE,
    "rank": pb.NORMALIZE_RANK,
    None: pb.NORMALIZE_UNSPECIFIED,
}
NORMALIZE_BACK: dict[int, Normalize | None] = {number: name for name, number in NORMALIZE.items()}


def struct_to_dict(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct's numbers are all doubles; whole ones become int again, as JSON would have had them.

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
