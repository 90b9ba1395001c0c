"""The encoded images of a preference set on the disk: one file per block of preferences, and an index at the end.

A folder holds one set, encoded by one autoencoder at one size:

blocks/PART-START.safetensors   the latents of the different images of up to 256 preferences, and which are chosen or
                                rejected for which prompt (in the file's metadata)
index.jsonl                     one line per prompt, with the place of each of its images; written when all blocks are
                                there

A block is written whole or not at all, so encoding that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from drpo.config import Config
from drpo.data.preferences.record import Side
from drpo.errors import StorageError

BLOCK = 256
"""Preferences of one block."""

BYTES_PER_NUMBER = 2
"""Latents are kept in half precision."""

_INDEX = "index.jsonl"
_FOLDER = ".latents"

Place = tuple[str, int]
"""The block of an image, and its row in it."""

Entry = tuple[str, list[int], list[int]]
"""A prompt, and the rows of its chosen and of its rejected images in a block."""


def find_cache_folder(config: Config) -> Path:
    """Where a run keeps the encoded images of all its preference sets."""
    assert config.offline is not None
    return config.offline.cache if config.offline.cache is not None else config.run.folder / _FOLDER


@dataclass
class PromptImages:
    """The images of one prompt. An image that was chosen twice is there twice."""

    chosen: list[Place] = field(default_factory=list)
    rejected: list[Place] = field(default_factory=list)

    def of(self, side: Side) -> list[Place]:
        """The images of one side."""
        return self.chosen if side == "chosen" else self.rejected


class LatentCache:
    """The folder of an encoded preference set.

    Args:
        folder: it is made when the first block is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks = folder / "blocks"
        self._open = lru_cache(maxsize=64)(lambda name: safe_open(self._blocks / name, framework="pt"))

    @property
    def complete(self) -> bool:
        """Whether every image is encoded."""
        return (self.folder / _INDEX).is_file()

    def has(self, block: str) -> bool:
        """Whether a block is there and whole."""
        try:
            return self._blocks.joinpath(block).is_file() and bool(self._open(block).metadata())
        except (SafetensorError, OSError):
            return False

    def write(self, block: str, latents_NChw: Tensor, entries: Sequence[Entry]) -> None:
        """Writes a block.

        Raises:
            StorageError: it cannot be written.
        """
        metadata = {"entries": json.dumps(entries, ensure_ascii=False)}
        _replace(self._blocks / block, save({"latents": latents_NChw.half().contiguous()}, metadata))

    def finish(self) -> None:
        """Writes the index.

        Raises:
            StorageError: it cannot be written.
        """
        found: dict[str, PromptImages] = {}
        for path in sorted(self._blocks.glob("*.safetensors")):
            for prompt, chosen, rejected in json.loads(self._open(path.name).metadata()["entries"]):
                images = found.setdefault(prompt, PromptImages())
                images.chosen += [(path.name, row) for row in chosen]
                images.rejected += [(path.name, row) for row in rejected]
        lines = [
            json.dumps({"prompt": prompt, "chosen": images.chosen, "rejected": images.rejected}, ensure_ascii=False)
            for prompt, images in found.items()
        ]
        _replace(self.folder / _INDEX, "".join(f"{line}\n" for line in lines).encode())

    def read_index(self) -> dict[str, PromptImages]:
        """The images of each prompt."""
        return {line["prompt"]: PromptImages(line["chosen"], line["rejected"]) for line in self._read_lines()}

    def _read_lines(self) -> Iterator[dict[str, Any]]:
        with (self.folder / _INDEX).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def read(self, places: Sequence[Place]) -> Tensor:
        """The latents (N, C, h, w) float32 of N images."""
        return torch.stack([self._open(block).get_slice("latents")[row] for block, row in places]).float()


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole, or leaves the old one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
