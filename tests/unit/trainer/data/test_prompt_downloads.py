"""`drpo prompts`: public sets from a hub on this machine over real HTTP, and what works offline afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from support.local_hub import LocalHub, run_hub

from drpo.config import PromptsConfig
from drpo.data.prompts import load_prompts
from drpo.data.prompts.downloads import download, find_files, read_receipt
from drpo.data.prompts.source import RemoteFile
from drpo.data.prompts.sources import drawbench, hpdv2, parti
from drpo.errors import DownloadError

STYLES = ("anime", "concept-art", "paintings", "photo")

# All commands in one process, because the libraries take seconds to import: rows of [exit status, stdout, stderr]
RUN_ALL = """
import json, sys
from typer.testing import CliRunner
from drpo.cli import app
from drpo.errors import DrpoError
results = []
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, (DrpoError, SystemExit)):
        raise result.exception
    results.append([result.exit_code, result.stdout, str(result.exception)])
print("RESULTS" + json.dumps(results))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """Data sets in their public layout, with other files that no command needs."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "hpdv2" / "benchmark" / "benchmark_imgs").mkdir(parents=True)
    for style in STYLES:
        (folder / "hpdv2" / "benchmark" / f"{style}.json").write_text(json.dumps([f"{style} {n}" for n in range(9)]))
    (folder / "hpdv2" / "benchmark" / "benchmark_imgs" / "CM.tar.gz").write_bytes(b"139 MB of pictures")
    (folder / "pickapic" / "data").mkdir(parents=True)
    test = pandas.DataFrame({"caption": [f"caption {n}" for n in range(424)], "has_label": True, "label_0": 1.0})
    test.to_parquet(folder / "pickapic" / "data" / "test_unique-00000-of-00001-a1.parquet")  # large: known by SHA-256
    for part in range(2):
        train = pandas.DataFrame({"caption": [f"new {part}", f"Caption {part}"]})
        train.to_parquet(folder / "pickapic" / "data" / f"train-0000{part}-of-00002-b2.parquet")
    (folder / "drawbench" / "data").mkdir(parents=True)
    another = pandas.DataFrame({"prompts": ["not the official ones"], "category": [0]})
    another.to_parquet(folder / "drawbench" / "data" / "test-00000-of-00001.parquet")
    (folder / "words").mkdir()
    (folder / "words" / "train.csv").write_text("words,group\na cat [red],x\na dog,y\n")
    repositories = {
        "zhwang/HPDv2": "hpdv2",
        "yuvalkirstain/pickapic_v2_no_images": "pickapic",
        "Jialuo21/DrawBench": "drawbench",
        "me/words": "words",
        "google-research/parti": "words",
    }
    revisions = {
        origin.repository: (origin.revision,)
        for origin in (hpdv2.ORIGIN, drawbench.ORIGIN)
        if origin.repository is not None
    }
    repos = {name: folder / place for name, place in repositories.items()}
    with run_hub(LocalHub(repos=repos, revisions=revisions)) as running:
        yield running


def run_all(commands: list[list[str]], **environment: str) -> list[tuple[int, str, str]]:
    ran = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr
    return [tuple(row) for row in json.loads(ran.stdout.partition("RESULTS")[2])]


@pytest.mark.thorough
def test_sets_are_downloaded_and_work_offline_afterwards(hub: LocalHub, tmp_path: Path) -> None:
    words = ["show", "hub", "--path", "me/words", "--column", "words", "--task-column", "group"]
    pickapic = ["show", "pickapic_v2"]
    shown = [["show", "hpdv2", "--count", "1"], [*pickapic, "--split", "test"], pickapic, words]
    home = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    commands = [["download", "hpdv2", "pickapic_v2", "geneval"], ["download", "drawbench"], words, ["list"]]
    downloaded, refused, _, listed = run_all([["prompts", *command] for command in commands], **home)
    assert downloaded[0] == 0, downloaded
    assert "train-00001-of-00002-b2.parquet" in downloaded[1]
    assert downloaded[1].count("the hub's hash") == 4 + 3
    assert "geneval: made here" in downloaded[1]
    assert not any("CM.tar.gz" in request for request in hub.requests)
    assert refused[0] == 1
    assert "has the hash" in refused[2]
    assert not (tmp_path / "drpo" / "drawbench").exists()
    assert listed[1].count("on this machine") == 5
    assert listed[1].count("not on this machine: drpo prompts download") == 3
    receipt = json.loads((tmp_path / "drpo" / "hpdv2" / "download.json").read_text())
    assert receipt["revision"] == hub.commit("zhwang/HPDv2")

    before = len(hub.requests)
    home |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    hpd, test, train, column = run_all([["prompts", *command] for command in shown], **home)
    assert len(hub.requests) == before
    assert "36 prompts" in hpd[1]
    assert f"at {hub.commit('zhwang/HPDv2')}. Licence: Apache-2.0" in hpd[1]
    assert "424 prompts" in test[1]
    assert "without a task: 2\n  new 0\n  new 1\n" in train[1]
    assert "x: 1\n  a cat [red]\ny: 1\n  a dog\n" in column[1]


def test_a_column_of_the_hub_that_is_not_there(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "train.csv").write_text("words,group\na cat,x\n,y\n")
    settings = PromptsConfig(source="hub", path=str(tmp_path / "words"))
    for change, message in (
        ({"column": "word"}, r"prompts\.column: .* has no column 'word'; choose from words, group"),
        ({"split": "test"}, "cannot load the split 'test'"),
        ({"column": "words"}, 'split train:row 2: "words" is empty'),
    ):
        with pytest.raises(ValueError, match=message):
            load_prompts(settings.model_copy(update=change))


def test_a_file_from_an_address_is_compared_with_its_hash(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRPO_DATA", str(tmp_path))
    url = f"{hub.url}/google-research/parti/resolve/main/train.csv"
    origin = replace(parti.ORIGIN, files=(RemoteFile(parti.FILE, url=url),))
    (file,) = download("parti", origin)
    assert (file.bytes, file.compared_with) == (34, "nothing")
    assert find_files("parti", origin, parti.FILE)[0].read_text().startswith("words,group")
    assert read_receipt("parti") == {"revision": parti.COMMIT, "files": [vars(file)]}

    known = replace(origin, files=(replace(origin.files[0], sha256=file.sha256),))
    assert download("parti", known)[0].compared_with == "the hash in this project"
    hub.garble["train.csv"] = 1
    with pytest.raises(DownloadError, match=rf"cannot download the prompt set parti: .* not {file.sha256}"):
        download("parti", known)
    assert find_files("parti", origin, parti.FILE)[0].read_text().startswith("words,group")  # the good one stays
    assert download("parti", known)[0].sha256 == file.sha256  # what is left of the bad one is no obstacle

    hub.break_off["train.csv"] = 10
    with pytest.raises(DownloadError, match="cannot download the prompt set parti"):
        download("parti", known)
    for path, reason in (("/nobody/nothing", "404"), ("", "404")):
        gone = replace(origin, files=(RemoteFile(parti.FILE, url=hub.url + path),))
        with pytest.raises(DownloadError, match=reason):
            download("parti", gone)
