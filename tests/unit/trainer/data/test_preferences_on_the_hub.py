"""Pick-a-Pic streamed over HTTP from a hub on this machine, in a process of its own: the address is read at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.local_hub import LocalHub, run_hub
from support.preferences import PROMPTS, write_pickapic

PROGRAM = """
import sys
from drpo.config import OfflineConfig
from drpo.data.preferences import find_preference_source, read_preference_prompts
from drpo.errors import ConfigError

for path, split in ((None, "train"), ("somebody/picks@main", "test"), (None, "trian"), ("no/such", "train")):
    settings = OfflineConfig(source="pickapic_v2", path=path, split=split)
    assert read_preference_prompts(settings) is None
    try:
        parts = find_preference_source("pickapic_v2").open_parts(settings)
        print([(part.name, [preference.prompt for preference in part.read()]) for part in parts])
    except ConfigError as error:
        print(error)
"""


@pytest.mark.thorough
def test_pickapic_is_streamed_file_by_file(tmp_path: Path) -> None:
    folder = write_pickapic(tmp_path / "repository")
    with run_hub(LocalHub({"yuvalkirstain/pickapic_v2": folder, "somebody/picks": folder})) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=240
        )
    assert done.returncode == 0, done.stderr
    train, test, no_split, no_set = done.stdout.splitlines()
    name = "yuvalkirstain/pickapic_v2 (train, file"
    assert train == str([(f"{name} 1)", list(PROMPTS)), (f"{name} 2)", list(PROMPTS[:2]))])
    assert test == str([("somebody/picks (test, file 1)", ["a test prompt"])])
    assert no_split.startswith("offline.path: cannot read yuvalkirstain/pickapic_v2: Bad split: trian")
    assert no_set.startswith("offline.path: cannot read no/such: ")
