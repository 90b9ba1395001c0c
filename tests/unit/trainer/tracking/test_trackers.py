"""The real trackers, writing to the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from drpo.checks import Plan
from drpo.checks.trackers import check_trackers
from drpo.config import Config, parse_config
from drpo.errors import ConfigError
from drpo.tracking import Trackers

METRICS = {"loss": 0.5, "reward/redness": 3.0, "seconds": {"generate": 0.25}, "combined_mean": None}
EVALUATION = {"step": 2, "grid": "samples/step-2.png", "present": {"redness": 1.5, "guard/diversity": 0.9}}
SUMMARY = {"steps": 2, "numbers": {"redness": {"base": 1.0, "tuned": 1.5, "difference": 0.5}}, "stopped": None}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "mine" / "samples").mkdir(parents=True)
    Image.new("RGB", (32, 16), "red").save(tmp_path / "runs" / "mine" / "samples" / "step-2.png")
    return tmp_path / "runs" / "mine"


def track(run_dir: Path, *, steps: tuple[int, ...] = (1, 2), **trackers: Any) -> list[str]:
    """Does what a run does. Returns the warnings."""
    warnings: list[str] = []
    config = parse_config({"trackers": trackers, "run": {"seed": 7}})
    with Trackers(config, run_dir, warn=warnings.append) as opened:
        for step in steps:
            opened.log_step({**METRICS, "step": step})
        opened.log_evaluation(EVALUATION)
        opened.log_summary(SUMMARY)
    return warnings


def test_tensorboard(run_dir: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert track(run_dir) == []  # it is the default
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.5)]
    assert [one.value for one in events.Scalars("seconds/generate")] == [0.25, 0.25]
    assert [(one.step, round(one.value, 3)) for one in events.Scalars("evaluation/guard/diversity")] == [(2, 0.9)]
    [picture] = events.Images("samples")
    assert (picture.step, picture.width, picture.height) == (2, 32, 16)
    assert [one.value for one in events.Scalars("summary/redness/tuned")] == [1.5]
    assert str(run_dir / "adapter").encode() in events.Tensors("adapter/text_summary")[0].tensor_proto.string_val[0]
    [settings] = run_dir.glob("tensorboard/*/hparams.yml")
    assert "run.seed: 7" in settings.read_text()


@pytest.fixture
def no_mlflow_run() -> Iterator[None]:
    import mlflow

    uri = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(uri)


def test_mlflow_on_a_local_folder_and_a_resumed_run_goes_on_in_it(run_dir: Path, no_mlflow_run: None) -> None:
    from mlflow.tracking import MlflowClient

    assert track(run_dir, use=["mlflow"], project="colours") == []
    assert track(run_dir, use=["mlflow"], project="colours", steps=(3,)) == []
    client = MlflowClient((run_dir.parent / "mlruns").as_uri())
    [experiment] = client.search_experiments(filter_string="name = 'colours'")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mine"
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (1, 0.5),
        (2, 0.5),
        (3, 0.5),
    ]
    assert run.data.params["run.seed"] == "7"
    assert run.data.metrics["summary/redness/difference"] == 0.5
    assert run.data.tags["adapter"] == str(run_dir / "adapter")
    assert [file.path for file in client.list_artifacts(run.info.run_id, "samples")] == ["samples/step-2.png"]
    assert run.info.status == "FINISHED"


def read_wandb(file: Path) -> list[Any]:
    """The records in wandb's file, once its process has written the last one."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    records: list[Any] = []
    deadline = time.monotonic() + 60
    while not (records and records[-1].WhichOneof("record_type") in ("exit", "footer")):
        assert time.monotonic() < deadline
        store, records = DataStore(), []
        store.open_for_scan(str(file))
        while (data := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            records.append(record)
    return records


def by_name(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.mark.thorough  # it starts wandb's own process
def test_wandb_offline(run_dir: Path) -> None:
    """Everything is in the file that `wandb sync` would send."""
    assert track(run_dir, use=["wandb"], options={"wandb": {"mode": "offline"}}) == []
    [file] = run_dir.glob("wandb/offline-run-*/run-*.wandb")
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    names = set()
    for record in read_wandb(file):
        names.add(record.run.display_name)
        settings |= by_name(record.run.config.update) | by_name(record.config.update)
        history += [by_name(record.history.item)] if record.history.item else []
        summary |= by_name(record.summary.update)
    assert "mine" in names
    assert settings["run.seed"] == 7
    assert [(line["_step"], line["train/loss"]) for line in history if "train/loss" in line] == [(1, 0.5), (2, 0.5)]
    [evaluated] = [line for line in history if "evaluation/redness" in line]
    assert (evaluated["_step"], evaluated["evaluation/redness"]) == (2, 1.5)
    assert any(line.get("samples/_type") == "images/separated" for line in history)
    assert list(file.parent.rglob("*.png"))
    assert summary["adapter"] == str(run_dir / "adapter")
    assert summary["summary/redness/tuned"] == 1.5
    assert json.loads((run_dir / "trackers.json").read_text()) == {"wandb": file.stem.removeprefix("run-")}


def test_a_tracker_that_breaks_warns_once_and_the_others_go_on(run_dir: Path, no_mlflow_run: None) -> None:
    (run_dir.parent / "mlruns").write_text("in the way")
    [warning] = track(run_dir, use=["mlflow", "tensorboard"])
    assert warning.startswith("the tracker mlflow gets nothing more: ")
    assert list(run_dir.glob("tensorboard/events*"))


def test_a_list_of_names_is_short_for_use() -> None:
    config = parse_config({"trackers": ["tensorboard", "wandb"]})
    assert config.trackers.use == ("tensorboard", "wandb")
    assert parse_config(config.model_dump(mode="json")) == config
    with pytest.raises(ConfigError, match=r"options are given for wandb, but not in use"):
        parse_config({"trackers": {"options": {"wandb": {}}}})


@pytest.mark.parametrize(
    ("name", "found"),
    [("wandbb", "no tracker 'wandbb'; did you mean wandb"), ("comet_ml", "comet_ml is not installed")],
)
def test_a_tracker_that_is_not_there_is_found_before_the_start(name: str, found: str) -> None:
    [finding] = check_trackers(Plan(Config.model_validate({"trackers": [name]})))
    assert finding.state == "wrong"
    assert found in finding.found


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("wandb", {"entty": "x"}, "trackers.options.wandb: there is no option 'entty'; did you mean entity?"),
        ("wandb", {"mode": "ofline"}, "mode = 'ofline'; did you mean offline?; it takes online, offline"),
        ("wandb", {"project": "x"}, "project is no option, because trackers.project sets it"),
        ("mlflow", {"tracking_url": "x"}, "no option 'tracking_url'; did you mean tracking_uri?"),
        ("tensorboard", {"max_que": 3}, "no option 'max_que'; did you mean max_queue?"),
    ],
)
def test_an_option_that_a_tracker_does_not_take_is_found_before_the_start(
    name: str, options: dict[str, Any], found: str
) -> None:
    findings = check_trackers(Plan(parse_config({"trackers": {"use": [name], "options": {name: options}}})))
    assert [found in finding.found for finding in findings if finding.state == "wrong"] == [True]


