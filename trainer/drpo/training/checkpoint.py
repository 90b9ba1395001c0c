"""Checkpoints: everything that the next step depends on. A kill at any moment leaves a complete one on disk.

checkpoints/step-000050/state.pt    adapter, optimizer, step, random state of every worker, seconds trained
checkpoints/step-000050/adapter/    only the adapter, in the format of diffusers
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drpo.errors import ModelLoadError
from drpo.generators.base import Adapter

_NAME = "step-{:06d}"


def write_checkpoint(folder: Path, state: dict[str, Any], adapter: Adapter, *, keep: int) -> Path:
    """Writes the checkpoint of `state["step"]` under `folder`, and removes all but the newest `keep`.

    The checkpoint is written to a temporary folder, which is renamed once it is complete.

    Returns:
        The folder of the checkpoint.
    """
    target = folder / _NAME.format(state["step"])
    partial = folder / f".partial-{target.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    adapter.save(partial / "adapter")
    with (partial / "state.pt").open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():  # the step ran again after a worker was lost, with the same result
        shutil.rmtree(target)
    partial.rename(target)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints under a folder, earliest step first."""
    return sorted(path for path in folder.glob("step-*") if (path / "state.pt").is_file())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote, on the CPU.

    Raises:
        ModelLoadError: the file is missing or damaged.
    """
    try:
        return torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelLoadError(f"cannot read the checkpoint {path}: {error}") from error


def publish_adapter(adapter: Adapter, folder: Path) -> None:
    """Replaces the run's `adapter/` with the current adapter. It is never half written."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    adapter.save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def random_state() -> dict[str, Any]:
    """The state of this process's global random generators.

    The training loop does not draw from them, but layers may.
    """
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores a `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))


def seed_everything(seed: int) -> None:
    """Seeds this process's global random generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
