"""A part's files on this machine: in a folder, in the model hub's cache, or fetched into it.

What the cache has is read as it is and the hub is not asked, so a service that was downloaded starts without a network,
and starts again with the same files. `fetch` is what brings newer ones.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drpo_rewards.errors import WeightsError
from drpo_rewards.rewards.files.parts import Part, choose, missing

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


class MissingFilesError(WeightsError):
    """Files of a model are not on this machine and cannot be fetched now; says which."""


class HubError(WeightsError, ConnectionError):
    """The model hub cannot be asked, or broke off."""


@dataclass(frozen=True)
class Fetched:
    """What `fetch` brought, or found already there."""

    folder: Path
    revision: str  # the commit
    files: list[str]

    @property
    def bytes(self) -> int:
        return sum((self.folder / name).stat().st_size for name in self.files)


def find(part: Part, place: str) -> Path:
    """The folder where all files of the part lie; what is missing of a repository is downloaded.

    Raises WeightsError that names the files that are missing where, MissingFilesError where a download would help.
    """
    folder = here(part, place)
    if folder is not None:
        return folder
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _not_here(part, place, "HF_HUB_OFFLINE is set")
    try:
        return fetch(part, place).folder
    except HubError as error:
        raise _not_here(part, place, str(error)) from error


def is_local(place: str) -> bool:
    return Path(place).expanduser().is_dir()


def commit(place: str) -> str | None:
    """The commit of a repository whose files are in the cache; None for a folder."""
    cached = None if Path(place).expanduser().exists() else _cached(*split(place))
    return cached.name if cached is not None else None


def here(part: Part, place: str) -> Path | None:
    """`find` without a download: None where a repository's files are not in the cache."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        lacking = missing(part, folder)
        if lacking:
            raise WeightsError(f"there is no {' and no '.join(lacking)} in the folder {folder}")
        return folder
    cached = _cached(*split(place))
    return cached if cached is not None and not missing(part, cached) else None


def explain(part: Part, place: str) -> str:
    """Which files of a repository the cache lacks, in words."""
    from huggingface_hub import constants

    repo, revision = split(place)
    cached = _cached(repo, revision)
    wanted = missing(part, cached) if cached is not None else [_first(wanted) for wanted in part.files]
    at = f" at {revision}" if revision else ""
    return f"{', '.join(wanted)} of {repo}{at} is not in the hub's cache on this machine ({constants.HF_HUB_CACHE})"


def fetch(part: Part, place: str, step: Callable[[str], None] = lambda doing: None) -> Fetched:
    """Download the part's files of a repository, as far as they are not in the cache, and check them.

    Sizes and hashes are compared with the hub's; `step` is told what goes on. Raises WeightsError where the repository
    does not have the files, and HubError where the hub cannot be asked; a download that broke off goes on where it
    stopped.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.hf_api import RepoFile

    repo, revision = split(place)
    api = HfApi()
    with _told(repo, revision):
        resolved: Any = api.resolve_revision(repo, revision=revision)
        tree = api.list_repo_tree(repo, recursive=True, revision=resolved.resolved)
        there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    names = [choose(wanted, there) for wanted in part.files]
    lacking = [" or ".join(" and ".join(one) for one in wanted) for wanted in part.files if not choose(wanted, there)]
    if lacking:
        raise WeightsError(f"the repository {repo} has no {' and no '.join(lacking)}")
    files = [name for chosen in names for name in chosen] + [name for name in part.extra if name in there]
    with _told(repo, revision):
        for entry in (there[name] for name in files):
            if entry.lfs is not None:
                _fetch_large(repo, resolved.resolved, entry.path, entry.lfs.sha256, entry.lfs.size)
        folder = Path(snapshot_download(repo, revision=resolved, allow_patterns=files))
        step(f"comparing hashes of {repo}")
        _verify(api, repo, resolved, files)
    return Fetched(folder, resolved.resolved, files)


def split(place: str) -> tuple[str, str | None]:
    """owner/name@revision into its two halves. Raises WeightsError for what is no id of the hub."""
    matched = _HUB_ID.fullmatch(place)
    if matched is None:
        raise WeightsError(
            f"{place!r} is neither a folder here nor an id of the hub (owner/name or owner/name@revision)"
        )
    return matched["repo"], matched["revision"]


def _cached(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:  # no pattern, so that only the folder is looked for; which files must be there is ours to say
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[]))
    except LocalEntryNotFoundError:
        return None


def _fetch_large(repo: str, commit: str, name: str, sha256: str, size: int) -> None:
    """Download a large file to where the hub's library looks for it, and go on where an earlier run stopped.

    The library itself goes on only within a run: it throws away what it has when it is interrupted, and these files
    have up to 17 GB.
    """
    from filelock import FileLock
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repo, repo_type="model")
    blob, lock = cache / folder / "blobs" / sha256, cache / ".locks" / folder / f"{sha256}.lock"  # the library's own
    for place in (blob, lock):
        place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if blob.exists():
            return
        partial = blob.with_suffix(".partial")
        with partial.open("ab") as file:
            if file.tell() > size:
                file.truncate(0)
            url = hf_hub_url(repo, name, revision=commit)
            headers = build_hf_headers()
            http_get(url, file, resume_size=file.tell(), headers=headers, expected_size=size, displayed_filename=name)
        partial.rename(blob)


def _verify(api: Any, repo: str, revision: Any, files: list[str]) -> None:
    """Compare hashes with the hub's; a damaged file is fetched once more. Raises WeightsError."""
    from huggingface_hub import hf_hub_download

    def damaged() -> list[str]:
        checked = api.verify_repo_checksums(repo, revision=revision.resolved)
        return [wrong["path"] for wrong in checked.mismatches if wrong["path"] in files]

    for name in damaged():
        hf_hub_download(repo, name, revision=revision, force_download=True)
    still = damaged()
    if still:
        raise WeightsError(f"{', '.join(still)} of {repo} does not have the hash that the hub states, fetched twice")


@contextmanager
def _told(repo: str, revision: str | None) -> Iterator[None]:
    """Turns what the hub's library raises into a WeightsError, a HubError where asking again may help."""
    from huggingface_hub import constants, errors

    try:
        yield
    except WeightsError:
        raise
    except errors.GatedRepoError as error:
        raise WeightsError(f"{repo} wants its terms accepted: do so on its page, then `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"the hub has no repository {repo}, and here is no such folder; if it is private, `hf auth login` first"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"the repository {repo} has no revision {revision!r}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.ENOSPC, errno.EROFS):
            raise WeightsError(f"cannot write the files of {repo}: {error}") from error
        cause: BaseException = error
        while cause.__cause__ is not None:  # the library's own text is a paragraph; what it met says enough
            cause = cause.__cause__
        reason = (str(cause).splitlines() or [""])[0]
        raise HubError(
            f"the hub at {constants.ENDPOINT} cannot be asked for {repo} ({type(cause).__name__}: {reason})"
        ) from error


def _not_here(part: Part, place: str, why: str) -> MissingFilesError:
    return MissingFilesError(f"{explain(part, place)}, and {why}")


def _first(wanted: tuple[tuple[str, ...], ...]) -> str:
    return " and ".join(wanted[0])
