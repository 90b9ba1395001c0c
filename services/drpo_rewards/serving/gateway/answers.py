"""What each operation answers: ask the rewards that it names, then combine, order, pair or split their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from drpo_rewards.api.contract import Normalize, RankOptions, RankResponse, RewardResult, RewardScores
from drpo_rewards.errors import UnknownRewardError
from drpo_rewards.operations import (
    CompareOptions,
    CompareResponse,
    RerankOptions,
    RerankResponse,
    RerankResult,
    RerankUsage,
    ScoredGroup,
    ScoreOptions,
    ScoreResponse,
    Verdict,
    Winner,
)
from drpo_rewards.ranking.mixture import Ranking, combine
from drpo_rewards.ranking.pairs import draw_pairs
from drpo_rewards.serving.config import DEFAULT_MIXTURE, MixtureConfig, ServiceConfig
from drpo_rewards.serving.gateway.reward_calls import RewardCalls
from drpo_rewards.serving.replica.replica import Answer, GroupAsk

Images = Sequence[np.ndarray]
Timings = dict[str, float]


class Answers:
    """One method per operation: options (whose request id is set) and checked images to the answer.

    Each fills `timings_ms` with what the rewards took. Raises a RewardsError.
    """

    def __init__(self, config: ServiceConfig, calls: RewardCalls) -> None:
        self._mixtures = config.mixtures
        self._calls = calls

    async def rank(self, options: RankOptions, images: Images, timings_ms: Timings) -> RankResponse:
        mixture = self._weights(options)
        normalize = options.normalize or mixture.normalize
        ranking, answers = await self._combined(mixture, normalize, options, images, timings_ms)
        drawing = options.pairs
        pairs = draw_pairs(ranking.combined, drawing.count, drawing.strategy, drawing.seed) if drawing else []
        return RankResponse(
            request_id=options.request_id or "",
            combined=ranking.combined,
            order=ranking.order,
            ranks=ranking.ranks,
            pairs=pairs,
            all_tied=ranking.all_tied,
            normalize=normalize,
            rewards=_results(answers, ranking, options.details),
        )

    async def score(self, options: ScoreOptions, images: Images, timings_ms: Timings) -> ScoreResponse:
        names = list(dict.fromkeys(options.rewards or self._mixtures[DEFAULT_MIXTURE].rewards))
        self._check_known(names, "rewards")
        places = [options.image_field(index) for index in range(len(images))]
        groups, begin = [], 0
        for number, group in enumerate(options.groups):
            fields = places[begin : begin + group.num_images]
            groups.append(GroupAsk(group.prompt, fields, group.metadata, place=f"groups[{number}]."))
            begin += group.num_images
        answers = await self._calls.score(
            names, images, groups, options.details, options.request_id or "", timings_ms, options.all_pairs
        )
        scored, begin = [], 0
        for number, group in enumerate(options.groups):
            part = slice(begin, begin + group.num_images)
            begin += group.num_images
            rewards = {name: _scores(answer, part, number, options.details) for name, answer in answers.items()}
            scored.append(ScoredGroup(rewards=rewards))
        return ScoreResponse(request_id=options.request_id or "", groups=scored)

    async def compare(self, options: CompareOptions, images: Images, timings_ms: Timings) -> CompareResponse:
        response = CompareResponse(request_id=options.request_id or "", model=options.model, winner="tie")
        mixture = self._mixtures.get(options.model)
        if mixture is not None:
            ranking, answers = await self._combined(mixture, mixture.normalize, options, images, timings_ms)
        else:
            name = options.model
            self._check_known([name], "model")
            group = _group(options, options.prompt, images)
            asked = (group, options.details, options.request_id or "", timings_ms)
            answer = await self._calls.compare(name, images, *asked)
            if answer.comparisons:
                found = answer.comparisons[0]
                verdict = Verdict(
                    reward=name,
                    version=answer.version,
                    confidence=found.confidence,
                    flipped=found.flipped,
                    unparsed=found.unparsed,
                    details=found.details,
                )
                return response.model_copy(update={"winner": found.winner, "verdict": verdict})
            answers = {name: answer}
            ranking = _combine(answers, {name: 1.0}, "none")
        return response.model_copy(
            update={
                "winner": _winner(*ranking.combined),
                "combined": ranking.combined,
                "rewards": _results(answers, ranking, options.details),
            }
        )

    async def rerank(self, options: RerankOptions, images: Images, timings_ms: Timings) -> RerankResponse:
        mixture = self._mixtures.get(options.model)
        if mixture is None:  # one reward: its own scores, negative where the lower one is the better one
            self._check_known([options.model], "model")
            mixture = MixtureConfig(rewards={options.model: 1.0}, normalize="none")
        ranking, _ = await self._combined(mixture, mixture.normalize, options, images, timings_ms)
        results = [
            RerankResult(index=index, relevance_score=ranking.combined[index], document=options.document(index))
            for index in ranking.order[: options.top_n]
        ]
        return RerankResponse(
            id=options.request_id or "",
            model=options.model,
            results=results,
            usage=RerankUsage(images=len(images)),
        )

    def _weights(self, options: RankOptions) -> MixtureConfig:
        """The weights that a ranking request names or brings."""
        if options.rewards is not None:
            self._check_known(options.rewards, "rewards")
            return MixtureConfig(rewards=options.rewards)
        name = options.mixture or DEFAULT_MIXTURE
        if name not in self._mixtures:
            known = ", ".join(self._mixtures)
            raise UnknownRewardError(f"no mixture {name!r}; the mixtures are: {known}", field="mixture")
        return self._mixtures[name]

    def _check_known(self, names: Sequence[str] | dict[str, float], field: str) -> None:
        for name in names:
            if name not in self._calls.names:
                known = ", ".join(self._calls.names)
                also = f", the mixtures: {', '.join(self._mixtures)}" if field == "model" else ""
                raise UnknownRewardError(f"no reward {name!r}; the rewards are: {known}{also}", field=field)

    async def _combined(
        self,
        mixture: MixtureConfig,
        normalize: Normalize,
        options: RankOptions | CompareOptions | RerankOptions,
        images: Images,
        timings_ms: Timings,
    ) -> tuple[Ranking, dict[str, Answer]]:
        """One group's scores by every reward of a mixture, and the ranking that they make together."""
        prompt = options.query if isinstance(options, RerankOptions) else options.prompt
        details = not isinstance(options, RerankOptions) and options.details
        all_pairs = isinstance(options, RankOptions) and options.all_pairs
        group = _group(options, prompt, images)
        answers = await self._calls.score(
            list(mixture.rewards), images, [group], details, options.request_id or "", timings_ms, all_pairs
        )
        return _combine(answers, mixture.rewards, normalize), answers


def _group(options: Any, prompt: str, images: Images) -> GroupAsk:
    fields = [options.image_field(index) for index in range(len(images))]
    return GroupAsk(prompt, fields, options.metadata)


def _combine(answers: dict[str, Answer], weights: dict[str, float], normalize: Normalize) -> Ranking:
    signed = {name: weight * answers[name].sign for name, weight in weights.items()}
    scores = {name: [score.value for score in answer.scores] for name, answer in answers.items()}
    return combine(scores, signed, normalize)


def _scores(answer: Answer, part: slice, group: int, details: bool) -> RewardScores:
    """One group's, the images of which are `part` of the answer's."""
    return RewardScores(
        scores=[score.value for score in answer.scores[part]],
        version=answer.version,
        details=[score.details for score in answer.scores[part]] if details else None,
        tournament=answer.tournaments[group] if answer.tournaments else None,
    )


def _results(answers: dict[str, Answer], ranking: Ranking, details: bool) -> dict[str, RewardResult]:
    return {
        name: RewardResult(weight=ranking.weights[name], **_scores(answer, slice(None), 0, details).model_dump())
        for name, answer in answers.items()
    }


def _winner(first: float, second: float) -> Winner:
    if first == second:
        return "tie"
    return "first" if first > second else "second"
