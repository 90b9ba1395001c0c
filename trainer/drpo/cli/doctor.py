"""`drpo doctor`: check this machine, and a preset on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from drpo.cli.common import check_before_start, console, print_findings
from drpo.config import read_preset
from drpo.errors import ConfigError
from drpo_rewards.findings import Finding

PACKAGES = ("torch", "ray", "diffusers", "transformers", "peft", "pydantic", "grpcio", "fastapi", "tensorboard")

Check = Callable[[], tuple[bool, str]]
"""Returns whether the check passed, and what it found."""


def doctor(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Argument(help="Check what `drpo train --preset` with this preset needs; settings may follow."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Also check this ranking service: grpc://HOST:PORT or http://HOST:PORT.")
    ] = None,
) -> None:
    """Check this machine, or with a preset whether a training run can start on it. Exit status: 1 or 2 if not."""
    if preset is None and context.args:
        raise ConfigError("settings are checked with a preset: drpo doctor PRESET --section.key VALUE")
    if preset is not None:
        changes = context.args + ([f"rewards.address={address}"] if address is not None else [])
        check_before_start(read_preset(preset), changes, dry_run=True)
    from drpo.checks.surroundings import look_around

    checks: list[tuple[str, Check]] = [
        ("python", _python),
        *((name, lambda name=name: _package(name)) for name in PACKAGES),
        ("CPU", _cpus),
        ("memory", _memory),
        ("GPU", _gpu),
        ("disk", _disk),
        ("embedded model", _assets),
        ("presets", _presets),
    ]
    if address is not None:
        checks.append((f"service {address}", lambda: _service(address)))
    findings = []
    with console.status("checking"):
        for name, check in checks:
            try:
                passed, found = check()
            except Exception as error:  # whatever the error, the check has failed
                passed, found = False, f"{type(error).__name__}: {error}"
            findings.append(Finding("machine", name, "ok" if passed else "wrong", f"{name}: {found}"))
        findings += look_around(starts_ray=True)
    if print_findings(findings):
        raise typer.Exit(1)


def _python() -> tuple[bool, str]:
    return sys.version_info >= (3, 11), f"{sys.version.split()[0]} (3.11 or later is needed)"


def _package(name: str) -> tuple[bool, str]:
    try:
        return True, metadata.version(name)
    except metadata.PackageNotFoundError:
        return False, 'pip install "drpo[all]"'


def _cpus() -> tuple[bool, str]:
    return True, f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


def _memory() -> tuple[bool, str]:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return True, "unknown"
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return gibibytes >= 4, f"{gibibytes:.1f} GiB (the demo needs about 4)"


def _gpu() -> tuple[bool, str]:
    import torch

    if not torch.cuda.is_available():
        return True, "none; the demo needs no GPU"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return True, ", ".join(names)


def _disk() -> tuple[bool, str]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return free >= 1 and os.access(Path.cwd(), os.W_OK), f"{free:.1f} GiB free in {Path.cwd()}, where runs/ is written"


def _assets() -> tuple[bool, str]:
    from drpo.shapes.assets import GENERATORS, clip_path, feature_map_path, generator_path

    feature_map_path(), clip_path()  # each raises if something is missing
    for name in GENERATORS:
        generator_path(name)
    return True, f"the generators {', '.join(GENERATORS)}, their feature map and their CLIP are installed"


def _presets() -> tuple[bool, str]:
    from drpo.config import load_config, preset_names

    names = preset_names()
    for name in names:
        load_config(name)
    return bool(names), ", ".join(names)


def _service(address: str) -> tuple[bool, str]:
    from drpo_rewards.client import RankingClient

    with RankingClient(address, timeout_s=10) as client:
        return client.ready(), ", ".join(model.name for model in client.models())
