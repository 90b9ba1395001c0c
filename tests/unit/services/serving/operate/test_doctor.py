"""`drpo-rewards doctor`, which finds problems before anything starts and says how to fix them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from support.tiny.aesthetic import write_aesthetic
from support.tiny.clip import write_clip
from support.tiny.hpsv2 import write_hpsv2
from support.tiny.hpsv3 import write_hpsv3
from support.tiny.image_reward import write_image_reward
from typer.testing import CliRunner

from drpo_rewards import rewards
from drpo_rewards.cli import app
from drpo_rewards.errors import WeightsError
from drpo_rewards.serving.operate.declared import read_declared_models, read_request_checks
from drpo_rewards.serving.operate.doctor import Finding, examine
from drpo_rewards.serving.operate.resources import (
    Gpu,
    GpuLoad,
    Need,
    assign_to_gpus,
    count_weights_gb,
    find_gpus,
    free_host_gb,
)

PORTS = {"http_port": 0, "grpc_port": 0}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def taken_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("drpo_rewards.serving.ports.ASK_S", 0.1)  # this listener never answers
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def config(folder: Path, **settings: object) -> str:
    path = folder / "service.yaml"
    path.write_text(yaml.safe_dump({**PORTS, **settings}))
    return str(path)


def wrong(findings: list[Finding]) -> dict[tuple[str, str], Finding]:
    found = {
        (finding.check, finding.about): finding for finding in reversed(findings) if finding.state == "wrong"
    }  # the first of each
    assert all(finding.fix for finding in found.values())
    return found


def test_a_service_that_can_start(tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "clip"))
    reward = {"num_cpus": 0.1, "memory": {"host_gb": 0.1}}
    path = config(
        tmp_path,
        rewards={"clip": {"type": "clip", "options": {"model": clip}, **reward}, "g": {"type": "geneval", **reward}},
    )
    findings = examine(path)
    assert not wrong(findings), findings
    checks = {"config", "API keys", "packages", "files", "keys", "CPUs", "memory", "ports", "folders", "shared memory"}
    assert {finding.check for finding in findings} == checks


def test_all_problems_are_found_at_once(tmp_path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip")
    keys = load_file(clip / "model.safetensors")
    keys.pop("visual_projection.weight")
    save_file(keys, clip / "model.safetensors", metadata={"format": "pt"})
    (write_clip(tmp_path / "half") / "merges.txt").unlink()
    rewards_section = {
        "cut": {"type": "clip", "options": {"model": str(clip), "device": "cuda"}, "num_gpus": 1},
        "half": {"type": "pickscore", "options": {"model": str(tmp_path / "half")}, "num_cpus": 1000},
        "absent": {"type": "hpsv2", "options": {"version": "2.0"}, "memory": {"host_gb": 1e6}},
        "options": {"type": "clip", "options": {"modle": "x"}},
        "unknown": {"type": "beauty"},
        "far": {"type": "hpsv3", "num_gpus": 8, "resources": {"big_gpus": 1}},
    }
    path = config(tmp_path, rewards=rewards_section, http_port=taken_port)
    found = wrong(examine(path))
    assert "1 missing (visual_projection.weight)" in found["keys", "cut"].found
    assert "no merges.txt in the folder" in found["files", "half"].found
    assert "xswu/HPSv2 is not in the hub's cache" in found["files", "absent"].found
    assert found["files", "absent"].fix.startswith("drpo-rewards download hpsv2 --option version=2.0 (about ")
    assert "modle" in found["files", "options"].found
    assert "no reward 'beauty'" in found["files", "unknown"].found
    assert ("CPUs", "all") in found
    assert ("memory", "host") in found
    assert str(taken_port) in found["ports", "http_port"].found
    if not find_gpus():
        assert "1 requested, 0 available; no GPU left for cut" in found["GPUs", "all"].found
    assert not any(about == "far" for _, about in found)
    assert any(about == "far" for _, about in wrong(examine(path, ["big_gpus"])))
    alone = wrong(examine(path, starts_here=True))
    assert "asks for big_gpus" in alone["resources", "far"].found
    assert ("files", "absent") not in alone, "the start downloads it"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert ("files", "absent") in wrong(examine(path, starts_here=True))


def test_keys_are_not_checked_for_a_reward_that_cannot_be_built_from_headers(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("1")
    reward = {"type": "support.rewards:FailsToLoad", "options": {"model": str(tmp_path)}, "num_cpus": 0.1}
    findings = examine(config(tmp_path, rewards={"own": reward}))
    assert not wrong(findings), findings
    (keys,) = (finding for finding in findings if finding.check == "keys")
    assert keys.state == "skipped"
    assert "headers_only" in keys.found
    (memory,) = (finding for finding in findings if finding.check == "memory")
    assert "about 1.2 GB needed" in memory.found, "1.2 times the 0.5 GB that it declares, and 0.6 GB for the process"


def test_the_exit_status_and_output_of_the_command(tmp_path: Path) -> None:
    good = config(tmp_path, rewards={"g": {"type": "geneval", "num_cpus": 0.1}})
    answer = CliRunner().invoke(app, ["doctor", good])
    assert answer.exit_code == 0, answer.output
    assert "nothing is wrong" in answer.stdout
    answer = CliRunner().invoke(app, ["doctor", config(tmp_path, rewards={"g": {"type": "beauty"}}), "--json"])
    assert answer.exit_code == 2
    assert any(row["state"] == "wrong" and row["fix"] for row in json.loads(answer.stdout))
    answer = CliRunner().invoke(app, ["doctor", str(tmp_path / "none.yaml"), "--json"])
    assert answer.exit_code == 2
    assert "no service config" in json.loads(answer.stdout)[0]["found"]


def test_every_problem_of_a_config_and_of_the_machine_is_in_one_list(
    tmp_path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("rewards:\n  g: {type: geneval, num_gpu: 1}\nhttp_port: x\n")
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    answer = CliRunner().invoke(app, ["serve", str(path)])
    assert answer.exit_code == 2
    wrongs = [line for line in answer.stderr.splitlines() if line.startswith("wrong")]
    assert len(wrongs) == 3
    assert f"{path}:2: unknown key rewards.g.num_gpu; did you mean num_gpus?" in wrongs[0]
    assert f"{path}:3: http_port" in wrongs[1]
    assert "/proc/none cannot be written" in wrongs[2]
    path.write_text("rewards:\n  g: {type: geneval, num_cpus: 0.1}\n")
    monkeypatch.setenv("DRPO_REWARDS_API_KEYS", "schlüssel")
    answer = CliRunner().invoke(app, ["serve", str(path), "--port", str(taken_port), "--grpc-port", str(taken_port)])
    assert answer.exit_code == 2
    for found in (
        "http_port and grpc_port are both",
        f"{taken_port} is taken by another program",
        "is not ASCII",
        "none cannot be written",
    ):
        assert found in answer.stderr


def test_no_default_is_blamed_where_a_setting_is_wrong(tmp_path: Path) -> None:
    """Neither the ports nor the keys are as the file means them, but its rewards are."""
    path = tmp_path / "service.yaml"
    path.write_text(
        "rewards: {a: {type: beauty}}\nhost: 0.0.0.0\nallow_no_aut: true\nhttp_prt: 9001\ngrpc_port: 8000\n"
    )
    found = wrong(examine(str(path)))
    assert {check for check, _ in found} == {"config", "files"}
    path.write_text("rewards: {a: {typ: x}}\nhost: 0.0.0.0\n")
    assert {("config", str(path)), ("API keys", "0.0.0.0")} <= wrong(examine(str(path))).keys()


@pytest.mark.parametrize("verb", ["serve", "doctor"])
def test_a_port_beyond_all_ports_is_refused_at_once(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drpo_rewards.cli.output.console.width", 250)  # so that the table has one line for it
    answer = CliRunner().invoke(app, [verb, "shapes", "--port", "70000", "--grpc-port", "0"])
    assert answer.exit_code == 2
    assert "there is no port 70000" in answer.output


def test_doctor_takes_the_listeners_of_serve(taken_port: int) -> None:
    for option, label in (("--port", "http_port"), ("--grpc-port", "grpc_port")):
        rest = ["--grpc-port" if option == "--port" else "--port", "0"]
        answer = CliRunner().invoke(app, ["doctor", "shapes", option, str(taken_port), *rest, "--json"])
        (found,) = [row for row in json.loads(answer.stdout) if row["state"] == "wrong"]
        assert (found["check"], found["about"]) == ("ports", label)
    answer = CliRunner().invoke(app, ["doctor", "shapes", "--host", "192.0.2.1", "--json"])
    wrongs = [row["found"] for row in json.loads(answer.stdout) if row["state"] == "wrong"]
    assert len(wrongs) == 2  # no API keys for other machines, and no such address
    assert "'192.0.2.1' is not an address of this machine" in wrongs[1]


def test_replicas_go_to_gpus_as_ray_places_them() -> None:
    gpus = [Gpu("0", 24.0, 23.0), Gpu("1", 24.0, 23.0)]
    needs = [Need("a", 0.5, 1, 8.0), Need("whole", 1, 1, 20.0), Need("b", 0.25, 2, 9.0), Need("cpu", 0, 5)]
    loads, unplaced = assign_to_gpus(needs, gpus)
    assert loads == [GpuLoad(gpus[0], ["a", "b", "b"], 26.0), GpuLoad(gpus[1], ["whole"], 20.0)]
    assert not unplaced
    split = assign_to_gpus([Need("two", 2, 1, 40.0)], gpus)[0]
    assert split == [GpuLoad(gpus[0], ["two"], 20.0), GpuLoad(gpus[1], ["two"], 20.0)]
    assert assign_to_gpus([Need("two", 2, 2, 40.0)], gpus)[1] == ["two"]
    assert assign_to_gpus([Need("a", 0.6, 3, 1.0)], gpus)[1] == ["a"]
    assert assign_to_gpus([Need("a", 0.5, 1)], []) == ([], ["a"])


def test_memory_is_estimated_if_it_is_not_stated() -> None:
    stated = Need("a", 0.5, 1, gpu_gb=5.0, host_gb=3.0)
    assert stated.with_estimates(100.0) == stated
    assert Need("a", 0.5, 1).with_estimates(2.0).gpu_gb == pytest.approx(3.2)
    assert Need("a", 0, 1).with_estimates(2.0).gpu_gb == 0
    assert free_host_gb() is None or 0 < free_host_gb() < 1e5  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("clip", write_clip),
        ("aesthetic", write_aesthetic),
        ("hpsv2", write_hpsv2),
        ("hpsv3", write_hpsv3),
        ("image_reward", write_image_reward),
    ],
)
def test_headers_are_checked_as_strictly_as_files_are_loaded(tmp_path: Path, name: str, write: object) -> None:
    folder = write(tmp_path / name)  # type: ignore[operator]
    built = rewards.load(name, model=str(folder), headers_only=True)
    assert 0 < count_weights_gb(built) < 0.01
    assert all(tensor.is_meta for tensor in _tensors(built))
    file = next(
        path
        for path in (*folder.glob("HPSv3*"), *folder.glob("*.pt"), *folder.glob("*.pth"), folder / "model.safetensors")
    )
    if file.suffix == ".safetensors":
        save_file(dict(list(load_file(file).items())[:-1]), file, metadata={"format": "pt"})
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match=re.escape(file.name)):
        rewards.load(name, model=str(folder), headers_only=True)


def _tensors(reward: object) -> list[object]:
    from torch import nn

    modules = [value for value in vars(reward).values() if isinstance(value, nn.Module)]
    modules += [reward.clip.model] if hasattr(reward, "clip") else []
    return [parameter for module in modules for parameter in module.parameters()]


def test_a_reward_with_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables may name keys, endpoints and the hub's cache; the program that makes it must be here."""
    for name in ("CONDA_EXE", "RAY_CONDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    far = {"url": "http://127.0.0.1:1", "api_key_env": "KEY_OF_ITS_OWN"}
    judge = {"backend": "endpoint", "model": "m"}
    rewards_section = {
        "far": {"type": "remote", "options": far, "runtime_env": {"env_vars": {"KEY_OF_ITS_OWN": "a"}}},
        "judge": {"type": "judge", "options": judge, "runtime_env": {"env_vars": {"DRPO_JUDGE_BASE_URL": "http://h"}}},
        "cached": {"type": "clip", "runtime_env": {"env_vars": {"HF_HUB_CACHE": "/elsewhere"}}},
        "misspelt": {"type": "clip", "options": {"modle": "m"}, "runtime_env": {"pip": ["a"]}},
        "conda": {"type": "its.own:Reward", "runtime_env": {"conda": {"dependencies": ["pip"]}}},
        "container": {"type": "jpeg_size", "runtime_env": {"image_uri": "a/b:1"}},
    }
    path = config(tmp_path, rewards={name: {**one, "num_cpus": 0.1} for name, one in rewards_section.items()})
    found = wrong(examine(path))
    assert found.keys() == {("files", "misspelt"), ("packages", "conda"), ("packages", "container")}
    assert "runtime_env has conda, for which Ray needs the program conda" in found["packages", "conda"].found
    assert found["packages", "container"].fix == "install podman, or use pip or uv instead"
    assert {model.name for model in read_declared_models(path)} == {*rewards_section, "default"}
    assert read_request_checks(path).keys() == {"far"}, "a class that is not here is not asked"
    for program in ("conda", "podman"):
        (tmp_path / program).write_text("#!/bin/sh")
        (tmp_path / program).chmod(0o755)
    assert wrong(examine(path)).keys() == {("files", "misspelt")}


def test_options_of_rewards_without_files_are_checked(tmp_path: Path) -> None:
    rewards_section = {
        "small": {"type": "jpeg_size", "options": {"prefer": "tiny"}, "num_cpus": 0.1},
        "far": {"type": "remote", "options": {"url": "http://127.0.0.1:1", "form": "flow_grpo"}, "num_cpus": 0.1},
        "even": {"type": "symmetry", "num_cpus": 0.1},
    }
    found = wrong(examine(config(tmp_path, rewards=rewards_section)))
    assert found.keys() == {("files", "small"), ("files", "far")}
    assert "write small or large" in found["files", "small"].found
    assert found["files", "far"].fix == "correct rewards.far.options"
