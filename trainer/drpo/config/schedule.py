"""The sections of a config that say how a run proceeds: the optimizer, the training loop, the evaluation."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from drpo.config.sections import Section


class OptimizerConfig(Section):
    """AdamW over the adapter, and the schedule of its learning rate.

    Example:
        optimizer:
          lr: 1.0e-4
          schedule: cosine
          warmup_steps: 20
    """

    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="the gradient is clipped to this norm; null: it is not clipped"
    )
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(default=0, ge=0, description="steps in which the rate rises linearly to `lr`")
    schedule_steps: int | None = Field(
        default=None, ge=1, description="length of a decaying schedule in steps; null: training.steps"
    )

    def factor(self, step: int, steps: int) -> float:
        """The factor of `lr` at a step (counted from 0) of a run of `steps` steps."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        length = (self.schedule_steps or steps) - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, length))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0 - progress if self.schedule == "linear" else 1.0


class TrainingConfig(Section):
    """The training loop: what a step is, how long the run takes, its workers, and its checkpoints.

    Example:
        training:
          steps: 1000
          groups_per_step: 32      # prompts
          candidates: 24           # images of each prompt: 768 images a step
          pairs: 12
          num_workers: 4
          use_gpu: true
    """

    steps: int = Field(default=100, ge=1, description="optimizer steps")
    max_seconds: float | None = Field(
        default=None, gt=0, description="stop before `steps`, once training has taken this long; null: no limit"
    )
    groups_per_step: int = Field(
        default=4, ge=1, description="prompts of one optimizer step, divided among the workers"
    )
    candidates: int = Field(default=24, ge=2, le=256, description="K, images of each prompt")
    pairs: int = Field(default=12, ge=1, description="M, (winner, loser) pairs of each group")
    pair_strategy: Literal["random", "extremes"] = Field(
        default="random", description="random: any two candidates; extremes: the best M against the worst M"
    )

    pipeline: bool = Field(default=True, description="generate the next group while this one is being ranked")
    groups_in_flight: int = Field(
        default=3, ge=1, description="groups that may wait for their ranking; each keeps its graph in memory"
    )
    chunk_size: int | None = Field(
        default=None,
        ge=1,
        description="candidates computed at once; needs less memory but generates everything twice; null: all at once",
    )
    max_failed_groups: float = Field(
        default=0.1,
        ge=0,
        description="stop the run when more groups than this could not be ranked; below 1: a share, else a number",
    )

    num_workers: int = Field(default=1, ge=1, description="Ray Train workers")
    threads_per_worker: int = Field(default=1, ge=1, description="CPU threads of each worker")
    use_gpu: bool = Field(default=False, description="one GPU for each worker")
    resources_per_worker: dict[str, float] | None = Field(
        default=None, description="further Ray resources of a worker; its threads are its CPUs"
    )
    max_failures: int = Field(
        default=3, ge=-1, description="how often workers may be restarted from the last checkpoint; -1: any number"
    )

    checkpoint_every: int = Field(
        default=25, ge=1, description="steps between checkpoints; the last step writes one more"
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="older checkpoints are deleted")

    @model_validator(mode="after")
    def _check_extremes(self) -> TrainingConfig:
        if self.pair_strategy == "extremes" and 2 * self.pairs > self.candidates:
            raise ValueError(
                f"extremes sets the best {self.pairs} candidates against the worst {self.pairs}, which needs "
                f"{2 * self.pairs}; training.candidates is {self.candidates}"
            )
        return self


class EvaluationConfig(Section):
    """The comparison of the adapter with the base generator on held-out prompts, from the same noise.

    Example:
        evaluation:
          split: test
          images_per_prompt: 2
          prompts_per_task: 60
          reward: geneval
          metric: strict
    """

    enabled: bool = Field(default=True, description="evaluate at the end of training")
    split: str = Field(default="test", description="the split, if the prompt source has splits")
    path: str | None = Field(
        default=None, description="prompt file, if the source reads one; null: the file of the training prompts"
    )
    images_per_prompt: int = Field(default=2, ge=1)
    prompts_per_task: int | None = Field(default=None, ge=1, description="null: all of them")
    batch_size: int = Field(default=24, ge=1, description="images generated at once")
    seed: int = Field(default=12345, ge=0, description="determines the noise and the order of the prompts")
    reward: str | None = Field(default=None, description="the reward that is shown; null: the first of the service")
    metric: str | None = Field(
        default=None,
        description="the metric of that reward that is shown; null: the first that it declares, else its score",
    )
