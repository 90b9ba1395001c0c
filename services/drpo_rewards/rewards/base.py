"""What a reward is: an object that scores images, or compares two. Any class with `version` and `score` is a reward.

Example:
    class Brightness:
        version = "brightness-1"

        def score(self, items: Sequence[ScoreItem]) -> list[Score]:
            return [Score(float(item.image.mean())) for item in items]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from drpo_rewards.api.metadata import READS_NONE
from drpo_rewards.api.scores import Comparison, PairItem, Score, ScoreItem

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "READS_NONE",
    "AnyReward",
    "Comparison",
    "DifferentiableReward",
    "Item",
    "PairItem",
    "PairwiseReward",
    "Reward",
    "Score",
    "ScoreItem",
    "StagedReward",
]


@runtime_checkable
class Reward(Protocol):
    """A scorer of images.

    Each replica builds one with the `options` of the config, and calls it from one thread.

    Attributes:
        version: names the code and the weights. Change it whenever the scores change.

    Optional attributes:
        description: what the reward measures, in one line; the first line of the class's docstring by default.
        range: the lowest and the highest score; None by default, which means unbounded.
        higher_is_better: True by default.
        metrics: the numbers among the scores' details that tables and curves show, as a sequence of
            `drpo_rewards.api.contract.Metric`; none by default. The details of every score must have them: each name is
            a key, and each value is a finite number.
        needs_metadata: whether each request must have metadata; False by default.
        metadata_schema: a JSON Schema of the metadata that it reads; READS_NONE if it reads none. It gets only the keys
            of its `properties`, because one request may ask several rewards. Without a schema, the default, it gets
            all metadata.
        needs_in_prompt: what a prompt must have beyond any text, in words; "" by default.
        extra: the extra of this distribution with the packages that it needs, if it is not `rewards`.
        checkpoint, revision, license: of the weights.
        probe: the ScoreItem of the readiness check; a small grey image by default.

    Optional methods and arguments:
        files: a static method `files(**options)`, which returns the ModelFiles that a reward with these options reads,
            for `drpo-rewards download` and `doctor`.
        check_request: a static method `check_request(prompt, metadata, **options)`, which raises an InvalidRequestError
            for what a reward with these options would refuse, so that a training run learns it before it starts.
        headers_only: a keyword argument of the constructor. If it is True, the constructor reads only the headers of
            its files (see `files/weights.py`), so that `download` and `doctor` can check every key and shape.
    """

    version: str

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """Score images.

        Args:
            items: one or more images, up to the reward's batch size. They may come from different requests and differ
                in size and prompt. The score of an image must not depend on the others.

        Returns:
            One Score per item, in the items' order. A service also takes plain numbers, and instead of a list a tuple,
            a generator, an array or a tensor.

        Raises:
            InvalidRequestError: from `drpo_rewards.errors`, for an item in which the caller made a mistake. Any other
                exception, and any score that is not finite, fails the request with an error that names the reward.

        Example:
            reward.score([ScoreItem(red, "a red circle"), ScoreItem(blue, "a red circle")])
            # [Score(0.31), Score(0.24)]
        """
        ...


class StagedReward:
    """A Reward that works in two stages, so that a service prepares the next batch while the model scores this one.

    Subclasses implement `prepare`, which is called from one thread, and `score_prepared`, which is called from another.
    """

    def prepare(self, items: Sequence[ScoreItem]) -> Any:
        """Do the work that needs no model and no GPU, and return what `score_prepared` takes.

        Usually this scales and crops the images, tokenizes the prompts, and puts both in pinned memory.
        """
        raise NotImplementedError

    def score_prepared(self, prepared: Any) -> list[Score]:
        """Return one Score per item that `prepare` got, in the items' order."""
        raise NotImplementedError

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """Prepare and score images; see `Reward.score`."""
        return self.score_prepared(self.prepare(items))


@runtime_checkable
class PairwiseReward(Protocol):
    """A judge that compares two images. It is like a Reward, but has `compare` instead of `score`.

    It answers `POST /v1/compare`. To score or rank a group, the service lets it compare pairs of the group's images and
    fits scores to the results (`drpo_rewards.ranking.tournament`). Its optional attributes are those of Reward, except
    that `probe` is a PairItem.
    """

    version: str

    def compare(self, items: Sequence[PairItem]) -> list[Comparison]:
        """Compare pairs of images.

        Args:
            items: one or more pairs. They may come from different requests and differ in size and prompt.

        Returns:
            One Comparison per item, in the items' order.

        Raises:
            InvalidRequestError: for an item in which the caller made a mistake.

        Example:
            judge.compare([PairItem(red, blue, "a red circle")])  # [Comparison("first", confidence=0.9)]
        """
        ...


@runtime_checkable
class DifferentiableReward(Protocol):
    """A reward that can also score images on the device, with a gradient. A service never calls this.

    A training method that follows the reward's gradient (DRaFT, VGG-Flow) calls it in its own process.
    """

    def score_differentiably(self, images_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score images with a gradient.

        It prepares images in torch (bicubic, antialiased). If an image already has the model's size, its score is that
        of `score`; otherwise the two differ by what the libraries' resizing and rounding differ.

        Args:
            images_N3HW: N images of one size in [0, 1], on any device.
            prompts: N prompts.

        Returns:
            N scores in float32, on the model's device.
        """
        ...


AnyReward = Reward | PairwiseReward
Item = ScoreItem | PairItem
