"""Conversion of one reward's scores to protobuf messages and back."""

from __future__ import annotations

from typing import Any

from drpo_rewards.api.contract import RewardResult, RewardScores, TournamentSummary
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.values import ordered, struct_to_dict


def results_to_proto(rewards: dict[str, RewardResult], entries: Any) -> None:
    """Fill a message's map of reward results."""
    for name, result in rewards.items():
        scores_to_proto(result, entries[name])
        entries[name].weight = result.weight


def results_from_proto(entries: Any) -> dict[str, RewardResult]:
    """Read a message's map of reward results."""
    return {name: RewardResult(weight=entry.weight, **scores_from_proto(entry)) for name, entry in ordered(entries)}


def scores_to_proto(scores: RewardScores, entry: Any) -> None:
    """Fill the fields that RewardScores and RewardResult share."""
    entry.scores.extend(scores.scores)
    entry.version = scores.version
    for details in scores.details or []:
        entry.details.add().update(details or {})
    for name, values in (scores.metrics or {}).items():
        entry.metrics[name].values.extend(values)
    if scores.tournament is not None:
        entry.tournament.CopyFrom(pb.Tournament(**scores.tournament.model_dump()))


def scores_from_proto(entry: Any) -> dict[str, Any]:
    """Read the fields that RewardScores and RewardResult share."""
    return {
        "scores": list(entry.scores),
        "version": entry.version,
        "details": [struct_to_dict(details) or None for details in entry.details] or None,
        "metrics": {name: list(metric.values) for name, metric in ordered(entry.metrics)} or None,
        "tournament": _read_tournament(entry.tournament) if entry.HasField("tournament") else None,
    }


def _read_tournament(entry: pb.Tournament) -> TournamentSummary:
    return TournamentSummary(
        comparisons=entry.comparisons,
        ties=entry.ties,
        unparsed=entry.unparsed,
        flip_rate=entry.flip_rate if entry.HasField("flip_rate") else None,
        standard_errors=list(entry.standard_errors),
    )