def test_options_that_trackers_take_are_no_mistake() -> None:
    options = {
        "wandb": {"mode": "offline", "entity": "my-team", "resume": True, "tags": ["a"]},
        "mlflow": {"tracking_uri": "http://127.0.0.1:5000", "description": "x"},
        "tensorboard": {"flush_secs": 5},
    }
    config = parse_config({"trackers": {"use": list(options), "options": options}})
    assert {finding.state for finding in check_trackers(Plan(config))} == {"ok"}


@pytest.mark.thorough  # it starts a Python of its own, because the thread of the tracker stays behind
def test_a_tracker_that_hangs_does_not_hold_up_a_run(run_dir: Path) -> None:
    """MLflow with a server that accepts connections and says nothing."""
    code = f"""
import socket, time
from pathlib import Path
from drpo.config import parse_config
from drpo.tracking import Trackers, trackers
server = socket.create_server(("127.0.0.1", 0))
uri = f"http://127.0.0.1:{{server.getsockname()[1]}}"
trackers.END_S = 2.0
config = parse_config({{"trackers": {{"use": ["mlflow"], "options": {{"mlflow": {{"tracking_uri": uri}}}}}}}})
with Trackers(config, Path({str(run_dir)!r}), warn=print) as opened:
    opened.log_step({{"step": 1, "loss": 0.5}})
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env={**os.environ}
    )
    assert ended.returncode == 0, ended.stderr
    assert "the tracker mlflow has not taken everything within 2 s" in ended.stdout
