"""Small rewards that tests deploy as `support.rewards:Class` or call in process: some work, some fail on purpose."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from drpo_rewards.api.contract import Metric
from drpo_rewards.errors import InvalidRequestError, WeightsError
from drpo_rewards.rewards.base import Comparison, PairItem, Score, ScoreItem, StagedReward
from drpo_rewards.rewards.files.model_files import ModelFiles


class Redness:
    """Mean of red minus the mean of green and blue. An adapter learns it in a few steps."""

    version = "redness-1"
    metrics = (Metric(name="red_wins", description="red is stronger than green", unit="share"),)

    def __init__(self, seconds_per_group: float = 0.0) -> None:
        self.seconds_per_group = seconds_per_group

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        time.sleep(self.seconds_per_group)
        means = [item.image.astype(np.float64).mean(axis=(0, 1)) for item in items]
        return [Score(float(red - (green + blue) / 2), {"red_wins": int(red > green)}) for red, green, blue in means]


class DifferentiableRedness(Redness):
    """Redness with a gradient, which is weaker at the right edge and takes part of the prompt's length."""

    def score_differentiably(self, images_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        weights_W = torch.linspace(2, 0, images_N3HW.shape[3], device=images_N3HW.device)
        red_N, green_N, blue_N = (images_N3HW * weights_W).square().mean(dim=(2, 3)).T
        lengths_N = torch.tensor([len(prompt) for prompt in prompts], device=images_N3HW.device)
        return 255 * (red_N - (green_N + blue_N) / 2) + lengths_N


class FailsOn:
    """Redness, but it fails for prompts with one word, and gives equal scores for prompts with another."""

    version = "fails-1"

    def __init__(self, fail: str = "blue", tie: str = "green") -> None:
        self.fail = fail
        self.tie = tie
        self.redness = Redness()

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        if any(self.fail in item.prompt for item in items):
            raise RuntimeError(f"no score for {self.fail}")
        scores = self.redness.score(items)
        return [Score(0.0) if self.tie in item.prompt else score for item, score in zip(items, scores, strict=True)]


class Echo:
    """A reward whose details are the metadata that it gets. It does not say what it reads."""

    version = "echo-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(0.0, {"got": item.metadata}) for item in items]


class EchoOfText(Echo):
    """An Echo that declares which metadata it reads."""

    metadata_schema: ClassVar = {"type": "object", "properties": {"text": {"type": "string"}, "size": {}}}


class TracedRedness:
    """Redness whose details have the process that scored, and the size of its batch."""

    version = "redness-1"
    range = (-255.0, 255.0)

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        time.sleep(self.delay_s)
        details = {"pid": os.getpid(), "batch": len(items)}
        means = [item.image.astype(np.float64).mean(axis=(0, 1)) for item in items]
        return [Score(float(red - (green + blue) / 2), details) for red, green, blue in means]


class Darkness:
    """Mean of all channels, or of the one that the metadata names. Lower is better."""

    version = "darkness-1"
    higher_is_better = False
    metadata_schema: ClassVar = {
        "type": "object",
        "properties": {"channel": {"type": "string", "description": "red, green or blue; by default all"}},
    }

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        channels = {"red": 0, "green": 1, "blue": 2}
        chosen = [channels.get((item.metadata or {}).get("channel", ""), slice(None)) for item in items]
        return [Score(float(item.image[:, :, channel].mean())) for item, channel in zip(items, chosen, strict=True)]


class Corner:
    """Red of the upper left pixel, which depends on the orientation of the image."""

    version = "corner-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(float(item.image[0, 0, 0])) for item in items]


class BrighterOf:
    """Compares two images. The one with the higher mean wins."""

    version = "brighter-1"
    checkpoint = "nobody/brighter"
    revision = "0123abc"
    license = "Apache-2.0"

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        return [self._judge(item) for item in items]

    def _judge(self, item: PairItem) -> Comparison:
        if item.metadata and item.metadata.get("how") == "unsure":
            return Comparison("first", confidence=1.5)
        difference = float(item.first.mean()) - float(item.second.mean())
        if difference == 0:
            return Comparison("tie")
        confidence = min(1.0, abs(difference) / 255)
        return Comparison("first" if difference > 0 else "second", confidence, {"difference": difference})


class RecordingJudge(BrighterOf):
    """BrighterOf, but slower. Each call adds a line with its number of pairs to the file FOLDER/PID."""

    def __init__(self, folder: str, delay_s: float = 0.0) -> None:
        self.file = Path(folder) / str(os.getpid())
        self.delay_s = delay_s

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        time.sleep(self.delay_s)
        with self.file.open("a") as file:
            file.write(f"{len(items)}\n")
        return super().compare(items)


class Overlapping(StagedReward):
    """Mean of all channels. With `how: wait` in its metadata, a batch waits until another one was prepared."""

    version = "overlapping-1"

    def __init__(self) -> None:
        self.others = threading.Semaphore(0)

    def prepare(self, items: Sequence[ScoreItem]) -> tuple[bool, list[float]]:
        all_metadata = [item.metadata or {} for item in items]
        if any(metadata.get("how") == "refuse" for metadata in all_metadata):
            raise InvalidRequestError("metadata.how must not be `refuse`", field="metadata.how")
        self.others.release()
        waits = any(metadata.get("how") == "wait" for metadata in all_metadata)
        return waits, [float(item.image.mean()) for item in items]

    def score_prepared(self, prepared: tuple[bool, list[float]]) -> list[Score]:
        self.others.acquire()  # the release in its own `prepare`
        waits, means = prepared
        if waits:
            if not self.others.acquire(timeout=100):
                raise TimeoutError("nothing was prepared meanwhile")
            self.others.release()
        return [Score(mean) for mean in means]


class ExitsAtItsStart(Redness):
    """A reward whose native code ends the process."""

    def __init__(self) -> None:
        os._exit(1)


class FailsToLoad:
    """Declares a file that it reads, but cannot be built from the file's headers alone; building it fails."""

    version = "fails-1"

    def __init__(self, model: str) -> None:
        raise WeightsError(f"{model} was loaded")

    @staticmethod
    def files(**options: Any) -> tuple[ModelFiles, ...]:
        return (ModelFiles("model", "nobody/nothing", ((("weights.txt",),),), "MIT", gigabytes=0.5),)

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(0.0) for _ in items]


