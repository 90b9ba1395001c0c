"""The groups of one optimizer step: generate, rank, compare, and add up the gradient (Algorithm 1).

Ranking happens elsewhere and takes time, so it is pipelined: while one group is being ranked, the next one is
generated. All groups of a step come from the same weights (on-policy), and their gradients are added in the order of
the groups, so that the result is the same, bit for bit, with or without the pipeline.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drpo.config import TrainingConfig
from drpo.data.prompts.record import PromptRecord
from drpo.data.seeds import derive_seed
from drpo.training.ranking import Ranking, RankingLoop
from drpo.training.tally import Tally
from drpo_rewards.api.contract import PairOptions
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
        generator: a `drpo.generators.sd_turbo.OneStepGenerator`, or anything with its methods.
        feature_map: phi; see `drpo.method.features`.
        objective: see `drpo.method.objectives`; `loss(features, reference, pairs_M2)`.
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
                seen_NCHW, images_NHWC = self._draw(noise_NChw, text_1TD)
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
            reference_NCHW = self._in_chunks(lambda noise_NChw: self._seen(noise_NChw, text_1TD), noise_NChw)
        with tally.timed("features"):
            with torch.set_grad_enabled(keep_graph):
                features = self._features(seen_NCHW)
            with torch.no_grad():
                reference = self._features(reference_NCHW)
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
        for noise_nChw in self._chunks(group.noise_NChw):
            features = self.feature_map(self._seen(noise_nChw, group.text_1TD))
            rows = slice(start, start + len(noise_nChw))
            torch.autograd.backward([features[key] for key in leaves], [gradients[key][rows] for key in leaves])
            start = rows.stop
        return result

    def _draw(self, noise_NChw: Tensor, text_1TD: Tensor) -> tuple[Tensor, np.ndarray]:
        """The candidates as the feature map sees them, and as pictures (K, H, W, 3) uint8; each is decoded once."""
        seen_NCHW = self._in_chunks(lambda noise_NChw: self._seen(noise_NChw, text_1TD), noise_NChw)
        if self.feature_map.space == "image":
            return seen_NCHW, self.generator.to_uint8(seen_NCHW)
        return seen_NCHW, self.generator.decode(seen_NCHW.detach())

    def _seen(self, noise_NChw: Tensor, text_1TD: Tensor) -> Tensor:
        """What the feature map looks at: the latents, or the decoded images."""
        latents_NChw = self.generator.sample(noise_NChw, text_1TD)
        return latents_NChw if self.feature_map.space == "latent" else self.generator.decode_float(latents_NChw)

    def _features(self, seen_NCHW: Tensor) -> Features:
        parts = [self.feature_map(chunk) for chunk in self._chunks(seen_NCHW)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _in_chunks(self, function: Callable[[Tensor], Tensor], x_NCHW: Tensor) -> Tensor:
        return torch.cat([function(chunk) for chunk in self._chunks(x_NCHW)])

    def _chunks(self, x_NCHW: Tensor) -> Sequence[Tensor]:
        return x_NCHW.split(self.settings.chunk_size or len(x_NCHW))
