"""The settings of a run: one YAML preset, dotted overrides, everything checked before anything is loaded.

    config = load_config("shapes", ["training.steps=50", "optimizer.lr=3e-4"])

This module imports neither torch nor ray.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drpo.errors import ConfigError
from drpo.site import lay_over, read_sections, site_settings


class Section(BaseModel):
    """Base of every section: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class RunConfig(Section):
    """Where a run's output goes, and its seed."""

    name: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$", description="folder name; null: preset and time"
    )
    folder: Path = Field(default=Path("runs"), description="the run is written to FOLDER/NAME")
    seed: int = Field(default=0, ge=0, description="noise, pairs, prompt order and the adapter's start follow from it")
    ray_address: str | None = Field(
        default=None,
        description='null: a Ray of its own on this machine; "auto", HOST:PORT or ray://HOST:PORT: a cluster',
    )


class ModelConfig(Section):
    """The one-step generator."""

    generator: str = Field(
        default="shapes", description='a diffusers folder or hub id in the SD-Turbo layout; "shapes": the embedded one'
    )
    device: str = Field(default="auto", description='"auto": the worker\'s GPU where it has one, else "cpu"')
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    gradient_checkpointing: bool = Field(
        default=False, description="less memory for the U-Net's backward pass, about a third more time"
    )


class LoraConfig(Section):
    """The adapter."""

    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0, description="scale is alpha / rank; null: alpha = rank")
    target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")


class FeaturesConfig(Section):
    """The feature map phi in which samples drift."""

    name: str = Field(default="latent_mae", description="a name of drpo.method.features")
    path: str | None = Field(
        default="shapes", description='folder of its weights; "shapes": the embedded one; null: it has none'
    )
    options: dict[str, Any] = Field(default_factory=dict, description="further arguments of the feature map")


class ObjectiveConfig(BaseModel):
    """The objective's name; its other keys are the settings of that objective and are checked against them."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(default="drpo", description="a name of drpo.method.objectives")

    @property
    def settings(self) -> dict[str, Any]:
        """Every key but the name."""
        return dict(self.model_extra or {})


class RewardsConfig(Section):
    """What ranks the candidates, and where it is served."""

    service: str | None = Field(
        default="shapes", description="service config (name or YAML) that is started where `address` is null"
    )
    address: str | None = Field(
        default=None, description="a running service: grpc://HOST:PORT, http://HOST:PORT or serve://APP"
    )
    api_key_env: str | None = Field(default=None, description="environment variable with the service's API key")
    mixture: str | None = Field(default=None, description="a mixture of the service; null: its default, or `weights`")
    weights: dict[str, float] | None = Field(
        default=None, description="rewards and weights of one's own, instead of a mixture"
    )
    normalize: Literal["zscore", "none", "rank"] | None = Field(default=None, description="null: the mixture's own")
    timeout_s: float = Field(default=60.0, gt=0)
    retries: int = Field(default=3, ge=0)
    details: bool = Field(
        default=True, description="ask for the rewards' details; GenEval's strict score is logged from them"
    )

    @model_validator(mode="after")
    def _one_choice(self) -> RewardsConfig:
        if self.mixture is not None and self.weights is not None:
            raise ValueError("give either rewards.mixture or rewards.weights, not both")
        if self.service is None and self.address is None:
            raise ValueError("give rewards.address (a running service) or rewards.service (one to start)")
        return self


class PromptsConfig(Section):
    """Where prompts come from."""

    source: str = Field(default="shapes", description="a name of drpo.data.prompts")
    path: str | None = Field(default=None, description="the file or folder of a source that has one")
    split: str = Field(default="train", description="the split of a source that has splits")
    tasks: tuple[str, ...] | None = Field(default=None, description="only these tasks; null: all")
    balance_tasks: bool = Field(default=True, description="every task equally often, however many prompts it has")


class OptimizerConfig(Section):
    """AdamW over the adapter, and the course of its learning rate."""

    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float | None = Field(default=1.0, gt=0, description="clips the gradient's norm; null: never")
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    schedule_steps: int | None = Field(
        default=None, ge=1, description="length of a decaying schedule; null: training.steps"
    )

    def factor(self, step: int, steps: int) -> float:
        """What `lr` is multiplied by at a step (from 0) of a run of `steps` steps."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        length = (self.schedule_steps or steps) - self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, length))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0 - progress if self.schedule == "linear" else 1.0


