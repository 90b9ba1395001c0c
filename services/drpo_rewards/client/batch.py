"""A flat batch: any number of images, each with its own prompt, as trainers of image generators hold them.

The service scores groups, so a batch is cut into requests of groups. Each stays within the limits of the contract. A
service may have lower ones: a request that it finds too large is sent again in halves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from drpo_rewards.api.contract import MAX_IMAGES, RewardScores
from drpo_rewards.api.images import Images
from drpo_rewards.api.plain_json import check_plain_json
from drpo_rewards.client.payloads import as_list, load_all
from drpo_rewards.errors import InvalidRequestError, RequestTooLargeError, RewardsError
from drpo_rewards.operations.score import MAX_GROUPS, ScoreResponse

# Bytes of the images in one request: several of this size travel and are scored at the same time.
REQUEST_BYTES = 32_000_000

_IN_GROUP = re.compile(r"groups\[(?P<group>\d+)\]\.(?P<list>images\[(?P<image>\d+)\]|prompt|metadata)")

Payloads = Sequence[np.ndarray | bytes]
Send = Callable[[list[dict[str, Any]], Payloads], Awaitable[ScoreResponse]]  # the groups of one request, their images
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Batch:
    """The images of a batch, ready for sending, with their prompts and metadata.

    Attributes:
        payloads: each an (H, W, 3) uint8 array, or a file's bytes.
        prompts: one for each image.
        metadata: what a reward needs beyond the prompt, for each image.
    """

    payloads: Payloads
    prompts: Sequence[str]
    metadata: Sequence[dict[str, Any] | None]

    def copy(self) -> Batch:
        """Return the batch with pixels of its own, which nobody else can change."""
        return replace(self, payloads=[one if isinstance(one, bytes) else one.copy() for one in self.payloads])

    def requests(self) -> Iterator[range]:
        """Yield the images of each request: at most 256 in 64 groups, and 32 MB unless one image has more."""
        start, count = 0, len(self.payloads)
        while start < count:
            end, groups, size = start, 0, 0
            while end < count and end - start < MAX_IMAGES:
                groups += self._begins_group(end, start)
                size += _count_bytes(self.payloads[end])
                if end > start and (groups > MAX_GROUPS or size > REQUEST_BYTES):
                    break
                end += 1
            yield range(start, end)
            start = end

    def groups(self, images: range) -> list[range]:
        """Return the groups of a request: neighbours with the same prompt and metadata are one."""
        starts = [index for index in images if self._begins_group(index, images.start)]
        return [range(start, end) for start, end in zip(starts, [*starts[1:], images.stop], strict=True)]

    def _begins_group(self, index: int, start: int) -> bool:
        """Return whether an image begins a group of the request that begins at `start`."""
        own, last = ((self.prompts[i], self.metadata[i]) for i in (index, index - 1))
        return index == start or own != last


def make_batch(images: Images, prompts: str | Sequence[str], metadata: Any) -> Batch:
    """Prepare the images, and check that there is one prompt, and one entry of metadata, for each of them.

    Args:
        images, prompts, metadata: as for `AsyncRankingClient.score_batch`.

    Raises:
        InvalidRequestError: the lengths differ, or something is not what it should be.
    """
    listed = as_list(images, "images")
    if not len(listed):
        raise InvalidRequestError("the batch has no images", field="images")
    entries = _one_each(metadata, len(listed), Mapping | None, "metadata", "dicts or None")
    for index, entry in enumerate(entries):  # before neighbours are compared, which arrays in them would not stand
        if index and entry is entries[index - 1]:
            continue
        try:
            check_plain_json(dict(entry or {}))
        except ValueError as error:
            raise InvalidRequestError(f"`metadata[{index}]` {error}", field=f"metadata[{index}]") from None
    return Batch(
        load_all(listed, lambda index: f"images[{index}]"),
        _one_each(prompts, len(listed), str, "prompts", "texts"),
        [dict(entry) if entry else None for entry in entries],  # trainers write {} where there is none
    )


def _count_bytes(payload: np.ndarray | bytes) -> int:
    return len(payload) if isinstance(payload, bytes) else payload.nbytes


def _one_each(given: Any, count: int, kind: Any, name: str, kinds: str) -> list[Any]:
    """Return one value for each of `count` images. A single one is that of all images."""
    if isinstance(given, kind):
        return [given] * count
    ordered = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping | Set)  # a set has no order
    values = list(given) if ordered else [given]
    wrong = next((type(value).__name__ for value in values if not isinstance(value, kind)), None)
    if wrong is not None:
        raise InvalidRequestError(f"`{name}` must be {kinds}, one for each image; it has a {wrong}", field=name)
    if len(values) != count:
        raise InvalidRequestError(f"`{name}` has {len(values)} entries for {count} images", field=name)
    return values


async def score_batch(batch: Batch, send: Send) -> Columns:
    """Score a batch with several requests at the same time. If one fails, the others are given up.

    Returns:
        The scores of each reward in the order of the images, float64; `REWARD/METRIC` has those of a metric, if the
        answers have metrics.
    """
    tasks = [asyncio.ensure_future(_score(batch, images, send)) for images in batch.requests()]
    try:
        parts = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return _join(parts)


async def _score(batch: Batch, images: range, send: Send) -> Columns:
    """Score the images of one request."""
    groups = batch.groups(images)
    fields = [
        {"prompt": batch.prompts[one.start], "num_images": len(one), "metadata": batch.metadata[one.start]}
        for one in groups
    ]
    try:
        response = await send(fields, batch.payloads[images.start : images.stop])
    except RequestTooLargeError as error:
        if len(images) == 1:
            raise _rename(error, groups) from None
        halves = images[: len(images) // 2], images[len(images) // 2 :]
        return _join([await _score(batch, half, send) for half in halves])
    except RewardsError as error:
        raise _rename(error, groups) from None
    return _join([_columns(group.rewards) for group in response.groups])


def _columns(rewards: Mapping[str, RewardScores]) -> Columns:
    """Return the numbers of one group."""
    columns = {name: np.array(result.scores, np.float64) for name, result in rewards.items()}
    for name, result in rewards.items():
        columns |= {f"{name}/{metric}": np.array(values) for metric, values in (result.metrics or {}).items()}
    return columns


def _join(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rename(error: RewardsError, groups: Sequence[range]) -> RewardsError:
    """Let an error name the image of the batch instead of that of a request's group, which the caller never saw."""
    match = _IN_GROUP.match(error.field or "")
    if match and int(match["group"]) < len(groups):
        index = groups[int(match["group"])].start + int(match["image"] or 0)
        names = {"prompt": f"prompts[{index}]", "metadata": f"metadata[{index}]"}
        name = names.get(match["list"], f"images[{index}]")
        error.message = error.message.replace(match[0], name)
        error.field = name + str(error.field)[match.end() :]
    return error
