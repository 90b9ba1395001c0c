"""Images as base64 text."""

from __future__ import annotations

import base64

import pytest
from PIL import Image
from support.images import PICTURE, encode

from drpo_rewards.errors import InvalidImageError
from drpo_rewards.serving.gateway.base64_text import from_base64


def test_base64_and_data_uris() -> None:
    text = base64.b64encode(encode(Image.fromarray(PICTURE))).decode()
    assert from_base64(text) == base64.b64decode(text)
    assert from_base64(f"data:image/png;base64,{text}") == base64.b64decode(text)
    assert from_base64(f"data:image/png;BASE64,{text}") == base64.b64decode(text)
    for broken in (base64.encodebytes(b"\xff" * 3_000_000).decode(), "  " + "/" * 4_000_000 + "\r\n"):
        assert from_base64(broken) == b"\xff" * 3_000_000  # lines, and white space around
    long = bytes(range(256)) * 10_001
    assert from_base64("DATA:;base64," + base64.b64encode(long).decode()) == long
    for wrong, reason in [
        ("*" + text, "not valid base64"),
        ("_" * 8, r"use \+ and /, not - and _"),
        ("data:image/png," + text, "not base64"),
        ("http://example.org/a.png", "fetches none"),
        ("file:///etc/passwd", "fetches none"),
    ]:
        with pytest.raises(InvalidImageError, match=reason):
            from_base64(wrong)


def test_a_view_is_read_as_a_text_is() -> None:
    for text in ("data:image/png;base64,QUJD", " QU\r\nJD", "QUJD"):
        assert from_base64(memoryview(text.encode())) == from_base64(text) == b"ABC"
    with pytest.raises(InvalidImageError, match="ASCII"):
        from_base64("äQUJ")
    for text in ("http://example.org/a.png", "data:,QUJD", "QUJ*"):
        with pytest.raises(InvalidImageError) as of_text:
            from_base64(text)
        with pytest.raises(InvalidImageError) as of_view:
            from_base64(memoryview(text.encode()))
        assert str(of_text.value) == str(of_view.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("QUJ", "Incorrect padding"),
        ("Q", "Invalid number of data characters"),
        ("QUJD=", "Excess padding"),
        ("QQ==QUJD", "Excess data after padding"),
        ("====", "Leading padding"),
    ],
)
def test_padding_must_fit_the_text(text: str, reason: str) -> None:
    with pytest.raises(InvalidImageError, match=reason):
        from_base64(text)
