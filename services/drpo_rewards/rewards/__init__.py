"""The catalogue of rewards. A new reward is a new file and one line here; nothing is imported until it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from drpo_rewards.errors import ConfigError
from drpo_rewards.rewards.base import AnyReward, PairwiseReward, Reward
from drpo_rewards.rewards.files import hub
from drpo_rewards.rewards.files.hub import MissingFilesError
from drpo_rewards.rewards.files.parts import Part

CATALOGUE: dict[str, str] = {
    "aesthetic": "drpo_rewards.rewards.aesthetic:Aesthetic",
    "clip": "drpo_rewards.rewards.clip:ClipScore",
    "geneval": "drpo_rewards.rewards.geneval.reward:GenevalReward",
    "hpsv2": "drpo_rewards.rewards.hpsv2:HPSv2",
    "hpsv3": "drpo_rewards.rewards.hpsv3:HPSv3",
    "image_reward": "drpo_rewards.rewards.image_reward:ImageReward",
    "judge": "drpo_rewards.rewards.judge.reward:Judge",
    "pickscore": "drpo_rewards.rewards.pickscore:PickScore",
}


def load_class(kind: str) -> type:
    """The class behind a catalogue name, or behind `package.module:Class` for a reward of one's own."""
    path = CATALOGUE.get(kind, kind)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        known = ", ".join(sorted(CATALOGUE))
        raise ConfigError(f"no reward {kind!r}; known are {known}, and your own is written as package.module:Class")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot load reward {kind!r}: {error}") from error


def create(kind: str, options: dict[str, Any]) -> AnyReward:
    """Build a reward with its options; raises ConfigError where they do not fit it."""
    cls = load_class(kind)
    try:
        reward = cls(**options)
    except MissingFilesError as error:
        raise MissingFilesError(f"{error}. `{download_command(kind, options)}` fetches it") from error
    except TypeError as error:
        raise ConfigError(f"reward {kind!r} cannot be built from options {options}: {error}") from error
    if not isinstance(reward, Reward | PairwiseReward):
        raise ConfigError(f"reward {kind!r} needs a `version` and a method `score(items)` (or `compare(items)`)")
    wanted = needs(kind, options)
    if wanted and not hasattr(reward, "revision"):
        reward.revision = hub.commit(wanted[0][1])  # type: ignore[union-attr]
    return reward


def needs(kind: str, options: Mapping[str, Any]) -> list[tuple[Part, str]]:
    """What a reward built with these options reads: each part, and the folder or repository that it comes from.

    Empty for a reward that declares nothing. Raises ConfigError where there is no such reward.
    """
    parts: Any = getattr(load_class(kind), "parts", None)
    return [(part, part.place(options)) for part in parts(**options)] if callable(parts) else []


def download_command(kind: str, options: Mapping[str, Any]) -> str:
    """What fetches the files that `needs` says; options that change nothing about them are left out."""
    wanted = needs(kind, options)
    given = [
        f"--option {key}={value}"
        for key, value in options.items()
        if wanted != needs(kind, {other: options[other] for other in options if other != key})
    ]
    return " ".join(["drpo-rewards download", kind, *given])


def load(
    name: str, model: str | None = None, device: str | None = None, dtype: str | None = None, **options: Any
) -> AnyReward:
    """A reward by name, ready to score. What is None is the reward's own default.

    `model` is a folder or an id of the hub, `device` one of torch's names or "auto", `dtype` float32, float16, bfloat16
    or "auto". Raises ConfigError for options that do not fit the reward, WeightsError for files that do not.
    """
    given = {"model": model, "device": device, "dtype": dtype}
    return create(name, {**{key: value for key, value in given.items() if value is not None}, **options})
