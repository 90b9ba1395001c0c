"""The four answers to messages and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drpo_rewards.api.contract import RankResponse, RewardResult, RewardScores, TournamentSummary
from drpo_rewards.operations import (
    CompareResponse,
    RerankResponse,
    RerankResult,
    RerankUsage,
    ScoredGroup,
    ScoreResponse,
    Verdict,
    Winner,
)
from drpo_rewards.v1 import ranking_pb2 as pb
from drpo_rewards.wire.values import NORMALIZE, NORMALIZE_BACK, struct_to_dict

_WINNER: dict[Winner, pb.Winner] = {
    "first": pb.WINNER_FIRST,
    "second": pb.WINNER_SECOND,
    "tie": pb.WINNER_TIE,
}
_WINNER_BACK: dict[int, Winner] = {number: name for name, number in _WINNER.items()}


def answer_to_proto(answer: Any) -> Any:
    """The message of any of the four answers."""
    return _TO_PROTO[type(answer)](answer)


def answer_from_proto(message: Any) -> Any:
    """The answer in any of the four messages."""
    return _FROM_PROTO[type(message)](message)


def _rank_to_proto(answer: RankResponse) -> pb.RankResponse:
    message = pb.RankResponse(
        request_id=answer.request_id,
        combined=answer.combined,
        order=answer.order,
        ranks=answer.ranks,
        pairs=[pb.Pair(winner=winner, loser=loser) for winner, loser in answer.pairs],
        all_tied=answer.all_tied,
        normalize=NORMALIZE[answer.normalize],
        timings_ms=answer.timings_ms,
    )
    _results_to_proto(answer.rewards, message.rewards)
    return message


def _rank_from_proto(message: pb.RankResponse) -> RankResponse:
    return RankResponse(
        request_id=message.request_id,
        combined=list(message.combined),
        order=list(message.order),
        ranks=list(message.ranks),
        pairs=[(pair.winner, pair.loser) for pair in message.pairs],
        all_tied=message.all_tied,
        normalize=NORMALIZE_BACK[message.normalize] or "zscore",
        rewards=_results_from_proto(message.rewards),
        timings_ms=dict(message.timings_ms),
    )


def _score_to_proto(answer: ScoreResponse) -> pb.ScoreResponse:
    message = pb.ScoreResponse(request_id=answer.request_id, timings_ms=answer.timings_ms)
    for group in answer.groups:
        entry = message.groups.add()
        for name, scores in group.rewards.items():
            _scores_to_proto(scores, entry.rewards[name])
    return message


def _score_from_proto(message: pb.ScoreResponse) -> ScoreResponse:
    groups = [
        ScoredGroup(rewards={name: RewardScores(**_scores(entry)) for name, entry in group.rewards.items()})
        for group in message.groups
    ]
    return ScoreResponse(request_id=message.request_id, groups=groups, timings_ms=dict(message.timings_ms))


def _compare_to_proto(answer: CompareResponse) -> pb.CompareResponse:
    message = pb.CompareResponse(
        request_id=answer.request_id,
        model=answer.model,
        winner=_WINNER[answer.winner],
        combined=answer.combined or [],
        timings_ms=answer.timings_ms,
    )
    if answer.verdict is not None:
        verdict = answer.verdict
        message.verdict.CopyFrom(
            pb.Verdict(
                reward=verdict.reward,
                version=verdict.version,
                confidence=verdict.confidence,
                flipped=verdict.flipped,
                unparsed=verdict.unparsed,
            )
        )
        if verdict.details is not None:
            message.verdict.details.update(verdict.details)
    _results_to_proto(answer.rewards, message.rewards)
    return message


def _compare_from_proto(message: pb.CompareResponse) -> CompareResponse:
    verdict = None
    if message.HasField("verdict"):
        entry = message.verdict
        verdict = Verdict(
            reward=entry.reward,
            version=entry.version,
            confidence=entry.confidence if entry.HasField("confidence") else None,
            flipped=entry.flipped if entry.HasField("flipped") else None,
            unparsed=entry.unparsed,
            details=struct_to_dict(entry.details) if entry.HasField("details") else None,
        )
    return CompareResponse(
        request_id=message.request_id,
        model=message.model,
        winner=_WINNER_BACK[message.winner],
        verdict=verdict,
        combined=list(message.combined) or None,
        rewards=_results_from_proto(message.rewards),
        timings_ms=dict(message.timings_ms),
    )


def _rerank_to_proto(answer: RerankResponse) -> pb.RerankResponse:
    results = [pb.RerankResult(index=one.index, relevance_score=one.relevance_score) for one in answer.results]
    return pb.RerankResponse(id=answer.id, model=answer.model, results=results, images=answer.usage.images)


def _rerank_from_proto(message: pb.RerankResponse) -> RerankResponse:
    results = [RerankResult(index=one.index, relevance_score=one.relevance_score) for one in message.results]
    return RerankResponse(id=message.id, model=message.model, results=results, usage=RerankUsage(images=message.images))


def _results_to_proto(rewards: dict[str, RewardResult], entries: Any) -> None:
    for name, result in rewards.items():
        _scores_to_proto(result, entries[name])
        entries[name].weight = result.weight


def _results_from_proto(entries: Any) -> dict[str, RewardResult]:
    return {name: RewardResult(weight=entry.weight, **_scores(entry)) for name, entry in entries.items()}


def _scores_to_proto(scores: RewardScores, entry: Any) -> None:
    entry.scores.extend(scores.scores)
    entry.version = scores.version
    for details in scores.details or []:
        entry.details.add().update(details or {})
    for name, values in (scores.metrics or {}).items():
        entry.metrics[name].values.extend(values)
    if scores.tournament is not None:
        entry.tournament.CopyFrom(pb.Tournament(**scores.tournament.model_dump()))


def _scores(entry: Any) -> dict[str, Any]:
    return {
        "scores": list(entry.scores),
        "version": entry.version,
        "details": [struct_to_dict(details) or None for details in entry.details] or None,
        "metrics": {name: list(metric.values) for name, metric in entry.metrics.items()} or None,
        "tournament": _tournament(entry.tournament) if entry.HasField("tournament") else None,
    }


def _tournament(entry: pb.Tournament) -> TournamentSummary:
    return TournamentSummary(
        comparisons=entry.comparisons,
        ties=entry.ties,
        unparsed=entry.unparsed,
        flip_rate=entry.flip_rate if entry.HasField("flip_rate") else None,
        standard_errors=list(entry.standard_errors),
    )


_TO_PROTO: dict[type, Callable[[Any], Any]] = {
    RankResponse: _rank_to_proto,
    ScoreResponse: _score_to_proto,
    CompareResponse: _compare_to_proto,
    RerankResponse: _rerank_to_proto,
}
_FROM_PROTO: dict[type, Callable[[Any], Any]] = {
    pb.RankResponse: _rank_from_proto,
    pb.ScoreResponse: _score_from_proto,
    pb.CompareResponse: _compare_from_proto,
    pb.RerankResponse: _rerank_from_proto,
}
