"""The commands of `drpo-rewards`, with a service that `serve` started, and the examples of the guide."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from PIL import Image
from support.service import Served, example, reachable_from_elsewhere

from drpo_rewards.v1 import ranking_pb2, ranking_pb2_grpc

pytestmark = pytest.mark.integration

SPEC = '{"include": [{"class": "circle", "color": "red"}]}'


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the guide's files: a.png has a red circle, b.png a blue one, and spec.json asks for a red one."""
    folder = tmp_path_factory.mktemp("pictures")
    subprocess.run([sys.executable, "-c", example("ImageDraw.Draw")], cwd=folder, check=True, timeout=60)
    return folder


def run(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    answer = subprocess.run(
        [sys.executable, "-m", "drpo_rewards", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=200, env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip
    assert answer.returncode == status, f"{arguments}\n{answer.stdout}\n{answer.stderr}"
    return answer


def test_no_port_can_be_reached_from_another_machine(served: Served) -> None:
    assert reachable_from_elsewhere(served.process.pid) == []


def test_the_ready_line_names_addresses_and_rewards(served: Served) -> None:
    assert served.http_url.startswith("http://127.0.0.1:")
    assert served.grpc_url.startswith("grpc://127.0.0.1:")
    answer = run(served.folder, "models", "--url", served.grpc_url, "--json")
    models = {model["name"]: model for model in json.loads(answer.stdout)}
    assert set(models) == {"sharpness", "geneval", "darkness", "default", "both"}
    assert models["sharpness"]["version"] == "sharpness-1"
    assert "geneval x 0.7, sharpness x 0.3" in run(served.folder, "models", "--url", served.http_url).stdout


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_rank(served: Served, pictures: Path, transport: str) -> None:
    url = served.http_url if transport == "http" else served.grpc_url
    given = ["rank", "--url", url, "--prompt", "a red circle", "--metadata", "spec.json", "b.png", "a.png"]
    answer = json.loads(run(pictures, *given, "--json").stdout)
    assert answer["order"] == [1, 0]
    assert answer["rewards"]["geneval"]["scores"] == [0.5, 1.0]
    table = run(pictures, *given).stdout
    assert table.index("a.png") < table.index("b.png")
    assert "expected 1 red circle, found blue" in table
    weighted = json.loads(run(pictures, *given, "--reward", "sharpness=3", "--reward", "geneval", "--json").stdout)
    assert weighted["rewards"]["sharpness"]["weight"] == 0.75


def test_score_needs_no_service(pictures: Path) -> None:
    given = ["score", "geneval", "--prompt", "a red circle", "--metadata", SPEC]
    answer = json.loads(run(pictures, *given, "--json", "a.png", "b.png").stdout)
    assert [entry["score"] for entry in answer["scores"]] == [1.0, 0.5]
    assert [entry["image"] for entry in answer["scores"]] == ["a.png", "b.png"]
    assert answer["scores"][1]["details"]["reasons"] == ["expected 1 red circle, found blue"]
    assert answer["version"] == "geneval-1/shapes/graded"
    strict = json.loads(run(pictures, *given, "--option", "score=strict", "--json", "b.png").stdout)
    assert strict["scores"][0]["score"] == 0.0
    assert "found blue" in run(pictures, *given, "b.png").stdout


def test_score_with_your_own_reward(served: Served, pictures: Path) -> None:
    """The guide's example, in a file of the working folder, is checked against its formula."""
    answer = run(served.folder, "score", "sharpness:Sharpness", "--prompt", "p", "--json", str(pictures / "a.png"))
    grey = np.asarray(Image.open(pictures / "a.png")).astype(np.float64).mean(axis=-1)
    rows, columns = abs(np.diff(grey, axis=0)).mean(), abs(np.diff(grey, axis=1)).mean()
    assert json.loads(answer.stdout)["scores"][0]["score"] == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_compare(pictures: Path) -> None:
    given = ["compare", "geneval", "--prompt", "a red circle", "--metadata", SPEC]
    assert json.loads(run(pictures, *given, "b.png", "a.png", "--json").stdout)["winner"] == "second"
    assert json.loads(run(pictures, *given, "a.png", "b.png", "--json").stdout)["winner"] == "first"
    assert "a tie" in run(pictures, *given, "a.png", "a.png").stdout


def test_bench(served: Served) -> None:
    small = ["bench", "--clients", "1", "--clients", "3", "--requests", "6", "--group-size", "2", "--side", "32"]
    answer = run(served.folder, *small, "--url", served.grpc_url, "--mixture", "sharpness", "--json")
    rows = json.loads(answer.stdout)
    assert [row["clients"] for row in rows] == [1, 3]
    assert all(row["requests"] == 6 and row["errors"] == {} and row["images_per_s"] > 0 for row in rows)
    assert all(0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p95"] <= row["latency_ms"]["p99"] for row in rows)
    table = run(served.folder, *small, "--url", served.http_url, "--metadata", SPEC, "--encoding", "png").stdout
    assert "images/s" in table


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["rank", "--prompt", "p", "a.png", "b.png"], 2, "geneval needs the prompt's GenEval spec"),
        (["rank", "--prompt", "p", "a.png", "missing.png"], 2, "cannot read missing.png"),
        (["rank", "--prompt", "p", "--reward", "sharpness=much", "a.png", "b.png"], 2, "NAME=WEIGHT"),
        (["rank", "--prompt", "p", "--metadata", "{", "a.png", "b.png"], 2, "not valid JSON"),
        (["bench", "--mixture", "beauty"], 2, "no mixture 'beauty'"),
    ],
)
def test_errors_are_one_line(served: Served, pictures: Path, arguments: list[str], status: int, message: str) -> None:
    output = run(pictures, *arguments, "--url", served.http_url, status=status).stderr
    assert message in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "beauty", "--prompt", "p", "a.png"], "no reward 'beauty'; known are"),
        (["score", "nowhere:Reward", "--prompt", "p", "a.png"], "cannot load reward"),
        (
            ["score", "geneval", "--prompt", "p", "--option", "eyes=2", "a.png"],
            "no option 'eyes'; its options are",
        ),
        (["score", "geneval", "--prompt", "p", "--model", "folder", "a.png"], "neither a folder here nor an id"),
        (["score", "geneval", "--prompt", "p", "spec.json"], "spec.json is not a PNG, JPEG or WebP image"),
        (["serve", "nothing.yaml"], "no service config 'nothing.yaml'"),
    ],
)
def test_errors_without_a_service(pictures: Path, arguments: list[str], message: str) -> None:
    output = run(pictures, *arguments, status=2).stderr
    assert message in output
    assert "Traceback" not in output


