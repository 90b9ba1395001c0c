"""The groups of one optimizer step: generate, rank, compare, and add up the gradient (Algorithm 1).

Ranking happens elsewhere and takes time, so it is pipelined: while one group is being ranked, the next one is
    generated. All groups
of a step come from the same weights (on-policy), and their gradients are added in the order of the groups, so that
the result is the same, bit for bit, with or without the pipeline.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from drpo.config import TrainingConfig
from drpo.prompts.record import PromptRecord
from drpo.seeds import derive_seed
from drpo.training.ranking import Ranking, RankingLoop
from drpo.training.tally import Tally
from drpo_rewards.contract import PairOptions
from drpo_rewards.errors import RewardsError

log = logging.getLogger(__name__)

Features = dict[str, Tensor]


@dataclass
class _Group:
    """A group between its generation and its backward pass."""

    record: PromptRecord
    noise_NChw: Tensor
    text_1TD: Tensor
    features: Features
    reference: Features
    ranking: Future[Ranking]


class StepRunner:
    """Runs groups of a step on one worker and leaves the sum of their gradients in the parameters' `.grad`.

    Args:
        generator: a `drpo.generator.OneStepGenerator`, or anything with its methods.
        feature_map: phi; see `drpo.features`.
        objective: see `drpo.objectives`; `loss(features, reference, pairs_M2)`.
        ranking: where groups are ranked.
        settings: candidates, pairs, pipeline and so on; see `TrainingConfig`.
        seed: the run's seed; the noise and the pairs of a group follow from it, the step and the group's number.
        name: goes into the request ids, for the service's logs.
    """

    def __init__(
        self,
        generator: Any,
        feature_map: Any,
        objective: Any,
        ranking: RankingLoop,
        settings: TrainingConfig,
        *,
        seed: int = 0,
        name: str = "run",
    ) -> None:
        self.generator = generator
        self.feature_map = feature_map
        self.objective = objective
        self.ranking = ranking
        self.settings = settings
        self.seed = seed
        self.name = name

    def accumulate(self, step: int, groups: Sequence[tuple[int, PromptRecord]]) -> Tally:
        """Adds the gradient of each group's loss to the parameters' `.grad` (a sum over groups, not their mean).

        Args:
            step: number of the optimizer step.
            groups: (number of the group within the step, its prompt). Workers of one step hold different numbers.

        Returns:
            Counts, sums of metrics and seconds of these groups.
        """
        tally = Tally()
        in_flight: deque[_Group] = deque()
        limit = self.settings.groups_in_flight if self.settings.pipeline else 1
        try:
            for number, record in groups:
                in_flight.append(self._start(step, number, record, tally))
                if len(in_flight) >= limit:
                    self._finish(in_flight.popleft(), tally)
            while in_flight:
                self._finish(in_flight.popleft(), tally)
        finally:
            for group in in_flight:  # only after an error
                group.ranking.cancel()
        return tally

    def _start(self, step: int, number: int, record: PromptRecord, tally: Tally) -> _Group:
        """Lines 3 to 6 of Algorithm 1 but for the answer: candidates, the request to rank them, and the features."""
        settings = self.settings
        keep_graph = settings.chunk_size is None
        with tally.timed("generate"):
            with torch.no_grad():
                text_1TD = self.generator.encode_prompts([record.prompt])
            # Drawn on the CPU: the same noise on every device, on whichever worker, in a run or in its resumption.
            stream = torch.Generator().manual_seed(derive_seed(self.seed, step, number, "noise"))
            noise_NChw = self.generator.noise(settings.candidates, stream)
            with torch.set_grad_enabled(keep_graph):
                latents_NChw = self._sample(noise_NChw, text_1TD)
            images_NHWC = self.generator.decode(latents_NChw.detach())
            future = self.ranking.submit(
                record.prompt,
                images_NHWC,
                metadata=record.metadata,
                pairs=PairOptions(
                    count=settings.pairs,
                    strategy=settings.pair_strategy,
                    seed=derive_seed(self.seed, step, number, "pairs", bits=31),
                ),
                request_id=f"{self.name}-{step}-{number}",
            )
        tally.groups += 1
        tally.images += settings.candidates
        if not settings.pipeline:
            with tally.timed("rank_wait"):
                future.exception()  # waits; the error itself is dealt with in `_finish`
        with tally.timed("generate"), torch.no_grad(), self.generator.reference():
            reference_NChw = self._sample(noise_NChw, text_1TD)
        with tally.timed("features"):
            with torch.set_grad_enabled(keep_graph):
                features = self._features(latents_NChw)
            with torch.no_grad():
                reference = self._features(reference_NChw)
        return _Group(record, noise_NChw, text_1TD, features, reference, future)

    def _finish(self, group: _Group, tally: Tally) -> None:
        """Lines 7 to 12: the pairs, the drift field's loss, and its gradient. A group without an answer is left out."""
        try:
            with tally.timed("rank_wait"):
                ranking = group.ranking.result()
        except RewardsError as error:
            log.warning("group dropped, its ranking failed: %s: %s", type(error).__name__, error)
            tally.dropped += 1
            tally.last_error = f"{type(error).__name__}: {error}"
            return
        tally.seconds["rank"] += ranking.seconds
        tally.add_ranking(ranking.response)
        if ranking.response.all_tied or not ranking.response.pairs:
            tally.tied += 1
            return
        with tally.timed("backward"):
            pairs_M2 = torch.tensor(ranking.response.pairs, device=group.noise_NChw.device)
            if self.settings.chunk_size is None:
                result = self.objective.loss(group.features, group.reference, pairs_M2)
                result.loss.backward()
            else:
                result = self._backward_in_chunks(group, pairs_M2)
        tally.trained += 1
        tally.add("loss", result.loss.item())
        for name, value in result.metrics.items():
            tally.add(name, value)

    def _backward_in_chunks(self, group: _Group, pairs_M2: Tensor) -> Any:
        """The same gradient with one chunk's graph in memory at a time.

        The loss is differentiated with respect to the features, which were computed without a graph. Each chunk is
        then generated again, this time with its graph, and takes its rows of that gradient.
        """
        leaves = {key: feature.requires_grad_() for key, feature in group.features.items()}
        result = self.objective.loss(leaves, group.reference, pairs_M2)
        gradients = dict(zip(leaves, torch.autograd.grad(result.loss, list(leaves.values())), strict=True))
        start = 0
        for noise_nChw in group.noise_NChw.split(self.settings.chunk_size):
            features = self._features_of(self._sample_once(noise_nChw, group.text_1TD))
            rows = slice(start, start + len(noise_nChw))
            torch.autograd.backward([features[key] for key in leaves], [gradients[key][rows] for key in leaves])
            start = rows.stop
        return result

    def _sample(self, noise_NChw: Tensor, text_1TD: Tensor) -> Tensor:
        chunks = noise_NChw.split(self.settings.chunk_size or len(noise_NChw))
        return torch.cat([self._sample_once(chunk, text_1TD) for chunk in chunks])

    def _sample_once(self, noise_NChw: Tensor, text_1TD: Tensor) -> Tensor:
        return self.generator.sample(noise_NChw, text_1TD.expand(len(noise_NChw), -1, -1))

    def _features(self, latents_NChw: Tensor) -> Features:
        parts = [
            self._features_of(chunk) for chunk in latents_NChw.split(self.settings.chunk_size or len(latents_NChw))
        ]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if len(parts) > 1 else parts[0]

    def _features_of(self, latents_NChw: Tensor) -> Features:
        if self.feature_map.space == "latent":
            return self.feature_map(latents_NChw)
        return self.feature_map(self.generator.decode_float(latents_NChw))
