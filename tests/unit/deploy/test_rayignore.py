"""What `ray job submit --working-dir .` sends: Ray's own packing, on a folder with this repository's ignore files."""

from __future__ import annotations

import shutil
from pathlib import Path

from ray._private.runtime_env.packaging import get_uri_for_directory
from support import ROOT


def test_logs_and_runs_do_not_change_what_is_sent(tmp_path: Path) -> None:
    """Ray packs the folder after it has hashed it. The log of `ray job submit ... > job.log` grows in between."""
    for name in (".rayignore", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "prompts.jsonl").write_text("{}")
    for respects_gitignore in (True, False):  # $RAY_RUNTIME_ENV_IGNORE_GITIGNORE
        before = get_uri_for_directory(str(tmp_path), respects_gitignore)
        for name in ("job.log", "nohup.out", "logs/today.log", "runs/mine/metrics.jsonl", ".venv/bin/ray"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"grows {respects_gitignore}")
        assert get_uri_for_directory(str(tmp_path), respects_gitignore) == before
    (tmp_path / "prompts.jsonl").write_text("{} {}")
    assert get_uri_for_directory(str(tmp_path), True) != before
