"""The pictures of a row on the disk, with a manifest. What is there is never generated again.

    OUT/pictures/ROW/row.json                 what the row is
    OUT/pictures/ROW/SET/manifest-0.jsonl     a line for each picture, with its prompt, written after the picture
    OUT/pictures/ROW/SET/SEED.png

Each worker appends to a manifest of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drpo.errors import ConfigError
from drpo.evaluation.plan import PlannedImage
from drpo.evaluation.table.painters import Model, Painter
from drpo.evaluation.table.prompt_set import PromptSet
from drpo.training.files import storing, write_bytes, write_text

Key = tuple[str, str, int]
"""Task, prompt and noise seed: `PlannedImage.key`."""

ROW_FILE = "row.json"


class PictureFolder:
    """The pictures of one row for one set of prompts.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: dict[Key, dict[str, Any]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Reads the manifests again."""
        self._lines = {}
        for manifest in sorted(self.folder.glob("manifest-*.jsonl")):
            for line in read_lines(manifest):
                self._lines[line["task"], line["prompt"], line["seed"]] = line

    def missing(self, planned: Sequence[PlannedImage]) -> list[PlannedImage]:
        """The planned images that are not there."""
        there = self.keys()
        return [one for one in planned if one.key not in there]

    def keys(self) -> set[Key]:
        """The task, prompt and seed of every picture that is there."""
        there = {file.name for file in self.folder.glob("*.png")}
        return {key for key, line in self._lines.items() if line["file"] in there}

    def read(self, key: Key) -> NDArray[np.uint8]:
        """A picture (H, W, 3)."""
        with Image.open(self.folder / self._lines[key]["file"]) as picture:
            return np.asarray(picture.convert("RGB"))

    def metadata(self, key: Key) -> dict[str, Any] | None:
        """The metadata of a picture's prompt; None if it has none."""
        return self._lines[key].get("metadata")

    def renew_metadata(self, planned: Sequence[PlannedImage]) -> None:
        """Gives the manifests the metadata that prompts have now: a picture depends on its prompt alone.

        Raises:
            StorageError: a manifest could not be written.
        """
        now = {one.key: _plain(one.record.metadata) for one in planned}
        for manifest in self.folder.glob("manifest-*.jsonl"):
            lines = read_lines(manifest)
            keys = [(line["task"], line["prompt"], line["seed"]) for line in lines]
            renewed = [
                {**line, "metadata": now.get(key, line.get("metadata"))} for key, line in zip(keys, lines, strict=True)
            ]
            if renewed != lines:
                write_text(manifest, "".join(json.dumps(line) + "\n" for line in renewed))
        self.refresh()

    def draw(
        self,
        planned: Sequence[PlannedImage],
        painter: Painter,
        *,
        batch_size: int,
        worker: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Generates pictures and keeps them, in batches.

        Args:
            planned: those to generate; see `missing`.
            painter: generates them.
            batch_size: pictures at once.
            worker: the number of the manifest.
            progress: called with the number of pictures of each batch.
        """
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        manifest = self.folder / f"manifest-{worker}.jsonl"
        for start in range(0, len(planned), batch_size):
            batch = planned[start : start + batch_size]
            lines = []
            for one, picture_HWC in zip(batch, painter(batch), strict=True):
                file = f"{one.seed:016x}.png"
                buffer = io.BytesIO()
                Image.fromarray(picture_HWC).save(buffer, "PNG", compress_level=1)
                write_bytes(self.folder / file, buffer.getbuffer())
                record = one.record
                metadata = _plain(record.metadata)
                line = {"file": file, "task": record.task, "prompt": record.prompt, "metadata": metadata}
                lines.append({**line, "number": one.number, "seed": one.seed})
            append_lines(manifest, lines)
            if progress is not None:
                progress(len(batch))
        self.refresh()


def digest_metadata(metadata: Mapping[str, Any] | None) -> str:
    """A few characters that tell whether a prompt's metadata are those of another day."""
    return hashlib.sha256(json.dumps(_plain(metadata), sort_keys=True).encode()).hexdigest()[:16]


def _plain(metadata: Mapping[str, Any] | None) -> Any:
    """Metadata as a file of JSON has them."""
    return None if metadata is None else json.loads(json.dumps(dict(metadata)))


def open_row(out: Path, model: Model) -> Path:
    """The folder of a row's pictures.

    Raises:
        ConfigError: there are pictures of another model under this name.
    """
    folder = out / "pictures" / model.row.folder
    identity = json.loads(json.dumps(model.identify()))
    try:
        earlier: dict[str, Any] | None = json.loads((folder / ROW_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        earlier = None
    if earlier is None:
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / ROW_FILE, json.dumps({"name": model.row.name, "is": identity}, indent=1) + "\n")
    elif earlier.get("is") != identity:
        changed = [key for key in identity if identity[key] != earlier.get("is", {}).get(key)]
        raise ConfigError(
            f"--row {model.row.name}: {folder} has pictures of another model ({', '.join(changed)} differs); give the "
            "row another name, choose another --out, or delete that folder"
        )
    return folder


def draw_missing(
    folder: Path,
    model: Model,
    sets: Sequence[PromptSet],
    load: Callable[[Model], Painter],
    *,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Generates what is missing of a row, or the share of one of several workers.

    Args:
        folder: see `open_row`.
        model: the row.
        sets: the sets of prompts.
        load: loads its painter; only called if something is missing.
        batch_size: pictures at once.
        worker, workers: the number of this worker, from 0, and of all.
        progress: called with the number of pictures of each batch.
    """
    painter: Painter | None = None
    for prompts in sets:
        pictures = PictureFolder(folder / prompts.folder)
        mine = pictures.missing(prompts.planned[worker::workers])
        if mine:
            painter = painter if painter is not None else load(model)
            pictures.draw(mine, painter, batch_size=batch_size, worker=worker, progress=progress)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines. The last one may be cut, if the process was killed while writing it."""
    lines = []
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    for text in content.split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def append_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Appends JSON lines to a file, after a line break if its last line was cut.

    Raises:
        StorageError: they could not be written.
    """
    with storing(path), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
