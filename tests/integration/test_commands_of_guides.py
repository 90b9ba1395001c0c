"""Every fenced block of the guides and of the report runs as printed. Only the ports are those of the tests' service.

Blocks that cannot run here are marked in the guides, and `tests/unit/test_guides.py` checks their words.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import ray
import torch
import yaml
from support.guides import Block, read_blocks
from support.service import Served, example
from support.synthetic_run import write_synthetic_run

from drpo.config import LoraConfig
from drpo.generators import load_generator
from drpo.report import write_report
from drpo.shapes.assets import generator_path
from drpo.training.run_folder import ADAPTER, CONFIG_FILE

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

RUNNABLE = [block for block in read_blocks() if block.language in ("bash", "python") and block.no_run is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has by then: `.venv`, the run `runs/mine`, the guide's pictures, and the files that it shows."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(sysconfig.get_path("scripts"))
    for block in read_blocks():
        if block.file_name is not None:
            (folder / block.file_name).write_text(block.text)
    subprocess.run([sys.executable, "-c", example("ImageDraw.Draw")], cwd=folder, check=True, timeout=60)
    write_run(folder / "runs" / "mine")
    return folder


def write_run(run_dir: Path) -> None:
    """A run with an adapter and a short evaluation."""
    run_dir.mkdir(parents=True)
    write_synthetic_run(run_dir, steps=5)
    settings = yaml.safe_load((run_dir / CONFIG_FILE).read_text())
    settings["evaluation"] |= {"prompts_per_task": 1, "images_per_prompt": 1}
    (run_dir / CONFIG_FILE).write_text(yaml.safe_dump(settings))
    torch.manual_seed(0)
    load_generator(generator_path(), lora=LoraConfig(rank=2)).adapter.save(run_dir / ADAPTER)


def run(language: str, text: str, folder: Path, **environment: str) -> str:
    """Runs a block in a folder, and returns what it prints."""
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    path = os.pathsep.join([str(folder / ".venv" / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        timeout=280,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", [one for one in RUNNABLE if "serving.start(" not in one.text], ids=str)
def test_the_guides_blocks_run(block: Block, folder: Path, served: Served) -> None:
    http, grpc = (url.partition("://")[2] for url in (served.http_url, served.grpc_url))
    text = block.text.replace("127.0.0.1:8000", http).replace("127.0.0.1:9000", grpc)
    printed = run(block.language, text, folder, DRPO_REWARDS_URL=served.http_url)
    commands = re.sub(r"\s#.*", "", block.text)  # a comment may name a file of another folder
    for name in re.findall(r"[\w/-]+\.(?:png|html)", commands):
        assert (folder / name).is_file()
    assert not re.search(r"\"?(detail|Traceback)\"?:", printed)


@pytest.mark.parametrize("block", [one for one in RUNNABLE if "serving.start(" in one.text], ids=str)
def test_the_guides_block_for_a_ray_that_already_runs(block: Block, folder: Path, ray_cluster: None) -> None:
    """It joins the Ray of the tests, as another program would."""
    joins = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    printed = run("python", block.text.replace("http_port=8000", "http_port=0"), folder, **joins)
    assert re.search(r"^http://\S+ serve://ranking$", printed, re.M)


def test_the_reports_examples_run(folder: Path, tmp_path: Path) -> None:
    """Names and prompts with quotes, spaces and markup stay what they are."""
    run_dir = tmp_path / "it's <mine> & $HOME"
    write_run(run_dir)
    page = write_report(run_dir).read_text()
    shell, program = (html.unescape(text) for text in re.findall(r"<pre><code>(.*?)</code></pre>", page, re.S)[:2])
    assert "drpo sample --adapter" in shell
    assert run("bash", shell, folder)
    run("python", program + "\nassert image.size == (64, 64)", folder)
