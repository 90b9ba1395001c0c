"""Values that several messages share: enumerations and JSON."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2

from drpo_rewards.contract import Normalize
from drpo_rewards.v1 import ranking_pb2 as pb

NORMALIZE: dict[Normalize | None, pb.Normalize] = {
    "zscore": pb.NORMALIZE_ZSCORE,
    "none": pb.NORMALIZE_NONE,
    "rank": pb.NORMALIZE_RANK,
    None: pb.NORMALIZE_UNSPECIFIED,
}
NORMALIZE_BACK: dict[int, Normalize | None] = {number: name for name, number in NORMALIZE.items()}


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
