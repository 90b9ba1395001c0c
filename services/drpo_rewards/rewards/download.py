"""Fetching and checking of a reward's files from the model hub, for `drpo-rewards download`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from drpo_rewards import rewards
from drpo_rewards.errors import ConfigError, RewardsError
from drpo_rewards.rewards.files import hub
from drpo_rewards.rewards.files.hub import Fetched
from drpo_rewards.rewards.files.model_files import ModelFiles


@dataclass
class DownloadRow:
    """The result for one ModelFiles of a reward.

    Attributes:
        reward: the reward's type.
        source: the folder or hub id.
        license: the licence of the files.
        revision: the commit; None for a folder.
        folder: where the files are; None if they were not fetched.
        files: names of the fetched files; empty for a folder.
        bytes: their size.
        checked: whether every key and shape fits the reward.
        skipped: why the keys and shapes were not checked, if they were not.
        error: what went wrong; empty if nothing did.
    """

    reward: str
    source: str = ""
    license: str = ""
    revision: str | None = None
    folder: str | None = None
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    checked: bool = False
    skipped: str = ""
    error: str = ""


class Downloader:
    """Fetches the files of one reward after another. Files that several rewards share are fetched once.

    Args:
        report: called with a line of text when each step begins.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._fetched: dict[tuple[str, ModelFiles], Fetched] = {}

    def fetch(self, kind: str, options: dict[str, Any]) -> list[DownloadRow]:
        """Fetch a reward's files. Return one row per ModelFiles; after an error, its row is the last one."""
        rows: list[DownloadRow] = []
        try:
            needed = rewards.needed_files(kind, options)
            if not needed:
                return [DownloadRow(kind, "(it declares no files)")]
            for files, source in needed:
                rows.append(DownloadRow(kind, source, files.license))
                self._fetch_files(rows[-1], files)
            if rewards.accepts_headers_only(kind):
                rewards.create(kind, options, headers_only=True)
            for row in rows:
                row.checked = rewards.accepts_headers_only(kind)
                row.skipped = "" if row.checked else "its constructor has no argument `headers_only`"
        except RewardsError as error:
            rows = rows or [DownloadRow(kind)]
            rows[-1].error = str(error)
        return rows

    def _fetch_files(self, row: DownloadRow, files: ModelFiles) -> None:
        if hub.is_folder(row.source):
            row.folder = str(hub.find(files, row.source))
            return
        key = row.source, replace(files, option="", subfolder="")
        if key not in self._fetched:
            self._report(f"{row.reward}: {row.source}, about {files.gigabytes:g} GB")
            self._fetched[key] = hub.fetch(files, row.source, self._report)
        fetched = self._fetched[key]
        row.folder, row.revision, row.files = str(fetched.folder), fetched.revision, fetched.files
        row.bytes = fetched.bytes


def at_revision(kind: str, options: dict[str, Any], revision: str) -> dict[str, Any]:
    """Return the options with the model's repository at this commit, tag or branch.

    Raises:
        ConfigError: the reward reads no model.
    """
    needed = rewards.needed_files(kind, options)
    source = next((source for files, source in needed if files.option == "model"), None)
    if source is None:
        raise ConfigError(f"reward {kind!r} has no model, so it cannot have the revision {revision!r}")
    return {**options, "model": f"{source.partition('@')[0]}@{revision}"}
