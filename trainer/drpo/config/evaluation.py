"""The section of a config for the evaluation, during training and at its end."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import Field

from drpo.config.section import MOST_INTEGER, DistinctTexts, Section


@dataclass(frozen=True)
class StopCondition:
    """What `training.stop_if` says: a number of the evaluations, and the limit that it must not pass.

    Example:
        StopCondition("guard/diversity", below=True, limit=0.5)
    """

    metric: str
    below: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> StopCondition:
        """Reads "METRIC < NUMBER" or "METRIC > NUMBER".

        Raises:
            ValueError: it is neither.
        """
        match = re.fullmatch(r"\s*(\S+)\s*([<>])\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*", text)
        try:
            if match is None:
                raise ValueError
            return cls(match[1], match[2] == "<", float(match[3]))
        except ValueError:
            raise ValueError(
                f'{text!r} is no condition; write METRIC < NUMBER or METRIC > NUMBER, such as "guard/diversity < 0.5"'
            ) from None

    def holds(self, value: float) -> bool:
        """Whether a value has passed the limit; a value that is no number has."""
        return not (value >= self.limit if self.below else value <= self.limit)


class GridConfig(Section):
    """The pictures that are drawn again at every evaluation during training: the same prompts from the same noise.

    Example:
        evaluation:
          grid: {count: 4, images: 3}
    """

    prompts: DistinctTexts | None = Field(
        default=None, min_length=1, max_length=64, description="the prompts, one row each; null: of the evaluation"
    )
    count: int = Field(
        default=6, ge=1, le=64, description="without `prompts`: how many of the evaluation's prompts, of all tasks"
    )
    images: int = Field(default=2, ge=1, le=16, description="pictures per prompt, each from its own noise")


class EvaluationConfig(Section):
    """The comparison of the adapter with the base on held-out prompts, from the same noise.

    Example:
        evaluation:
          source: geneval          # or null: the source of the training prompts
          split: test
          images_per_prompt: 2
          prompts_per_task: 60
          reward: geneval
          metric: strict
          every: 100               # also during training, with the prompts and seeds of the end
    """

    enabled: bool = Field(default=True, description="evaluate at the end of training, and during it with `every`")
    every: int = Field(
        default=0,
        ge=0,
        description="steps between evaluations during training, the first one at step 0; 0: only at the end",
    )
    every_prompts_per_task: int | None = Field(
        default=None, ge=1, description="as prompts_per_task, for the evaluations during training; null: the same"
    )
    grid: GridConfig | None = Field(
        default_factory=GridConfig,
        description="pictures of each evaluation during training, in samples/step-N.png; null: none",
    )
    source: str | None = Field(
        default=None,
        description="prompt source; null: that of the training prompts, with its path, columns and tasks where "
        "they are not set here",
    )
    split: str = Field(default="test", description="the split, if the prompt source has splits")
    path: str | None = Field(default=None, description="as prompts.path")
    column: str | None = Field(default=None, description="as prompts.column")
    task_column: str | None = Field(default=None, description="as prompts.task_column")
    tasks: tuple[str, ...] | None = Field(default=None, description="as prompts.tasks")
    images_per_prompt: int = Field(
        default=2, ge=1, le=65_536, description="images per prompt; more narrow the intervals a little"
    )
    prompts_per_task: int | None = Field(
        default=None, ge=1, description="prompts per task; more narrow the intervals; null: all"
    )
    batch_size: int = Field(default=24, ge=1, le=65_536, description="images generated at once")
    seed: int = Field(
        default=12345, ge=0, le=MOST_INTEGER, description="determines the noise and the order of the prompts"
    )
    rewards: DistinctTexts | None = Field(
        default=None,
        min_length=1,
        description="the rewards that score the evaluation's images, also such as do not train; null: those that rank",
    )
    reward: str | None = Field(default=None, description="the reward to show; null: the first of those that score")
    metric: str | None = Field(
        default=None,
        description="the metric of that reward to show; null: the first one that it declares, else its raw score",
    )
