"""The forms of a query and of a document: a text, parts of a message, or an object with an image somewhere in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from drpo_rewards.api.contract import MAX_IMAGES
from drpo_rewards.errors import InvalidImageError, InvalidRequestError

# Under these keys any text is an image. Under any other key, a text may have a data: URI in it.
IMAGE_KEYS = ("image", "image_url", "url")

DATA_URI = re.compile(r"data:[\w.+/-]*(?:;[\w.+-]+=[\w.+-]*)*;base64,[\w+/=-]*", re.IGNORECASE | re.ASCII)

LINES = {60, 64, 72, 76}  # characters, in which encoders wrap base64. A longer line is one URI, with a text behind it

_URI = {"type": "string", "format": "uri", "description": "A data: URI, or base64, of a PNG, JPEG or WebP file."}
_PART = {
    "type": "object",
    "required": ["type", "image_url"],
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {"type": "object", "required": ["url"], "properties": {"url": _URI}},
    },
}
_PARTS = {"type": "array", "items": {"anyOf": [_PART, {"type": ["object", "string"]}]}, "minItems": 1}

_DOCUMENT = {
    "anyOf": [
        {"type": "object", "required": ["image"], "properties": {"image": _URI}},
        {"type": "object", "required": ["text"], "properties": {"text": _URI}},
        {"type": "object", "required": ["content"], "properties": {"content": {**_PARTS, "maxItems": 1}}},
        _URI,
        {"type": ["object", "string"], "description": "One data: URI somewhere in an object or a text."},
    ]
}

DOCUMENTS_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": _DOCUMENT, "minItems": 1, "maxItems": MAX_IMAGES},
        {
            "type": "object",
            "required": ["content"],
            "properties": {"content": {**_PARTS, "maxItems": MAX_IMAGES}, "role": {"type": "string"}},
            "additionalProperties": False,
        },
    ]
}

QUERY_SCHEMA = {"type": ["string", "object", "array"], "description": "A text, or parts that are texts."}


def read_text(query: Any) -> str:
    """Return the text of a query: a text, `{"text": ...}`, `{"content": PARTS}`, or the parts themselves.

    Raises:
        InvalidRequestError: the query is something else, has an image, or is a list of several queries.
    """
    if isinstance(query, str):
        return query
    if isinstance(query, dict) and set(query) in ({"text"}, {"content"}, {"type", "text"}, {"role", "content"}):
        return read_text(query.get("text", query.get("content")))
    if isinstance(query, list) and (len(query) == 1 or (query and all(isinstance(part, dict) for part in query))):
        return "\n".join(map(read_text, query))
    raise InvalidRequestError(
        'the query must be one text, {"text": ...}, or parts of the form {"type": "text", "text": ...}', field="query"
    )


def read_documents(sent: Any, field: str) -> list[Any]:
    """Return the documents, which may be the parts of one message.

    Raises:
        InvalidRequestError: they are neither a list nor `{"content": PARTS}`; the error names `field`.
    """
    documents = sent.get("content") if isinstance(sent, dict) and set(sent) <= {"content", "role"} else sent
    if not isinstance(documents, list) or not 1 <= len(documents) <= MAX_IMAGES:
        message = f'`{field}` must be a list of 1 to {MAX_IMAGES} images, or {{"content": PARTS}} with as many parts'
        raise InvalidRequestError(message, field=field)
    return documents


def find_image(document: Any, field: str) -> str:
    """Return the one image in a document, as base64 or a URI. Texts beside it are ignored.

    Raises:
        InvalidImageError: there is no image, or more than one; the error names `field`.
    """
    images = list(_find_images(document)) if isinstance(document, str | dict) else []
    if len(images) == 1:
        return images[0]
    found = f"has {len(images)} images" if images else "is not an image document"
    raise InvalidImageError(
        f'{field} {found}; write one data: URI, {{"image": "data:image/png;base64,..."}} or {{"content": [{{"type": '
        f'"image_url", "image_url": {{"url": "data:..."}}}}]}} (this service ranks images, not text)',
        field=field,
    )


def _is_data_uri(text: str) -> bool:
    """Return whether a text is a data: URI and nothing else. Its base64 may be wrapped as encoders wrap it."""
    head, _, data = text.partition(",")
    first, *further = data.split() or [""]
    if head[:5].lower() != "data:" or len(head.split()) != 1:
        return False
    if not further:
        return data[:1] == first[:1] or head.lower().endswith(";base64")  # perhaps with a space before it
    *lines, last = first, *further
    return {len(first)} == set(map(len, lines)) <= LINES and len(last) <= len(first)


def _find_images(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, str):
        text = value.strip()
        yield from [text] if key in IMAGE_KEYS or _is_data_uri(text) else DATA_URI.findall(text)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _find_images(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _find_images(inner, key)
