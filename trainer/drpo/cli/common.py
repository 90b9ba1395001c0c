"""Shared parts of the commands: the console, overrides, readable errors, Ray and the ranking service."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

import typer
from rich.console import Console

from drpo.config import Config
from drpo.errors import ConfigError, DrpoError
from drpo_rewards.errors import RewardsError

console = Console()

OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that accepts --dotted.key VALUE."""


class Application(typer.Typer):
    """A typer app that prints the message of an expected error, and exits with 2 (wrong setting) or 1 (others)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        silence_libraries()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # what the terminal's encoding lacks is shown as an escape
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().__call__(*args, **kwargs)
        except (DrpoError, RewardsError) as error:
            Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
            sys.exit(2 if isinstance(error, ConfigError) else 1)


def silence_libraries() -> None:
    """Hides the messages of libraries, which would break the progress bar."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def parse_overrides(arguments: Sequence[str]) -> list[str]:
    """Parses the dotted options of the command line.

    Args:
        arguments: for example ["--training.steps", "5", "--optimizer.lr=1e-3"].

    Returns:
        The overrides, here ["training.steps=5", "optimizer.lr=1e-3"].

    Raises:
        ConfigError: an argument is not a dotted option, or has no value.
    """
    overrides, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or "." not in argument.partition("=")[0]:
            raise ConfigError(f"there is no option {argument}; write settings as --section.key VALUE")
        key = argument[2:]
        if "=" not in key:
            if not rest:
                raise ConfigError(f"{argument} needs a value")
            key = f"{key}={rest.pop(0)}"
        overrides.append(key)
    return overrides


@contextmanager
def ray_and_rewards(config: Config) -> Iterator[Config]:
    """Starts Ray, and the ranking service unless `rewards.address` is set; ends both after the block.

    Yields:
        The config with `rewards.address` set.
    """
    from drpo.cluster.connect import connect_ray
    from drpo_rewards.cluster.local_ray import silence_serve, stop_ray

    start_service = config.rewards.address is None
    starting = "Ray and the reward service (about 30 s)" if start_service else "Ray (about 10 s)"
    service = None
    try:
        with console.status(f"starting {starting}"):
            training = config.training
            connect_ray(config.run.ray_address, cpus=training.num_workers * training.threads_per_worker + 4)
            silence_serve(logging.ERROR)
            if start_service:
                from drpo_rewards.serving import start

                assert config.rewards.service is not None  # `RewardsConfig` requires one if there is no address
                service = start(config.rewards.service)
                rewards = config.rewards.model_copy(update={"address": service.handle_address})
                config = config.model_copy(update={"rewards": rewards})
        yield config
    finally:
        if service is not None and config.run.ray_address is not None:
            service.stop()  # not needed for a local Ray, which ends with its services
        stop_ray()