@pytest.mark.thorough
def test_a_reward_with_its_own_app_is_upgraded(served: Served, pictures: Path) -> None:
    ray_is_at = (served.folder / "log").read_text().partition("Ray is at ")[2].split()[0]
    answer = run(served.folder, "upgrade", "my.yaml", "darkness", "--address", ray_is_at)
    assert answer.stdout.split() == ["upgraded", "darkness"]
    assert "reward-darkness is up" in answer.stderr
    asked = "rank", "--prompt", "p", "--reward", "darkness", "--url", served.http_url, "--json", "a.png", "b.png"
    assert json.loads(run(pictures, *asked).stdout)["rewards"]["darkness"]["version"] == "darkness-1"
    output = run(served.folder, "upgrade", "my.yaml", "geneval", "--address", ray_is_at, status=2).stderr
    assert "'geneval' is not a reward with `own_app: true`" in output


def local(text: str, served: Served) -> str:
    """Replace the addresses in the guide's text by those of this service."""
    http, grpc = (url.partition("://")[2] for url in (served.http_url, served.grpc_url))
    return text.replace("127.0.0.1:8000", http).replace("127.0.0.1:9000", grpc)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_guides_curl(served: Served, pictures: Path) -> None:
    shell = local(example('-F \'request={"prompt": "a red circle"'), served)
    answer = subprocess.run(["bash", "-c", shell], cwd=pictures, capture_output=True, text=True, timeout=60)
    assert json.loads(answer.stdout)["order"] == [0, 1], answer


def test_the_guides_python(served: Served, pictures: Path) -> None:
    program = local(example("pairs=PairOptions(count=1, seed=7)"), served)
    answer = subprocess.run([sys.executable, "-c", program], cwd=pictures, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines()[0] == "a.png", answer


def test_the_guides_rerank_client(served: Served, pictures: Path) -> None:
    program = local(example('/v1/rerank", json='), served)
    answer = subprocess.run([sys.executable, "-c", program], cwd=pictures, capture_output=True, text=True, timeout=60)
    assert answer.stdout.splitlines() == ["a.png 1.0"], answer


def test_the_guides_grpcurl(served: Served, pictures: Path) -> None:
    """grpcurl and protobuf read the same JSON, so the request is sent without grpcurl."""
    heading, _, document = example("grpcurl -plaintext").partition(" <<")
    shell = subprocess.run(
        ["bash", "-c", f"cat <<{document}"], cwd=pictures, capture_output=True, text=True, timeout=60
    )
    request = json_format.Parse(shell.stdout, ranking_pb2.RankRequest())
    assert "drpo.rewards.v1.Ranking/Rank" in heading
    with grpc.insecure_channel(served.grpc_url.removeprefix("grpc://")) as channel:
        answer = ranking_pb2_grpc.RankingStub(channel).Rank(request, metadata=[("application", "ranking")], timeout=60)
    assert list(answer.order) == [0, 1]
