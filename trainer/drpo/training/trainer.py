"""The state of a training run, and its optimizer step. This needs no Ray, and also runs in a notebook.

with BackgroundRanker(lambda: AsyncRankingClient("grpc://127.0.0.1:9000")) as ranker:
    trainer = DrPOTrainer(generator, feature_map, objective, ranker, TrainingConfig(), OptimizerConfig())
    for step in range(100):
        metrics = trainer.run_step(*trainer.take_prompts(order))
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from drpo.config import OptimizerConfig, TrainingConfig
from drpo.data.prompts.order import PromptOrder
from drpo.data.prompts.record import PromptRecord
from drpo.errors import TrainingStoppedError
from drpo.generators.base import OneStepGenerator
from drpo.method.features.base import FeatureMap
from drpo.method.objectives.base import Objective, StatefulObjective
from drpo.training import collective
from drpo.training.ema import AveragedWeights
from drpo.training.gradient_sum import GradientSum
from drpo.training.offline import OfflineSupervision
from drpo.training.phases import phase
from drpo.training.ranking import BackgroundRanker
from drpo.training.reward_gradient import RewardGradient
from drpo.training.step import StepRunner
from drpo.training.tally import STAGES, Tally


class DrPOTrainer:
    """The adapter, its optimizer, and the step that updates it.

    Args:
        generator, feature_map, objective, supervision, settings, seed, name, reward_gradient: see `StepRunner`.
        optimizer: the `optimizer` section of the config.
    """

    def __init__(
        self,
        generator: OneStepGenerator,
        feature_map: FeatureMap | None,
        objective: Objective,
        supervision: BackgroundRanker | OfflineSupervision | None,
        settings: TrainingConfig,
        optimizer: OptimizerConfig,
        *,
        seed: int = 0,
        name: str = "run",
        reward_gradient: RewardGradient | None = None,
    ) -> None:
        self.runner = StepRunner(
            generator,
            feature_map,
            objective,
            supervision,
            settings,
            seed=seed,
            name=name,
            reward_gradient=reward_gradient,
        )
        self.memory = objective if isinstance(objective, StatefulObjective) else None
        self.generator = generator
        self.parameters = generator.adapter.parameters()
        self.gradient_sum = GradientSum(self.parameters)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=optimizer.fused or None,
        )
        self.average = AveragedWeights(self.parameters, settings.ema) if settings.ema is not None else None
        self.learning_rate = lambda step: optimizer.lr * optimizer.factor(step, settings.steps)
        self.max_grad_norm = optimizer.max_grad_norm
        self.settings = settings
        self.step = 0
        self.groups_seen = 0
        self.groups_failed = 0
        self.last_error = ""

    def take_prompts(self, order: PromptOrder) -> tuple[Sequence[PromptRecord], Sequence[PromptRecord]]:
        """The prompts of the next step, and with `training.staleness: 1` those of the step after it, for `run_step`.

        The step after a checkpoint has none of its groups ranked early, so that a run that goes on from there does the
        same.
        """
        settings, after = self.settings, self.step + 1
        records = order.take(self.step, settings.groups_per_step)
        if not settings.staleness or after >= settings.steps or after % settings.checkpoint_every == 0:
            return records, ()
        return records, order.take(after, settings.groups_per_step)

    def run_step(self, records: Sequence[PromptRecord], upcoming: Sequence[PromptRecord] = ()) -> dict[str, Any]:
        """Runs one optimizer step. Each prompt is a group, and the groups are divided among the workers.

        Args:
            records: the prompts of the step, the same on every worker.
            upcoming: those of the next step, if its first groups shall be ranked with the weights of this one.

        Returns:
            One line of metrics.jsonl without `time_s`, the same on every worker. Failed groups are only counted; call
            `check_failures` to stop if there are too many.

        Raises:
            TrainingStoppedError: the gradient is not finite. The adapter is as it was before the step.
        """
        started = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        local_groups, upcoming_groups = (
            list(enumerate(prompts))[collective.rank() :: collective.world_size()] for prompts in (records, upcoming)
        )
        tally = self.runner.accumulate(
            self.step, local_groups, upcoming_groups, last_backward=self.gradient_sum.begun_early
        )

        with tally.timed("optimizer"), phase("optimizer_step"):
            # Every worker takes part, even if all its groups failed, so that all divide by the same number.
            self.gradient_sum.send_rest()
            trained = sum(collective.gather(tally.trained))
            grad_norm = tally.settle(self._average_gradient(trained))
            total = Tally()
            for worker_tally in collective.gather(tally):
                total.merge(worker_tally)
            lr = self.learning_rate(self.step)
            if trained:
                self._update(grad_norm, lr)
            if self.memory is not None:
                self.memory.end_step(collective.gather(self.memory.observations()))
            if self.average is not None:
                self.average.update()
        total.seconds["optimizer"] = tally.seconds["optimizer"] * collective.world_size()

        self.step += 1
        self.groups_seen += total.groups
        self.groups_failed += total.dropped
        self.last_error = total.last_error or self.last_error
        seconds = time.perf_counter() - started
        return self._metrics_line(total, lr, grad_norm, seconds)

    def _average_gradient(self, trained: int) -> Tensor:
        """Averages the gradient over the `trained` groups of all workers, and clips it.

        Returns:
            Its norm before that; 0 if there are no groups.
        """
        self.gradient_sum.finish(1.0 / max(1, trained))
        return torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm or float("inf"))

    def _update(self, grad_norm: float, lr: float) -> None:
        """Updates the adapter by its averaged gradient.

        Raises:
            TrainingStoppedError: the norm is not finite.
        """
        if not math.isfinite(grad_norm):
            raise TrainingStoppedError(
                f"the gradient of step {self.step + 1} is {grad_norm}. Resume with a smaller optimizer.lr"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def check_failures(self) -> None:
        """Stops the run if too many groups have failed.

        A limit below 1 is a share of all groups so far, but never less than the groups of one step.

        Raises:
            TrainingStoppedError: more groups failed than `training.max_failed_groups` allows.
        """
        limit = self.settings.max_failed_groups
        if limit < 1:
            limit = max(self.settings.groups_per_step, limit * self.groups_seen)
        if self.groups_failed > limit:
            raise TrainingStoppedError(
                f"{self.groups_failed} of {self.groups_seen} groups could not be ranked, more than "
                f"training.max_failed_groups ({self.settings.max_failed_groups:g}) allows. The last failure: "
                f"{self.last_error}. Check the ranking service, then resume the run."
            )

    def _metrics_line(self, tally: Tally, lr: float, grad_norm: float, seconds: float) -> dict[str, Any]:
        workers = collective.world_size()
        stages = {stage: round(tally.seconds[stage] / workers, 4) for stage in STAGES} | {"total": round(seconds, 4)}
        means = tally.means()
        return {
            "step": self.step,
            "loss": means.pop("loss", None),
            "combined_mean": means.pop("combined_mean", None),
            "combined_std": means.pop("combined_std", None),
            "grad_norm": grad_norm,
            "lr": lr,
            "images": tally.images,
            "images_per_s": round(tally.images / seconds, 2),
            "groups": tally.groups,
            "groups_dropped": tally.dropped,
            "groups_tied": tally.tied,
            "seconds": stages,
            **means,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, except the process's random state (`drpo.training.checkpoint`).

        The learning rate, the prompts, the noise and the pairs follow from the number of the step.
        """
        return {
            "adapter": self.generator.adapter.state(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "groups_seen": self.groups_seen,
            "groups_failed": self.groups_failed,
            "objective": self.memory.state_dict() if self.memory is not None else {},
            "average": self.average.state_dict() if self.average is not None else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.generator.adapter.load_state(state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.groups_seen = state["groups_seen"]
        self.groups_failed = state["groups_failed"]
        if self.memory is not None:
            self.memory.load_state_dict(state["objective"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
