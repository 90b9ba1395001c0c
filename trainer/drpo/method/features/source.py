"""Where the files of a feature map are: on this machine, in the hub's cache, or on the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from drpo.errors import ModelLoadError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "*.pth"]
_WEIGHTS = (".safetensors", ".pth", ".bin")
PUBLIC_FILE = "mae_latent_256_torch.pth"
"""The name under which the public latent-MAE is distributed."""


def find_files(source: str | Path) -> Path | None:
    """The folder or file of a feature map; None if it is a hub id that must be downloaded first.

    Raises:
        ModelLoadError: the source is neither a path that exists nor a hub id.
    """
    path = Path(os.path.expanduser(source))
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(str(source)):
        raise ModelLoadError(f"there is no folder or file {source}; give one, or a hub id (owner/name)")
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", PUBLIC_FILE):
        cached = try_to_load_from_cache(str(source), file)
        if isinstance(cached, str) and _has_weights(Path(cached).parent):
            return Path(cached).parent
    return None


def _has_weights(folder: Path) -> bool:
    """Whether the cache holds more of a model than its config."""
    return any(file.suffix in _WEIGHTS for file in folder.iterdir())


def fetch_files(source: str | Path) -> Path:
    """The folder or file of a feature map, downloaded if it is a hub id that is not in the cache.

    Raises:
        ModelLoadError: there is no such path and no such model, or the hub cannot be reached.
    """
    found = find_files(source)
    if found is not None:
        return found
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=_FILES))
    except Exception as error:  # of the hub's library, of httpx, or of the operating system
        raise ModelLoadError(
            f"there is no folder {source}, and it cannot be had from the hub: {error}. Give a folder, or download it "
            f"first with `hf download {source}`"
        ) from error
