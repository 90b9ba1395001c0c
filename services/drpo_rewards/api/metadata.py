"""Which keys of a request's metadata concern which reward.

A reward declares in its `metadata_schema` which keys it reads. One request may ask several rewards: each gets its own
keys only, and a key that none of them reads is an error, because it would otherwise be a mistake without effect. A key
whose value is null is as good as absent: tables of data sets fill in what a row has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.errors import InvalidRequestError

Schema = Mapping[str, Any] | None

READS_NONE: dict[str, Any] = {"type": "object", "properties": {}}
"""The schema of a reward that reads no metadata. Asked alone, such a reward lets any metadata pass unread."""

LONGEST = 128  # characters of a key for which a similar one is looked for, because a caller may send any

# What lets a schema accept keys that it does not list.
_OPEN = ("additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if")


def list_keys(schema: Schema) -> set[str] | None:
    """Return the keys that a reward reads; None if it does not say, or reads any."""
    if schema is None or "properties" not in schema or any(schema.get(word) for word in _OPEN):
        return None
    return set(schema["properties"])


def take_share(metadata: dict[str, Any] | None, schema: Schema) -> dict[str, Any] | None:
    """Return what of a request's metadata a reward reads; None if it is nothing.

    Example:
        take_share({"text": "OPEN", "include": []}, {"properties": {"text": {}}})  # {"text": "OPEN"}
    """
    keys = list_keys(schema)
    if metadata is None or keys is None:
        return metadata
    return {key: value for key, value in metadata.items() if key in keys and value is not None} or None


def check_keys(metadata: Mapping[str, Any] | None, schemas: Mapping[str, Schema]) -> None:
    """Check that each key of a request's metadata is read by one of the asked rewards.

    Args:
        metadata: of the request.
        schemas: the `metadata_schema` of each asked reward by its name.

    Raises:
        InvalidRequestError: none of them reads a key. The error names the key, and the keys that they read.
    """
    read = {name: list_keys(schema) for name, schema in schemas.items()}
    known = {key for keys in read.values() for key in keys or ()}
    if not metadata or not known or None in read.values():
        return
    for key, value in metadata.items():
        if key not in known and value is not None:
            readers = "; ".join(f"{name} reads {', '.join(sorted(keys))}" for name, keys in read.items() if keys)
            hint = did_you_mean(key[:LONGEST], known)
            message = f"`metadata.{key}`: no reward of this request reads this key{hint or f' ({readers})'}"
            raise InvalidRequestError(message, field=f"metadata.{key}")


def close_schema(schema: Schema) -> dict[str, Any] | None:
    """Return a reward's schema as `check_keys` applies it when the reward is asked alone."""
    if schema is None:
        return None
    return {**schema, **({"additionalProperties": False} if list_keys(schema) else {})}


def combine_schemas(schemas: Mapping[str, Schema]) -> dict[str, Any] | None:
    """Return the schema of the metadata for several rewards; None if none of them declares what it reads."""
    declared = {name: schema for name, schema in schemas.items() if schema is not None}
    parts = [
        # With an $id of its own, its #/$defs are found in itself.
        {"$id": f"urn:reward:{name}", **{key: value for key, value in schema.items() if key != "additionalProperties"}}
        for name, schema in declared.items()
        if schema.get("properties") != {}
    ]
    if not parts:
        return READS_NONE if declared else None
    # `unevaluatedProperties` knows the keys of all parts, which `additionalProperties` does not.
    closed = None not in map(list_keys, schemas.values())
    return {"type": "object", "allOf": parts} | ({"unevaluatedProperties": False} if closed else {})
