"""Checkpoints: everything that the next step depends on. A kill at any moment leaves a whole one on disk.

checkpoints/step-000050/state.pt        adapter, optimizer, step, random state of every worker, seconds trained
checkpoints/step-000050/adapter/        only the adapter, as in `runs/NAME/adapter`
checkpoints/step-000050/manifest.json   the size and hash of every file, the settings, the version of the project
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from drpo.errors import ModelLoadError
from drpo.generators.base import Adapter
from drpo.training.files import replace_folder, write_bytes, write_text
from drpo.training.version import PROJECT_VERSION, RUN_FORMAT, check_format

STATE_FILE = "state.pt"
MANIFEST_FILE = "manifest.json"

_NAME = "step-{:06d}"


def write_checkpoint(
    folder: Path, state: dict[str, Any], adapter: Adapter, *, keep: int, settings: Mapping[str, Any] | None = None
) -> Path:
    """Writes the checkpoint of `state["step"]` under `folder`, and removes all but the newest `keep` up to this step.

    The checkpoint is written to a temporary folder, which is renamed once it is complete.

    Args:
        folder: the folder of all checkpoints.
        state: what `read_checkpoint` will return.
        adapter: the adapter of the step.
        keep: checkpoints to keep.
        settings: see `Manifest`.

    Returns:
        The folder of the checkpoint.

    Raises:
        StorageError: it could not be written. The earlier checkpoints are unchanged.
    """
    target = folder / _NAME.format(state["step"])
    with replace_folder(target) as partial:  # the step ran before if a worker was lost, with the same result
        adapter.save(partial / "adapter")
        data = io.BytesIO()
        torch.save(state, data)
        write_bytes(partial / STATE_FILE, data.getbuffer())
        manifest = {
            "format": RUN_FORMAT,
            "drpo": PROJECT_VERSION,
            "settings": dict(settings or {}),
            "files": _describe_files(partial),
        }
        write_text(partial / MANIFEST_FILE, json.dumps(manifest, indent=1) + "\n")
    earlier = [path for path in checkpoints(folder) if step_of(path) <= state["step"]]
    for old in earlier[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under a folder, whole or not, earliest step first."""
    return sorted((path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step of the checkpoint in a folder."""
    return int(path.name.removeprefix("step-"))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote, on the CPU.

    Raises:
        ModelLoadError: the file is missing or damaged.
    """
    try:
        return torch.load(path / STATE_FILE, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelLoadError(f"cannot read the checkpoint {path}: {reason[0]}") from error


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says about itself.

    Attributes:
        version: the version of the project that wrote it.
        settings: the settings that a run cannot change, by their dotted keys; see `drpo.training.resume`.
    """

    version: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewestCheckpoint:
    """The newest whole checkpoint of a run.

    Attributes:
        path: its folder; None if the run has no checkpoints yet.
        manifest: what it says about itself; None if an earlier version of the project wrote it.
        left_out: for each newer checkpoint, what is wrong with it.
    """

    path: Path | None
    manifest: Manifest | None = None
    left_out: tuple[str, ...] = ()


def find_newest_checkpoint(folder: Path) -> NewestCheckpoint:
    """Finds the newest whole checkpoint under a folder.

    Raises:
        ModelLoadError: there are checkpoints, but none is whole; or the folder cannot be read.
        ConfigError: a newer version of the project wrote it.
    """
    left_out: list[str] = []
    try:
        os.listdir(folder)  # a pattern finds nothing in a folder of another user
    except FileNotFoundError:
        return NewestCheckpoint(None)
    except OSError as error:
        raise ModelLoadError(f"the checkpoints in {folder} cannot be read: {error.strerror}") from error
    for path in reversed(checkpoints(folder)):
        try:
            return NewestCheckpoint(path, _check_whole(path), tuple(left_out))
        except ModelLoadError as error:
            left_out.append(str(error))
    if left_out:
        raise ModelLoadError(
            f"no checkpoint in {folder} is whole ({'; '.join(left_out)}). Restore one from a copy, or start a new run"
        )
    return NewestCheckpoint(None)


def _check_whole(path: Path) -> Manifest | None:
    """The manifest of a whole checkpoint; None if it has none, as those of earlier versions.

    Raises:
        ModelLoadError: the checkpoint is not whole.
        ConfigError: a newer version of the project wrote it.
    """
    if not (path / MANIFEST_FILE).exists():
        read_checkpoint(path)
        return None
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
        run_format, described = int(manifest["format"]), Manifest(str(manifest["drpo"]), dict(manifest["settings"]))
        files = {name: {"bytes": one["bytes"], "sha256": one["sha256"]} for name, one in manifest["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ModelLoadError(f"{path.name}: {MANIFEST_FILE} is damaged") from None
    check_format(path, described.version, run_format)
    try:
        found = _describe_files(path)
    except OSError as error:  # a bad disk, or files of another user
        raise ModelLoadError(f"{path.name}: {error.filename} cannot be read: {error.strerror}") from None
    for name, expected in files.items():
        if name not in found:
            raise ModelLoadError(f"{path.name}: {name} is missing")
        if found[name] != expected:
            size, right = found[name]["bytes"], expected["bytes"]
            problem = "has other content than it was written with" if size == right else f"has {size} of {right} bytes"
            raise ModelLoadError(f"{path.name}: {name} {problem}")
    return described


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    described = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and each.name != MANIFEST_FILE):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        described[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return described


def publish_adapter(adapter: Adapter, folder: Path) -> None:
    """Replaces the run's `adapter/` with the current adapter. It is never half written.

    Raises:
        StorageError: it could not be written. The old one is unchanged.
    """
    with replace_folder(folder) as partial:
        adapter.save(partial)
