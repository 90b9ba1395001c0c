"""A run that goes on: what may change, what is refused, and that a refusal leaves the run as it was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drpo.checks import check_config
from drpo.cli import app
from drpo.config import known_keys, load_config, override_config
from drpo.errors import ConfigError, RunInUseError
from drpo.generators.sd_turbo import SDTurboGenerator
from drpo.training.checkpoint import write_checkpoint
from drpo.training.resume import CHANGEABLE, find_changes, find_start, fixed_settings
from drpo.training.run_folder import create_run, read_config
from drpo.training.run_lock import LOCK_FILE, is_being_trained, is_taken_over, lock_run
from drpo.training.version import PROJECT_VERSION


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A run with a checkpoint of step 2."""
    folder = tmp_path_factory.mktemp("runs")
    line = {"prompt": "a red circle", "metadata": {"include": [{"class": "circle", "count": 1, "color": "red"}]}}
    (folder / "prompts.jsonl").write_text(json.dumps(line) + "\n")
    overrides = [
        f"run.folder={folder}", "run.name=mine", f"model.generator={tiny}", "prompts.source=file",
        f"prompts.path={folder}/prompts.jsonl", "prompts.allow_overlap=true",
        "features.name=raw_latent", "features.path=null", "features.options={}",
    ]  # fmt: skip
    config = check_config(load_config("shapes", overrides))
    run_dir = create_run(config)
    adapter = SDTurboGenerator.load(tiny, lora=config.lora).adapter
    write_checkpoint(run_dir / "checkpoints", {"step": 2}, adapter, keep=2, settings=fixed_settings(config))
    return run_dir


@pytest.fixture
def run_dir(saved: Path, tmp_path: Path) -> Path:
    """A copy of that run, which a test may change."""
    return shutil.copytree(saved, tmp_path / "mine")


def content(run_dir: Path) -> dict[Path, bytes]:
    files = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    files.pop(run_dir / LOCK_FILE, None)  # holds who trains the run now
    return files


def test_changeable_settings_exist() -> None:
    known = {".".join(key.split(".")[:2]) for key in known_keys()}  # a section within a section changes as a whole
    assert {f"{section}.{key}" for section, keys in CHANGEABLE.items() for key in keys} <= known


@pytest.mark.parametrize(
    "change",
    [
        "training.steps=7", "training.max_seconds=9.5", "training.num_workers=2", "optimizer.lr=0.5",
        "rewards.address=grpc://127.0.0.1:9", "rewards.service=null rewards.address=serve://x", "run.name=mine",
        "evaluation.split=train", "model.device=cuda:1", "lora.rank=16",
    ],
)  # fmt: skip
def test_how_long_where_and_how_fast_a_run_trains_may_change(run_dir: Path, change: str) -> None:
    earlier = read_config(run_dir)
    config = override_config(earlier, change.split(" "))
    assert find_changes(earlier, config, run_dir) == {}
    assert find_start(config, run_dir) == []


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ("lora.rank=8", "lora.rank is 16, not 8"),
        ("lora.target_modules=[to_q]", "lora.target_modules is"),
        ("model.generator=shapes", "model.generator is"),
        ("model.dtype=bfloat16", "model.dtype is float32, not bfloat16"),
        ("features.options.keys=[latent_mean]", "features.options is"),
        ("objective.velocity=3", "objective.velocity is"),
        ("prompts.balance_tasks=false", "prompts.balance_tasks is True, not False"),
        ("training.candidates=6", "training.candidates is"),
        ("optimizer.weight_decay=0.5", "optimizer.weight_decay is"),
        ("run.seed=4", "run.seed is 0, not 4"),
        ("run.name=other", "run.name is mine, not other"),
        ("rewards.normalize=rank", "rewards.normalize is None, not rank"),
    ],
)
def test_what_the_steps_so_far_depend_on_is_refused(
    run_dir: Path, change: str, values: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(run_dir)
    key, _, value = change.partition("=")
    for dry_run in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as end:
            app(["train", "--resume", str(run_dir), f"--{key}", value, *dry_run])
        assert end.value.code == 2
        printed = capsys.readouterr()
        [line] = [line for line in (printed.out if dry_run else printed.err).splitlines() if "start a new run" in line]
        assert values in line
    assert content(run_dir) == before


def test_a_run_does_not_go_back(run_dir: Path) -> None:
    config = read_config(run_dir)
    with pytest.raises(ConfigError, match=r"training\.steps is 1, but .*mine has made 2 steps already"):
        find_start(override_config(config, ["training.steps=1"]), run_dir)
    assert find_start(override_config(config, ["training.steps=2"]), run_dir) == []


def test_the_settings_of_the_checkpoint_count_too(run_dir: Path) -> None:
    """They differ from config.yaml if somebody has edited it."""
    path = run_dir / "config.yaml"
    path.write_text(path.read_text().replace("rank: 16", "rank: 8"))
    with pytest.raises(ConfigError, match=r"the checkpoint .*step-000002 cannot go on.*lora\.rank is 16, not 8"):
        find_start(read_config(run_dir), run_dir)


def test_damaged_and_foreign_checkpoints_are_named(run_dir: Path) -> None:
    config = read_config(run_dir)
    newer = run_dir / "checkpoints" / "step-000004"
    newer.mkdir()
    (newer / "state.pt").write_bytes(b"")
    first, second = find_start(config, run_dir)
    assert first.startswith("left out a damaged checkpoint: ")
    assert "step-000004" in first
    assert second == "going on from step 2, the newest whole checkpoint"

    manifest = run_dir / "checkpoints" / "step-000002" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "drpo": "0.0.1"}))
    assert find_start(config, run_dir)[-1] == (
        f"the checkpoint was written by drpo: 0.0.1; going on with it in drpo {PROJECT_VERSION}"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("run:\n\tname: x\n", "not valid YAML"),
        ("[1, 2]\n", "not sections such as"),
        ("just text\n", "not sections such as"),
        ("lora: {rank: 0}\n", "lora.rank"),
        (f"# drpo {PROJECT_VERSION}, format 9\nlora: {{rank: 4}}\n", f"format 9); this is drpo {PROJECT_VERSION}"),
        ("# drpo 0.0.7, format 1\nlora: {tank: 8}\n", f"(written by drpo: 0.0.7; this is {PROJECT_VERSION})"),
    ],
)
def test_a_damaged_config_is_one_line_with_the_file(
    run_dir: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "config.yaml").write_text(text)
    with pytest.raises(SystemExit) as end:
        app(["train", "--resume", str(run_dir)])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert str(run_dir / "config.yaml") in error
    assert problem in error
    assert len(error.splitlines()) == 1


