"""Decoding in the gateway's threads: what one request may take, and that others go on meanwhile."""

from __future__ import annotations

import asyncio
import base64
import math
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from PIL import Image
from support.images import PICTURE, encode
from support.odd_files import add_to_jpeg, jpeg_with_scans, png_chunk

from drpo_rewards.api.image_files import read_file
from drpo_rewards.errors import InvalidImageError, OverloadedError, RequestTooLargeError
from drpo_rewards.serving.gateway.admission import Admission, Allowance
from drpo_rewards.serving.gateway.decoding import COSTLY_S, Decoders
from drpo_rewards.serving.limits import LimitsConfig

GOOD = encode(Image.fromarray(PICTURE))
LARGE = encode(Image.new("RGB", (4096, 2048)), "JPEG", progressive=True)


def fields(count: int) -> list[str]:
    return [f"images[{index}]" for index in range(count)]


async def decode(contents: list[bytes | str | np.ndarray], deadline_s: float = 60, **limits: float) -> list[np.ndarray]:
    async with Admission(LimitsConfig.model_validate(limits)).turn() as allowance:
        return await Decoders(deadline_s, 2.0).decode_all(contents, fields(len(contents)), allowance)


async def test_files_text_and_pixels_keep_their_order() -> None:
    large = read_file(LARGE)
    assert large.decode_s > COSTLY_S
    decoded = await decode([LARGE, GOOD, base64.b64encode(GOOD).decode(), PICTURE])
    assert decoded[0].shape == (2048, 4096, 3)
    for image in decoded[1:]:
        np.testing.assert_array_equal(image, PICTURE)


async def test_the_first_wrong_image_is_named() -> None:
    with pytest.raises(InvalidImageError, match=r"images\[1\]") as caught:
        await decode([GOOD, b"text", GOOD])
    assert caught.value.field == "images[1]"


async def test_nothing_is_decoded_of_a_request_that_is_refused() -> None:
    counted = []

    class Recorded(Allowance):
        def spend_time(self, cpu_s: float, field: str) -> None:
            counted.append(field)
            super().spend_time(cpu_s, field)

    limits = LimitsConfig(max_decode_s=5 * read_file(GOOD).decode_s)
    admission = Admission(limits)
    allowance = Recorded(limits, admission.pixels, admission.body_bytes, lambda: False)
    with pytest.raises(RequestTooLargeError):
        await Decoders(60, 2.0).decode_all([GOOD] * 9, fields(9), allowance)
    assert max(Counter(counted).values()) == 1  # for the headers; decoding counts several times


async def test_large_webp_pictures_are_decoded_one_at_a_time_and_leave_cores_to_others() -> None:
    """Each holds Python's lock while it is copied."""
    webp = encode(Image.new("RGB", (1100, 1000)), "WEBP", lossless=True)
    decoders = Decoders(60, 2.0)
    decoders._cores = 4
    async with Admission(LimitsConfig()).turn() as allowance, _watch(decoders) as busy:
        assert len(await decoders.decode_all([webp] * 8, fields(8), allowance)) == 8
    assert max(busy) == 1


@asynccontextmanager
async def _watch(decoders: Decoders) -> AsyncIterator[list[int]]:
    """Lists how many cores are busy with costly requests, again and again."""
    busy: list[int] = []

    async def watch() -> None:
        while True:
            busy.append(decoders._busy)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    try:
        yield busy
    finally:
        watching.cancel()


async def test_a_request_has_a_time_that_depends_on_its_files_alone() -> None:
    each_s = read_file(LARGE).decode_s
    assert len(await decode([LARGE] * 3, max_decode_s=3.01 * each_s)) == 3
    with pytest.raises(RequestTooLargeError, match="of the gateway's processor to decode") as caught:
        await decode([LARGE] * 4, max_decode_s=3.01 * each_s)
    assert caught.value.field == "images[3]"
    slow = read_file(jpeg_with_scans(4096, 4096, 54))
    assert slow.decode_s > 5  # 98 kB, refused by the default limits before anything is decoded
    with pytest.raises(RequestTooLargeError):
        await decode([slow.data])


