"""The benchmark for one GPU in its small form: every part, the runner's limits, and the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from bench.gpu.checkpoints import PROMPT, load_hpsv3
from bench.gpu.figure5 import PHASES
from bench.gpu.generator import STAGES
from bench.gpu.hpsv3_pixels import score_pixels, to_patches
from bench.gpu.measure import Bench
from bench.gpu.record import ROWS, Record, read_results, write_results
from bench.gpu.rewards import CASES
from bench.gpu.runner import run_all, run_part
from bench.gpu.speed import WAYS

from drpo_rewards.client.load import draw_groups
from drpo_rewards.rewards.base import ScoreItem

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoints, which all tests share."""
    return tmp_path_factory.mktemp("scratch")


def test_every_part_without_ray_measures_its_rows(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / ROWS).touch()
    for name in ("peak", "sd_turbo", "sdxl_turbo", "rewards", "figure5", "speed"):
        run_part(name, tmp_path, scratch, small=True)
    write_results(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    parts = results["parts"]

    statuses = {name: part["status"] for name, part in parts.items()}
    assert statuses.pop("sdxl_turbo") in ("done", "skipped")
    assert set(statuses.values()) == {"done"}
    for table in ("stages, graph held whole", "stages, gradient checkpointing"):
        *stages, whole = parts["sd_turbo"]["tables"][table]
        assert tuple(row["stage"] for row in stages) == STAGES
        assert math.isclose(sum(row["share"] for row in stages), 1.0)
        assert whole["TFLOPs"] > 0
    held, recomputed = (
        {row["stage"]: row["TFLOPs"] for row in parts["sd_turbo"]["tables"][f"stages, {way}"]}
        for way in ("graph held whole", "gradient checkpointing")
    )
    assert recomputed["backward"] > held["backward"]
    assert all(row["images_per_s"] > 0 for row in parts["sd_turbo"]["tables"]["memory choices"])
    assert [row["reward"] for row in parts["rewards"]["tables"]["rewards"]] == [case.name for case in CASES]
    assert "ended early" not in parts["rewards"]["tables"]
    phases = {row["phase"]: row for row in parts["figure5"]["tables"]["phases"]}
    assert tuple(phases) == PHASES
    assert phases["rank_select"]["DRaFT"] is None
    assert all(row["ratio"] > 0 for row in parts["figure5"]["tables"]["DRaFT over DrPO"])
    speed = parts["speed"]["tables"]
    assert [row["layout"] for row in speed["decoding 24 images"]] == ["contiguous"] * 4 + ["channels last"] * 4
    assert "Waits are counted on a GPU only." in parts["speed"]["notes"]
    by_default, *others = speed["steps of two groups of 24"]
    assert by_default["of_the_default"] == 1
    assert [row["choice"] for row in others] == [way.name for way in WAYS[1:] if "compile" not in way.training]
    assert [row["choice"] for row in others if row["decoded_at_once"] != by_default["decoded_at_once"]] == [
        "training.decode_chunk: 24"
    ]
    assert f"torch {torch.__version__}" in (tmp_path / "results.md").read_text()


@pytest.mark.integration
def test_a_run_and_the_service_are_measured_through_ray(tmp_path: Path, scratch: Path) -> None:
    status = run_all(["train", "service"], tmp_path, scratch, small=True, limit_s=300)

    parts = read_results(tmp_path)["parts"]
    assert status == 0, (tmp_path / "log.txt").read_text()
    assert [row["step"] for row in parts["train"]["tables"]["steps"]] == [1, 2, 3]
    assert any("`training.memory: auto`: the graph is held" in note for note in parts["train"]["notes"])
    [rows] = parts["service"]["tables"].values()
    assert [(row["transport"], row["clients"], row["errors"]) for row in rows] == [("HTTP", 1, 0), ("gRPC", 1, 0)]
    assert "### The service" in (tmp_path / "results.md").read_text()


def test_a_part_is_stopped_at_the_limit_and_the_next_one_skipped(tmp_path: Path, scratch: Path) -> None:
    assert run_all(["figure5", "rewards"], tmp_path, scratch, small=True, limit_s=1.2) == 0  # imports take longer

    parts = read_results(tmp_path)["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {"figure5": "stopped", "rewards": "skipped"}
    assert "**skipped: the limit of 1 s for all parts was reached**" in (tmp_path / "results.md").read_text()


def test_hpsv3_from_pixels_scores_as_the_reward_and_has_a_gradient(tmp_path: Path, scratch: Path) -> None:
    reward = load_hpsv3(Bench(tmp_path, scratch, True, Record(tmp_path, "figure5")))
    [pictures] = draw_groups(1, 2, 448)  # the side that the reward scales to, so both see the same pixels
    images_N3HW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    expected = [score.value for score in reward.score([ScoreItem(picture, PROMPT) for picture in pictures])]

    scores_N = score_pixels(reward, images_N3HW.requires_grad_(), PROMPT)
    scores_N.sum().backward()

    torch.testing.assert_close(scores_N.detach(), torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert images_N3HW.grad is not None
    assert images_N3HW.grad.abs().amax() > 0
    patches_LD, grids_N3 = to_patches(reward, images_N3HW.detach())
    prepared = reward.prepare([ScoreItem(picture, PROMPT) for picture in pictures])
    torch.testing.assert_close(patches_LD, prepared["pixel_values"], rtol=1e-4, atol=1e-4)
    assert torch.equal(grids_N3, prepared["image_grid_thw"])
