"""The settings of a run: a YAML preset and dotted overrides, checked before any model is loaded.

    config = load_config("shapes", ["training.steps=50", "optimizer.lr=3e-4"])

Files:
    section    the base of everything that has settings
    sections   the parts of a run: generator, adapter, feature map, objective, rewards, prompts
    offline    preferences in the place of rewards
    schedule   the course of a run: optimizer, training loop
    evaluation the evaluation, during training and at its end
    trackers   experiment trackers
    config     `Config`, all sections together
    files      YAML files with settings
    values     how text becomes the value of a setting
    loading    presets, overrides, and readable errors
    site       settings of one machine or cluster, which override every preset

This package imports neither torch nor ray.
"""

from drpo.config.config import Config, known_keys
from drpo.config.evaluation import EvaluationConfig, GridConfig, StopCondition
from drpo.config.files import read_settings_file
from drpo.config.loading import (
    Problem,
    describe_error,
    list_errors,
    load_config,
    override,
    override_config,
    parse_config,
    preset_names,
    read_preset,
    salvage_config,
    set_value,
)
from drpo.config.offline import OfflineConfig
from drpo.config.schedule import EmaConfig, OptimizerConfig, RolloutsConfig, TrainingConfig
from drpo.config.section import MOST_INTEGER
from drpo.config.sections import (
    FeaturesConfig,
    LoraConfig,
    ModelConfig,
    ObjectiveConfig,
    PromptsConfig,
    RewardsConfig,
    RunConfig,
)
from drpo.config.site import runs_folder, site_settings
from drpo.config.trackers import TrackersConfig

__all__ = [
    "MOST_INTEGER",
    "Config",
    "EmaConfig",
    "EvaluationConfig",
    "FeaturesConfig",
    "GridConfig",
    "LoraConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OfflineConfig",
    "OptimizerConfig",
    "Problem",
    "PromptsConfig",
    "RewardsConfig",
    "RolloutsConfig",
    "RunConfig",
    "StopCondition",
    "TrackersConfig",
    "TrainingConfig",
    "describe_error",
    "known_keys",
    "list_errors",
    "load_config",
    "override",
    "override_config",
    "parse_config",
    "preset_names",
    "read_preset",
    "read_settings_file",
    "runs_folder",
    "salvage_config",
    "set_value",
    "site_settings",
]
