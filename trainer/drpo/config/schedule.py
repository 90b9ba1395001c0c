"""The sections of a config for the course of a run: the optimizer and the training loop."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from drpo.config.evaluation import StopCondition
from drpo.config.section import Section


class OptimizerConfig(Section):
    """AdamW on the adapter, and the schedule of its learning rate.

    Example:
        optimizer:
          lr: 1.0e-4
          schedule: cosine
          warmup_steps: 20
    """

    lr: float = Field(
        default=1e-4, gt=0, le=10, description="learning rate after the warm-up; lower it if the loss diverges"
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999), description="decay of AdamW's running means of the gradient and of its square"
    )
    eps: float = Field(default=1e-8, gt=0, description="added to AdamW's denominator")
    weight_decay: float = Field(default=0.01, ge=0, description="share of each weight, times `lr`, removed in a step")
    max_grad_norm: float | None = Field(
        default=1.0, gt=0, description="the gradient is clipped to this norm; null: it is not clipped"
    )
    fused: bool = Field(default=False, description="update all weights in one kernel; differs by rounding only")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="the learning rate after the warm-up; cosine and linear decay to 0"
    )
    warmup_steps: int = Field(default=0, ge=0, description="steps in which the learning rate rises linearly to `lr`")
    schedule_steps: int | None = Field(
        default=None, ge=1, description="steps after which a decaying schedule reaches 0; null: training.steps"
    )

    @field_validator("betas")
    @classmethod
    def _check_betas(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"each must be at least 0 and below 1, not {betas}")
        return betas

    def factor(self, step: int, steps: int) -> float:
        """The factor of `lr` at step `step` (from 0) of a run of `steps` steps."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        length = (self.schedule_steps or steps) - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, length))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0 - progress if self.schedule == "linear" else 1.0


class RolloutsConfig(Section):
    """How candidates are chosen with `training.selection: rollouts`. The defaults are those of the authors' trainer.

    Example:
        training:
          selection: rollouts
          rollouts: {rounds: 4, supports: 8, threshold: 0.5}
    """

    rounds: int = Field(
        default=4, ge=1, le=100, description="most rounds of `training.candidates` images for one prompt"
    )
    threshold: float = Field(default=0.5, description="a candidate has passed if its score is at least this")
    supports: int = Field(
        default=8, ge=1, le=256, description="winners among those that passed, and losers among those that failed"
    )
    keep: int = Field(
        default=8,
        ge=1,
        le=256,
        description="most candidates kept of each class; all of them are moved, except the losers",
    )

    @model_validator(mode="after")
    def _check_keep(self) -> RolloutsConfig:
        if self.keep < self.supports:
            raise ValueError(f"keep ({self.keep}) must be at least supports ({self.supports})")
        return self


class EmaConfig(Section):
    """The averaged adapter: an exponential moving average of the trained weights, kept beside them.

    Example:
        training:
          ema: {decay: 0.995, from_step: 50}
    """

    decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="share of the average that a step keeps; the first steps keep less, so that it leaves the start",
    )
    from_step: int = Field(default=0, ge=0, description="until this step the average is the trained adapter itself")


