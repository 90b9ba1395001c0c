"""What a service needs of any reward, which others may have written.

Its description, an item for a probe, items that it may change, and checks of what it returns.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import numbers
import reprlib
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeGuard, TypeVar

import numpy as np
from pydantic import ValidationError

from drpo_rewards.api.contract import Metric, ModelInfo
from drpo_rewards.api.metadata import close_schema
from drpo_rewards.api.plain_json import check_plain_json
from drpo_rewards.errors import ConfigError, RewardError
from drpo_rewards.rewards.base import AnyReward, Comparison, Item, PairItem, PairwiseReward, Reward, Score, ScoreItem

ItemT = TypeVar("ItemT", ScoreItem, PairItem)


def is_pairwise(reward: AnyReward) -> TypeGuard[PairwiseReward]:
    """Return whether the reward compares two images instead of scoring each."""
    return not isinstance(reward, Reward)


def describe(name: str, reward: AnyReward) -> ModelInfo:
    """Make the entry of `GET /v1/models` for a reward that is served as `name`.

    Raises:
        ConfigError: what the reward says about itself cannot be sent.
    """
    with describing(name):
        return ModelInfo(
            name=name,
            description=getattr(reward, "description", (type(reward).__doc__ or "").strip().split("\n")[0]),
            mode="pairwise" if is_pairwise(reward) else "pointwise",
            version=reward.version,
            checkpoint=getattr(reward, "checkpoint", None),
            revision=getattr(reward, "revision", None),
            license=getattr(reward, "license", None),
            range=getattr(reward, "range", None),
            higher_is_better=getattr(reward, "higher_is_better", True),
            metrics=list(getattr(reward, "metrics", ())),
            needs_metadata=getattr(reward, "needs_metadata", False),
            metadata_schema=close_schema(getattr(reward, "metadata_schema", None)),
            needs_in_prompt=getattr(reward, "needs_in_prompt", ""),
        )


@contextmanager
def describing(name: str) -> Iterator[None]:
    """Turn what goes wrong while a reward is described into an error that names the reward.

    Raises:
        ConfigError: what the reward says about itself cannot be sent.
    """
    try:
        yield
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"reward {name!r} describes itself wrongly: {wrong}") from None
    except Exception as error:  # its attributes may be properties, which run its code
        raise ConfigError(f"reward {name!r} cannot describe itself: {type(error).__name__}: {error}") from error


def probe(reward: AnyReward) -> Item:
    """Return the item that a readiness check sends to the reward: its `probe`, or a small grey image."""
    grey, prompt = np.full((64, 64, 3), 127, dtype=np.uint8), "a picture"
    default = PairItem(grey, grey, prompt) if is_pairwise(reward) else ScoreItem(grey, prompt)
    return getattr(reward, "probe", default)


def copy_items(items: Sequence[ItemT]) -> list[ItemT]:
    """Return items whose pixels and metadata a reward may change, unseen by any other reward or call.

    The pixels of a request are in memory that processes share. The items of a group still share their metadata.
    """
    metadata = {id(item.metadata): item.metadata for item in items}
    metadata = {key: copy.deepcopy(value) for key, value in metadata.items()}
    copies = []
    for item in items:
        pictures = ("image",) if isinstance(item, ScoreItem) else ("first", "second")
        changes = {name: getattr(item, name).copy() for name in pictures}
        copies.append(dataclasses.replace(item, metadata=metadata[id(item.metadata)], **changes))
    return copies


def check_scores(
    name: str,
    scores: Any,
    items: Sequence[ScoreItem],
    fields: Sequence[str] | None = None,
    metrics: Sequence[Metric] = (),
) -> list[Score]:
    """Check what a reward's `score` returned, and make a list of it.

    Args:
        name: the reward's name, for errors.
        scores: what the reward returned for `items`: Scores or plain numbers, in anything that can be iterated over.
        items: the scored items.
        fields: the name of each item in errors; `images[0]` and so on by default.
        metrics: the metrics that the reward declares.

    Raises:
        RewardError: `scores` does not have one finite score per item, or one of them lacks a declared metric.
    """
    checked = []
    for index, score in enumerate(_list_results(name, scores, "scores", len(items), "images")):
        field = fields[index] if fields else f"images[{index}]"
        given, details = (score.value, score.details) if isinstance(score, Score) else (score, None)
        value = _read_number(given)
        if value is None:
            message = f"reward {name!r} gave {_quote(given)} for {field}, which is not a finite number"
            raise RewardError(message, reward=name, field=field)
        if details is not None and not isinstance(details, dict):
            message = f"reward {name!r} gave details of {field} that are a {type(details).__name__}, not a dict"
            raise RewardError(message, reward=name, field=field)
        for metric in metrics:
            found = (details or {}).get(metric.name)
            if _read_number(found) is None:
                message = f"reward {name!r} gave {_quote(found)} as its metric {metric.name!r} of {field}"
                raise RewardError(f"{message}, which is not a finite number", reward=name, field=field)
        checked.append(Score(value, details))
    return checked


def check_comparisons(name: str, comparisons: Any, items: Sequence[PairItem]) -> list[Comparison]:
    """Check what a reward's `compare` returned, and make a list of it.

    Args:
        name: the reward's name, for errors.
        comparisons: what the reward returned for `items`, in anything that can be iterated over.
        items: the compared pairs.

    Raises:
        RewardError: `comparisons` does not have one valid Comparison per pair.
    """
    checked = []
    for comparison in _list_results(name, comparisons, "comparisons", len(items), "pairs"):
        try:
            checked.append(_check_comparison(comparison))
        except ValueError as error:
            message = f"reward {name!r} gave {_quote(comparison)}, which is not a valid comparison: {error}"
            raise RewardError(message, reward=name) from None
    return checked


def check_details(name: str, details: dict[str, Any] | None, field: str) -> None:
    """Check that the details of one score or comparison can be sent.

    Raises:
        RewardError: they are not plain JSON, or larger or deeper than metadata may be.
    """
    try:
        check_plain_json(details or {})
    except ValueError as error:
        message = f"reward {name!r} gave details of {field} that cannot be sent: the dict {error}"
        raise RewardError(message, reward=name, field=field) from None


def _list_results(name: str, results: Any, kind: str, count: int, of: str) -> list[Any]:
    """List what a reward returned for `count` items.

    Texts and dicts can be iterated over too, but are a mistake, and the order of a set is not that of the images.
    """
    try:
        iterator = None if isinstance(results, str | bytes | bytearray | Mapping | Set) else iter(results)
    except TypeError:  # nothing to iterate over; of arrays, one without axes
        iterator = None
    if iterator is None:
        raise RewardError(f"reward {name!r} gave {_quote(results)} instead of a list of {kind}", reward=name)
    listed = list(itertools.islice(iterator, count + 1))  # a generator may never end
    if len(listed) != count:
        given = f"more than {count}" if len(listed) > count else len(listed)
        raise RewardError(f"reward {name!r} gave {given} {kind} for {count} {of}", reward=name)
    return listed


def _check_comparison(comparison: Any) -> Comparison:
    """Return a comparison with plain numbers in it. Raises ValueError if it is not valid."""
    if not isinstance(comparison, Comparison):
        raise ValueError("it is no Comparison")
    if comparison.winner not in ("first", "second", "tie"):
        raise ValueError("winner must be first, second or tie")
    confidence = None if comparison.confidence is None else _read_number(comparison.confidence)
    if comparison.confidence is not None and (confidence is None or not 0 <= confidence <= 1):
        raise ValueError("confidence must be None or 0 to 1")
    asked, unparsed = comparison.asked, comparison.unparsed
    if not (isinstance(asked, int) and isinstance(unparsed, int) and asked >= 1 and 0 <= unparsed <= asked):
        raise ValueError("asked must be an integer of at least 1, unparsed one of 0 to asked")
    if not isinstance(comparison.flipped, bool | None):
        raise ValueError("flipped must be None, True or False")
    if not isinstance(comparison.details, dict | None):
        raise ValueError("details must be None or a dict")
    return dataclasses.replace(comparison, confidence=confidence)


def _read_number(value: Any) -> float | None:
    """Return a finite number as a float: Python's, NumPy's, or an array or tensor with one element. Otherwise None."""
    if value is np.ma.masked:  # its `item()` is 0.0, although it stands for a missing number
        return None
    if not isinstance(value, numbers.Real) and hasattr(value, "item"):
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError):  # several elements
            return None
    if not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # the latter for Decimal("sNaN")
        return None
    return number if math.isfinite(number) else None


def _quote(value: Any) -> str:
    """Show a value in an error. Of other than plain values only the type, because their `repr` may be long."""
    if value is None or isinstance(value, str | numbers.Real | Decimal):
        return reprlib.repr(value)
    if isinstance(value, Comparison):
        return reprlib.repr(f"winner={value.winner!r}, confidence={value.confidence!r}")
    return f"a {type(value).__name__}"
