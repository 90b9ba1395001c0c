"""Decompress the body of an HTTP request while it arrives, in pieces, so that a limit can stop it at any size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from drpo_rewards.errors import InvalidRequestError, UnsupportedContentError

PIECE_BYTES = 1_000_000

GZIP = 16 + zlib.MAX_WBITS  # what zlib calls its format with gzip's header and checksum


def find_decoder(header: str) -> Gunzip | None:
    """Return the decoder of a `Content-Encoding`; None if the body is not compressed.

    Raises:
        UnsupportedContentError: it is not gzip.
    """
    encoding = header.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip"):
        raise UnsupportedContentError(f"content encoding {encoding[:100]!r}; send the body as it is, or as gzip")
    return Gunzip()


class Gunzip:
    """Decodes a gzip body, which may have several members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what more of the body decodes to, in pieces of a megabyte at most.

        Raises:
            InvalidRequestError: the data is damaged, or not gzip.
        """
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(GZIP)
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