def test_a_config_that_is_not_utf8(run_dir: Path) -> None:
    (run_dir / "config.yaml").write_bytes("preset: Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"(?i)config\.yaml.*utf-8"):
        read_config(run_dir)


def test_a_run_that_a_guard_has_ended_goes_on_only_with_another_condition(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "evaluations.jsonl").write_text(json.dumps({"step": 2, "present": {"guard/diversity": 0.4}}) + "\n")
    before = content(run_dir)
    options = ["--evaluation.every", "2", "--training.stop_if", "guard/diversity < 0.5"]
    with pytest.raises(SystemExit) as end:
        app(["train", "--resume", str(run_dir), *options])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        f"error: --resume: the run {run_dir} is at step 2, whose evaluation ends it: guard/diversity is 0.4, below 0.5 "
        "(training.stop_if). To train on, give another limit, or none with --training.stop_if null\n"
    )
    assert content(run_dir) == before
    for stop_if in ("null", "guard/diversity < 0.3"):
        config = override_config(read_config(run_dir), ["evaluation.every=2", f"training.stop_if={stop_if}"])
        assert find_start(config, run_dir) == []


def test_a_run_does_not_go_on_from_another_adapter(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = run_dir / "checkpoints" / "step-000002" / "adapter"
    for options in (["--adapter", str(adapter)], ["--lora.adapter", str(adapter)]):
        with pytest.raises(SystemExit) as end:
            app(["train", "--resume", str(run_dir), *options])
        assert end.value.code == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"lora.adapter is None, not {adapter}; the steps of mine so far depend on it: leave it out" in line


HOLD = """
import sys, time
from pathlib import Path
from drpo.training.run_lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_one_process_at_a_time_trains_a_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        before = content(run_dir)
        with pytest.raises(RunInUseError, match=rf"is being trained by process {other.pid} on \S+, since \d{{4}}-"):
            lock_run(run_dir).__enter__()
        with pytest.raises(SystemExit) as end:
            app(["train", "--resume", str(run_dir), "--training.steps", "5"])
        assert end.value.code == 2
        assert f"process {other.pid}" in capsys.readouterr().err
        assert content(run_dir) == before
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()

    with lock_run(run_dir) as first:  # what the killed process left is no obstacle
        assert first.held
        assert not is_taken_over(run_dir, first.token)
    with lock_run(run_dir) as second:
        assert is_taken_over(run_dir, first.token)
        assert not is_taken_over(run_dir, second.token)
    assert (run_dir / LOCK_FILE).read_bytes() == b""


def test_who_holds_a_run_is_told_whatever_the_file_says(run_dir: Path) -> None:
    file = run_dir / LOCK_FILE
    with lock_run(run_dir):
        assert is_being_trained(run_dir)
        whole = json.loads(file.read_text())
        for garbage in ("3", "[]", "{}", '{"pid": 1}', json.dumps({**whole, "since": "now"}), "[" * 100_000):
            file.write_text(garbage)
            with pytest.raises(RunInUseError, match="by another process; wait"):
                lock_run(run_dir).__enter__()
            assert not is_taken_over(run_dir, "mine")
    file.write_text(json.dumps({**whole, "pid": 2**40}))
    assert not is_being_trained(run_dir)
    file.write_text(json.dumps({**whole, "since": 0.0}))  # that process has ended, and its number is another one's
    assert not is_being_trained(run_dir)


def test_a_run_without_its_checkpoints_is_not_begun_anew(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(run_dir / "checkpoints" / "step-000002" / "adapter", run_dir / "adapter")
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    before = content(run_dir)
    with pytest.raises(SystemExit) as end:
        app(["train", "--resume", str(run_dir), "--training.steps", "5"])
    assert end.value.code == 2
    assert "has an adapter but none of its checkpoints any more" in capsys.readouterr().err
    assert content(run_dir) == before


@pytest.mark.parametrize("text", ["training: {steps: 4}\n", "model: {name: resnet}\nseed: 3\n", "- a\n"])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(SystemExit) as end:
        app(["train", "--resume", str(tmp_path)])
    assert end.value.code == 2
    assert str(tmp_path / "config.yaml") in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "config.yaml"]
