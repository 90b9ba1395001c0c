"""The groups of one optimizer step: generate, rank, compute the loss, add up the gradients (Algorithm 1).

The ranking service takes time, so ranking is pipelined: while one group is being ranked, the next one is generated. All
groups of a step come from the same weights (on-policy), and their gradients are added in the order of the groups, so
that the result is the same, bit for bit, with and without the pipeline.

Axes: K candidates of a group, M pairs, (C, h, w) of a latent.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import torch

from drpo.config import TrainingConfig
from drpo.data.prompts.record import PromptRecord
from drpo.generators.base import OneStepGenerator
from drpo.method.features.base import FeatureMap
from drpo.method.objectives.base import Explorer, Group, NoiseArranger, Objective
from drpo.training.ranking import BackgroundRanker, TimedRanking
from drpo.training.reward_gradient import RewardGradient
from drpo.training.sampling import Candidates, GroupSampler, GroupSeed
from drpo.training.tally import Tally
from drpo.training.views import make_view
from drpo_rewards.api.contract import PairOptions
from drpo_rewards.errors import RewardsError

log = logging.getLogger(__name__)


@dataclass
class _InFlight:
    """A group between its generation and its backward pass. `ranking` is None if the objective needs none."""

    candidates: Candidates
    group: Group
    ranking: Future[TimedRanking] | None


class StepRunner:
    """Runs the groups of a step on one worker, and leaves the sum of their gradients in the parameters' `.grad`.

    Args:
        generator: see `drpo.generators`.
        feature_map: phi; see `drpo.method.features`. None if the objective needs no features.
        objective: see `drpo.method.objectives`.
        ranker: ranks the groups; None if the objective needs no ranking.
        settings: the `training` section of the config.
        seed: the run's seed. The seed, the step and the group's number determine the noise and the pairs of a group.
        name: the run's name, the first part of every request id.
        reward_gradient: the differentiable reward; None if the objective needs none.
    """

    def __init__(
        self,
        generator: OneStepGenerator,
        feature_map: FeatureMap | None,
        objective: Objective,
        ranker: BackgroundRanker | None,
        settings: TrainingConfig,
        *,
        seed: int = 0,
        name: str = "run",
        reward_gradient: RewardGradient | None = None,
    ) -> None:
        self.generator = generator
        needs, view = objective.needs, make_view(generator, feature_map)
        ranks = needs.ranking and ranker is not None
        explorer = objective if needs.actions and isinstance(objective, Explorer) else None
        self.sampler = GroupSampler(generator, view, needs, settings.chunk_size, ranks=ranks, explorer=explorer)
        self.arranger = objective if needs.arranged_noise and isinstance(objective, NoiseArranger) else None
        self.reward_gradient = reward_gradient
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
        in_flight: deque[_InFlight] = deque()
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
                if group.ranking is not None:
                    group.ranking.cancel()
        return tally

    def _start(self, step: int, number: int, record: PromptRecord, tally: Tally) -> _InFlight:
        """Lines 3 to 6 of Algorithm 1: generates candidates, submits them for ranking, and computes features."""
        settings, seed = self.settings, GroupSeed(self.seed, step, number)
        with tally.timed("generate"):
            with torch.no_grad():
                conditions = self.generator.encode_prompts([record.prompt])
            # Drawn on the CPU, so that the noise is the same on every device and worker, and in a resumed run.
            random = torch.Generator().manual_seed(seed.derive("noise"))
            noise_KChw = self.generator.noise(settings.candidates, random)
            if self.arranger is not None:
                noise_KChw = self.arranger.arrange_noise(noise_KChw, random)
            candidates = self.sampler.generate(noise_KChw, conditions, seed)
            ranking = self._submit(record, candidates)
        tally.groups += 1
        tally.images += settings.candidates
        if ranking is not None and not settings.pipeline:
            with tally.timed("rank_wait"):
                ranking.exception()  # waits; `_finish` handles the error itself
        with tally.timed("generate"):
            reference_KChw = self.sampler.refer(candidates)
        with tally.timed("features"):
            group = self.sampler.observe(candidates)
            group = self.sampler.observe_reference(group, candidates, reference_KChw)
        if self.reward_gradient is not None:
            with tally.timed("reward_gradient"):
                group = self.reward_gradient.add_to(group, record.prompt, tally)
        return _InFlight(candidates, group, ranking)

    def _submit(self, record: PromptRecord, candidates: Candidates) -> Future[TimedRanking] | None:
        """Submits the images for ranking; None if the objective needs none."""
        if self.ranker is None or candidates.images_KHWC is None:
            return None
        settings, seed = self.settings, candidates.seed
        pair_seed = seed.derive("pairs", bits=31)
        return self.ranker.submit(
            record.prompt,
            candidates.images_KHWC,
            metadata=record.metadata,
            pairs=PairOptions(count=settings.pairs, strategy=settings.pair_strategy, seed=pair_seed),
            request_id=f"{self.name}-{seed.step}-{seed.group}",
        )

    def _finish(self, in_flight: _InFlight, tally: Tally) -> None:
        """Lines 7 to 12 of Algorithm 1: pairs, loss and gradient. A group that was not ranked is dropped."""
        group = in_flight.group
        if in_flight.ranking is not None:
            ranked = self._add_ranking(group, in_flight.ranking, tally)
            if ranked is None:
                return
            group = ranked
        with tally.timed("backward"):
            result = self.sampler.backward(group, in_flight.candidates, self.objective.loss)
        tally.trained += 1
        tally.add("loss", result.loss.item())
        for name, value in result.metrics.items():
            tally.add(name, value)

    def _add_ranking(self, group: Group, future: Future[TimedRanking], tally: Tally) -> Group | None:
        """The group with its scores and pairs; None if it was not ranked, or if all its candidates tied."""
        try:
            with tally.timed("rank_wait"):
                ranking = future.result()
        except RewardsError as error:
            log.warning("dropped a group, because its ranking failed: %s: %s", type(error).__name__, error)
            tally.dropped += 1
            tally.last_error = f"{type(error).__name__}: {error}"
            return None
        response = ranking.response
        tally.seconds["rank"] += ranking.seconds
        tally.add_ranking(response)
        if response.all_tied or not response.pairs:
            tally.tied += 1
            return None
        return replace(group, pairs_M2=torch.tensor(response.pairs), scores_K=torch.tensor(response.combined))
