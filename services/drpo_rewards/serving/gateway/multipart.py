"""Multipart bodies, whose parts are found while the body arrives and are not copied out of it."""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from drpo_rewards.errors import InvalidRequestError


@dataclass
class Part:
    """One part: what its headers say, and where its data lies in the body."""

    name: str = ""
    content_type: str = ""
    start: int = 0
    end: int = 0


class PartFinder:
    """Finds the parts of a body. It is shown each piece of the body once, in order, and keeps none.

    Args:
        content_type: the header of the request, which has the boundary.
        files: the name of the parts that are files. Clients may leave out their file names.
        field: the name of the other part, of which there is one.
        max_files: how many files there may be.
        max_field_bytes: the most bytes of the other part.
        file_field: what is at fault if there are too many files.
    """

    def __init__(
        self, content_type: str, files: str, field: str, max_files: int, max_field_bytes: int, file_field: str
    ) -> None:
        self.parts: list[Part] = []
        self._max_files, self._max_field_bytes = max_files, max_field_bytes
        self._files, self._field, self._file_field = files, field, file_field
        self._has_end = False
        self._headers: dict[str, str] = {}
        self._name, self._value = bytearray(), bytearray()
        self._received = 0  # bytes of the body before the present piece
        self._piece = b""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise _unreadable("the content type names no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _unreadable(str(error)) from None

    def feed(self, piece: bytes) -> None:
        """Look at the next piece of the body.

        Raises:
            InvalidRequestError: it is malformed, or has too many or too large parts.
        """
        self._piece = piece
        try:
            self._parser.write(piece)
        except FormParserError:
            raise _unreadable(
                "the data does not fit the boundary, of which nothing may stand before the first or beside one, or a "
                "part has folded or too long headers"
            ) from None
        self._received += len(piece)
        self._piece = b""

    def finish(self) -> None:
        """Check that the body is complete: one that was cut off may lack images at its end.

        Raises:
            InvalidRequestError: the boundary at its end is missing.
        """
        if not self._has_end:
            raise _unreadable("it ends before the last boundary")

    def _end(self) -> None:
        self._has_end = True

    def _begin(self) -> None:
        self._headers = {}
        self.parts.append(Part())

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        part = self.parts[-1]
        options = parse_options_header(self._headers.get("content-disposition", ""))[1]
        if b"name" not in options:
            raise _unreadable("a part has no name")
        part.name = options[b"name"].decode("utf-8", "replace")
        part.content_type = self._headers.get("content-type", "")
        if part.name not in (self._files, self._field):  # such as `images[]`, as some clients name several files
            raise InvalidRequestError(
                f"unknown part {part.name[:100]!r}; the parts are `{self._field}` and `{self._files}`"
            )
        files = sum(part.name == self._files for part in self.parts)
        if files > self._max_files:
            raise InvalidRequestError(
                f"at most {self._max_files} `{self._files}` are allowed; this request has more", field=self._file_field
            )
        if len(self.parts) - files > 1:
            raise InvalidRequestError(f"one part `{self._field}` is needed; there are more", field=self._field)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        """Count data of the present part. The parser shows it in order, and without gaps.

        If it took the end of the last piece for the beginning of a boundary, it shows that later, from a buffer of its
        own.
        """
        part = self.parts[-1]
        size = part.end - part.start + end - start
        part.end = self._received + (end if data is self._piece else 0)
        part.start = part.end - size
        if part.name != self._files and size > self._max_field_bytes:
            raise _unreadable(f"the part {part.name[:100]!r} has more than {self._max_field_bytes} bytes")


def _unreadable(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"the multipart body cannot be read: {reason}")
