"""Look for a model of the hub, without downloading it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from drpo_rewards.findings import Finding

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_cached(repo: str) -> Path | None:
    """The folder of a model in the hub's cache; None if it is not there."""
    if not HUB_ID.fullmatch(repo):
        return None
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(repo, "model_index.json")
    return Path(index).parent if isinstance(index, str) else None


def check_hub(setting: str, repo: str) -> Finding:
    """Whether a model that is not in the cache can be downloaded when the start needs it."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    missing = f"{setting}: {repo!r} is neither a folder nor in the hub's cache ({constants.HF_HUB_CACHE})"
    if not HUB_ID.fullmatch(repo):
        fix = "give a diffusers folder, or a hub id (owner/name)"
        return Finding("models", setting, "wrong", f"{setting}: there is no folder {repo!r}", fix)
    if constants.HF_HUB_OFFLINE:
        return Finding("models", setting, "wrong", f"{missing}, and HF_HUB_OFFLINE is set", "download it first")
    try:
        HfApi().model_info(repo, timeout=10)
    except (RepositoryNotFoundError, HFValidationError):
        fix = "correct the name; for a private model run `hf auth login`"
        return Finding(
            "models", setting, "wrong", f"{setting}: there is no folder and no model {repo!r} on the hub", fix
        )
    except Exception as error:  # of httpx, of the hub's library, or of the operating system
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        found = f"{missing}, and the hub at {constants.ENDPOINT} cannot be reached ({reason})"
        return Finding("models", setting, "wrong", found, "download it where there is a network, or give a folder")
    if not os.access(_existing_parent(Path(constants.HF_HUB_CACHE)), os.W_OK):
        found = f"the hub's cache {constants.HF_HUB_CACHE} cannot be written, and {repo} must be downloaded into it"
        return Finding("models", setting, "wrong", f"{setting}: {found}", "set HF_HOME to a folder that can be written")
    return Finding("models", setting, "ok", f"{repo} will be downloaded from {constants.ENDPOINT}")


def _existing_parent(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
