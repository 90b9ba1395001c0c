"""Real training on a real local Ray: the files of a run, and runs that lose one of their processes.

The generator is tiny and random, the reward is redness. All runs are compared with one uninterrupted run of one worker:
runs that lose a worker, a reward replica or their driver must give the same numbers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from support.processes import children, wait_for_end
from support.service import reachable_from_elsewhere
from support.tiny_training import (
    PROMPTS,
    STEPS,
    Start,
    adapter,
    computed,
    drivers,
    same,
    settings,
    wait_for_step,
    write_home,
    write_run_config,
)

from drpo.checks import check_config
from drpo.cli import app
from drpo.cluster.launch import train
from drpo.config import Config, parse_config
from drpo.errors import TrainingStoppedError
from drpo.training.checkpoint import checkpoints, read_checkpoint
from drpo.training.metrics import read_metrics
from drpo.training.run_folder import create_run
from drpo_rewards.serving.listeners import free_port

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_home(tmp_path_factory.mktemp("training"))
    reward = {"type": "support.rewards:Redness", "options": {"seconds_per_group": 0.1}, "num_cpus": 0.1}
    failing = {"type": "support.rewards:FailsOn", "num_cpus": 0.1}
    # slow enough that a signal reaches the run before its last step
    slow = {**reward, "options": {"seconds_per_group": 1.0}}
    (folder / "service.yaml").write_text(yaml.safe_dump({"rewards": {"redness": slow}}))
    both = {"rewards": {"redness": reward, "fails": failing}, "mixtures": {"default": {"rewards": {"redness": 1.0}}}}
    (folder / "both.yaml").write_text(yaml.safe_dump(both))
    return folder


@pytest.fixture(scope="module")
def address(ray_cluster: Any, home: Path) -> Iterator[str]:
    from drpo_rewards.serving import start

    with start(home / "both.yaml", app_name="training-tests") as service:
        yield service.handle_address


def launch(
    home: Path,
    address: str,
    watch: Callable[[dict], None] | None = None,
    changes: dict[str, Any] | None = None,
    **training: Any,
) -> Path:
    values = {**settings(home, **training), **(changes or {})}
    values["rewards"] = {"service": None, "address": address}
    config = check_config(parse_config(values))
    run_dir = create_run(config)
    train(config, run_dir, watch=watch or (lambda metrics: None))
    return run_dir


@pytest.fixture(scope="module")
def uninterrupted(home: Path, address: str) -> Path:
    return launch(home, address)


def test_the_files_of_a_run(uninterrupted: Path, home: Path) -> None:
    lines = computed(uninterrupted)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(line["groups"] == 2 and line["groups_dropped"] == 0 for line in lines)
    assert lines[-1]["reward/redness"] > lines[0]["reward/redness"] + 2
    assert lines[0]["lr"] > lines[-1]["lr"] > 0
    assert [path.name for path in checkpoints(uninterrupted / "checkpoints")] == ["step-000006", "step-000008"]
    assert Config.model_validate(yaml.safe_load((uninterrupted / "config.yaml").read_text())).training.steps == STEPS


def test_stock_diffusers_loads_the_adapter(uninterrupted: Path, home: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(home / "tiny", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)

    def redness() -> float:
        noise = torch.Generator().manual_seed(0)
        images = pipeline(
            next(iter(PROMPTS)),
            num_inference_steps=1,
            guidance_scale=0.0,
            num_images_per_prompt=8,
            generator=noise,
            output_type="np",
        ).images
        return float(images[..., 0].mean() - images[..., 1:].mean())

    base = redness()
    pipeline.load_lora_weights(uninterrupted / "adapter")
    assert redness() > base + 0.01


@pytest.mark.thorough
@pytest.mark.timeout(600)  # two runs of two workers, which start again
def test_two_workers_train_the_whole_unet_and_one_is_lost(home: Path, address: str) -> None:
    from diffusers import UNet2DConditionModel

    killed: list[psutil.Process] = []

    def kill_after_step_3(metrics: dict) -> None:
        if metrics["step"] >= 3 and not killed:
            killed.extend(children(r"ray::.*TrainWorker"))
            killed[0].kill()

    changes = {"lora": None, "optimizer": {"lr": 0.005}}
    whole = launch(home, address, changes=changes, num_workers=2)
    lines = computed(whole)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[-1]["reward/redness"] > lines[0]["reward/redness"]
    state = UNet2DConditionModel.from_pretrained(whole / "adapter", subfolder="unet").state_dict()
    base = UNet2DConditionModel.from_pretrained(home / "tiny", subfolder="unet").state_dict()
    assert same(state, adapter(whole))
    assert not any(torch.equal(one, base[name]) for name, one in state.items() if one.ndim > 1)
    interrupted = launch(home, address, kill_after_step_3, changes, num_workers=2)
    assert killed
    assert computed(interrupted)[-1]["step"] == STEPS
    for name, one in adapter(interrupted).items():  # of two workers, the sum of the gradients may round differently
        torch.testing.assert_close(one, state[name], rtol=1e-3, atol=1e-4)


def test_a_lost_worker_changes_nothing(uninterrupted: Path, home: Path, address: str) -> None:
    killed = []

    def kill_after_step_3(metrics: dict) -> None:
        if metrics["step"] >= 3 and not killed:
            killed.extend(children(r"ray::.*TrainWorker"))
            for process in killed:
                process.kill()

    run_dir = launch(home, address, watch=kill_after_step_3)
    assert killed
    assert computed(run_dir) == computed(uninterrupted)
    assert same(adapter(run_dir), adapter(uninterrupted))


def test_two_workers_and_a_lost_reward_replica_change_nothing(uninterrupted: Path, home: Path, address: str) -> None:
    killed = []

    def kill_after_step_3(metrics: dict) -> None:
        if metrics["step"] >= 3 and not killed:
            killed.extend(children(r"ray::ServeReplica.*redness"))
            for process in killed:
                process.kill()

    run_dir = launch(home, address, watch=kill_after_step_3, num_workers=2)
    assert killed
    lines, expected = computed(run_dir), computed(uninterrupted)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert sum(line["groups_dropped"] for line in lines) == 0  # the gateway and the client retry
    for line, one_worker in zip(lines, expected, strict=True):
        assert line["groups"] == 2
        assert line["loss"] == pytest.approx(one_worker["loss"], rel=1e-3)
        assert line["grad_norm"] == pytest.approx(one_worker["grad_norm"], rel=1e-2)
    state = read_checkpoint(checkpoints(run_dir / "checkpoints")[-1])
    assert len(state["random"]) == 2


def test_too_many_failures_stop_the_run_with_the_reason(home: Path, address: str) -> None:
    values = settings(home)
    values["rewards"] = {"service": None, "address": address, "weights": {"fails": 1.0}}
    (home / "blue.jsonl").write_text('{"prompt": "blue"}\n')
    values["prompts"]["path"] = str(home / "blue.jsonl")
    config = check_config(parse_config(values))
    run_dir = create_run(config)
    with pytest.raises(TrainingStoppedError, match=r"(?s)4 of 4 groups.*max_failed_groups.*fails"):
        train(config, run_dir)
    assert [line["groups_dropped"] for line in read_metrics(run_dir / "metrics.jsonl")] == [2, 2]
    assert len(checkpoints(run_dir / "checkpoints")) == 1


@pytest.mark.thorough
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_ends_a_run_that_goes_on_later(
    uninterrupted: Path, home: Path, address: str, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(tmp_path)], check=True)
    try:
        values = settings(home)
        values["run"]["folder"] = str(tmp_path)
        values["rewards"] = {"service": None, "address": address}
        config = check_config(parse_config(values))
        run_dir = create_run(config)

        def fill() -> None:
            with suppress(OSError), (tmp_path / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

        full = r"(?s)No space left on device.*"
        fill()
        with pytest.raises(TrainingStoppedError, match=full + "The run has no checkpoint yet.*--resume"):
            train(config, run_dir)
        (tmp_path / "filler").unlink()
        with pytest.raises(TrainingStoppedError, match=full + "go on from the checkpoint of step [246], use --resume"):
            train(config, run_dir, watch=lambda metrics: fill() if metrics["step"] == 3 else None)
        (tmp_path / "filler").unlink()
        train(config, run_dir)
        assert computed(run_dir) == computed(uninterrupted)
        assert same(adapter(run_dir), adapter(uninterrupted))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture
def start_drpo() -> Iterator[Start]:
    with drivers() as start:
        yield start


def own_service(home: Path) -> dict[str, Any]:
    """The settings of a run that starts its own service."""
    return {"service": str(home / "service.yaml")}


def resume(run_dir: Path, start_drpo: Start) -> None:
    driver = start_drpo("--resume", str(run_dir))
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output


@pytest.mark.thorough  # it starts Ray three times
@pytest.mark.timeout(600)
def test_ctrl_c_leaves_a_run_that_resumes_bit_for_bit(uninterrupted: Path, home: Path, start_drpo: Start) -> None:
    """It resumes although its newest checkpoint is damaged, and in a locale without UTF-8."""
    config, run_dir = write_run_config(home, "interrupted", own_service(home))
    driver = start_drpo("--preset", config)
    wait_for_step(run_dir, 3, driver)
    second = start_drpo("--resume", str(run_dir))
    refusal, _ = second.communicate(timeout=200)
    assert second.returncode == 2
    assert f"{run_dir} is being trained by process {driver.pid} on " in refusal
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 130, output
    assert "INFO" not in output  # Ray's messages belong in its log
    assert f"drpo train --resume {run_dir}" in output
    assert list((run_dir / "tensorboard").glob("events*"))
    stopped_at = len(computed(run_dir))
    assert 3 <= stopped_at < STEPS
    older, newest = checkpoints(run_dir / "checkpoints")
    assert newest.name == f"step-{stopped_at:06d}"

    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    (run_dir / "summary.json").mkdir()
    evaluate = ("--evaluation.enabled", "true", "--evaluation.images_per_prompt", "1")
    driver = start_drpo("--resume", str(run_dir), *evaluate, LC_ALL="C", PYTHONUTF8="0")
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 1, output
    assert f"left out a damaged checkpoint: {newest.name}: state.pt has" in output
    assert f"going on from step {int(older.name[5:])}, " in output
    assert "[/INST]" in output
    assert r"\U0001f534 con" in output
    assert computed(run_dir) == computed(uninterrupted)
    assert same(adapter(run_dir), adapter(uninterrupted))

    # the summary, and with it the report, could not be written; everything else is there
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert [line.split(" failed")[0] for line in errors] == ["error: summary.json", "error: report.html"]
    assert output.rstrip().endswith(f"drpo report {run_dir}")
    (run_dir / "summary.json").rmdir()
    with pytest.raises(SystemExit) as end:
        app(["report", str(run_dir)])
    assert not end.value.code
    assert set(json.loads((run_dir / "summary.json").read_text())["tasks"]) == set(PROMPTS.values())
    assert "\N{LARGE RED CIRCLE} con" in (run_dir / "report.html").read_text(encoding="utf-8")


def test_a_missing_cluster_is_reported(home: Path, start_drpo: Start) -> None:
    config, run_dir = write_run_config(home, "no-cluster", own_service(home))
    cluster = f"127.0.0.1:{free_port()}"
    driver = start_drpo("--preset", config, "--run.ray_address", cluster)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 2, output
    assert f"error: run.ray_address: no Ray can be reached at {cluster}: " in output
    assert "Traceback" not in output
    assert not run_dir.exists()  # it is told before the start


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_killed_driver_resumes_bit_for_bit(uninterrupted: Path, home: Path, start_drpo: Start) -> None:
    """This also checks that no process of the run can be reached from another machine."""
    config, run_dir = write_run_config(home, "killed", own_service(home))
    driver = start_drpo("--preset", config)
    wait_for_step(run_dir, 3, driver)  # one step after a checkpoint, which the resumed run must compute again
    open_to_others = reachable_from_elsewhere(driver.pid)
    processes = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.communicate(timeout=60)
    wait_for_end(processes)
    # torch's store, with which the workers find each other, has no setting for its address
    assert [name for name in open_to_others if "RayTrainWorker" not in name] == []

    resume(run_dir, start_drpo)
    assert computed(run_dir) == computed(uninterrupted)
    assert same(adapter(run_dir), adapter(uninterrupted))
