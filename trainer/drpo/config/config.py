"""The config of a run: all sections together."""

from __future__ import annotations

from collections.abc import Iterator

import yaml
from pydantic import BaseModel, Field, model_validator

from drpo.config.evaluation import EvaluationConfig
from drpo.config.offline import OfflineConfig
from drpo.config.schedule import OptimizerConfig, TrainingConfig
from drpo.config.section import Section
from drpo.config.sections import (
    FeaturesConfig,
    LoraConfig,
    ModelConfig,
    ObjectiveConfig,
    PromptsConfig,
    RewardsConfig,
    RunConfig,
)
from drpo.config.trackers import TrackersConfig
from drpo_rewards.settings.values import without_none


class MisfitError(ValueError):
    """Settings do not fit each other.

    Args:
        message: what does not fit.
        key: the setting without which the rest fits.
        others: the settings that it does not fit.
    """

    def __init__(self, message: str, key: str, *others: str) -> None:
        super().__init__(message)
        self.key = key
        self.others = others


class Config(Section):
    """All settings of a run."""

    preset: str = Field(default="custom", description="the name of the preset, part of the default name of a run")
    run: RunConfig = Field(default_factory=RunConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    lora: LoraConfig | None = Field(default_factory=LoraConfig)
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    rewards: RewardsConfig = Field(default_factory=RewardsConfig)
    prompts: PromptsConfig = Field(default_factory=PromptsConfig)
    offline: OfflineConfig | None = Field(
        default=None,
        description="given preferences, in the place of prompts and rewards; null: rewards rank candidates",
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    trackers: TrackersConfig = Field(default_factory=TrackersConfig)

    @model_validator(mode="after")
    def _check_groups(self) -> Config:
        if self.training.groups_per_step < self.training.num_workers:
            raise MisfitError(
                f"training.groups_per_step ({self.training.groups_per_step}) must be at least training.num_workers "
                f"({self.training.num_workers}), so that every worker has a group",
                "training.num_workers",
                "training.groups_per_step",
            )
        if self.training.selection == "rollouts" and self.offline is not None:
            raise MisfitError(
                "training.selection rollouts needs rewards: leave it out, or the section offline", "training.selection"
            )
        if self.training.selection == "rollouts" and self.rewards.normalize != "none":
            raise MisfitError(
                "training.selection rollouts compares scores with training.rollouts.threshold, so they may not be "
                f"normalized: set rewards.normalize to none, not {self.rewards.normalize or 'null'}",
                "training.selection",
                "rewards.normalize",
            )
        return self

    @model_validator(mode="after")
    def _check_watching(self) -> Config:
        needs = {"training.keep_best": self.training.keep_best, "training.stop_if": self.training.stop_if}
        for key, value in needs.items():
            if value is None:
                continue
            if not self.evaluates_during_training:
                raise MisfitError(
                    f"{key} needs evaluations during training: set evaluation.every, with evaluation.enabled true",
                    key,
                    "evaluation.every",
                    "evaluation.enabled",
                )
            if "guard/" in value and self.evaluation.images_per_prompt < 2:
                raise MisfitError(
                    f"{key}: guard metrics compare the images of a prompt: set evaluation.images_per_prompt to 2 or "
                    "more",
                    key,
                    "evaluation.images_per_prompt",
                )
        return self

    @property
    def evaluates_during_training(self) -> bool:
        """Whether the adapter is evaluated while it is trained."""
        return self.evaluation.enabled and self.evaluation.every > 0

    def evaluation_prompts(self) -> PromptsConfig:
        """The settings of the evaluation's prompts: what `evaluation` does not set is as in `prompts`.

        With an `evaluation.source`, nothing of the training's path, columns and tasks is used.
        """
        keys = ("source", "path", "column", "task_column", "tasks")
        own = {key: getattr(self.evaluation, key) for key in keys}
        if self.evaluation.source is None:
            own = {key: getattr(self.prompts, key) if value is None else value for key, value in own.items()}
        return self.prompts.model_copy(update={**own, "split": self.evaluation.split})

    def to_yaml(self) -> str:
        """The config as YAML, with every key."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config, such as `training.steps`."""
    for name, field in model.model_fields.items():
        kind, _ = without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from known_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
