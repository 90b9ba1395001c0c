"""Small rewards that tests deploy as `support.rewards:Class` or call in process: some work, some fail on purpose."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drpo_rewards.errors import InvalidRequestError, WeightsError
from drpo_rewards.rewards.base import Comparison, PairItem, Score, ScoreItem, StagedReward


class Redness:
    """Mean of red minus the mean of green and blue; an adapter can learn it in a few steps. May be made slow."""

    version = "redness-1"

    def __init__(self, seconds_per_group: float = 0.0) -> None:
        self.seconds_per_group = seconds_per_group

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        time.sleep(self.seconds_per_group)
        means = [item.image.astype(np.float64).mean(axis=(0, 1)) for item in items]
        return [Score(float(red - (green + blue) / 2), {"strict": int(red > green)}) for red, green, blue in means]


class FailsOn:
    """Redness, but prompts with a certain word cannot be scored, or tie."""

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


class TracedRedness:
    """Mean of red minus the mean of the other two channels; says which process scored, and in how large a batch."""

    version = "redness-1"
    range = (-255.0, 255.0)

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        time.sleep(self.delay_s)
        said = {"pid": os.getpid(), "batch": len(items)}
        means = [item.image.astype(np.float64).mean(axis=(0, 1)) for item in items]
        return [Score(float(red - (green + blue) / 2), said) for red, green, blue in means]


class Darkness:
    """Mean of all channels; the lower, the better."""

    version = "darkness-1"
    higher_is_better = False

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(float(item.image.mean())) for item in items]


class Corner:
    """Red of the upper left pixel, which says which way up an image is."""

    version = "corner-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        return [Score(float(item.image[0, 0, 0])) for item in items]


class BrighterOf:
    """A judge of two images: the one with the higher mean is the better one."""

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
        sure = min(1.0, abs(difference) / 255)
        return Comparison("first" if difference > 0 else "second", sure, {"difference": difference})


class RecordingJudge(BrighterOf):
    """Says the same, after a while, and leaves a line in the folder for each call: which process, how many pairs."""

    def __init__(self, folder: str, delay_s: float = 0.0) -> None:
        self.file = Path(folder) / str(os.getpid())
        self.delay_s = delay_s

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        time.sleep(self.delay_s)
        with self.file.open("a") as file:
            file.write(f"{len(items)}\n")
        return super().compare(items)


class Overlapping(StagedReward):
    """The mean of all channels; where the metadata says `wait`, only once another batch was prepared meanwhile."""

    version = "overlapping-1"

    def __init__(self) -> None:
        self.others = threading.Semaphore(0)

    def prepare(self, items: Sequence[ScoreItem]) -> tuple[bool, list[float]]:
        said = [item.metadata or {} for item in items]
        if any(metadata.get("how") == "refuse" for metadata in said):
            raise InvalidRequestError("metadata.how must not be `refuse`", field="metadata.how")
        self.others.release()
        return any(metadata.get("how") == "wait" for metadata in said), [float(item.image.mean()) for item in items]

    def score_prepared(self, prepared: tuple[bool, list[float]]) -> list[Score]:
        self.others.acquire()  # its own
        waits, means = prepared
        if waits:
            if not self.others.acquire(timeout=100):
                raise TimeoutError("nothing was prepared meanwhile")
            self.others.release()
        return [Score(mean) for mean in means]


class Failing:
    """Does what the metadata's `how` says, to the whole batch."""

    version = "failing-1"

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        how = next((item.metadata["how"] for item in items if item.metadata and "how" in item.metadata), "")
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
        if how == "die":
            os._exit(1)
        if how == "hang":
            time.sleep(3600)
        said = {"an object": object()} if how == "odd details" else None
        return [Score(float("nan") if how == "nan" else 1.0, said) for _ in items]
