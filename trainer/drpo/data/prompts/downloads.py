"""The files of public prompt sets: `drpo prompts download` fetches them, and from then on no network is needed.

They lie in FOLDER/NAME. FOLDER is $DRPO_DATA or, without it, the folder `drpo` in $HF_HOME. Files that were copied
there by hand do as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from drpo.data.prompts.source import Origin, RemoteFile
from drpo.errors import ConfigError, DownloadError

DATA_VARIABLE = "DRPO_DATA"
RECEIPT = "download.json"

_SHARD = re.compile(r"-\d+-of-(\d+)\b")
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Downloaded:
    """A file that was downloaded.

    Attributes:
        name: its path below the folder of the set.
        bytes: its size.
        sha256: of its content.
        compared_with: whose hash the content was compared with.
    """

    name: str
    bytes: int
    sha256: str
    compared_with: str


def data_folder() -> Path:
    """The folder that holds a folder for each downloaded set."""
    folder = os.environ.get(DATA_VARIABLE)
    if folder:
        return Path(folder).expanduser()
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "drpo"


def find_files(name: str, origin: Origin, pattern: str) -> list[Path]:
    """The files of the set `name` on this machine that match a pattern, sorted.

    Raises:
        ConfigError: there are none, or not all parts of one.
    """
    folder = data_folder() / name
    if not any(fnmatchcase(pattern, file.name) for file in origin.files):
        raise ValueError(f"the origin of {name} has no file {pattern}")
    found = sorted(folder.glob(pattern))
    shards = _SHARD.search(found[0].name) if found else None
    if not found or (shards and len(found) != int(shards[1])):
        what = f"{len(found)} of {int(shards[1])} parts of {pattern}" if shards else f"no {pattern}"
        raise ConfigError(
            f"the prompt set {name} is not on this machine (there is {what} in {folder}): run "
            f"`drpo prompts download {name}`, or copy its files there from {origin.homepage}"
        )
    return found


def read_receipt(name: str) -> dict[str, Any] | None:
    """What `download` wrote about the set `name`: its revision and files; None if it was not downloaded."""
    path = data_folder() / name / RECEIPT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def download(name: str, origin: Origin) -> list[Downloaded]:
    """Downloads all files of the set `name` into the data folder, and shows progress. All of them arrive, or none.

    Hashes are compared with those that are known here, and with those that the hub states.

    Raises:
        DownloadError: a file cannot be fetched or written, or has another hash.
    """
    folder = data_folder() / name
    partial = folder.with_name(f"{name}.partial")
    with _explain_errors(name, origin):
        partial.mkdir(parents=True, exist_ok=True)
        if origin.repository is not None:
            revision, fetched = _fetch_repository(origin, partial)
        else:
            revision, fetched = origin.revision, [_fetch_url(file, partial) for file in origin.files]
        receipt = {"revision": revision, "files": [asdict(file) for file in fetched]}
        (partial / RECEIPT).write_text(json.dumps(receipt, indent=1) + "\n", encoding="utf-8")
        for moved in (*(file.name for file in fetched), RECEIPT):
            (folder / moved).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / moved, folder / moved)
        shutil.rmtree(partial)
    return fetched


def _fetch_repository(origin: Origin, folder: Path) -> tuple[str, list[Downloaded]]:
    """Fetches what matches the origin's files. Returns the commit, and the files."""
    from huggingface_hub import HfApi, hf_hub_download

    assert origin.repository is not None
    info = HfApi().dataset_info(origin.repository, revision=origin.revision, files_metadata=True)
    present = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    fetched = []
    for file in origin.files:
        names = sorted(name for name in present if fnmatchcase(name, file.name))
        if not names:
            raise DownloadError(f"the data set {origin.repository} has no file {file.name} at {origin.revision}")
        for name in names:
            path = hf_hub_download(origin.repository, name, repo_type="dataset", revision=info.sha, local_dir=folder)
            fetched.append(_check(Path(path), name, file.sha256, present[name]))
    return info.sha or origin.revision, fetched


def _fetch_url(file: RemoteFile, folder: Path) -> Downloaded:
    import httpx
    from huggingface_hub.utils import tqdm

    assert file.url is not None
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with httpx.stream("GET", file.url, follow_redirects=True, timeout=_TIMEOUT_S) as response:
        response.raise_for_status()
        total = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        with path.open("wb") as out, tqdm(total=total, desc=file.name, unit="B", unit_scale=True) as bar:
            for chunk in response.iter_bytes():
                out.write(chunk)
                bar.update(len(chunk))
    return _check(path, file.name, file.sha256)


def _check(path: Path, name: str, known: str | None, stated: Any = None) -> Downloaded:
    """Compares a file with the known hash, or else with the one that the hub states for it."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    found, expected, whose = sha256, known, "the hash in this project"
    if expected is None and stated is not None:
        whose = "the hub's hash"
        if stated.lfs is not None:
            expected = stated.lfs.sha256
        else:  # of a small file the hub states git's hash
            found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            expected = stated.blob_id
    if expected is not None and found != expected:
        path.unlink()
        raise DownloadError(
            f"{name} has the hash {found}, not {expected}: the download is damaged or the file has changed; try again"
        )
    return Downloaded(name, len(content), sha256, whose if expected is not None else "nothing")


@contextmanager
def _explain_errors(name: str, origin: Origin) -> Iterator[None]:
    """Turns the exceptions of the network, the hub's library and the file system into a DownloadError."""
    try:
        yield
    except DownloadError as error:
        raise DownloadError(f"cannot download the prompt set {name}: {error}") from error
    except Exception as error:  # httpx, huggingface_hub and their parts raise many kinds
        cause: BaseException = error
        while cause.__cause__ is not None:  # a library's message is a paragraph; its cause is one line
            cause = cause.__cause__
        reason = (str(cause).splitlines() or [""])[0]
        raise DownloadError(
            f"cannot download the prompt set {name} ({type(cause).__name__}: {reason}); its page is {origin.homepage}"
        ) from error
