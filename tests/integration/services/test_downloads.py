"""`drpo-rewards download` from a hub on this machine over real HTTP, and rewards that work offline afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT
from support.local_hub import LocalHub, run_hub
from support.tiny.all_rewards import write_all

pytestmark = pytest.mark.thorough

LARGE = "HPS_v2.1_compressed.pt"

# Each command in one process, because torch takes seconds to import: rows of (exit status, stdout, stderr)
RUN_ALL = """
import json, sys
from typer.testing import CliRunner
from drpo_rewards.cli import app
results = [CliRunner().invoke(app, command) for command in json.loads(sys.argv[1])]
print("RESULTS" + json.dumps([[one.exit_code, one.stdout, one.stderr] for one in results]))
"""
SCORE_ALL = """
from drpo_rewards import rewards
from drpo_rewards.rewards.checks import is_pairwise, probe
for name in rewards.CATALOGUE:
    options = getattr(rewards.load_class(name), "download_options", {})
    if not rewards.needed_files(name, options):
        continue
    reward = rewards.create(name, {**options, "device": "cpu"})
    assert len((reward.compare if is_pairwise(reward) else reward.score)([probe(reward)])) == 1
    assert len(reward.revision) == 40
    print(name)
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write tiny checkpoints under the names of the public ones, with other files that no reward needs."""
    folder = tmp_path_factory.mktemp("hub")
    write_all(folder)
    for place in folder.iterdir():
        (place / "pytorch_model.bin").write_bytes(b"the same once more")
        (place / "README.md").write_text("a card")
    hpsv2, hpsv3, image_reward = folder / "hpsv2", folder / "hpsv3", folder / "image_reward"
    return {
        "yuvalkirstain/PickScore_v1": folder / "clip",
        "openai/clip-vit-large-patch14": folder / "clip",
        "camenduru/improved-aesthetic-predictor": folder / "aesthetic",
        "xswu/HPSv2": hpsv2,
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": hpsv2,
        "MizzenAI/HPSv3": hpsv3,
        "Qwen/Qwen2-VL-7B-Instruct": hpsv3,
        "THUDM/ImageReward": image_reward,
        "google-bert/bert-base-uncased": image_reward,
        "facebook/mask2former-swin-small-coco-instance": folder / "geneval",
        "Qwen/Qwen3-VL-8B-Instruct": folder / "judge",
    }


@pytest.fixture
def hub(repositories: dict[str, Path]) -> Iterator[LocalHub]:
    with run_hub(LocalHub(dict(repositories))) as running:
        yield running


@pytest.fixture
def large(hub: LocalHub, tmp_path: Path) -> None:
    """Make an HPSv2 file that is large enough to interrupt; a training checkpoint may hold other data."""
    hub.repos["xswu/HPSv2"] = folder = tmp_path / "large"
    folder.mkdir()
    content = torch.load(hub.repos["laion/CLIP-ViT-H-14-laion2B-s32B-b79K"] / LARGE, weights_only=True)
    torch.save({**content, "optimizer": torch.zeros(6_000_000)}, folder / LARGE)


def environment(home: Path, url: str, **more: str) -> dict[str, str]:
    return {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def run(environ: dict[str, str], *commands: list[str]) -> list[tuple[int, str, str]]:
    program = [sys.executable, "-c", RUN_ALL, json.dumps(commands)]
    answer = subprocess.run(program, env=environ, capture_output=True, text=True, timeout=250)
    assert "RESULTS" in answer.stdout, answer.stderr
    return [(code, out, stderr) for code, out, stderr in json.loads(answer.stdout.rpartition("RESULTS")[2])]


def fetched(hub: LocalHub) -> set[str]:
    return {
        request.rpartition("/")[2].split(" ")[0]
        for request in hub.requests
        if request.startswith("GET /") and "/resolve/" in request
    }


def test_every_reward_is_downloaded_and_then_scores_offline(hub: LocalHub, tmp_path: Path) -> None:
    [(code, out, stderr)] = run(environment(tmp_path, hub.url), ["download", "--all", "--json"])
    assert code == 0, stderr
    rows: list[dict[str, Any]] = [row for row in json.loads(out) if row["files"]]
    assert {row["reward"] for row in rows} >= {"pickscore", "aesthetic", "hpsv2", "hpsv3", "image_reward", "geneval"}
    assert all(row["checked"] and not row["error"] for row in rows)
    for row in rows:
        assert row["revision"] == hub.commit(row["from"])
        assert all((Path(row["folder"]) / name).is_file() for name in row["files"])
    assert not fetched(hub) & {"pytorch_model.bin", "README.md"}
    of_clip = [
        request for request in hub.requests if request.startswith("GET /openai") and "model.safetensors" in request
    ]
    assert len(of_clip) == 1, "three rewards read it"

    offline = environment(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    answer = subprocess.run([sys.executable, "-c", SCORE_ALL], env=offline, capture_output=True, text=True, timeout=250)
    assert set(answer.stdout.split()) == {row["reward"] for row in rows}, answer.stderr


def test_offline_the_missing_file_and_the_command_are_named(hub: LocalHub, tmp_path: Path) -> None:
    run(environment(tmp_path, hub.url), ["download", "image_reward", "--json"])
    words = next(tmp_path.rglob("models--google-bert*/snapshots/*/vocab.txt"))
    words.unlink()
    picture = ROOT / "docs" / "report.png"
    score = ["--prompt", "p", str(picture)]
    [(code, _, stderr), (_, _, other)] = run(
        environment(tmp_path, hub.url, HF_HUB_OFFLINE="1"),
        ["score", "image_reward", *score],
        ["score", "hpsv2", "--option", "version=2.0", *score],
    )
    assert code == 2
    assert "vocab.txt or tokenizer.json of google-bert/bert-base-uncased is not in the hub's cache" in stderr
    assert "`drpo-rewards download image_reward` fetches it" in stderr
    assert "HPS_v2_compressed.pt of xswu/HPSv2 is not in the hub's cache" in other
    assert "`drpo-rewards download hpsv2 --option version=2.0` fetches it" in other


def test_a_killed_download_continues(hub: LocalHub, large: None, tmp_path: Path) -> None:
    hub.stall[LARGE] = 15_000_000
    command = [sys.executable, "-m", "drpo_rewards", "download", "hpsv2", "--json"]
    process = subprocess.Popen(command, env=environment(tmp_path, hub.url), stderr=subprocess.DEVNULL)
    assert hub.stalled.wait(200)
    partial = next(tmp_path.rglob("*.partial"))
    while not partial.stat().st_size:  # what was sent reaches the disk in pieces of ten megabytes
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    hub.resume.set()
    got = partial.stat().st_size
    answer = subprocess.run(command, env=environment(tmp_path, hub.url), capture_output=True, text=True, timeout=250)
    assert answer.returncode == 0, answer.stderr
    assert any(request.endswith(f"{LARGE} bytes={got}-") for request in hub.requests), hub.requests


def test_incomplete_or_damaged_files_are_fetched_again(hub: LocalHub, large: None, tmp_path: Path) -> None:
    hub.break_off[LARGE] = 15_000_000
    hub.garble["vocab.json"] = 1
    [(code, out, stderr)] = run(environment(tmp_path, hub.url), ["download", "hpsv2", "--json"])
    assert code == 0, stderr
    assert all(row["checked"] for row in json.loads(out))
    assert any(f"{LARGE} bytes=" in request for request in hub.requests)
    assert sum(request.startswith("GET") and request.endswith("vocab.json") for request in hub.requests) == 2


def test_errors_name_the_problem(hub: LocalHub, tmp_path: Path, repositories: dict[str, Path]) -> None:
    hub.garble["HPSv3.safetensors"] = 9
    hub.repos["somebody/clip"] = repositories["xswu/HPSv2"]
    hub.repos["somebody/other"] = repositories["facebook/mask2former-swin-small-coco-instance"]
    hub.repos.pop("THUDM/ImageReward")
    results = run(
        environment(tmp_path, hub.url),
        ["download", "hpsv3", "--json"],
        ["download", "clip", "--model", "somebody/clip", "--json"],
        ["download", "hpsv2", "--option", "version=2.0", "--json"],
        ["download", "image_reward", "--json"],
        ["download", "pickscore", "--revision", "v9", "--json"],
        ["download", "pickscore", "--revision", hub.commit("yuvalkirstain/PickScore_v1"), "--json"],
        ["download", "aesthetic", "--option", "clip=somebody/other", "--json"],
    )
    errors = [next((row["error"] for row in json.loads(out) if row["error"]), "") for _, out, _ in results]
    assert "HPSv3.safetensors of MizzenAI/HPSv3 does not have the hash that the hub states" in errors[0]
    assert "somebody/clip has no config.json" in errors[1]
    assert "xswu/HPSv2 has no HPS_v2_compressed.pt" in errors[2]
    assert "the hub has no repository THUDM/ImageReward" in errors[3]
    assert "yuvalkirstain/PickScore_v1 has no revision 'v9'" in errors[4]
    assert (results[5][0], errors[5]) == (0, "")
    assert (
        json.loads(results[5][1])[0]["from"] == f"yuvalkirstain/PickScore_v1@{hub.commit('yuvalkirstain/PickScore_v1')}"
    )
    assert "somebody/other has no tokenizer.json" in errors[6]
    assert [code for code, _, _ in results] == [1, 1, 1, 1, 1, 0, 1]


def test_no_network_a_service_config_and_invalid_arguments(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("rewards: {a: {type: clip}, b: {type: geneval}}")
    picture = ROOT / "docs" / "report.png"
    cache = tmp_path / "elsewhere"
    nowhere = environment(tmp_path / "home", "http://127.0.0.1:9", COLUMNS="300")
    unreachable, score, nothing, two = run(
        nowhere,
        ["download", "clip"],
        ["score", "clip", "--prompt", "p", str(picture)],
        ["download"],
        ["download", "clip", "hpsv2", "--revision", "main"],
    )
    assert unreachable[0] == 1
    assert "cannot fetch openai/clip-vit-large-patch14 from the hub at http://127.0.0.1:9" in unreachable[1]
    assert "config.json, model.safetensors, tokenizer.json of openai/clip-vit-large-patch14 is not in" in score[2]
    assert nothing[0] == two[0] == 2
    [(code, out, stderr)] = run(
        environment(tmp_path / "home", hub.url, COLUMNS="300"),
        ["download", str(tmp_path / "my.yaml"), "--cache-dir", str(cache)],
    )
    assert code == 0, stderr
    assert next(cache.rglob("model.safetensors")).parent.name in out
    assert "declares no files" in out
    assert f"HF_HUB_CACHE={cache}" in stderr
