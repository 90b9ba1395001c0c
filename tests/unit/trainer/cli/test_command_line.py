"""The options of the command line, and the progress of a run in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from drpo.cli.common import parse_overrides
from drpo.cli.progress import TrainingProgress
from drpo.config import load_config
from drpo.errors import ConfigError


def test_overrides_of_the_command_line():
    arguments = ["--training.steps", "5", "--optimizer.lr=1e-3"]
    assert parse_overrides(arguments) == ["training.steps=5", "optimizer.lr=1e-3"]
    assert load_config("shapes", parse_overrides(["--lora", "null"])).lora is None
    assert load_config("shapes", parse_overrides(["--lora={rank: 8}"])).lora.rank == 8
    for wrong in (["--steps", "5"], ["--lora"], ["training.steps"], ["--training.steps"]):
        with pytest.raises(ConfigError):
            parse_overrides(wrong)


def test_progress_in_a_log_is_a_line_every_few_seconds():
    log = io.StringIO()
    config = load_config("shapes", ["training.steps=50"])
    with TrainingProgress(config, Console(file=log)) as progress:
        for step in range(1, 51):
            progress(
                {
                    "step": step,
                    "time_s": step,
                    "reward/redness": 0.5,
                    "loss": 1.0,
                    "images_per_s": 9,
                    "groups_dropped": 0,
                }
            )
    first, last = log.getvalue().splitlines()
    assert first.split()[:4] == ["training", "2%", "step", "1"]
    assert "redness 0.500" in last
    assert last.split()[1] == "100%"


def test_an_offline_run_shows_its_encoding_and_how_many_candidates_are_nearer_to_the_chosen_images():
    log = io.StringIO()
    with TrainingProgress(load_config("shapes-offline"), Console(file=log)) as progress:
        progress.show_encoding(256)
        metrics = {
            "step": 1,
            "time_s": 1,
            "loss": None,
            "images_per_s": 9,
            "groups_dropped": 0,
            "nearer_to_chosen": 0.625,
        }
        progress(metrics)
    encoding, training = log.getvalue().splitlines()
    assert encoding == "encoding images: 256 preferences done"
    assert "62% nearer to chosen" in training
