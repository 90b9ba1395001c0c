"""The section of a config for experiment trackers."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from drpo.config.section import DistinctTexts, Section


class TrackersConfig(Section):
    """Where curves, pictures and results go besides the run's folder. A list of names is short for `use`.

    Example:
        trackers:
          use: [tensorboard, wandb, mlflow]
          project: drpo
          options:
            wandb: {mode: offline, entity: my-team}
            mlflow: {tracking_uri: "http://127.0.0.1:5000"}
    """

    use: DistinctTexts = Field(
        default=("tensorboard",),
        description="trackers of accelerate: tensorboard, wandb, mlflow, swanlab, trackio, comet_ml, aim, clearml or "
        "dvclive; each but tensorboard is a package to install",
    )
    project: str = Field(
        default="drpo", min_length=1, description="the project or experiment in which the run is shown"
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="more arguments for the start of a tracker, by its name"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, values: Any) -> Any:
        return {"use": values} if isinstance(values, list | tuple) else values

    @model_validator(mode="after")
    def _check_options(self) -> TrackersConfig:
        unused = [name for name in self.options if name not in self.use]
        if unused:
            raise ValueError(f"options are given for {', '.join(unused)}, but not in use: add it to trackers.use")
        return self
