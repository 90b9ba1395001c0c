"""When, where and with which versions an experiment was begun: what a command alone does not say."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drpo.evaluation.summary import installed_versions


def look_around() -> dict[str, Any]:
    """What is true now: the date, the current folder, the processors, the versions, and the commit of a checkout."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "folder": os.getcwd(),
        "processors": _processors(),
        "versions": installed_versions(),
        "commit": _commit(),
    }


def describe_begun(begun: Mapping[str, Any], rewards: Mapping[str, str]) -> list[str]:
    """What was true at the start, in lines of Markdown.

    Args:
        begun: see `look_around`.
        rewards: the versions of the rewards, by name.
    """
    versions = dict(begun["versions"])
    own = versions.pop("drpo", "unknown") + (f" ({begun['commit']})" if begun["commit"] else "")
    lines = [f"Begun on {begun['date']} with drpo {own} on {begun['processors']}."]
    lines.append(f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.")
    if rewards:
        lines.append(f"Rewards: {', '.join(f'{name} `{version}`' for name, version in rewards.items())}.")
    return lines


def _processors() -> str:
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    cpus = f"{os.cpu_count()} processors ({platform.machine()})"
    return f"{cpus} and {len(gpus)} x {gpus[0]}" if gpus else cpus


def _commit() -> str | None:
    """The commit of the checkout that the package lies in, with -dirty if it was changed; None outside of one."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:  # an installed package may lie in somebody else's checkout, which does not have its files
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, timeout=10, check=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
