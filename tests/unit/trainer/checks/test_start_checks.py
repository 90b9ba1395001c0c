"""The check before a start: settings, rewards, devices, outputs and surroundings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from drpo.checks import Plan, check_config, examine, make_paths_absolute
from drpo.checks.devices import check_devices
from drpo.checks.outputs import check_outputs
from drpo.checks.prompts import check_prompts
from drpo.checks.rewards import check_rewards
from drpo.checks.settings import check_settings
from drpo.checks.surroundings import check_surroundings
from drpo.config import Config, load_config
from drpo.errors import ConfigError
from drpo_rewards.findings import Finding
from drpo_rewards.serving.listeners import free_port

Check = Callable[[Plan], Iterator[Finding]]


def find_wrong(*overrides: str, check: Check | None = None, **fields: Any) -> list[str]:
    """What one check, or all of them, find wrong with the embedded preset with overrides."""
    plan = Plan(make_paths_absolute(load_config("shapes", overrides)), **fields)
    findings = examine(plan) if check is None else check(plan)
    return [f"{finding.named}; {finding.fix}" for finding in findings if finding.state == "wrong"]


def test_the_presets_of_this_machine_are_fine(tmp_path: Path) -> None:
    assert find_wrong(f"run.folder={tmp_path}/runs") == []
    assert list(tmp_path.iterdir()) == []  # a check writes nothing


@pytest.mark.parametrize(
    ("check", "overrides", "message"),
    [
        (check_settings, ["objective.radius=[1.0]"], "there is no setting objective.radius; did you mean radii?"),
        (check_settings, ["objective.name=dpro"], "no objective 'dpro'"),
        (check_settings, ["features.name=latent_may"], "no feature map 'latent_may'; did you mean latent_mae?"),
        (check_settings, ["features.options.kees=[a]"], "no setting features.options.kees; did you mean keys?"),
        (
            check_settings,
            ["features.options.keys=[layer9_mean]"],
            "features.options: latent-MAE: there is no feature 'layer9_mean'",
        ),
        (check_settings, ["features.options.keys=layer1"], "features.options.keys = 'layer1'"),
        (check_settings, ["features.path=null"], "features.path: the feature map latent_mae needs the folder"),
        (check_settings, ["features.path=/no/such"], "features.path: there is no folder or file /no/such"),
        (check_settings, ["features.name=teacher_unet", "features.options={}"], "no block 'down_blocks.2'; its blocks"),
        (
            check_settings,
            ["features.name=raw_latent", "features.options={}", "features.path=models/mae"],
            "features.path: the feature map raw_latent has no files, but the path is models/mae; set it to null",
        ),
        (
            check_settings,
            ["features.name=image_mae", "features.path=facebook/no-such-mae", "features.options={}"],
            "features.path: 'facebook/no-such-mae' is neither a folder nor in the hub's cache",
        ),
        (
            check_settings,
            ["features.options.keys=[layer3_mean_8]"],
            "does not divide into patches of 8x8",
        ),
        (
            check_settings,
            ["features.name=raw_latent", "features.options.keys=[layer1]"],
            "there is no feature 'layer1'",
        ),
        (check_prompts, ["prompts.source=jsnl"], "no prompt source 'jsnl'"),
        (check_prompts, ["prompts.split=trian"], "prompts.split: there is no split 'trian'"),
        (check_prompts, ["prompts.tasks=[/INST]"], "no task '/INST'"),
        (check_prompts, ["evaluation.split=tets"], "evaluation.split: there is no split 'tets'"),
        (
            check_rewards,
            ["evaluation.reward=genevl"],
            "evaluation.reward: 'genevl' is none of the rewards that score; did you mean gen",
        ),
        (
            check_rewards,
            ["evaluation.metric=strickt"],
            "has no metric 'strickt'; did you mean strict?; it declares strict, graded",
        ),
        (
            check_rewards,
            ["rewards.mixture=defualt"],
            "rewards.mixture: the service shapes has no mixture 'defualt'; did you mean def",
        ),
        (
            check_rewards,
            ["training.keep_best=geneval/strct"],
            "training.keep_best: the evaluation has no number 'geneval/strct'; did you mean geneval/strict?",
        ),
        (check_rewards, ["training.stop_if=guard/diverzity < 0.5"], "training.stop_if: the evaluation has no number"),
        (
            check_rewards,
            ["training.stop_if=guard/colors < 0.5", "evaluation.tasks=[colors, color_attr]"],
            "training.stop_if: no prompt of the evaluation leaves open what guard/colors counts",
        ),
        (check_rewards, ["rewards.weights={genevl: 1}"], "rewards.weights: the service shapes has no reward 'genevl'"),
        (check_rewards, ["rewards.weights={geneval: 0}"], "rewards.weights: all weights are 0"),
        (check_rewards, ["rewards.service=shapse"], "no service config 'shapse'"),
        (check_devices, ["model.device=cuda:77"], "model.device: there is no device cuda:77"),
        (
            check_devices,
            ["model.device=cpu", "training.use_gpu=true"],
            "training.use_gpu asks for a GPU for each worker, but",
        ),
        (check_devices, ["model.dtype=float16"], "float16 needs a GPU"),
        (
            check_devices,
            ["training.resources_per_worker={trainer: 1}"],
            "ask for 2 trainer, but this machine's Ray has 0",
        ),
        (
            check_devices,
            ["training.resources_per_worker={CPU: 500}"],
            "training.resources_per_worker: the workers and rewards ask for 1000.5 CPU",
        ),
        (check_devices, ["training.resources_per_worker={GPU: 1}"], "asks for a GPU, but training.use_gpu is false"),
        (check_outputs, ["run.folder=/dev/null/runs"], "run.folder: /dev/null is a file"),
        (check_outputs, ["preset=a/b"], "preset: 'a/b' is part of the name of the run's folder"),
    ],
)
def test_what_can_be_known_before_the_start_is_told(check: Check, overrides: Sequence[str], message: str) -> None:
    wrong = find_wrong(*overrides, check=check)
    assert any(message in line for line in wrong), wrong


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        check_config(
            load_config(
                "shapes",
                [
                    "objective.name=dpro",
                    "evaluation.split=tets",
                    "evaluation.metric=x",
                    "model.device=cuda:77",
                    f"model.generator={tmp_path}/none",
                    f"run.folder={__file__}",
                ],
            )
        )
    message = str(error.value)
    for part in ("dpro", "tets", "metric 'x'", "cuda:77", f"{tmp_path}/none", "run.folder"):
        assert part in message
    assert len(message.splitlines()) == 6


def test_what_only_training_needs_is_not_asked_of_others() -> None:
    wrong = ["objective.name=dpro", "prompts.split=x", "run.folder=/dev/null/x", "training.resources_per_worker={a: 1}"]
    assert len(find_wrong(*wrong)) == 4
    assert find_wrong(*wrong, verb="evaluate") == []
    assert find_wrong(*wrong, "evaluation.split=x", "rewards.service=none", verb="sample") == []
    assert find_wrong("evaluation.split=x", "evaluation.reward=x", "evaluation.enabled=false") == []


def test_a_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    (line,) = find_wrong(f"rewards.address={address}", check=check_rewards)
    assert f"rewards.address: the service at {address} cannot be used" in line
    (line,) = find_wrong("rewards.address=localhost:8000", check=check_rewards)
    assert "cannot use the address 'localhost:8000'" in line
    (line,) = find_wrong("rewards.address=serve://ranking", check=check_rewards)
    assert "serve://ranking is inside a Ray cluster, but this run starts a Ray of its own; set run.ray_address" in line
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    (line,) = find_wrong(f"rewards.address={address}", "rewards.api_key_env=NO_SUCH_KEY", check=check_rewards)
    assert "rewards.api_key_env names $NO_SUCH_KEY, which is not set" in line


def test_rewards_of_ones_own_are_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reward_of_my_own.py").write_text("class Mine:\n    version = '1'\n    def score(self, items): ...\n")
    service = tmp_path / "service.yaml"
    service.write_text("rewards: {mine: {type: 'reward_of_my_own:Mine', num_cpus: 0, resources: {big: 1}}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    wrong = find_wrong("rewards.service=service.yaml", "evaluation.metric=whatever")  # its metrics show when it runs
    assert wrong == [line for line in wrong if "big" in line]
    assert wrong


def test_metadata_that_a_reward_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    prompts = tmp_path / "prompts.jsonl"
    settings = ["prompts.source=file", f"prompts.path={prompts}"]
    prompts.write_text('{"prompt": "a red ring"}\n')  # of which the reward reads what it needs
    assert find_wrong(*settings, check=check_rewards) == []
    prompts.write_text('{"prompt": "a red ring"}\n{"prompt": "a red cat", "metadata": null}\n')
    lines = find_wrong(*settings, check=check_rewards)
    for section, line in zip(("prompts", "evaluation"), lines, strict=True):
        assert f"'geneval' refuses 1 of the 2 prompts of {section}: prompt 2 ('a red cat'): geneval needs the" in line
    service = tmp_path / "service.yaml"
    mine = "class Mine:\n    version = '1'\n    needs_metadata = True\n    def score(self, items): ...\n"
    (tmp_path / "reward_with_needs.py").write_text(mine)
    service.write_text("rewards: {own: {type: 'reward_with_needs:Mine', num_cpus: 0}}")
    lines = find_wrong(*settings, f"rewards.service={service}", "evaluation.enabled=false", check=check_rewards)
    assert "2 of 2 prompts of prompts have no metadata, which own needs" in lines[0]


def test_prompts_that_a_reward_will_refuse(tmp_path: Path) -> None:
    """Each of these would end the run at its first step."""
    service, prompts = tmp_path / "service.yaml", tmp_path / "prompts.jsonl"
    settings = [f"rewards.service={service}", "prompts.source=file", f"prompts.path={prompts}"]
    for options, prompt, metadata, message in (
        ("type: ocr", "a sign", {}, "ocr needs the text"),
        ("type: soft_tifa, options: {backend: endpoint, base_url: 'http://h', model: m}", "p", {}, "soft_tifa needs"),
        ("type: geneval, options: {detector: shapes}", "two cats", {"exclude": None}, "geneval needs"),
        (
            "type: remote, options: {url: 'http://h', form: flow_grpo_geneval, unsafe_pickle: true}",
            "a photo of a cat",
            None,
            "this remote scorer needs",
        ),
    ):
        service.write_text(f"rewards: {{one: {{{options}}}}}")
        prompts.write_text(json.dumps({"prompt": prompt, "metadata": metadata}))
        (line,) = find_wrong(*settings, "evaluation.enabled=false", check=check_rewards)
        assert f"the reward 'one' refuses 1 of the 1 prompts of prompts: prompt 1 ({prompt!r}): {message}" in line


def test_a_run_whose_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    settings = [f"run.folder={tmp_path}", "run.name=mine"]
    (line,) = find_wrong(*settings, check=check_outputs)
    assert f"run.name: {tmp_path / 'mine'} exists; choose another name, or continue that run with --resume" in line
    assert find_wrong(*settings, run_dir=tmp_path / "mine", check=check_outputs) == []


def test_room_for_the_checkpoints(tmp_path: Path) -> None:
    (line,) = find_wrong(f"run.folder={tmp_path}", "training.keep_checkpoints=100000000", check=check_outputs)
    assert "GB needed for 100000000 checkpoints" in line
    assert "lower training.keep_checkpoints or lora.rank" in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder"),
        ("a.xyz", "no format has this ending"),
        ("a", "no format has this ending"),
        ("a.h5", "no picture can be written as a.h5 (HDF5"),
        ("file/a.png", "file is a file"),
        (f"{'n' * 300}.png", "more than 255 bytes"),
        ("a\0.png", "has a null character"),
    ],
)
def test_pictures_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (line,) = find_wrong(verb="sample", out=tmp_path / name, texts=("a red ring",), check=check_outputs)
    assert message in line
    assert find_wrong(verb="sample", out=tmp_path / "new" / "A.JPG", texts=("",), check=check_outputs) == []


def test_a_warm_up_that_never_ends_is_a_warning() -> None:
    plan = Plan(load_config("shapes", ["optimizer.warmup_steps=1000", "training.steps=5"]))
    (finding,) = [finding for finding in check_settings(plan) if finding.state == "warning"]
    assert "1000 steps of warm-up, but 5 of training: the learning rate comes to 0.005 of optimizer.lr" in finding.found


def test_a_picture_of_an_earlier_call_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sample.png").touch()
    assert find_wrong(verb="sample", out=Path("sample.png"), texts=("",), check=check_outputs) == []


def test_a_temporary_folder_that_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    (line,) = find_wrong(check=check_surroundings)
    assert "nothing can be written to the temporary folder" in line
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    (line,) = find_wrong(check=check_surroundings)
    assert "RAY_TMPDIR" in line
    assert find_wrong(check=check_surroundings, verb="sample") == []


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "shapes").mkdir()  # of the name of the embedded model
    config = make_paths_absolute(load_config("shapes", ["model.generator=model", "run.folder=~/runs"]))
    assert config.model.generator == str(tmp_path / "model")
    assert config.run.folder == Path(os.path.expanduser("~/runs"))
    assert config.features.path == "shapes"
    assert make_paths_absolute(Config()).run.folder == tmp_path / "runs"


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ('{"class": "circle", "count": 0}', "`include[0].count`"),
        ('{"class": "elephant"}', "metadata asks for class 'elephant'; the detector knows circle"),
        ('{"class": "circle", "color": "mauve"}', "metadata asks for color 'mauve'"),
        ('{"class": "circle", "position": ["near", 0]}', "position names clause 0"),
    ],
)
def test_metadata_that_the_reward_will_refuse_is_found(clause: str, message: str, tmp_path: Path) -> None:
    good = '{"prompt": "a red circle", "metadata": {"include": [{"class": "circle", "color": "red"}]}}\n'
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(good + f'{{"prompt": "odd", "metadata": {{"include": [{clause}]}}}}\n')
    settings = ["prompts.source=file", f"prompts.path={prompts}", "evaluation.enabled=false"]
    (line,) = find_wrong(*settings, check=check_rewards)
    assert line.startswith("the reward 'geneval' refuses 1 of the 2 prompts of prompts: prompt 2 ('odd'): ")
    assert message in line
    prompts.write_text(good)
    assert find_wrong(*settings, check=check_rewards) == []


def test_metadata_that_no_reward_reads_is_found(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(
        "rewards: {geneval: {type: geneval}, own: {type: 'support.rewards:EchoOfText'}}"
    )
    prompts = tmp_path / "prompts.jsonl"
    line = '{"prompt": "a red circle", "metadata": {"include": [{"class": "circle"}], "KEY": "OPEN"}}\n'
    settings = ["prompts.source=file", f"prompts.path={prompts}", f"rewards.service={tmp_path}/service.yaml"]
    prompts.write_text(line.replace("KEY", "text"))
    assert find_wrong(*settings, "evaluation.enabled=false", check=check_rewards) == []
    (found,) = find_wrong(*settings, "evaluation.rewards=[geneval]", check=check_rewards)
    assert found.startswith("the rewards refuse 1 of the 1 prompts of evaluation: prompt 1 ('a red circle'): ")
    assert "`metadata.text`: no reward of this request reads this key (geneval reads exclude, include" in found
    prompts.write_text(line.replace("KEY", "txt"))
    (found,) = find_wrong(*settings, "evaluation.enabled=false", check=check_rewards)
    assert "`metadata.txt`: no reward of this request reads this key; did you mean text?" in found
