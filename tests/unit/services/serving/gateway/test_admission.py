"""Limits on what a gateway holds at the same time."""

from __future__ import annotations

import asyncio
import io
import threading

import numpy as np
import pytest
from PIL import Image

from drpo_rewards.api.images import decode
from drpo_rewards.errors import InvalidRequestError, OverloadedError, RequestTooLargeError
from drpo_rewards.serving.gateway.admission import Admission, Allowance, Pool
from drpo_rewards.serving.limits import LimitsConfig


def limits(**changes: float) -> LimitsConfig:
    return LimitsConfig.model_validate({"max_group_pixels": 300, "max_pixels_in_flight": 500, **changes})


def allowance_of(pixels: Pool) -> Allowance:
    return Allowance(limits(), pixels, Pool("bytes", 1000, 1.0), lambda: False)


async def test_turns_are_given_in_order_and_the_queue_is_bounded() -> None:
    admission = Admission(limits(max_ongoing=1, max_queued=2, retry_after_s=3))
    order: list[int] = []
    leave = [asyncio.Event() for _ in range(3)]

    async def visit(number: int) -> None:
        async with admission.turn():
            order.append(number)
            await leave[number].wait()

    tasks = [asyncio.create_task(visit(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert (admission.ongoing, admission.waiting) == (1, 2)
    with pytest.raises(OverloadedError) as caught:
        async with admission.turn():
            pass
    assert caught.value.retry_after_s == 3
    tasks[1].cancel()  # its caller disconnects while it waits
    leave[0].set()
    leave[2].set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2]
    assert (admission.ongoing, admission.waiting) == (0, 0)
    async with admission.turn():
        assert admission.ongoing == 1


async def test_a_request_knows_whether_there_are_others() -> None:
    admission = Admission(limits(max_ongoing=4))
    async with admission.turn() as first:
        assert not first.has_company()
        async with admission.turn() as second:
            assert first.has_company()
            assert second.has_company()
        assert not first.has_company()


async def test_pixels_are_counted_over_all_requests_and_given_back() -> None:
    admission = Admission(limits(max_ongoing=4))
    async with admission.turn() as first, admission.turn() as second:
        first.check(10, 20, "images[0]")
        with pytest.raises(InvalidRequestError, match=r"images\[1\] .* more than 300 pixels"):
            first.check(10, 11, "images[1]")
        second.check(10, 30, "images[0]")
        with pytest.raises(OverloadedError, match="no memory for more pixels"):
            first.check(8, 8, "images[1]")
    async with admission.turn() as third:
        third.check(10, 30, "images[0]")


async def test_bytes_of_bodies_are_counted_from_the_start_and_given_back() -> None:
    """A body with an announced length counts while its request waits, another one as it arrives."""
    admission = Admission(limits(max_ongoing=1, max_body_mb=0.001, max_body_mb_in_flight=0.0015))
    leave = asyncio.Event()

    async def visit() -> None:
        async with admission.turn(600):
            await leave.wait()

    tasks = [asyncio.create_task(visit()) for _ in range(2)]
    await asyncio.sleep(0)
    assert (admission.ongoing, admission.waiting, admission.body_bytes.taken) == (1, 1, 1200)
    with pytest.raises(OverloadedError, match="no memory for more bytes of bodies"):
        async with admission.turn(301):
            pass
    with pytest.raises(RequestTooLargeError, match="1001 bytes or more; at most 1000"):
        async with admission.turn(1001):
            pass
    assert admission.body_bytes.taken == 1200
    leave.set()
    await asyncio.gather(*tasks)
    assert admission.body_bytes.taken == 0
    async with admission.turn() as allowance:
        for received in (400, 800):
            allowance.check_body(received)
        assert admission.body_bytes.taken == 800
        with pytest.raises(RequestTooLargeError):
            allowance.check_body(1200)
    assert (admission.body_bytes.taken, admission.ongoing) == (0, 0)


@pytest.mark.parametrize("field", ["max_pixels_in_flight", "max_body_mb_in_flight"])
def test_limits_must_allow_one_request(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must hold at least one"):
        limits(**{field: 1e-3 if field.startswith("max_body") else 1})


def test_a_decoder_that_continues_after_its_request_takes_nothing() -> None:
    pool = Pool("pixels", 500, 1.0)
    allowance = allowance_of(pool)
    allowance.check(10, 10, "images[0]")
    allowance.release()
    allowance.check(10, 30, "images[1]")
    pool.take(500)


def test_many_small_files_cannot_fill_the_memory() -> None:
    """Each reserves its pixels before it is decoded, in several threads."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(buffer, "PNG")
    allowance = allowance_of(Pool("pixels", 500, 1.0))
    outcomes: list[bool] = []

    def decode_image(index: int) -> None:
        try:
            decode(buffer.getvalue(), field=f"images[{index}]", limits=allowance)
            outcomes.append(True)
        except InvalidRequestError:
            outcomes.append(False)

    threads = [threading.Thread(target=decode_image, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 5 + [True] * 3
