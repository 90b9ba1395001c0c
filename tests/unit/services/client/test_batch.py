"""How a flat batch is cut into requests, and what is wrong with batches that do not fit together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from drpo_rewards.client.batch import make_batch
from drpo_rewards.errors import InvalidRequestError

SMALL = np.zeros((8, 8, 3), np.uint8)
ARRAY = np.zeros(2)
LARGE = np.zeros((2400, 2400, 3), np.uint8)  # 17 MB


def cut(images: Any, prompts: Any, metadata: Any = None) -> list[list[int]]:
    """The sizes of the groups of each request."""
    batch = make_batch(images, prompts, metadata)
    return [[len(group) for group in batch.groups(images)] for images in batch.requests()]


def test_each_request_has_at_most_64_groups_and_256_images() -> None:
    assert cut([SMALL] * 150, [f"p{index}" for index in range(150)]) == [[1] * 64, [1] * 64, [1] * 22]
    assert cut([SMALL] * 600, "p") == [[256], [256], [88]]
    assert cut([SMALL], ["p"]) == [[1]]


def test_neighbours_with_the_same_prompt_and_metadata_are_one_group() -> None:
    specs = [{"a": 1}, {"a": 1}, {"a": 2}, None, {}]
    assert cut([SMALL] * 5, ["p"] * 5, specs) == [[2, 1, 2]]
    assert cut([SMALL] * 4, ["p", "q", "q", "p"]) == [[1, 2, 1]]
    assert cut([SMALL] * 4, "p", {"a": 1}) == [[4]]


def test_a_request_has_at_most_32_megabytes_unless_one_image_has_more() -> None:
    assert cut([LARGE, SMALL, LARGE, SMALL], ["p", "q", "r", "s"]) == [[1, 1], [1, 1]]
    huge = bytes(40_000_000)
    assert cut([huge, huge, SMALL], "p") == [[1], [1], [1]]


def test_a_copy_does_not_change_with_the_images() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    batch, copy = make_batch(images, "p", None), make_batch(images, "p", None).copy()
    images[:] = 9
    assert (batch.payloads[0].max(), copy.payloads[0].max()) == (9, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("images", "prompts", "metadata", "field", "reason"),
    [
        ([SMALL] * 3, ["p", "q"], None, "prompts", "`prompts` has 2 entries for 3 images"),
        ([SMALL] * 2, ["p", "q"], [{}], "metadata", "`metadata` has 1 entries for 2 images"),
        ([SMALL] * 2, ["p", None], None, "prompts", "it has a NoneType"),
        ([SMALL] * 2, None, None, "prompts", "it has a NoneType"),
        ([SMALL] * 2, ["p", "q"], ["a", "b"], "metadata", "it has a str"),
        ([SMALL] * 2, "p", "text", "metadata", "it has a str"),
        ([], [], None, "images", "no images"),
        ([SMALL] * 2, {"p", "q"}, None, "prompts", "it has a set"),
        ({"a.png", "b.png"}, "p", None, "images", "give a list of images"),
        ([SMALL] * 2, "p", [None, {"a": ARRAY}], "metadata[1]", "must be plain JSON"),
        ([SMALL] * 2, "p", [{"a": ARRAY}, {"a": ARRAY + 1}], "metadata[0]", "must be plain JSON"),
        ([SMALL] * 2, "p", {"a": float("nan")}, "metadata[0]", "must be plain JSON"),
        ([SMALL, "/nowhere.png"], "p", None, "images[1]", "cannot read /nowhere.png"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    images: Any, prompts: Any, metadata: Any, field: str, reason: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make_batch(images, prompts, metadata)
    assert (caught.value.field, reason in str(caught.value)) == (field, True), caught.value
