"""What the commands share: the console, overrides, errors for a person, and the embedded ranking service."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.console import Console

from drpo.config import Config
from drpo.errors import ConfigError, DrpoError
from drpo_rewards.errors import RewardsError

console = Console()

OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that takes --dotted.key VALUE."""


class Application(typer.Typer):
    """A typer app that answers an expected error with its message and exit code 2 (the request) or 1 (the run)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        quiet()
        try:
            return super().__call__(*args, **kwargs)
        except (DrpoError, RewardsError) as error:
            Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
            sys.exit(2 if isinstance(error, ConfigError) else 1)


def quiet() -> None:
    """Keeps libraries from talking over the progress bar."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def parse_overrides(arguments: Sequence[str]) -> list[str]:
    """["--training.steps", "5", "--optimizer.lr=1e-3"] as ["training.steps=5", "optimizer.lr=1e-3"].

    Raises:
        ConfigError: something that is not a dotted option, or one without a value.
    """
    overrides, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or "." not in argument.partition("=")[0]:
            raise ConfigError(f"there is no option {argument}; settings are given as --section.key VALUE")
        key = argument[2:]
        if "=" not in key:
            if not rest:
                raise ConfigError(f"{argument} needs a value")
            key = f"{key}={rest.pop(0)}"
        overrides.append(key)
    return overrides


def quiet_serve() -> None:
    """Errors alone of Ray Serve's log. Importing Serve sets the level that is changed here, so that comes first."""
    with suppress(ImportError):  # not installed where rewards are only asked over HTTP or gRPC
        import ray.serve  # noqa: F401
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


@contextmanager
def ray_and_rewards(config: Config) -> Iterator[Config]:
    """Starts Ray, and the ranking service unless the config names a running one; ends both afterwards.

    Yields:
        The config with `rewards.address` filled in.
    """
    from drpo.cluster.environment import prepare, start_ray

    prepare()
    embedded = config.rewards.address is None
    what = "Ray and the reward service (about 30 s)" if embedded else "Ray (about 10 s)"
    service = None
    try:
        with console.status(f"starting {what}"):
            training = config.training
            start_ray(config.run.ray_address, cpus=training.num_workers * training.threads_per_worker + 4)
            quiet_serve()
            if embedded:
                from drpo_rewards.serving import start

                service = start(config.rewards.service or "shapes")
                rewards = config.rewards.model_copy(update={"address": service.handle_address})
                config = config.model_copy(update={"rewards": rewards})
        yield config
    finally:
        import ray

        if service is not None and config.run.ray_address is not None:
            service.stop()  # a Ray of our own takes the service with it
        ray.shutdown()
