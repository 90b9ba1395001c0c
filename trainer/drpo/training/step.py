"""The groups of one optimizer step: generate, rank, compute the loss, add up the gradients (Algorithm 1).

The ranking service takes time, so ranking is pipelined: while one group is being ranked, the next one is generated. All
groups of a step come from the same weights (on-policy), and their gradients are added in the order of the groups, so
that the result is the same, bit for bit, with and without the pipeline.

Axes: K candidates of a group, M pairs, (C, h, w) of a latent.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drpo.config import TrainingConfig
from drpo.data.prompts.record import PromptRecord
from drpo.generators.base import Conditions, OneStepGenerator
from drpo.method.features.base import FeatureMap
from drpo.method.objectives.base import Explorer, Group, NoiseArranger, Objective
from drpo.training.offline import OfflineSupervision
from drpo.training.phases import phase
from drpo.training.prompt_cache import PromptCache
from drpo.training.ranking import BackgroundRanker, TimedRanking
from drpo.training.reward_gradient import RewardGradient
from drpo.training.sampling import Candidates, GroupSampler, GroupSeed
from drpo.training.selection import Rollouts, Selection
from drpo.training.tally import Tally
from drpo.training.views import make_view
from drpo.transfer import Arriving
from drpo_rewards import RankResponse
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
        supervision: ranks the groups, or gives them the chosen and rejected images of their prompts; None if the
            objective needs neither.
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
        supervision: BackgroundRanker | OfflineSupervision | None,
        settings: TrainingConfig,
        *,
        seed: int = 0,
        name: str = "run",
        reward_gradient: RewardGradient | None = None,
    ) -> None:
        self.generator = generator
        self.prompts = PromptCache(generator)
        needs = objective.needs
        view = make_view(generator, feature_map, decode_again=settings.chunk_size is None)
        self.ranker = supervision if isinstance(supervision, BackgroundRanker) else None
        self.offline = supervision if isinstance(supervision, OfflineSupervision) else None
        self.ranks = self.ranker is not None and needs.ranking
        explorer = objective if needs.actions and isinstance(objective, Explorer) else None
        self.sampler = GroupSampler(generator, view, needs, settings.chunk_size, ranks=self.ranks, explorer=explorer)
        self.arranger = objective if needs.arranged_noise and isinstance(objective, NoiseArranger) else None
        self.reward_gradient = reward_gradient
        self.objective = objective
        self.settings = settings
        self.seed = seed
        self.name = name
        self._early: dict[tuple[int, int], Future[TimedRanking]] = {}

    def accumulate(
        self,
        step: int,
        groups: Sequence[tuple[int, PromptRecord]],
        upcoming: Sequence[tuple[int, PromptRecord]] = (),
        last_backward: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Tally:
        """Adds the gradient of each group's loss to the parameters' `.grad` (a sum over groups, not their mean).

        Args:
            step: number of the optimizer step.
            groups: (number of the group within the step, its prompt). Each worker has different numbers.
            upcoming: those of the next step, as many of which are generated and ranked already as may be in flight.
            last_backward: what the last backward pass runs in. There is none if the last group is dropped.

        Returns:
            The counts, metrics and seconds of these groups, not yet settled.
        """
        tally = Tally()
        in_flight: deque[_InFlight] = deque()
        limit = self.settings.groups_in_flight if self.settings.pipeline else 1
        try:
            for number, record in groups:
                if len(in_flight) >= limit:
                    self._finish(in_flight.popleft(), tally)
                started = self._start(step, number, record, tally)
                if started is not None:
                    in_flight.append(started)
            for number, record in upcoming[:limit]:
                self._rank_early(step + 1, number, record, tally)
            while in_flight:
                group = in_flight.popleft()
                self._finish(group, tally, nullcontext if in_flight else last_backward)
        finally:
            for group in in_flight:  # only after an error
                if group.ranking is not None:
                    group.ranking.cancel()
        return tally

    def _start(self, step: int, number: int, record: PromptRecord, tally: Tally) -> _InFlight | None:
        """Lines 3 to 6 of Algorithm 1: generates candidates, submits them for ranking, and computes features.

        With `selection: rollouts` the candidates were ranked before. None: there were too few of either kind.
        """
        settings, seed, ranking = self.settings, GroupSeed(self.seed, step, number), None
        tally.groups += 1
        with torch.no_grad(), tally.timed("generate"), phase("text_encode"):
            conditions = self.prompts.encode(record.prompt)
        if self.ranks and settings.selection == "rollouts":
            chosen = self._roll_out(record, conditions, seed, tally)
            if chosen is None:
                return None
            with tally.timed("generate"):
                candidates = self.sampler.generate(chosen.noise_KChw, conditions, seed)
        else:
            chosen = None
            ranking = self._early.pop((step, number), None)
            with tally.timed("generate"):
                noise_KChw = self._draw_noise(seed, "noise")
                candidates = self.sampler.generate(noise_KChw, conditions, seed, ranked=ranking is not None)
                if candidates.images_KHWC is not None:
                    ranking = self._submit(record, candidates.images_KHWC, seed)
        tally.images += len(candidates.noise_KChw)
        if ranking is not None and not settings.pipeline:
            with tally.timed("rank_wait"), phase("reward_score"):
                ranking.exception()  # waits; `_finish` handles the error itself
        with tally.timed("generate"):
            reference_KChw = self.sampler.refer(candidates)
        with tally.timed("features"):
            group = self.sampler.observe(candidates)
            group = self.sampler.observe_reference(group, candidates, reference_KChw)
            if self.offline is not None:
                group = self.offline.add_supports(group, record, candidates, self.sampler, tally)
        if self.reward_gradient is not None:
            with tally.timed("reward_gradient"), phase("reward_score"):
                group = self.reward_gradient.add_to(group, record.prompt, tally)
        if chosen is not None:
            group = replace(group, pairs_M2=chosen.pairs_M2, queries_Q=chosen.queries_Q, scores_K=chosen.scores_K)
        return _InFlight(candidates, group, ranking)

    def _rank_early(self, step: int, number: int, record: PromptRecord, tally: Tally) -> None:
        """Generates a group of the next step with the present weights, for its ranking only.

        In its step it is generated again from the same noise, with the weights of that step, which its ranking is then
        one update older than.
        """
        seed = GroupSeed(self.seed, step, number)
        with tally.timed("generate"):
            images_KHWC = self.sampler.look(self._draw_noise(seed, "noise"), self.prompts.encode(record.prompt))
            self._early[step, number] = self._submit(record, images_KHWC, seed)

    def _draw_noise(self, seed: GroupSeed, name: str) -> Tensor:
        """Noise (K, C, h, w), drawn on the CPU, so that every device and worker, and a resumed run, get the same."""
        random = torch.Generator().manual_seed(seed.derive(name))
        noise_KChw = self.generator.noise(self.settings.candidates, random)
        return self.arranger.arrange_noise(noise_KChw, random) if self.arranger is not None else noise_KChw

    def _roll_out(
        self, record: PromptRecord, conditions: Conditions, seed: GroupSeed, tally: Tally
    ) -> Selection | None:
        """Generates and scores candidates in rounds; None if a ranking failed, or if there are too few of a kind."""
        settings = self.settings.rollouts
        rollouts = Rollouts(settings, seed.derive("rollouts"))
        for number in range(settings.rounds):
            with tally.timed("generate"):
                noise_KChw = self._draw_noise(seed, f"noise/{number}")
                images_KHWC = self.sampler.look(noise_KChw, conditions)
            tally.images += self.settings.candidates
            response = self._wait(self._submit(record, images_KHWC, seed, number), tally)
            if response is None:
                return None
            rollouts.add(noise_KChw, response.combined)
            if rollouts.complete:
                break
        tally.add("rollout_rounds", number + 1)
        selection = rollouts.select()
        tally.tied += selection is None
        return selection

    def _submit(
        self, record: PromptRecord, images_KHWC: Arriving, seed: GroupSeed, rollout: int | None = None
    ) -> Future[TimedRanking]:
        """Submits images for ranking; those of a rollout need no pairs."""
        settings, request_id, pairs = self.settings, f"{self.name}-{seed.step}-{seed.group}", None
        if rollout is None:
            pair_seed = seed.derive("pairs", bits=31)
            pairs = PairOptions(count=settings.pairs, strategy=settings.pair_strategy, seed=pair_seed)
        else:
            request_id += f"-{rollout}"
        assert self.ranker is not None  # without one, no images are decoded
        return self.ranker.submit(
            record.prompt, images_KHWC, metadata=record.metadata, pairs=pairs, request_id=request_id
        )

    def _finish(
        self,
        in_flight: _InFlight,
        tally: Tally,
        last_backward: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Lines 7 to 12 of Algorithm 1: pairs, loss and gradient. A group that was not ranked is dropped."""
        group = in_flight.group
        if in_flight.ranking is not None:
            ranked = self._add_ranking(group, in_flight.ranking, tally)
            if ranked is None:
                return
            group = ranked
        with tally.timed("backward"):
            result = self.sampler.backward(group, in_flight.candidates, self.objective.loss, last_backward)
        tally.trained += 1
        tally.add("loss", result.loss)
        for name, value in result.metrics.items():
            tally.add(name, value)

    def _add_ranking(self, group: Group, future: Future[TimedRanking], tally: Tally) -> Group | None:
        """The group with its scores and pairs; None if it was not ranked, or if all its candidates tied."""
        response = self._wait(future, tally)
        if response is None:
            return None
        if response.all_tied or not response.pairs:
            tally.tied += 1
            return None
        with phase("rank_select"):
            return replace(group, pairs_M2=torch.tensor(response.pairs), scores_K=torch.tensor(response.combined))

    @staticmethod
    def _wait(future: Future[TimedRanking], tally: Tally) -> RankResponse | None:
        """The response to a ranking request; None if it failed, which drops the group."""
        try:
            with tally.timed("rank_wait"), phase("reward_score"):
                ranking = future.result()
        except RewardsError as error:
            log.warning("dropped a group, because its ranking failed: %s: %s", type(error).__name__, error)
            tally.dropped += 1
            tally.last_error = f"{type(error).__name__}: {error}"
            return None
        tally.seconds["rank"] += ranking.seconds
        tally.add_ranking(ranking.response)
        return ranking.response