class TrainingConfig(Section):
    """The training loop: what a step is, how long the run takes, its workers, and its checkpoints.

    Example:
        training:
          steps: 1000
          groups_per_step: 32      # prompts
          candidates: 24           # images per prompt: 768 images per step
          pairs: 12
          num_workers: 4
          use_gpu: true
    """

    steps: int = Field(default=100, ge=1, description="optimizer steps")
    max_seconds: float | None = Field(
        default=None, gt=0, description="stop before `steps` if training has taken this long; null: no limit"
    )
    groups_per_step: int = Field(
        default=4,
        ge=1,
        le=65_536,
        description="prompts per optimizer step, divided among the workers; more make the gradient less noisy",
    )
    candidates: int = Field(default=24, ge=2, le=256, description="K, images per prompt")
    pairs: int = Field(default=12, ge=1, le=65_536, description="M, (winner, loser) pairs per group")
    pair_strategy: Literal["random", "extremes"] = Field(
        default="random", description="random: pairs of any two candidates; extremes: the best M with the worst M"
    )

    selection: Literal["pairs", "rollouts"] = Field(
        default="pairs",
        description="pairs: of the candidates of one round; rollouts: rounds until enough candidates have passed and "
        "enough have failed, for rewards that only say yes or no",
    )
    rollouts: RolloutsConfig = Field(default_factory=RolloutsConfig, description="how `selection: rollouts` chooses")

    pipeline: bool = Field(default=True, description="generate the next group while one is being ranked")
    groups_in_flight: int = Field(
        default=3,
        ge=1,
        description="groups that may wait for their ranking, for slow rewards; each keeps its graph in memory",
    )
    staleness: Literal[0, 1] = Field(
        default=0,
        description="1: while a step is computed, the first groups of the next one are already generated and ranked, "
        "with weights that are one update old; for rewards slower than the generator",
    )
    chunk_size: int | None = Field(
        default=None,
        ge=1,
        description="candidates computed at once, to save memory; all are then generated twice; null: all at once",
    )
    memory: Literal["auto"] | None = Field(
        default=None,
        description="auto: hold the graph, gradient checkpointing, or chunks, whatever fits and is fastest; null: as "
        "model.gradient_checkpointing and training.chunk_size say",
    )
    decode_chunk: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=8, description="images decoded at once for the rewards; auto: what a measurement at the start says"
    )
    channels_last: bool = Field(
        default=False, description="another layout of images in memory, often faster; differs by rounding only"
    )
    compile: bool = Field(
        default=False, description="compile the networks with torch.compile: minutes at the start, faster afterwards"
    )
    tf32: bool = Field(
        default=False, description="products in float32 with 10 bits of mantissa, faster on a GPU; less exact"
    )
    max_failed_groups: float = Field(
        default=0.1,
        ge=0,
        description="stop the run if more groups than this could not be ranked; below 1: a share of all groups so far",
    )

    num_workers: int = Field(default=1, ge=1, description="Ray Train workers")
    threads_per_worker: int = Field(default=1, ge=1, le=1024, description="CPU threads of each worker")
    use_gpu: bool = Field(default=False, description="one GPU for each worker")
    resources_per_worker: dict[str, NonNegativeFloat] | None = Field(
        default=None, description="more Ray resources of each worker; its CPUs are its threads"
    )
    max_failures: int = Field(
        default=3, ge=-1, description="how often lost workers are restarted from the last checkpoint; -1: without limit"
    )

    checkpoint_every: int = Field(
        default=25, ge=1, description="steps between checkpoints; the last step also writes one"
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="checkpoints to keep; older ones are deleted")

    ema: EmaConfig | None = Field(
        default=None, description="also keep the averaged adapter, as adapter-ema/; null: only the trained one"
    )
    keep_best: str | None = Field(
        default=None,
        description="keep the adapter of the best evaluation as adapter-best/, judged by this number of the "
        "evaluations during training: REWARD, REWARD/METRIC or guard/NAME; null: keep only the last",
    )
    stop_if: str | None = Field(
        default=None,
        description='end the run if an evaluation during training finds this, such as "guard/diversity < 0.5"; null: '
        "never",
    )

    @property
    def worker_resources(self) -> dict[str, float]:
        """What Ray reserves for each worker, by name."""
        return {"CPU": self.threads_per_worker, "GPU": float(self.use_gpu)} | (self.resources_per_worker or {})

    @field_validator("stop_if")
    @classmethod
    def _check_stop_if(cls, stop_if: str | None) -> str | None:
        if stop_if is not None:
            StopCondition.parse(stop_if)
        return stop_if

    @model_validator(mode="after")
    def _check_staleness(self) -> TrainingConfig:
        if self.staleness and not (self.pipeline and self.selection == "pairs"):
            raise ValueError("training.staleness 1 needs training.pipeline true and training.selection pairs")
        return self

    @model_validator(mode="after")
    def _check_extremes(self) -> TrainingConfig:
        if self.pair_strategy == "extremes" and 2 * self.pairs > self.candidates:
            raise ValueError(
                f"training.pair_strategy extremes needs {2 * self.pairs} candidates for {self.pairs} pairs (the best "
                f"{self.pairs} with the worst {self.pairs}), but training.candidates is {self.candidates}"
            )
        return self
