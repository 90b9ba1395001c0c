"""The sections of a config for the parts of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from drpo.config.section import MOST_INTEGER, Section


class RunConfig(Section):
    """Where a run's output goes, its seed, and the Ray that it runs on.

    Example:
        run:
          name: red-circles
          folder: runs
          seed: 3
          ray_address: null        # or "auto", 10.0.0.5:6379, ray://10.0.0.5:10001
    """

    name: str | None = Field(default=None, description="name of the run's folder; null: the preset's name and the time")
    folder: Path = Field(default=Path("runs"), description="the run is written to FOLDER/NAME")
    seed: int = Field(
        default=0,
        ge=0,
        le=MOST_INTEGER,
        description="determines the noise, the pairs, the prompt order and the adapter's initial values",
    )
    ray_address: str | None = Field(
        default=None,
        description='null: start a local Ray on this machine; "auto", HOST:PORT or ray://HOST:PORT: join a cluster',
    )

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", name):
            raise ValueError(
                f"{name!r} cannot be the name of a run; use at most 81 letters, digits, dots, _ and -, and begin with "
                "a letter or a digit"
            )
        return name


class ModelConfig(Section):
    """The one-step generator.

    Example:
        model:
          generator: stabilityai/sdxl-turbo
          variant: fp16            # null finds it, if there are no other files
          vae: madebyollin/sdxl-vae-fp16-fix
          device: auto
          dtype: bfloat16
          gradient_checkpointing: true
    """

    generator: str = Field(
        default="shapes",
        description="a diffusers folder or hub id in the layout of SD-Turbo or SDXL-Turbo; "
        '"shapes", "shapes-honest" or "shapes-xl": an embedded generator',
    )
    variant: str | None = Field(
        default=None,
        description='which weight files of the generator to take, such as "fp16" for model.fp16.safetensors; null: the '
        "plain ones, or the only variant that is there",
    )
    vae: str | None = Field(
        default=None,
        description="folder or hub id of another VAE than the generator's",
    )
    unet: str | None = Field(
        default=None,
        description="another U-Net than the generator's, such as one that a run with `lora: null` has trained: that "
        "run, a folder or a file of weights; the training begins at it, and it is the base",
    )
    device: str = Field(
        default="auto", description='"auto": the worker\'s GPU if it has one, else "cpu"; or cpu, cuda, cuda:NUMBER'
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="of what is frozen; 16 bits save memory on a GPU; what is trained is in float32",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="the U-Net's backward pass needs less memory, and about a third more time"
    )

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
            raise ValueError(f"there is no device {device!r}; write auto, cpu, cuda or cuda:NUMBER")
        return device


class LoraConfig(Section):
    """The adapter: low-rank updates of the U-Net's attention projections. `lora: null` trains the whole U-Net instead.

    Example:
        lora:
          rank: 16
          alpha: null              # alpha = rank, so the update is added unscaled
          target_modules: [to_q, to_k, to_v, to_out.0]
    """

    rank: int = Field(default=16, ge=1, description="rank of each update; a higher one can learn more")
    alpha: float | None = Field(
        default=None, gt=0, le=1e4, description="each update is scaled by alpha / rank; null: alpha = rank"
    )
    target_modules: tuple[str, ...] = Field(
        default=("to_q", "to_k", "to_v", "to_out.0"),
        min_length=1,
        description="the U-Net's layers that get an update, by the ends of their names",
    )
    adapter: str | None = Field(
        default=None,
        min_length=1,
        description="the LoRA adapter to start from: a run, a folder or a file; its rank, alpha and layers count then",
    )


class FeaturesConfig(Section):
    """The feature map phi, in whose space the drift field is computed.

    Example:
        features:
          name: latent_mae
          path: models/latent-mae
          options:
            keys: [layer1_mean, layer2_mean_4, layer3_std]
    """

    name: str = Field(default="latent_mae", description="a feature map of drpo.method.features")
    path: str | None = Field(
        default="shapes", description='folder of its weights; "shapes": the embedded weights; null: it has no weights'
    )
    options: dict[str, Any] = Field(default_factory=dict, description="more arguments of the feature map")


class ObjectiveConfig(BaseModel):
    """The objective and its settings: all keys but `name` are settings of that objective.

    Example:
        objective:
          name: drpo
          kernel: rbf
          radii: [0.02, 0.05, 0.2]   # in mean distances between queries and supports
          velocity: 1.0
          reference_weight: 0.2
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(default="drpo", description="an objective of drpo.method.objectives")

    @property
    def settings(self) -> dict[str, Any]:
        """All keys but `name`."""
        return dict(self.model_extra or {})


class RewardsConfig(Section):
    """The rewards that rank the candidates, and the service that serves them.

    Example:
        rewards:
          service: null
          address: grpc://127.0.0.1:9000
          weights: {pickscore: 0.7, geneval: 0.3}
          normalize: zscore
          timeout_s: 120
    """

    service: str | None = Field(
        default="shapes", description="the service config (a name or a YAML file) to start if `address` is null"
    )
    address: str | None = Field(
        default=None, description="a running service: grpc://HOST:PORT, http://HOST:PORT or serve://APP"
    )
    api_key_env: str | None = Field(default=None, description="environment variable that holds the service's API key")
    mixture: str | None = Field(
        default=None,
        description="a mixture of the service; null: `weights`, or without them the service's default mixture",
    )
    weights: dict[str, float] | None = Field(
        default=None, description="the weight of each reward, instead of a mixture of the service"
    )
    normalize: Literal["zscore", "none", "rank"] | None = Field(
        default=None,
        description="how scores of rewards are made comparable before they are added; null: as in the mixture",
    )
    timeout_s: float = Field(default=60.0, gt=0, le=1e6, description="seconds for one ranking, including all retries")
    retries: int = Field(default=3, ge=0, description="more attempts after a temporary failure")
    details: bool = Field(
        default=True,
        description="ask for details of the scores; without them the metrics that a reward declares are not logged",
    )

    @model_validator(mode="after")
    def _check_choice(self) -> RewardsConfig:
        if self.mixture is not None and self.weights is not None:
            raise ValueError("give either rewards.mixture or rewards.weights, not both")
        if self.service is None and self.address is None:
            raise ValueError("give rewards.address (a running service) or rewards.service (one to start)")
        return self


class PromptsConfig(Section):
    """The source of the prompts.

    Example:
        prompts:
          source: file
          path: prompts/train.csv
          column: caption
          tasks: [counting, colors]
          balance_tasks: true
    """

    source: str = Field(default="shapes", description="a prompt source; `drpo prompts list` shows all")
    path: str | None = Field(
        default=None, description="with source file: the file; with source hub: the data set, ORG/NAME[@REVISION]"
    )
    column: str | None = Field(
        default=None,
        description="with source file or hub: the column of the prompts; null: prompt, caption, Prompt or text",
    )
    task_column: str | None = Field(
        default=None,
        description="with source file or hub: the column of the tasks; null: task; parti: Category or Challenge",
    )
    split: str = Field(default="train", description="the split, if the source has splits")
    tasks: tuple[str, ...] | None = Field(default=None, description="use only these tasks; null: all")
    balance_tasks: bool = Field(
        default=True, description="draw all tasks equally often; false: in proportion to their prompts"
    )
    allow_overlap: bool = Field(
        default=False,
        description="start even if evaluation prompts are also training prompts, which flatters the result",
    )

    @field_validator("source", mode="before")
    @classmethod
    def _rename_source(cls, source: object) -> object:
        """Runs of earlier versions call the source of prompt files jsonl."""
        return "file" if source == "jsonl" else source
