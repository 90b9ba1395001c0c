"""Encode the images of a preference set, once, by all workers of a run.

Encoding goes in rounds. In each, every worker encodes one block of preferences, and then all of them learn whether one
has failed and whether all are done. So no worker waits for another for longer than a block takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from drpo.config import Config
from drpo.data.preferences import Part, Picture, Preference, find_preference_source
from drpo.data.preferences.cache import BLOCK, Entry, LatentCache, find_cache_folder
from drpo.data.preferences.pictures import read_picture
from drpo.data.seeds import derive_seed
from drpo.errors import ConfigError
from drpo.generators.base import OneStepGenerator
from drpo.generators.encoding import encode_images, identify_vae
from drpo.training import collective
from drpo.training.files import write_text


def find_cache(config: Config, generator: OneStepGenerator) -> LatentCache:
    """The cache of the preference set in `config.offline`: one folder for each set, autoencoder, size and posterior.

    Raises:
        ConfigError: the set cannot be read.
    """
    settings = config.offline
    assert settings is not None
    source = find_preference_source(settings.source)
    parts = (settings.source, source.identify(settings), identify_vae(generator.vae), *generator.image_size)
    key = hashlib.sha256("/".join(map(str, (*parts, settings.posterior))).encode()).hexdigest()[:20]
    return LatentCache(find_cache_folder(config) / key)


def encode_preferences(
    config: Config, generator: OneStepGenerator, progress: Callable[[int], None] | None = None
) -> LatentCache:
    """Encodes what of a preference set is not yet encoded. Every worker of a run must call this.

    Args:
        config: has a section `offline`.
        generator: its autoencoder encodes.
        progress: called on each worker with the number of preferences that all of them have done.

    Returns:
        The complete cache.

    Raises:
        DrpoError: the set is empty, one of it cannot be read, or the cache cannot be written; on every worker.
    """
    cache = collective.call_together(lambda: find_cache(config, generator))
    if all(collective.gather(cache.complete)):
        return cache
    encoder = collective.call_together(lambda: _Encoder(config, generator, cache))
    blocks = encoder.encode_own_blocks()
    done = 0
    while True:
        count = sum(collective.gather(collective.call_together(lambda: next(blocks, 0))))
        if count == 0:
            break
        done += count
        if progress is not None:
            progress(done)
    if done == 0:
        raise ConfigError(f"offline: the source {encoder.settings.source} has no preferences")
    collective.call_together(lambda: cache.finish() if collective.rank() == 0 else None)
    if not all(collective.gather(cache.complete)):
        raise ConfigError(
            f"offline.cache: not every worker has what another one wrote to {cache.folder.parent}; choose a folder "
            "that all machines share"
        )
    return cache


class EncodingCount:
    """The number of encoded preferences, as a file in a run's folder, so that the driver can show it.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "encoded"
        self._last = ""

    def write(self, count: int) -> None:
        """Writes the number, on the first worker."""
        if collective.rank() == 0:
            write_text(self._path, str(count))

    def remove(self) -> None:
        """Removes the file, on the first worker."""
        if collective.rank() == 0:
            self._path.unlink(missing_ok=True)

    def read_if_new(self) -> int | None:
        """The number if it has changed since the last call; otherwise None."""
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        if text in ("", self._last):
            return None
        self._last = text
        return int(text)


@dataclass
class _Block:
    """The different pictures of some preferences, with the position of the first preference that has each."""

    rows: dict[Picture, int] = field(default_factory=dict)
    positions: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def add(self, preference: Preference) -> None:
        chosen = [self._row(picture, preference.position) for picture in preference.chosen]
        rejected = [self._row(picture, preference.position) for picture in preference.rejected]
        self.entries.append((preference.prompt, chosen, rejected))

    def _row(self, picture: Picture, position: str) -> int:
        if picture not in self.rows:
            self.rows[picture] = len(self.rows)
            self.positions.append(position)
        return self.rows[picture]


class _Encoder:
    """One worker's share of the encoding."""

    def __init__(self, config: Config, generator: OneStepGenerator, cache: LatentCache) -> None:
        assert config.offline is not None
        self.settings = config.offline
        self.generator = generator
        self.cache = cache
        self.parts = find_preference_source(self.settings.source).open_parts(self.settings)

    def encode_own_blocks(self) -> Iterator[int]:
        """Encodes the blocks of this worker that are not there, and yields the preferences of each block.

        With fewer files than workers, the workers divide the blocks of each file, otherwise the files.
        """
        workers, rank = collective.world_size(), collective.rank()
        whole_files = len(self.parts) >= workers
        for number, part in enumerate(self.parts):
            if whole_files and number % workers != rank:
                continue
            for index, preferences in enumerate(_split(part)):
                if whole_files or index % workers == rank:
                    name = f"{number:05d}-{index * BLOCK:07d}.safetensors"
                    if not self.cache.has(name):
                        self._encode_block(name, preferences)
                    yield len(preferences)

    def _encode_block(self, name: str, preferences: list[Preference]) -> None:
        block = _Block()
        for preference in preferences:
            block.add(preference)
        sample = self.settings.posterior == "sample"
        random = torch.Generator().manual_seed(derive_seed("posterior", name)) if sample else None
        pictures = zip(block.rows, block.positions, strict=True)
        latents = []
        while batch := list(islice(pictures, self.settings.batch_size)):
            images = [read_picture(picture, self.generator.image_size, position) for picture, position in batch]
            latents.append(encode_images(self.generator.vae, torch.stack(images), random).cpu())
        self.cache.write(name, torch.cat(latents), block.entries)


def _split(part: Part) -> Iterator[list[Preference]]:
    """The preferences of a file, in blocks."""
    rows = part.read()
    while block := list(islice(rows, BLOCK)):
        yield block
