"""`score_batch` over every transport: order, splitting at a service's limits, errors, and futures."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest
import torch
from support.service import KEY, address

from drpo_rewards import AsyncRankingClient, RankingClient, serving
from drpo_rewards.errors import InvalidRequestError, RequestTooLargeError, RewardError

pytestmark = pytest.mark.integration

PIXELS = np.random.default_rng(1).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
MEANS = PIXELS.astype(float).mean(axis=(1, 2))
REDS = MEANS @ [1, -0.5, -0.5]
PROMPTS = [f"picture {index // 3}" for index in range(len(PIXELS))]  # 100 groups: more than one request may have


async def test_scores_come_in_the_order_of_the_images(client: AsyncRankingClient) -> None:
    scores = await client.score_batch(PIXELS, PROMPTS, rewards=["redness", "darkness"])
    assert set(scores) == {"redness", "darkness"}
    assert scores["redness"].dtype == np.float64
    np.testing.assert_allclose(scores["redness"], REDS)
    np.testing.assert_allclose(scores["darkness"], MEANS.mean(axis=1))


async def test_tensors_of_floats(client: AsyncRankingClient) -> None:
    tensor = (torch.tensor(PIXELS[:20]) / 255).permute(0, 3, 1, 2)
    scores = await client.score_batch(tensor, "p", [{}] * 20, rewards="redness")
    np.testing.assert_allclose(scores["redness"], REDS[:20])


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_batch_is_split_at_the_limits_of_the_service(guarded: serving.RunningService, transport: str) -> None:
    """The service takes 50 kB and 6,000 pixels in a request; an image of 8x8 is 64 pixels and 192 bytes."""
    with RankingClient(address(guarded, transport), api_key=KEY) as client:
        np.testing.assert_allclose(client.score_batch(PIXELS, PROMPTS)["redness"], REDS)
        large = [PIXELS[0], np.zeros((30, 30, 3), np.uint8)]
        with pytest.raises(InvalidRequestError, match=r"images\[1\] is 30x30; at most 400 pixels") as caught:
            client.score_batch(large, ["p", "q"])
        assert caught.value.field == "images[1]"
        with pytest.raises(RequestTooLargeError):
            client.score_batch([bytes(60_000)], "p")


async def test_errors_name_the_image_prompt_or_metadata_of_the_batch(client: AsyncRankingClient) -> None:
    images = [*PIXELS[:130], b"no image"]
    with pytest.raises(InvalidRequestError, match=r"^images\[130\]") as caught:
        await client.score_batch(images, [f"p{index}" for index in range(131)])
    assert caught.value.field == "images[130]"
    with pytest.raises(InvalidRequestError) as caught:
        await client.score_batch(PIXELS[:70], [*["p"] * 69, ""])
    assert caught.value.field == "prompts[69]"
    metadata = [None] * 69 + [{"how": "refuse"}]
    with pytest.raises(InvalidRequestError) as caught:
        await client.score_batch(PIXELS[:70], "p", metadata, rewards=["failing"])
    assert caught.value.field == "metadata[69].how"
    with pytest.raises(InvalidRequestError, match="so they have no weights"):
        await client.score_batch(PIXELS, "p", rewards={"redness": 2.0})  # type: ignore[arg-type]
    with pytest.raises(RewardError, match="failed with ZeroDivisionError"):
        await client.score_batch(PIXELS[:70], "p", {"how": "raise"}, rewards=["failing"])


def test_a_future_scores_what_the_images_were(service: serving.RunningService) -> None:
    images = PIXELS.copy()
    with RankingClient(address(service, "http")) as client:
        future = client.submit_score_batch(images, PROMPTS)
        images[:] = 0
        assert isinstance(future, Future)
        np.testing.assert_allclose(future.result(60)["redness"], REDS)
        given_up = client.submit_score_batch(images, PROMPTS, {"how": "hang"}, rewards=["hanging"])
        assert given_up.cancel()
