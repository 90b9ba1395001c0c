"""Offline training on a real local Ray: from parquet files to an adapter, with two workers and no reward service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.preferences import PROMPTS, pick_row, write_parquet, write_pickapic
from support.tiny_training import computed, drivers, settings, write_home

from drpo.checks import check_config
from drpo.cluster.launch import train
from drpo.config import Config, parse_config
from drpo.errors import TrainingStoppedError
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.training.checkpoint import checkpoints, read_checkpoint
from drpo.training.encoding import encode_preferences, find_cache
from drpo.training.run_folder import create_run

pytestmark = pytest.mark.integration

NO_SERVICE = {"service": "/no/such/service.yaml"}
"""A run that tried to start this service would fail."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = write_home(tmp_path_factory.mktemp("offline"))
    write_pickapic(home / "pickapic")
    return home


def offline_settings(home: Path, **training: Any) -> dict[str, Any]:
    values = settings(home, steps=3, **training)
    del values["prompts"]
    return values | {
        "offline": {"source": "pickapic_v2", "path": str(home / "pickapic"), "neighbours": 2, "own_samples": "add"},
        "rewards": NO_SERVICE,
    }


def offline_config(home: Path, **training: Any) -> Config:
    return check_config(parse_config(offline_settings(home, **training)))


def test_two_workers_encode_and_train_without_rewards(ray_cluster: Any, home: Path) -> None:
    config = offline_config(home, num_workers=2)
    run_dir = create_run(config)
    outcome = train(config, run_dir)
    assert (outcome.status, outcome.step) == ("finished", 3)
    lines = computed(run_dir)
    assert [(line["groups"], line["groups_dropped"]) for line in lines] == [(2, 0)] * 3
    assert all(line["loss"] > 0 and 0 <= line["nearer_to_chosen"] <= 1 for line in lines)
    assert not any(name.startswith(("reward", "metric")) for line in lines for name in line)
    assert (run_dir / "adapter" / "pytorch_lora_weights.safetensors").is_file()
    assert len(read_checkpoint(checkpoints(run_dir / "checkpoints")[-1])["random"]) == 2
    assert not (run_dir / "encoded").exists()

    # Each worker has encoded one of the two files. One process encodes the same.
    generator = SDTurboGenerator.load(home / "tiny")
    cache = find_cache(config, generator)
    assert sorted(path.name[:5] for path in (cache.folder / "blocks").iterdir()) == ["00000", "00001"]
    alone = config.model_copy(deep=True)
    assert alone.offline is not None
    alone.offline.cache = home / "alone"
    expected = encode_preferences(alone, generator)
    assert cache.read_index() == expected.read_index()
    assert list(cache.read_index()) == list(PROMPTS)


@pytest.mark.thorough
def test_a_broken_image_stops_the_run_with_its_file_and_row(ray_cluster: Any, home: Path) -> None:
    broken = home / "broken" / "train-00000-of-00001.parquet"
    write_parquet(broken, [pick_row("a red circle", 0), pick_row("a blue square", 1, jpg_0=b"no image")])
    values = offline_settings(home, num_workers=2)
    values["offline"] |= {"path": str(home / "broken")}
    config = check_config(parse_config(values))
    with pytest.raises(TrainingStoppedError, match=r"00001\.parquet:row 2: cannot read an image of 8 bytes"):
        train(config, create_run(config))


@pytest.mark.thorough
def test_the_command_line_trains_offline_and_resumes(home: Path) -> None:
    values = offline_settings(home)
    values["run"]["name"] = "by-command"
    values["training"]["steps"] = 2
    path = home / "by-command.yaml"
    path.write_text(yaml.safe_dump(values))
    run_dir = home / "runs" / "by-command"
    with drivers() as start:
        for arguments in (["--preset", str(path)], ["--resume", str(run_dir), "--training.steps", "3"]):
            driver = start(*arguments)
            output, _ = driver.communicate(timeout=300)
            assert driver.returncode == 0, output
            assert "Ray and the reward service" not in output
    assert [line["step"] for line in computed(run_dir)] == [1, 2, 3]
    assert (run_dir / "report.html").is_file()
