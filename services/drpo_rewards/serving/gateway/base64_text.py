"""Images in JSON: base64 text, or a `data:` URI with base64 text."""

from __future__ import annotations

import re
from contextlib import suppress

import pybase64

from drpo_rewards.errors import InvalidImageError

MAX_URI_HEAD = 4096  # characters of a data: URI before its data
WHITE_SPACE = b" \t\r\n"


def from_base64(text: str | memoryview, *, field: str = "image") -> bytes:
    """Return the bytes of a file that is given as base64 text or as a `data:` URI. Any other URI is refused.

    White space does not count: `base64` of coreutils and the MIME encoders of many languages break lines.

    Raises:
        InvalidImageError: the text is neither; the error names `field`.
    """
    head = text[:MAX_URI_HEAD] if isinstance(text, str) else bytes(text[:MAX_URI_HEAD]).decode("latin-1")
    start = 0
    if head[:5].lower() == "data:":
        start = head.find(",") + 1
        if not start or not head[: start - 1].lower().endswith(";base64"):
            raise InvalidImageError(f"{field} is a data URI that is not base64", field=field)
    elif "://" in head[:64]:
        raise InvalidImageError(f"{field} is a URL, and this service fetches none; send the image itself", field=field)
    data = text[start:]
    with suppress(ValueError):
        return pybase64.b64decode(data, validate=True)
    try:  # slower, and says what is wrong
        return pybase64.b64decode(data, validate=True, ignorechars=WHITE_SPACE)
    except ValueError as error:
        hint = "; use + and /, not - and _" if re.search("[-_]", head[start:]) else ""
        raise InvalidImageError(f"{field} is not valid base64: {error}{hint}", field=field) from None
