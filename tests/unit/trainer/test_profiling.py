"""`drpo profile` on a tiny generator: the phases, what they count against sums by hand, and its mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from support.tiny_training import settings, write_home

from drpo.cli import app
from drpo.profiling.clock import OTHER, PhaseClock
from drpo.training.phases import PHASES, phase


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = write_home(tmp_path_factory.mktemp("home"))
    path = home / "preset.yaml"
    path.write_text(yaml.safe_dump({**settings(home), "rewards": {"address": "grpc://127.0.0.1:1"}}))
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(["profile", *arguments])
    return int(ended.value.code or 0)


def test_a_product_is_counted_in_its_phase() -> None:
    left, right = torch.ones(8, 16), torch.ones(16, 4)
    clock = PhaseClock(torch.device("cpu"), counts=True)
    with clock.step():
        with phase("backward"):
            left @ right
            with phase("loss_build"):
                torch.zeros(1000)
            left @ right
        torch.zeros(10)
    assert clock.flops == {OTHER: 0, "backward": 2 * 2 * 8 * 16 * 4, "loss_build": 0}
    read_and_written = 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert clock.moved["backward"] == 2 * read_and_written
    assert clock.peaks["loss_build"] >= 4000
    assert clock.peaks["backward"] < 4000
    assert set(clock.seconds) == {OTHER, "backward", "loss_build"}


def test_a_phase_that_nobody_measures_is_only_run() -> None:
    with phase("backward"):
        ran = True
    assert ran


def test_every_phase_of_two_objectives_is_shown(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, trace = tmp_path / "numbers.json", tmp_path / "trace.json"
    status = run(
        *(str(preset), "--no-rewards", "--steps", "1", "--compare", "grpo", "--trace", str(trace), "--out", str(out)),
        *("--training.memory", "auto", "--training.decode_chunk", "auto"),
    )
    assert status == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "TFLOP/s" in shown
    assert "a step of grpo takes" in shown
    assert shown.count("training.memory auto: the graph is held") == 2
    assert shown.count("training.decode_chunk auto: ") == 2
    profiles = json.loads(out.read_text())["profiles"]
    assert set(profiles) == {"drpo", "grpo"}
    drpo = profiles["drpo"]["phases"]
    assert {*PHASES, OTHER} >= set(drpo)
    needed = {"text_encode", "student_unet_generate", "vae_decode", "reference_unet_generate", "feature_extract"}
    assert needed | {"reward_score", "rank_select", "loss_build", "backward", "optimizer_step"} <= set(drpo)
    assert drpo["student_unet_generate"]["flops"] == pytest.approx(drpo["reference_unet_generate"]["flops"], rel=0.2)
    assert drpo["backward"]["flops"] > drpo["student_unet_generate"]["flops"]
    assert "feature_extract" not in profiles["grpo"]["phases"]
    for name in ("student_unet_generate", "backward"):
        assert name in shown
        for file in (trace, tmp_path / "trace-2.json"):
            assert name in {event.get("name") for event in json.loads(file.read_text())["traceEvents"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "drop"], "there is no objective and no preset 'drop'"),
        (["--out", "/no/such/folder/x.json"], "there is no folder /no/such/folder"),
        (["--training.candidatez", "3"], "training.candidates"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    preset: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(preset), "--no-rewards", *arguments) == 2
    assert message in capsys.readouterr().err
