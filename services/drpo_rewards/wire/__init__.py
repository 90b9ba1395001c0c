"""The contract's models to protobuf messages and back. Used by both ends of gRPC, so that they cannot disagree."""

from drpo_rewards.wire.answers import answer_from_proto, answer_to_proto
from drpo_rewards.wire.errors import ERROR_METADATA, error_from_metadata, error_to_metadata
from drpo_rewards.wire.requests import image_from_proto, images_of, options_from_proto, request_to_proto
from drpo_rewards.wire.states import models_from_proto, models_to_proto, readiness_from_proto, readiness_to_proto

__all__ = [
    "ERROR_METADATA",
    "answer_from_proto",
    "answer_to_proto",
    "error_from_metadata",
    "error_to_metadata",
    "image_from_proto",
    "images_of",
    "models_from_proto",
    "models_to_proto",
    "options_from_proto",
    "readiness_from_proto",
    "readiness_to_proto",
    "request_to_proto",
]
