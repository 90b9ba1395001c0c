"""The catalogue of rewards. A new reward is a new file and one line here. Each is imported when it is first used."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from drpo_rewards.api.suggestions import did_you_mean
from drpo_rewards.errors import ConfigError, RewardsError
from drpo_rewards.rewards.base import AnyReward, DifferentiableReward, PairwiseReward, Reward
from drpo_rewards.rewards.files import hub
from drpo_rewards.rewards.files.hub import MissingFilesError
from drpo_rewards.rewards.files.model_files import ModelFiles

CATALOGUE: dict[str, str] = {
    "aesthetic": "drpo_rewards.rewards.aesthetic:Aesthetic",
    "clip": "drpo_rewards.rewards.clip:ClipScore",
    "colorfulness": "drpo_rewards.rewards.colorfulness:Colorfulness",
    "geneval": "drpo_rewards.rewards.geneval.reward:GenevalReward",
    "hpsv2": "drpo_rewards.rewards.hpsv2:HPSv2",
    "hpsv3": "drpo_rewards.rewards.hpsv3:HPSv3",
    "image_reward": "drpo_rewards.rewards.image_reward:ImageReward",
    "jpeg_size": "drpo_rewards.rewards.jpeg_size:JpegSize",
    "judge": "drpo_rewards.rewards.judge.reward:Judge",
    "ocr": "drpo_rewards.rewards.ocr.reward:OcrReward",
    "pickscore": "drpo_rewards.rewards.pickscore:PickScore",
    "remote": "drpo_rewards.rewards.remote.reward:RemoteReward",
    "sharpness": "drpo_rewards.rewards.sharpness:Sharpness",
    "soft_tifa": "drpo_rewards.rewards.vlm.soft_tifa:SoftTifa",
    "symmetry": "drpo_rewards.rewards.symmetry:Symmetry",
    "vlm_score": "drpo_rewards.rewards.vlm.score:VlmScore",
}


def load_class(kind: str) -> type:
    """Import the class of a reward.

    Args:
        kind: a name in the catalogue, or `package.module:Class` for your own reward.

    Raises:
        ConfigError: there is no such reward, or its module cannot be imported.
    """
    path = CATALOGUE.get(kind, kind)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        known = ", ".join(sorted(CATALOGUE))
        raise ConfigError(f"no reward {kind!r}; known are {known}, and your own is written as package.module:Class")
    with code_of(kind, "cannot be loaded"):
        try:
            cls = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"cannot load reward {kind!r}: {error}") from error
    if not callable(cls):
        raise ConfigError(f"reward {kind!r} is a {type(cls).__name__}, not a class")
    return cls


@contextmanager
def code_of(kind: str, problem: str) -> Iterator[None]:
    """Turn what the code of your own reward raises in this block into an error that names the reward.

    A module without a guard for `__main__` may also end the process when it is imported, as argparse does.

    Args:
        kind: the reward. Those of the catalogue are not changed: what they raise otherwise is a fault of ours.
        problem: what does not work then.

    Raises:
        ConfigError: the code has failed.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, RewardsError) or kind in CATALOGUE:
            raise
        reason = " ".join(str(error).split())  # a line is one mistake
        raise ConfigError(f"reward {kind!r} {problem}: {type(error).__name__}: {reason}") from error


def create(kind: str, options: dict[str, Any], headers_only: bool = False) -> AnyReward:
    """Build a reward.

    Args:
        kind: a name in the catalogue, or `package.module:Class` for your own reward.
        options: the arguments of the reward's class.
        headers_only: check every key and shape of the reward's files without loading them. The result cannot score.
            The class must accept this argument (see `accepts_headers_only`).

    Raises:
        ConfigError: the options do not fit the reward, or its class does not accept `headers_only`.
        WeightsError: its files are missing or do not fit.
    """
    cls = load_class(kind)
    if headers_only and not accepts_headers_only(kind):
        raise ConfigError(f"reward {kind!r} has no argument `headers_only`, so loading is the only check of its files")
    check_option_names(kind, options)
    with code_of(kind, "cannot be built"):
        try:
            reward = cls(**options, headers_only=True) if headers_only else cls(**options)
        except MissingFilesError as error:
            raise MissingFilesError(f"{error}. `{download_command(kind, options)}` fetches it") from error
        except TypeError as error:
            unknown = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))  # of a part of the reward
            problem = f"has no option {unknown[1]!r} that fits its others" if unknown else f"cannot be built: {error}"
            raise ConfigError(f"reward {kind!r} {problem}; its options are {options}") from error
        is_reward = isinstance(reward, Reward | PairwiseReward)
    if not is_reward:
        raise ConfigError(f"reward {kind!r} needs a `version` and a method `score(items)` (or `compare(items)`)")
    needed = needed_files(kind, options)
    if needed and not hasattr(reward, "revision"):
        _, source = needed[0]
        reward.revision = hub.cached_commit(source)  # type: ignore[union-attr]
    return reward


