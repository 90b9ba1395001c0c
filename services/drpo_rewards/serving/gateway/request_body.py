"""Read the body of an HTTP request, which may be anything: limits first, then JSON or multipart.

A body is one buffer, into which its pieces are written as they arrive. Files and plain pixels are views of that buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from drpo_rewards.api.contract import Options, parse
from drpo_rewards.api.images import DecodingLimits, from_rgb8
from drpo_rewards.api.plain_json import MAX_BYTES
from drpo_rewards.cluster.memory import ORDINARY_BYTES
from drpo_rewards.errors import (
    IncompleteRequestError,
    InvalidImageError,
    InvalidRequestError,
    UnsupportedContentError,
)
from drpo_rewards.operations.base import Body
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.content_encoding import find_decoder
from drpo_rewards.serving.gateway.decoding import Content
from drpo_rewards.serving.gateway.json_body import check_values, parse_with_images
from drpo_rewards.serving.gateway.multipart import Part, PartFinder

# Plain pixels as a multipart part: `Content-Type: application/x-rgb8; width=64; height=64`.
RGB8 = "application/x-rgb8"

# The part `request` of a score request may have a prompt of 10,000 characters and metadata for each of 64 groups.
MAX_HEAD_BYTES = 64 * (MAX_BYTES + 40_000)

# While there are other requests, the rest of a larger body is taken with pauses, at about 160 MB/s. Without them the
# event loop would do nothing else until the end of the body, and each step of a small call would wait for a piece.
LARGE_BYTES = 1 << 24
PAUSE_S = 0.001


async def read(
    request: Request, options: type[Options], body: type[Body], allowance: Allowance, idle_s: float
) -> tuple[Any, Sequence[Content]]:
    """Read the options of a request, and its images as they were sent: JSON, or multipart with one JSON part.

    Args:
        request: the request.
        options: the class of the JSON part of a multipart body.
        body: the class of a JSON body.
        allowance: what the request may still take of the gateway's memory.
        idle_s: seconds that may pass without data.

    Raises:
        RewardsError: the body is not valid (the error names the field), or no data came for `idle_s` seconds.
    """
    header = request.headers.get("content-type", "")
    kind = parse_content_type(header)[0]
    pieces = _receive(request, allowance, idle_s)
    try:
        if kind == "application/json":
            return await _from_json(pieces, body, allowance)
        if kind == "multipart/form-data":
            return await _from_multipart(pieces, header, options, allowance)
    except ClientDisconnect:
        raise InvalidRequestError("the connection closed before the whole body arrived") from None
    raise UnsupportedContentError(f"content type {kind[:100]!r}; send application/json or multipart/form-data")


async def _receive(request: Request, allowance: Allowance, idle_s: float) -> AsyncIterator[bytes]:
    """Yield the pieces of the decompressed body. Raise an error if it is too long, or stops for `idle_s` seconds.

    A silent client must not hold a turn and memory that other requests need.
    """
    received, more = 0, True
    decoder = find_decoder(request.headers.getlist("content-encoding"))
    while more:
        try:
            async with asyncio.timeout(idle_s):
                message = await request.receive()
        except TimeoutError:
            raise IncompleteRequestError(
                f"no data came for {idle_s:g} s, after {received} bytes of the body; send the request again"
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        data, more = message.get("body", b""), message.get("more_body", False)
        if decoder is None:
            received += len(data)
            allowance.check_body(received)
            yield data
            if more and received > LARGE_BYTES and allowance.has_company():
                await asyncio.sleep(PAUSE_S)
            continue
        decoding = decoder.feed(data)
        while piece := await asyncio.to_thread(next, decoding, b""):  # a small body may decode to a very large one
            received += len(piece)
            allowance.check_body(received)
            yield piece
        if not more:
            decoder.finish()


async def _collect(pieces: AsyncIterator[bytes], size: int, look: Callable[[bytes], None] | None = None) -> bytearray:
    """Write the pieces of a body into one buffer.

    The buffer has the announced size from the start, because one that grows is copied several times. A large one grows
    all the same: its memory is new, which is moved without a copy, and 100 MB of it at once would take 80 ms.

    Args:
        pieces: the pieces, in order.
        size: the announced size; a compressed body or one of unknown size becomes larger.
        look: is shown each piece first.
    """
    data, end = bytearray(min(size, ORDINARY_BYTES)), 0
    async for piece in pieces:
        if look is not None:
            look(piece)
        if end + len(piece) <= len(data):
            with memoryview(data) as view:
                view[end : end + len(piece)] = piece  # a bytearray's own assignment would copy the piece first
        else:
            data[end:] = piece
        end += len(piece)
    del data[end:]
    return data


async def _from_json(
    pieces: AsyncIterator[bytes], model: type[Body], allowance: Allowance
) -> tuple[Any, Sequence[Content]]:
    data = await _collect(pieces, allowance.body_bytes)
    options, texts = await asyncio.to_thread(parse_with_images, model, data)  # it may search megabytes
    options.check_count(len(texts))
    return options, texts


async def _from_multipart(
    pieces: AsyncIterator[bytes], header: str, model: type[Options], allowance: Allowance
) -> tuple[Any, list[Content]]:
    finder = PartFinder(header, "images", "request", model.max_images, MAX_HEAD_BYTES, model.image_list)
    body = memoryview(await _collect(pieces, allowance.body_bytes, finder.feed))
    finder.finish()
    heads = [part for part in finder.parts if part.name == "request"]
    parts = [part for part in finder.parts if part.name == "images"]
    if not heads:
        raise InvalidRequestError("one part `request` (JSON) is needed; there is none", field="request")
    options = parse(model, check_values(bytes(body[heads[0].start : heads[0].end])))
    options.check_count(len(parts))
    return options, [_from_part(part, body, options.image_field(index), allowance) for index, part in enumerate(parts)]


def _from_part(part: Part, body: memoryview, field: str, check: DecodingLimits) -> Content:
    data = body[part.start : part.end]
    kind, parameters = parse_content_type(part.content_type)
    if kind != RGB8:
        return data
    width, height = parameters.get("width", ""), parameters.get("height", "")
    if not (
        width.isascii() and height.isascii() and width.isdecimal() and height.isdecimal() and len(width + height) <= 12
    ):
        raise InvalidImageError(f"{field}: {RGB8} needs the parameters width and height", field=field)
    return from_rgb8(data, int(width), int(height), field=field, limits=check)


def parse_content_type(header: str) -> tuple[str, dict[str, str]]:
    """Split a content type such as `image/png; a=b` into the lower-case type and its parameters."""
    kind, parameters = parse_options_header(header)
    return kind.decode("latin-1"), {key.decode("latin-1"): value.decode("latin-1") for key, value in parameters.items()}
