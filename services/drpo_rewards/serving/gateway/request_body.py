"""Read the body of an HTTP request, which may be anything: limits first, then JSON or multipart."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from drpo_rewards.api.contract import MAX_METADATA_BYTES, Options, parse
from drpo_rewards.api.images import DecodingLimits, from_rgb8
from drpo_rewards.errors import (
    IncompleteRequestError,
    InvalidImageError,
    InvalidRequestError,
    UnsupportedContentError,
)
from drpo_rewards.operations.base import Body
from drpo_rewards.serving.gateway.admission import Allowance
from drpo_rewards.serving.gateway.content_encoding import find_decoder
from drpo_rewards.serving.gateway.decoding import Content, Decoders

# Plain pixels as a multipart part: `Content-Type: application/x-rgb8; width=64; height=64`.
RGB8 = "application/x-rgb8"

# The part `request` of a score request may have a prompt of 10,000 characters and metadata for each of 64 groups.
MAX_HEAD_BYTES = 64 * (MAX_METADATA_BYTES + 40_000)


class InMemoryParser(MultiPartParser):
    """Starlette's parser, but parts above a megabyte stay in memory instead of on disk."""

    spool_max_size = sys.maxsize  # the body as a whole has a limit


async def read(
    request: Request,
    options: type[Options],
    body: type[Body],
    allowance: Allowance,
    decoders: Decoders,
    idle_s: float,
) -> tuple[Any, list[np.ndarray]]:
    """Read the options and decode the images of a request: JSON, or multipart with one JSON part and the images.

    Args:
        request: the request.
        options: the class of the JSON part of a multipart body.
        body: the class of a JSON body.
        allowance: what the request may still take of the gateway's memory.
        idle_s: seconds that may pass without data.

    Raises:
        RewardsError: the body is not valid (the error names the field), or no data came for `idle_s` seconds.
    """
    limited = _limit_body(request, allowance, idle_s)
    sent: Any
    contents: Sequence[Content]
    kind = parse_content_type(request.headers.get("content-type", ""))[0]
    try:
        if kind == "application/json":
            sent, contents = await _from_json(await limited.body(), body)
        elif kind == "multipart/form-data":
            sent, contents = await _from_multipart(limited, options, allowance)
        else:
            raise UnsupportedContentError(f"content type {kind[:100]!r}; send application/json or multipart/form-data")
    except ClientDisconnect:
        raise InvalidRequestError("the connection closed before the whole body arrived") from None
    fields = [sent.image_field(index) for index in range(len(contents))]
    return sent, await decoders.decode_all(contents, fields, allowance)


def _limit_body(request: Request, allowance: Allowance, idle_s: float) -> Request:
    """Return the same request with a decompressed body, which raises an error if it is too long or stops for `idle_s`.

    A silent client must not hold a turn and memory that other requests need.
    """
    received = 0
    decoder = find_decoder(request.headers.get("content-encoding", ""))

    async def receive() -> Any:
        nonlocal received
        try:
            async with asyncio.timeout(idle_s):
                message = await request.receive()
        except TimeoutError:
            raise IncompleteRequestError(
                f"no data came for {idle_s:g} s, after {received} bytes of the body; send the request again"
            ) from None
        body = message.get("body", b"")
        if decoder is None or message["type"] != "http.request":
            received += len(body)
            allowance.check_body(received)
            return message
        pieces: list[bytes] = []
        decoding = decoder.feed(body)
        while piece := await asyncio.to_thread(next, decoding, b""):  # a small body may decode to a very large one
            received += len(piece)
            allowance.check_body(received)
            pieces.append(piece)
        if not message.get("more_body", False):
            decoder.finish()
        return {**message, "body": b"".join(pieces)}

    return Request(request.scope, receive)


async def _from_json(data: bytes, model: type[Body]) -> tuple[Any, list[str]]:
    options, texts = await asyncio.to_thread(lambda: parse(model, data).split())  # both may search megabytes
    options.check_count(len(texts))
    return options, texts


async def _from_multipart(request: Request, model: type[Options], check: DecodingLimits) -> tuple[Any, list[Content]]:
    limits = {"max_files": model.max_images + 1, "max_fields": 2, "max_part_size": MAX_HEAD_BYTES}
    try:
        form = await InMemoryParser(request.headers, request.stream(), **limits).parse()
    except MultiPartException as error:  # malformed, or over the limits
        field = model.image_list if error.message.startswith("Too many files") else None
        raise InvalidRequestError(f"the multipart body cannot be read: {error.message}", field=field) from None
    try:
        unknown = sorted(set(form) - {"request", "images"})
        if unknown:
            raise InvalidRequestError(f"unknown part {unknown[0][:100]!r}; the parts are `request` and `images`")
        heads = form.getlist("request")
        if len(heads) != 1:
            raise InvalidRequestError(f"one part `request` (JSON) is needed; there are {len(heads)}", field="request")
        head = heads[0]
        options = parse(model, await head.read() if isinstance(head, UploadFile) else head)
        parts = form.getlist("images")
        options.check_count(len(parts))
        return options, [await _from_part(part, options.image_field(i), check) for i, part in enumerate(parts)]
    finally:
        await form.close()


async def _from_part(part: UploadFile | str, field: str, check: DecodingLimits) -> Content:
    if isinstance(part, str):
        raise InvalidImageError(f"{field} is a text field; send it as a file part (with a filename)", field=field)
    data = await part.read()
    kind, parameters = parse_content_type(part.content_type or "")
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
