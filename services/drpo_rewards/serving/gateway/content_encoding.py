"""Decompress the body of an HTTP request while it arrives, in pieces, so that a limit can stop it at any size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from drpo_rewards.errors import InvalidRequestError, UnsupportedContentError

PIECE_BYTES = 1_000_000

# Each member of a gzip body costs time of its own, however little it holds. Tools that write many make them of 64 kB.
MAX_MEMBERS = 10_000

GZIP = 16 + zlib.MAX_WBITS  # what zlib calls its format with gzip's header and checksum


def find_decoder(headers: Sequence[str]) -> Gunzip | None:
    """Return the decoder of a body; None if it is not compressed.

    Args:
        headers: the values of all `Content-Encoding` headers, each of which may list several encodings.

    Raises:
        UnsupportedContentError: it is not gzip, or compressed more than once.
    """
    listed = [encoding.strip().lower() for header in headers for encoding in header.split(",")]
    encodings = [encoding for encoding in listed if encoding not in ("", "identity")]
    if not encodings:
        return None
    if encodings not in (["gzip"], ["x-gzip"]):
        encoding = ", ".join(encodings)
        raise UnsupportedContentError(f"content encoding {encoding[:100]!r}; send the body as it is, or as gzip")
    return Gunzip()


class Gunzip:
    """Decodes a gzip body, which may have several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what more of the body decodes to, in pieces of a megabyte at most.

        Raises:
            InvalidRequestError: the data is damaged, not gzip, or has too many members.
        """
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(GZIP)
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise InvalidRequestError(f"the gzip body has more than {MAX_MEMBERS} members; compress it at once")
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise InvalidRequestError(f"the body is not valid gzip: {error}") from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        """Check that the body is complete.

        Raises:
            InvalidRequestError: its end is missing.
        """
        if not self._member.eof:
            raise InvalidRequestError("the gzip body ends too early")
