"""What every command needs of the process in which it starts: a folder to stand in, and packages that no file hides."""

from __future__ import annotations

import os
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from drpo_rewards.errors import ConfigError

PACKAGES = ("numpy", "torch", "ray", "diffusers", "transformers", "peft", "datasets")  # whose names people give files


def check_process() -> None:
    """Check the current folder, without which torch ends the process, and the packages.

    Raises:
        ConfigError: the folder was removed; or see `check_packages`.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed; go to one that is there with cd") from None
    check_packages()


def check_packages() -> None:
    """Check that Python finds the installed packages, and not a file of somebody's with the name of one.

    Raises:
        ConfigError: it would not.
    """
    for name in PACKAGES:
        found = PathFinder.find_spec(name)
        try:
            installed = Path(str(metadata.distribution(name).locate_file(name))).resolve()
        except metadata.PackageNotFoundError:
            continue
        if found is None or found.origin is None or not installed.exists():
            continue
        if not Path(found.origin).resolve().is_relative_to(installed):
            raise ConfigError(
                f"{found.origin} hides the installed package {name}; rename it, or take its folder out of PYTHONPATH"
            )
