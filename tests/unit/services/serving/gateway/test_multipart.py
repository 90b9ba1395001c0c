"""Parts of a multipart body are found wherever its pieces are cut, and whatever their data holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo_rewards.errors import InvalidRequestError
from drpo_rewards.serving.gateway.multipart import PartFinder

TYPE = "multipart/form-data; boundary=cut"
# Much of this is almost a boundary.
DATA = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"cut", b"\r\n--cu", b"\r\n--", b"x", b"\0\xff"])).map(
    b"".join
)


def finder(content_type: str = TYPE, **limits: int) -> PartFinder:
    limits = {"max_files": 3, "max_field_bytes": 100} | limits
    return PartFinder(content_type, files="file", field="request", **limits, file_field="f")


def build(parts: list[tuple[str, bytes]]) -> bytes:
    """A body in which every second part named `file` has a file name."""
    pieces = []
    for number, (name, data) in enumerate(parts):
        more = '; filename="1"' if name == "file" and number % 2 else ""
        head = f'--cut\r\nContent-Disposition: form-data; name="{name}"{more}\r\nContent-Type: a/b; c={name}\r\n\r\n'
        pieces += [head.encode(), data, b"\r\n"]
    return b"".join([*pieces, b"--cut--\r\n"])


@given(
    files=st.lists(DATA.filter(lambda data: b"\r\n--cut" not in b"\r\n" + data + b"\r\n"), max_size=3),
    size=st.integers(1, 60),
)
def test_parts_are_found_however_the_body_is_cut(files: list[bytes], size: int) -> None:
    sent = [("request", b"{}"), *(("file", data) for data in files)]
    body, found = build(sent), finder()
    for start in range(0, len(body), size):
        found.feed(body[start : start + size])
    assert [(part.name, body[part.start : part.end]) for part in found.parts] == sent
    found.finish()
    assert {part.content_type for part in found.parts} == {f"a/b; c={name}" for name, _ in sent}


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("multipart/form-data", b"", "names no boundary"),
        (f"multipart/form-data; boundary={'x' * 3000}", b"", "exceeds maximum"),
        (TYPE, b"nonsense", "does not fit the boundary"),
        (TYPE, b"--cut\r\nContent-Type: a/b\r\n\r\nx\r\n--cut--", "a part has no name"),
        (TYPE, build([("file", b"")] * 4), "at most 3 `file` are allowed; this request has more"),
        (TYPE, build([("request", b""), ("request", b"")]), "one part `request` is needed; there are more"),
        (TYPE, build([("file[]", b"")] * 2), r"unknown part 'file\[\]'; the parts are `request` and `file`"),
        (TYPE, build([("file", b"x")]).replace(b"a/b", b"a" * 10_000), "too long headers"),
        (TYPE, build([("request", b"x" * 101)]), "'request' has more than 100 bytes"),
    ],
)
def test_what_cannot_be_read_is_named(content_type: str, body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        finder(content_type).feed(body)


def test_a_body_that_was_cut_off_is_refused() -> None:
    """Wherever it is cut, also between two parts: nobody would see that images are missing."""
    body = build([("request", b"{}"), ("file", b"one"), ("file", b"two")])
    for end in range(len(body) - len("--\r\n")):
        found = finder()
        found.feed(body[:end])
        with pytest.raises(InvalidRequestError, match="ends before the last boundary"):
            found.finish()