class TrainingConfig(Section):
    """The loop: what a step is, how long the run is, and how it is spread and kept."""

    steps: int = Field(default=100, ge=1, description="optimizer steps")
    max_seconds: float | None = Field(default=None, gt=0, description="stop earlier, once training has taken this long")
    groups_per_step: int = Field(
        default=4, ge=1, description="prompts of one optimizer step, shared out over the workers"
    )
    candidates: int = Field(default=24, ge=2, le=256, description="K, images of each prompt")
    pairs: int = Field(default=12, ge=1, description="M, (winner, loser) pairs of each group")
    pair_strategy: Literal["random", "extremes"] = "random"

    pipeline: bool = Field(default=True, description="generate the next group while this one is being ranked")
    groups_in_flight: int = Field(
        default=3, ge=1, description="groups that may wait for their ranking; each holds its graph in memory"
    )
    chunk_size: int | None = Field(
        default=None, ge=1, description="candidates at once; less memory, generates twice; null: all"
    )
    max_failed_groups: float = Field(
        default=0.1, ge=0, description="stop past this share (below 1) or number of groups not ranked"
    )

    num_workers: int = Field(default=1, ge=1, description="Ray Train workers")
    threads_per_worker: int = Field(default=1, ge=1, description="CPU threads of each worker")
    use_gpu: bool = Field(default=False, description="one GPU for each worker")
    resources_per_worker: dict[str, float] | None = Field(
        default=None, description="more Ray resources of a worker, beside its threads as CPUs"
    )
    max_failures: int = Field(
        default=3, ge=-1, description="restarts of the workers from the last checkpoint; -1: any number"
    )

    checkpoint_every: int = Field(
        default=25, ge=1, description="steps between checkpoints; one more is written at the end"
    )
    keep_checkpoints: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _enough_extremes(self) -> TrainingConfig:
        if self.pair_strategy == "extremes" and 2 * self.pairs > self.candidates:
            raise ValueError(
                f"extremes sets the best {self.pairs} candidates against the worst {self.pairs}, which needs "
                f"{2 * self.pairs}; training.candidates is {self.candidates}"
            )
        return self


class EvaluationConfig(Section):
    """The comparison of the adapter with the base generator on held-out prompts, with matched seeds."""

    enabled: bool = True
    split: str = "test"
    path: str | None = Field(
        default=None, description="prompt file of a source that has one; null: the training source's own"
    )
    images_per_prompt: int = Field(default=2, ge=1)
    prompts_per_task: int | None = Field(default=None, ge=1, description="null: all of them")
    batch_size: int = Field(default=24, ge=1)
    seed: int = Field(default=12345, ge=0)
    reward: str | None = Field(default=None, description="the reward that is shown; null: the first of the service")


class Config(Section):
    """A whole run. `preset` is the name of what it started from."""

    preset: str = "custom"
    run: RunConfig = Field(default_factory=RunConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    lora: LoraConfig = Field(default_factory=LoraConfig)
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    rewards: RewardsConfig = Field(default_factory=RewardsConfig)
    prompts: PromptsConfig = Field(default_factory=PromptsConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    @model_validator(mode="after")
    def _enough_groups(self) -> Config:
        if self.training.groups_per_step < self.training.num_workers:
            raise ValueError(
                f"training.groups_per_step ({self.training.groups_per_step}) must be at least training.num_workers "
                f"({self.training.num_workers}), or some workers have nothing to do"
            )
        return self

    def to_yaml(self) -> str:
        """The resolved config, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    return sorted(file.name[:-5] for file in resources.files("drpo.presets").iterdir() if file.name.endswith(".yaml"))


def load_config(preset: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a preset (a name, or the path of a YAML file) and checks all of it.

    The settings of this place (`drpo.site`) are laid over it, and then the overrides, "dotted.key=value".

    Raises:
        ConfigError: no such preset, a key that does not exist (the nearest one is named), or a value out of range.
    """
    name = str(preset)
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"there is no config file {name}")
        text = path.read_text()
    elif name in preset_names():
        text = resources.files("drpo.presets").joinpath(f"{name}.yaml").read_text()
    else:
        raise ConfigError(
            f"there is no preset {name!r}{nearest(name, preset_names())}. Presets: {', '.join(preset_names())}"
        )
    values = read_sections(text, name)
    values.setdefault("preset", Path(name).stem)
    lay_over(values, site_settings())
    for override in overrides:
        _apply(values, override)
    return parse_config(values)


def parse_config(values: Mapping[str, Any]) -> Config:
    """Checks a whole config given as nested mappings.

    Raises:
        ConfigError: lists everything that is wrong, one line each.
    """
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(one) for one in error.errors())) from None
    return config


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """A copy of a config with overrides "dotted.key=value" applied and everything checked again."""
    values = config.model_dump(mode="json")
    for override in overrides:
        _apply(values, override)
    return parse_config(values)


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a config."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"the override {override!r} has no value: write {key}=VALUE")
    *sections, last = key.split(".")
    place = values
    for section in sections:
        inner = place.get(section)
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section} is a value, not a section")
        place = inner
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{key}: {text!r} is not a YAML value") from error


def _explain(error: Any) -> str:
    """One line for one of pydantic's errors."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no setting {key}{_hint(key)}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    return f"{key} = {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _hint(key: str) -> str:
    """What an unknown key may have meant: a section, a key like it, one of that name elsewhere, or one beside it."""
    section, _, last = key.rpartition(".")
    keys = list(known_keys())
    names = {known.rpartition(".")[2]: known for known in keys}
    elsewhere = difflib.get_close_matches(last, names, n=1, cutoff=0.8)
    beside = [known.rpartition(".")[2] for known in keys if section and known.rpartition(".")[0] == section]
    return (
        (nearest(key, list(Config.model_fields)) if not section else "")
        or nearest(key, keys)
        or (f"; did you mean {names[elsewhere[0]]}?" if elsewhere else "")
        or (f"; {section} has {', '.join(beside)}" if beside else "")
    )


def nearest(name: str, choices: Sequence[str]) -> str:
    """The words "; did you mean ...?" for the most similar choice, or nothing."""
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
