"""Errors over gRPC: a status whose trailing metadata carries the error's code and other members."""

from __future__ import annotations

import json

from drpo_rewards.errors import RewardsError, from_code

# The key of the trailing metadata that carries an error's members as JSON.
ERROR_METADATA = "drpo-error"


def error_to_metadata(error: RewardsError) -> str:
    """Return the error's members as one line of ASCII JSON. Its message travels as the status's details."""
    members = {
        "code": error.code,
        "reward": error.reward,
        "field": error.field,
        "retry_after_s": error.retry_after_s,
        "request_id": error.request_id,
    }
    return json.dumps({name: value for name, value in members.items() if value is not None})


def error_from_metadata(text: str, message: str) -> RewardsError:
    """Make the error again from the text of `error_to_metadata` and the status's details."""
    members = json.loads(text)
    return from_code(members.pop("code", "internal"), message, **members)