def _nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"inner": inner}
    return inner


def _tensor(numbers: list[float]) -> Any:
    import torch  # here, because most replicas of these rewards do without it

    return torch.tensor(numbers)


# What rewards that others write may return instead of a list of Scores, by its name.
ODD_RESULTS: dict[str, Callable[[list[float]], Any]] = {
    "a tuple": lambda means: tuple(map(Score, means)),
    "a generator": lambda means: (Score(mean) for mean in means),
    "a NumPy array": np.array,
    "a column": lambda means: np.array(means)[:, None],
    "an array of Scores": lambda means: np.array([Score(mean) for mean in means], dtype=object),
    "a tensor": lambda means: _tensor(means),
    "numbers": list,
    "NumPy's numbers": lambda means: [Score(np.float32(mean)) for mean in means],
    "tensors": lambda means: [Score(_tensor([mean])) for mean in means],
    "whole numbers": lambda means: [int(mean) for mean in means],
    "no Score": lambda means: [object() for _ in means],
    "one number": lambda means: 1.0,
    "nothing": lambda means: None,
    "a text": lambda means: "12"[: len(means)],
    "a dict": lambda means: dict.fromkeys(range(len(means)), 1.0),
    "too many": lambda means: itertools.repeat(1.0),
    "texts": lambda means: [Score("0.5") for _ in means],
    "infinity": lambda means: [Score(-np.inf) for _ in means],
    "huge": lambda means: [Score(10**400) for _ in means],
    "details as a list": lambda means: [Score(mean, [1]) for mean in means],
    "large details": lambda means: [Score(mean, {"a": "x" * 50_000_000}) for mean in means],
    "details in each other": lambda means: [Score(mean, {"a": _shared(12)}) for mean in means],
    "deep details": lambda means: [Score(mean, _nested(10_000)) for mean in means],
    "rather deep details": lambda means: [Score(mean, _nested(400)) for mean in means],
    "keys of numbers": lambda means: [Score(mean, {1: "one"}) for mean in means],
    "an array as details": lambda means: [Score(mean, {"a": np.zeros(3)}) for mean in means],
    "half a letter": lambda means: [Score(mean, {"a": "\ud83d"}) for mean in means],
}


def _shared(levels: int) -> list[Any]:
    """10^12 values in a few lists."""
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner] * 10
    return inner


class Failing:
    """Fails for the whole batch, in the way that `how` in the metadata names, or returns something odd."""

    version = "failing-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        how = next((item.metadata["how"] for item in items if item.metadata and item.metadata.get("how")), "")
        if how == "raise":
            raise ZeroDivisionError("nothing to divide by")
        if how == "tell":
            raise RuntimeError(f"{__file__} in {os.getpid()} on {socket.gethostname()}")
        if how == "tell as ours":
            raise WeightsError(f"{__file__} in {os.getpid()} on {socket.gethostname()} holds no weights")
        if how == "short":
            return [Score(1.0)] * (len(items) - 1)
        if how == "refuse":
            raise InvalidRequestError("metadata.how must not be `refuse`", field="metadata.how")
        if how == "refuse half a letter":
            print("half a letter: \ud83d")
            raise InvalidRequestError("half a letter: \ud83d")
        if how == "die":
            os._exit(1)
        if how == "exit":
            sys.exit(3)
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "change":
            for item in items:
                item.image[:] = 0
                (item.metadata or {}).clear()
        if how in ODD_RESULTS:
            return ODD_RESULTS[how]([float(item.image.mean()) for item in items])
        if how == "hang":
            time.sleep(3600)
        details = {"an object": object()} if how == "odd details" else None
        return [Score(float("nan") if how == "nan" else 1.0, details) for _ in items]
