"""How each tracker of accelerate is started, and how it takes pictures and results.

A tracker that is not named here is started with the project alone, and gets the curves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drpo.config import TrackersConfig


def start_tracker(name: str, settings: TrackersConfig, run_dir: Path, identity: str | None) -> Any:
    """Starts a tracker.

    Args:
        name: a name of accelerate's trackers.
        settings: the section `trackers`.
        run_dir: the run's folder, which also names the run.
        identity: what `identity_of` returned when the run began; None: a new run.
    """
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # some trackers ask it whether this is the first process; the driver is alone
    options = dict(settings.options.get(name, {}))
    defaults: dict[str, Any] = {}
    arguments: list[Any] = [settings.project]
    if name == "tensorboard":
        arguments, defaults = ["tensorboard", run_dir], {"flush_secs": 5}
    elif name == "wandb":
        defaults = {"name": run_dir.name, "dir": str(run_dir), "settings": {"console": "off"}}
        if identity is not None:
            defaults |= {"id": identity, "resume": "allow"}
    elif name == "mlflow":
        _choose_store(options.pop("tracking_uri", None), run_dir)
        defaults = {"run_name": run_dir.name, "run_id": identity}
    elif name == "aim":
        arguments = [run_dir.name, run_dir]
    elif name == "swanlab":
        defaults = {"experiment_name": run_dir.name, "logdir": str(run_dir / "swanlab")}
    elif name == "trackio":
        defaults = {"name": run_dir.name, "resume": "allow"}
    tracker = LOGGER_TYPE_TO_CLASS[name](*arguments, **{**defaults, **options})
    tracker.start()
    return tracker


def _choose_store(tracking_uri: str | None, run_dir: Path) -> None:
    """Chooses where MLflow keeps its runs: as the settings or the environment say, else in mlruns/ beside the run."""
    import mlflow

    if tracking_uri is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        tracking_uri = (run_dir.parent / "mlruns").as_uri()
    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder is enough; MLflow would rather have a database


def identity_of(tracker: Any) -> str | None:
    """What a resumed run needs to go on in the same place of the tracker; None if it needs nothing."""
    if tracker.name == "wandb":
        return str(tracker.tracker.id)
    return str(tracker.tracker.info.run_id) if tracker.name == "mlflow" else None


def log_picture(tracker: Any, name: str, file: Path, step: int) -> None:
    """Sends a picture of a step, as far as the tracker takes pictures."""
    if tracker.name == "mlflow":
        tracker.log_artifact(str(file), name)
    elif tracker.name == "comet_ml":
        tracker.tracker.log_image(str(file), name=name, step=step)
    elif hasattr(tracker, "log_images"):
        with Image.open(file) as picture:
            image_HWC = np.asarray(picture.convert("RGB"))
        if tracker.name == "tensorboard":
            tracker.log_images({name: image_HWC[None]}, step=step, dataformats="NHWC")
        elif tracker.name in ("aim", "clearml"):
            tracker.log_images({name: image_HWC}, step=step)
        else:
            tracker.log_images({name: [image_HWC]}, step=step)


def log_results(tracker: Any, results: Mapping[str, float | str], step: int) -> None:
    """Sends the results of the run: as its summary, where the tracker has such a thing, else as the last point."""
    write = _RESULTS.get(tracker.name)
    if write is not None:
        write(tracker, results, step)
    else:
        tracker.log({name: value for name, value in results.items() if not isinstance(value, str)}, step=step)


def _to_wandb(tracker: Any, results: Mapping[str, float | str], step: int) -> None:
    tracker.tracker.summary.update(dict(results))


def _to_mlflow(tracker: Any, results: Mapping[str, float | str], step: int) -> None:
    import mlflow

    tracker.log({name: value for name, value in results.items() if not isinstance(value, str)}, step=step)
    mlflow.set_tags({name: value for name, value in results.items() if isinstance(value, str)})


def _to_tensorboard(tracker: Any, results: Mapping[str, float | str], step: int) -> None:
    tracker.log(dict(results), step=step)  # which writes texts as texts


_RESULTS: dict[str, Callable[[Any, Mapping[str, float | str], int], None]] = {
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
    "tensorboard": _to_tensorboard,
}
