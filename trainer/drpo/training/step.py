"""The groups of one optimizer step: generate, rank, compute the loss, add up the gradients (Algorithm 1).

The ranking service takes time, so ranking is pipelined: while one group is being ranked, the next one is generated. All
groups of a step come from the same weights (on-policy), and their gradients are added in the order of the groups, so
that the result is the same, bit for bit, with and without the pipeline.

Axes: K candidates of a group, N images or latents, T tokens, D features, M pairs, (C, h, w) of a latent. `inputs_NCHW`
are inputs of the feature map: latents or images (`drpo.training.views`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from drpo.config import TrainingConfig
from drpo.data.prompts.record import PromptRecord
from drpo.data.seeds import derive_seed
from drpo.generators.base import OneStepGenerator
from drpo.method.features.base import FeatureMap
from drpo.method.objectives.base import Objective, ObjectiveResult
from drpo.training.ranking import BackgroundRanker, TimedRanking
from drpo.training.tally import Tally
from drpo.training.views import make_view
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
    ranking: Future[TimedRanking]


class StepRunner:
    """Runs the groups of a step on one worker, and leaves the sum of their gradients in the parameters' `.grad`.

    Args:
        generator: see `drpo.generators`.
        feature_map: phi; see `drpo.method.features`.
        objective: see `drpo.method.objectives`.
        ranker: ranks the groups.
        settings: the `training` section of the config.
        seed: the run's seed. The seed, the step and the group's number determine the noise and the pairs of a group.
        name: the run's name, the first part of every request id.
    """

    def __init__(
        self,
        generator: OneStepGenerator,
        feature_map: FeatureMap,
        objective: Objective,
        ranker: BackgroundRanker,
        settings: TrainingConfig,
        *,
        seed: int = 0,
        name: str = "run",
    ) -> None:
        self.generator = generator
        self.view = make_view(generator, feature_map)
        self.objective = objective
        self.ranker = ranker
        self.settings = settings
        self.seed = seed
        self.name = name

    def accumulate(self, step: int, groups: Sequence[tuple[int, PromptRecord]]) -> Tally:
        """Adds the gradient of each group's loss to the parameters' `.grad` (a sum over groups, not their mean).

        Args:
            step: number of the optimizer step.
            groups: (number of the group within the step, its prompt). Each worker has different numbers.

        Returns:
            The counts, metrics and seconds of these groups.
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
        """Lines 3 to 6 of Algorithm 1: generates candidates, submits them for ranking, and computes features."""
        settings = self.settings
        keep_graph = settings.chunk_size is None
        with tally.timed("generate"):
            with torch.no_grad():
                text_1TD = self.generator.encode_prompts([record.prompt])
            # Drawn on the CPU, so that the noise is the same on every device and worker, and in a resumed run.
            noise_random = torch.Generator().manual_seed(derive_seed(self.seed, step, number, "noise"))
            noise_NChw = self.generator.noise(settings.candidates, noise_random)
            with torch.set_grad_enabled(keep_graph):
                inputs_NCHW = self._generate(noise_NChw, text_1TD)
                images_NHWC = self.view.to_images(inputs_NCHW)
            future = self.ranker.submit(
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
                future.exception()  # waits; `_finish` handles the error itself
        with tally.timed("generate"), torch.no_grad(), self.generator.reference():
            reference_NCHW = self._generate(noise_NChw, text_1TD)
        with tally.timed("features"):
            with torch.set_grad_enabled(keep_graph):
                features = self._features(inputs_NCHW)
            with torch.no_grad():
                reference = self._features(reference_NCHW)
        return _Group(record, noise_NChw, text_1TD, features, reference, future)

    def _finish(self, group: _Group, tally: Tally) -> None:
        """Lines 7 to 12 of Algorithm 1: pairs, loss and gradient. A group that was not ranked is dropped."""
        try:
            with tally.timed("rank_wait"):
                ranking = group.ranking.result()
        except RewardsError as error:
            log.warning("dropped a group, because its ranking failed: %s: %s", type(error).__name__, error)
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

    def _backward_in_chunks(self, group: _Group, pairs_M2: Tensor) -> ObjectiveResult:
        """The same gradient, but with the graph of only one chunk in memory at a time.

        First the loss is differentiated with respect to the features, which were computed without a graph. Then each
        chunk is generated again, now with its graph, and its rows of that gradient are backpropagated through it.
        """
        leaves = {key: feature.requires_grad_() for key, feature in group.features.items()}
        result = self.objective.loss(leaves, group.reference, pairs_M2)
        gradients = dict(zip(leaves, torch.autograd.grad(result.loss, list(leaves.values())), strict=True))
        start = 0
        for noise_chunk_NChw in self._chunks(group.noise_NChw):
            features = self.view.features(self._generate_chunk(noise_chunk_NChw, group.text_1TD))
            rows = slice(start, start + len(noise_chunk_NChw))
            torch.autograd.backward([features[key] for key in leaves], [gradients[key][rows] for key in leaves])
            start = rows.stop
        return result

    def _generate(self, noise_NChw: Tensor, text_1TD: Tensor) -> Tensor:
        """Generates candidates in chunks, as inputs of the feature map."""
        return torch.cat([self._generate_chunk(chunk, text_1TD) for chunk in self._chunks(noise_NChw)])

    def _generate_chunk(self, noise_NChw: Tensor, text_1TD: Tensor) -> Tensor:
        return self.view.to_inputs(self.generator.sample(noise_NChw, text_1TD))

    def _features(self, inputs_NCHW: Tensor) -> Features:
        parts = [self.view.features(chunk) for chunk in self._chunks(inputs_NCHW)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _chunks(self, x_NCHW: Tensor) -> Sequence[Tensor]:
        return x_NCHW.split(self.settings.chunk_size or len(x_NCHW))
