"""JSON bodies with images: long texts stay where they arrived.

The parser holds Python's lock, about 2 ms for each megabyte, and copies every text; meanwhile all other calls wait. So
texts that only an image can have are cut out before the rest is parsed. What is parsed means the same: cutting changes
no token but the texts themselves.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from drpo_rewards.api.contract import Options, parse
from drpo_rewards.errors import InvalidRequestError, RequestTooLargeError
from drpo_rewards.operations.base import Body
from drpo_rewards.serving.gateway.base64_text import MAX_URI_HEAD

MAX_VALUES = 30_000  # keys, texts and other values, counted by quotes and commas. While they are read, all calls wait.
LONG_BYTES = 1 << 16
PIECE_BYTES = 1 << 20
QUOTE, COMMA = b'",'
MAX_TEXTS = 10_000  # texts of a body in which long ones are looked for, keys included
MAX_ESCAPED_BYTES = 1 << 20  # of texts with escapes: finding their ends takes longer than parsing them
SHORT_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)  # possessive, so that its time grows with the text only
# The head of a data: URI may hold anything that a text may. What follows it is read as base64, which is stricter.
PLAIN_TEXT = re.compile(rb"[\x20-\x7e]*+")
CONTROL_CHARACTERS = (b"\n", b"\r", b"\t")  # base64 may be wrapped with them; JSON forbids them in a text

BufferT = TypeVar("BufferT", bytes, bytearray)


@dataclass(frozen=True)
class Base64View:
    """Base64 text inside a body."""

    text: memoryview


def parse_with_images(model: type[Body], data: bytearray) -> tuple[Options, Sequence[str | Base64View]]:
    """Parse a JSON body.

    Returns:
        Its options, and the images' texts in order. Long ones are views of `data`.

    Raises:
        InvalidRequestError: the data is not valid; the error names the first field at fault.
        RequestTooLargeError: it has too many values.
    """
    long = [] if model.may_repeat_images else _find_long_texts(data)
    if long:
        mark = uuid.uuid4().hex  # nobody can have sent it
        body = memoryview(data)
        views = {f"{mark}{index}": Base64View(body[start:end]) for index, (start, end) in enumerate(long)}
        with suppress(InvalidRequestError):  # parsing the whole says what is wrong, and in which column
            options, texts = parse(model, check_values(_cut_out(data, long, list(views)))).split()
            if sum(text in views for text in texts) == len(views):  # else one of them is no image
                return options, [views.get(text, text) for text in texts]
    return parse(model, check_values(data)).split()


def check_values(data: BufferT) -> BufferT:
    """Return JSON as it is, if it has not too many values. Others may go on meanwhile, as numpy gives way to them.

    Raises:
        RequestTooLargeError: it has.
    """
    values = 0.0
    for start in range(0, len(data), PIECE_BYTES):
        piece = np.frombuffer(data, np.uint8, min(PIECE_BYTES, len(data) - start), start)
        values += np.count_nonzero(piece == QUOTE) / 2 + np.count_nonzero(piece == COMMA)
        if values > MAX_VALUES:
            raise RequestTooLargeError(f"the JSON has more than {MAX_VALUES:,} keys, texts and other values")
    return data


def _find_long_texts(data: bytearray) -> list[tuple[int, int]]:
    """Return where each long text begins and ends, without its quotes. Nothing if that takes a parser to find out."""
    if len(data) <= PIECE_BYTES:  # thousands of short texts, one after another, take longer to pass than to parse
        quotes = np.flatnonzero(np.frombuffer(data, np.uint8) == QUOTE)
        if np.diff(quotes).max(initial=0) <= LONG_BYTES:
            return []
    found, at, escaped = list[tuple[int, int]](), 0, 0
    for _ in range(MAX_TEXTS):
        start = data.find(b'"', at) + 1
        if start == 0:
            return found
        end = data.find(b'"', start)
        if end < 0:
            return []
        if data.find(b"\\", start, end) >= 0:
            text = SHORT_TEXT.match(data, start - 1, start + LONG_BYTES)
            if text is None:
                return []
            end = text.end() - 1
            escaped += end - start
            if escaped > MAX_ESCAPED_BYTES:
                return []
        elif end - start > LONG_BYTES:
            is_plain = PLAIN_TEXT.fullmatch(data, start, min(end, start + MAX_URI_HEAD))
            if not is_plain or any(data.find(character, start, end) >= 0 for character in CONTROL_CHARACTERS):
                return []
            found.append((start, end))
        at = end + 1
    return []


def _cut_out(data: bytearray, texts: Sequence[tuple[int, int]], marks: Sequence[str]) -> bytes:
    """Return a copy of `data` with each of the texts replaced by its mark."""
    body, at = memoryview(data), 0
    kept: list[bytes | memoryview] = []
    for (start, end), mark in zip(texts, marks, strict=True):
        kept += body[at:start], mark.encode()
        at = end
    return b"".join([*kept, body[at:]])