async def test_the_number_of_chunks_takes_time_too() -> None:
    """A tiny picture in many pieces of 10 us each. A request with seven is refused before one is decoded."""
    start = GOOD.index(b"IDAT") - 4
    slow = GOOD[:start] + png_chunk(b"IDAT", b"") * 60_000 + GOOD[start:]
    assert 0.5 < read_file(slow).decode_s < 1
    with pytest.raises(RequestTooLargeError) as caught:
        await decode([slow] * 8)
    assert caught.value.field in ("images[6]", "images[7]"), "the headers of two are read at a time"
    assert len(await decode([slow])) == 1


def test_the_tables_of_a_jpeg_take_time_too() -> None:
    """The decoder reads each of the thousand tables that a segment can hold by itself, about 7 us each."""
    table = b"\0" + bytes(range(1, 65))
    file = encode(Image.fromarray(PICTURE), "JPEG")
    for _ in range(100):
        file = add_to_jpeg(file, 0xDB, table * 1000)
    assert 0.7 < read_file(file).decode_s < 3


def test_time_that_was_not_foreseen_has_a_limit_too() -> None:
    allowance = _allowance(max_decode_s=1.0)
    allowance.spend_time(1.9, "images[0]")
    with pytest.raises(RequestTooLargeError):
        allowance.spend_time(0.2, "images[1]")


def test_a_picture_that_nobody_waits_for_is_given_up() -> None:
    allowance = _allowance()
    allowance.release()
    with pytest.raises(OverloadedError, match="its request has ended"):
        allowance.spend_time(0.0, "images[0]")


async def test_small_images_do_not_wait_for_large_ones() -> None:
    """All threads for costly requests are held, and a small call is decoded; a large one waits, up to its deadline."""
    decoders = Decoders(0.2, 2.0)
    held = threading.Event()
    for _ in range(decoders._costly._max_workers):
        decoders._costly.submit(held.wait)
    try:
        async with Admission(LimitsConfig()).turn() as allowance:
            assert len(await Decoders.decode_all(decoders, [GOOD] * 3, fields(3), allowance)) == 3
        async with Admission(LimitsConfig()).turn() as allowance:
            with pytest.raises(OverloadedError, match=r"not decoded within 0\.2 s") as caught:
                await decoders.decode_all([LARGE], fields(1), allowance)
            assert allowance.decoding_s >= 0.2  # counts against the rewards' deadlines
        assert caught.value.retry_after_s == 2.0
    finally:
        held.set()


@pytest.mark.parametrize("with_others", [True, False])
async def test_costly_requests_leave_a_core_while_there_are_others(with_others: bool) -> None:
    decoders = Decoders(60, 2.0)
    decoders._cores = 2
    decoders._others_until = math.inf if with_others else 0
    async with Admission(LimitsConfig()).turn() as allowance, _watch(decoders) as busy:
        assert len(await decoders.decode_all([LARGE] * 4, fields(4), allowance)) == 4
    assert max(busy) == (1 if with_others else 2)
    assert decoders._busy == 0


async def test_only_small_calls_make_costly_ones_leave_a_core() -> None:
    decoders = Decoders(60, 2.0)
    for files, is_quick in [([LARGE], False), ([GOOD] * 3, True)]:
        decoders._others_until = 0
        async with Admission(LimitsConfig()).turn() as allowance:
            await decoders.decode_all(files, fields(len(files)), allowance)
        assert (decoders._others_until > 0) == is_quick


async def test_one_request_does_not_fill_the_queue() -> None:
    """However many images it has, a second request's image is decoded before the first one's last."""
    decoders = Decoders(60, 2.0)
    order: list[str] = []

    class Recorded(Allowance):
        def spend_time(self, cpu_s: float, field: str) -> None:
            order.append(field)
            super().spend_time(cpu_s, field)

    admission = Admission(LimitsConfig())

    async def send(name: str, count: int) -> None:
        allowance = Recorded(LimitsConfig(), admission.pixels, admission.body_bytes, lambda: False)
        await decoders.decode_all([GOOD] * count, [f"{name}{index}" for index in range(count)], allowance)

    await asyncio.gather(send("many", 200), send("one", 1))
    assert order.index("one0") < order.index("many100")


def _allowance(**limits: float) -> Allowance:
    settings = LimitsConfig.model_validate(limits)
    admission = Admission(settings)
    return Allowance(settings, admission.pixels, admission.body_bytes, lambda: False)