def check_option_names(kind: str, options: Mapping[str, Any]) -> None:
    """Check that the class of a reward has these options, and needs no others.

    Raises:
        ConfigError: it has not; the message suggests the most similar one.
    """
    try:
        arguments = inspect.signature(load_class(kind)).parameters.values()
    except ValueError:  # a class that is not written in Python
        return
    named = [one for one in arguments if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    known = [one.name for one in named if one.name != "headers_only"]
    for name in () if any(one.kind is one.VAR_KEYWORD for one in arguments) else options:
        if name not in (one.name for one in named):
            listed = f"; its options are {', '.join(known)}" if known else "; it has none"
            raise ConfigError(f"reward {kind!r} has no option {name!r}{did_you_mean(name, known) or listed}")
    for one in named:
        if one.default is one.empty and one.name not in options:
            raise ConfigError(f"reward {kind!r} needs the option {one.name!r}")


def accepts_headers_only(kind: str) -> bool:
    """Return whether the reward's class has an argument `headers_only`, which checks files without loading."""
    return "headers_only" in inspect.signature(load_class(kind)).parameters


def check_differentiable(kind: str, options: dict[str, Any]) -> None:
    """Check that a reward has a gradient and can be built from files that are here. Nothing is downloaded.

    Raises:
        ConfigError: there is no such reward, it has no gradient, or the options do not fit it.
        WeightsError: its files are here and do not fit, or a folder does not exist.
    """
    outline_differentiable(kind, options)


def outline_differentiable(kind: str, options: dict[str, Any]) -> DifferentiableReward | None:
    """Build a reward that has a gradient on torch's `meta` device, where tensors have shapes but no numbers.

    Returns:
        The reward. None if its files are not here, as nothing is downloaded, or if its class cannot be built so (see
        `accepts_headers_only`).

    Raises:
        ConfigError, WeightsError: see `check_differentiable`.
    """
    _require_gradient(kind)
    here = all(hub.find_offline(files, source) is not None for files, source in needed_files(kind, options))
    if not (here and accepts_headers_only(kind)):
        return None
    reward: Any = create(kind, options, headers_only=True)
    return reward


def _require_gradient(kind: str) -> None:
    if not hasattr(load_class(kind), "score_differentiably"):
        able = [name for name in CATALOGUE if hasattr(load_class(name), "score_differentiably")]
        raise ConfigError(
            f"reward {kind!r} has no gradient: it decides by rules, comparisons or code that cannot be differentiated. "
            f"Choose one of {', '.join(able)}, or a class of your own with a method score_differentiably"
        )


def load_differentiable(kind: str, options: dict[str, Any], device: str = "auto") -> DifferentiableReward:
    """Build a reward that scores images with a gradient.

    Args:
        kind, options: see `create`.
        device: where it computes, if the options do not say so and the reward has an argument `device`.

    Raises:
        ConfigError: there is no such reward, it has no gradient, or the options do not fit it.
        WeightsError: its files are missing or do not fit.
    """
    _require_gradient(kind)
    if "device" in inspect.signature(load_class(kind)).parameters:
        options = {"device": device, **options}
    reward: Any = create(kind, options)
    return reward


def needed_files(kind: str, options: Mapping[str, Any]) -> list[tuple[ModelFiles, str]]:
    """List what a reward with these options reads: each ModelFiles, and the folder or hub id that it comes from.

    The list is empty if the reward declares no files.

    Raises:
        ConfigError: there is no such reward.
    """
    declared: Any = getattr(load_class(kind), "files", None)
    with code_of(kind, "cannot say which files it reads"):
        return [(files, files.source(options)) for files in declared(**options)] if callable(declared) else []


def download_command(kind: str, options: Mapping[str, Any]) -> str:
    """Return the command that fetches a reward's files, without the options that do not change them."""
    needed = needed_files(kind, options)
    arguments = [
        f"--option {key}={value}"
        for key, value in options.items()
        if needed != needed_files(kind, {other: options[other] for other in options if other != key})
    ]
    return " ".join(["drpo-rewards download", kind, *arguments])


def load(
    name: str, model: str | None = None, device: str | None = None, dtype: str | None = None, **options: Any
) -> AnyReward:
    """Build a reward that is ready to score. An argument that is None takes the reward's default.

    Args:
        name: a name in the catalogue, or `package.module:Class` for your own reward.
        model: a folder or a hub id.
        device: the name of a torch device, or "auto".
        dtype: "float32", "float16", "bfloat16" or "auto".
        options: the reward's other arguments.

    Raises:
        ConfigError: the options do not fit the reward.
        WeightsError: its files are missing or do not fit.

    Example:
        rewards.load("pickscore", device="cuda").score([ScoreItem(image_HW3, "a red circle")])
    """
    common = {"model": model, "device": device, "dtype": dtype}
    return create(name, {**{key: value for key, value in common.items() if value is not None}, **options})
