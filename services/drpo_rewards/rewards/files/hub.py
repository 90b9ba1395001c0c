"""Finding of a model's files on this machine: in a folder, or in the model hub's cache, which may be filled first.

Files in the cache are read without asking the hub. So a service whose files were downloaded starts without a network,
and always with the same files. Only `fetch` brings newer ones.
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
from drpo_rewards.rewards.files.model_files import ModelFiles, OneOf, choose, missing

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


class MissingFilesError(WeightsError):
    """Files of a model are not on this machine and cannot be downloaded now. The message names them."""


class HubError(WeightsError, ConnectionError):
    """The model hub could not be reached, or the connection broke."""


@dataclass(frozen=True)
class Fetched:
    """The files that `fetch` downloaded or found in the cache.

    Attributes:
        folder: the folder of the cache that holds them.
        revision: the repository's commit, 40 hexadecimal digits.
        files: their names inside `folder`.
    """

    folder: Path
    revision: str
    files: list[str]

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum((self.folder / name).stat().st_size for name in self.files)


def find(files: ModelFiles, source: str) -> Path:
    """Find the folder that holds all of the files. Missing files of a repository are downloaded.

    Args:
        files: the needed files.
        source: a folder or a hub id, as `files.source(options)` returns it.

    Raises:
        MissingFilesError: files are missing and cannot be downloaded now.
        WeightsError: a folder or repository does not have the files. The message names them.
    """
    folder = find_offline(files, source)
    if folder is not None:
        return folder
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise MissingFilesError(f"{explain_missing(files, source)}, and HF_HUB_OFFLINE is set")
    try:
        return fetch(files, source).folder
    except HubError as error:
        raise MissingFilesError(f"{explain_missing(files, source)}, and {error}") from error


def find_offline(files: ModelFiles, source: str) -> Path | None:
    """Find the folder without a download. Return None if a repository's files are not in the cache.

    Raises:
        WeightsError: a folder does not have the files.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        lacking = missing(files, folder)
        if lacking:
            raise WeightsError(f"there is no {' and no '.join(lacking)} in the folder {folder}")
        return folder
    cached = _cached_folder(*split_id(source))
    return cached if cached is not None and not missing(files, cached) else None


def is_folder(source: str) -> bool:
    """Return whether a source is a folder here, not a hub id."""
    return Path(source).expanduser().is_dir()


def cached_commit(source: str) -> str | None:
    """Return the commit of a repository whose files are in the cache; None for a folder."""
    cached = None if Path(source).expanduser().exists() else _cached_folder(*split_id(source))
    return cached.name if cached is not None else None


def may_be_asked() -> bool:
    """Return whether files may be downloaded: HF_HUB_OFFLINE is not set."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE


def explain_missing(files: ModelFiles, source: str) -> str:
    """Describe which files of a repository are not in the cache."""
    from huggingface_hub import constants

    repo, revision = split_id(source)
    cached = _cached_folder(repo, revision)
    lacking = missing(files, cached) if cached is not None else [_preferred(one_of) for one_of in files.required]
    at = f" at {revision}" if revision else ""
    return f"{', '.join(lacking)} of {repo}{at} is not in the hub's cache on this machine ({constants.HF_HUB_CACHE})"


def fetch(files: ModelFiles, source: str, report: Callable[[str], None] = lambda step: None) -> Fetched:
    """Download the files of a repository that are not in the cache yet, and check all of them.

    Their sizes and hashes are compared with the hub's. An interrupted download continues where it stopped.

    Args:
        files: the needed files.
        source: the hub id.
        report: called with a line of text when each step begins.

    Raises:
        WeightsError: the repository does not have the files, or they are damaged.
        HubError: the hub could not be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.hf_api import RepoFile

    repo, revision = split_id(source)
    api = HfApi()
    with _translate_errors(repo, revision):
        resolved: Any = api.resolve_revision(repo, revision=revision)
        tree = api.list_repo_tree(repo, recursive=True, revision=resolved.resolved)
        present = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    chosen = [choose(one_of, present) for one_of in files.required]
    lacking = [_all_alternatives(one_of) for one_of, names in zip(files.required, chosen, strict=True) if not names]
    if lacking:
        raise WeightsError(f"the repository {repo} has no {' and no '.join(lacking)}")
    wanted = [name for names in chosen for name in names] + [name for name in files.optional if name in present]
    with _translate_errors(repo, revision):
        for entry in (present[name] for name in wanted):
            if entry.lfs is not None:
                _fetch_large(repo, resolved.resolved, entry.path, entry.lfs.sha256, entry.lfs.size)
        folder = Path(snapshot_download(repo, revision=resolved, allow_patterns=wanted))
        report(f"comparing hashes of {repo}")
        _verify(api, repo, resolved, wanted)
    return Fetched(folder, resolved.resolved, wanted)


def split_id(source: str) -> tuple[str, str | None]:
    """Split owner/name@revision into two; the revision is None if there is none.

    Raises:
        WeightsError: `source` is not a hub id.
    """
    matched = _HUB_ID.fullmatch(source)
    if matched is None:
        raise WeightsError(
            f"{source!r} is neither a folder here nor an id of the hub (owner/name or owner/name@revision)"
        )
    return matched["repo"], matched["revision"]


def _cached_folder(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:  # without a pattern the library looks for the folder only; `missing` checks the files
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[]))
    except LocalEntryNotFoundError:
        return None


def _fetch_large(repo: str, commit: str, name: str, sha256: str, size: int) -> None:
    """Download a large file to where the hub's library looks for it, and continue where an earlier run stopped.

    The library itself continues only within one run. It deletes the partial file when it is interrupted, and these
    files have up to 17 GB.
    """
    from filelock import FileLock
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=repo, repo_type="model")
    blob, lock = cache / folder / "blobs" / sha256, cache / ".locks" / folder / f"{sha256}.lock"  # the library's paths
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
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
    """Compare hashes with the hub's, and download a damaged file once more. Raises WeightsError if it stays damaged."""
    from huggingface_hub import hf_hub_download

    def damaged() -> list[str]:
        checked = api.verify_repo_checksums(repo, revision=revision.resolved)
        return [wrong["path"] for wrong in checked.mismatches if wrong["path"] in files]

    for name in damaged():
        hf_hub_download(repo, name, revision=revision, force_download=True)
    still = damaged()
    if still:
        raise WeightsError(
            f"{', '.join(still)} of {repo} does not have the hash that the hub states, after two downloads"
        )


@contextmanager
def _translate_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Turn the exceptions of the hub's library into a WeightsError, or a HubError if another attempt may help."""
    from huggingface_hub import constants, errors

    try:
        yield
    except WeightsError:
        raise
    except errors.GatedRepoError as error:
        raise WeightsError(f"{repo} requires you to accept its terms on its page; then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"the hub has no repository {repo}, and there is no such folder; for a private one, run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"the repository {repo} has no revision {revision!r}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.ENOSPC, errno.EROFS):
            raise WeightsError(f"cannot write the files of {repo}: {error}") from error
        cause: BaseException = error
        while cause.__cause__ is not None:  # the library's message is a paragraph; its cause is one line
            cause = cause.__cause__
        reason = (str(cause).splitlines() or [""])[0]
        raise HubError(
            f"cannot fetch {repo} from the hub at {constants.ENDPOINT} ({type(cause).__name__}: {reason})"
        ) from error


def _preferred(one_of: OneOf) -> str:
    return " and ".join(one_of[0])


def _all_alternatives(one_of: OneOf) -> str:
    return " or ".join(" and ".join(alternative) for alternative in one_of)
