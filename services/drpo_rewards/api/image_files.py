"""PNG, JPEG and WebP files before they are decoded: what their headers state, and the file without what is beside it.

A file may hold much beside its pixels: colour profiles, text, previews, video. It decides nothing about the pixels, it
may be damaged, and reading it may cost more than the picture. So only the parts that make the pixels reach the decoder,
and the orientation that Exif states. Nothing is decompressed here, and every loop has a bound.
"""

from __future__ import annotations

import re
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from drpo_rewards.api.exif import read_orientation
from drpo_rewards.errors import InvalidImageError

# More parts (chunks or segments) than any encoder writes. A large PNG has one for every 8 kB or more.
MAX_PARTS = 65_536

MAX_SEGMENTS = 4_096  # of a JPEG; each may have 64 kB

# Walking over parts holds Python's lock: about 1 ms for so many. Then it is free for a while, or others would wait for
# as long as there are files with many parts.
PARTS_WITHOUT_REST, REST_S = 1_000, 0.001

# Pieces of a file that are many or short are copied together, because each view of one takes memory of its own.
MAX_VIEWS, VIEW_BYTES = 256, 200

HEAD_BYTES = 16  # that tell what kind of file it is

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"PLTE", b"tRNS", b"IDAT")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the kind of colour in the header
PNG_PALETTE = 3
# Of the seven passes of an interlaced PNG: its first column and row, and the steps to the next ones.
PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

WEBP_BEGINS = [b"WEBP" + kind for kind in (b"VP8 ", b"VP8L", b"VP8X")]

# An extended WebP states in a byte of flags which chunks beside the pixels it has.
WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
WEBP_BESIDE_FLAGS = 0x20 | 0x08 | 0x04  # colour profile, Exif, XMP

JPEG_SCAN, JPEG_END, JPEG_EXIF, JPEG_QUANTIZATION = 0xDA, 0xD9, 0xE1, 0xDB
QUANTIZATION_BYTES = 65  # of one table, at least
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
JPEG_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
JPEG_HUFFMAN = {0xC0, 0xC1, 0xC2}
# Before a segment, 0xFF may be repeated, and 0xFF before 0x00, 0x01 and 0xD0 to 0xD8 begins none.
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# In a scan, 0xFF before 0x00 is data, and before 0xD0 to 0xD7 a restart. Anything else ends the scan.
JPEG_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
SEARCH_BYTES = 1 << 20  # a search holds Python's lock, so it goes on in steps

# Estimates of the processor time for decoding, in ns, measured on a core of about 3 GHz: for each pixel, for each byte
# of the file, and at most for each pixel.
COSTS_NS = {"PNG": (10, 30, 80), "JPEG": (4, 10, 50), "WEBP": (10, 60, 50)}
PART_NS = {"PNG": 10_000, "JPEG": 20_000, "WEBP": 1_000}  # and for each chunk or segment
# A JPEG file's scans add time for each pixel. Encoders make up to a dozen; what has more may be made to be slow.
USUAL_SCANS, USUAL_SCAN_NS, FURTHER_SCAN_NS = 12, 2, 7


@dataclass(frozen=True)
class ImageFile:
    """A file that is ready to be decoded.

    Attributes:
        kind: PNG, JPEG or WEBP.
        parts: views of the file without what is beside its pixels. It is not copied while it waits.
        width, height: what the header states.
        orientation: how to turn the picture, as Exif numbers it; 1 is upright.
        scans: where each scan of a JPEG begins in `data`. Each one passes over the whole picture.
        bits: of a channel; fewer than 8 only in a PNG.
        chunks: of the file, those beside the pixels included; of a JPEG, segments and further quantization tables.
    """

    kind: str
    parts: Sequence[bytes | memoryview]
    width: int
    height: int
    orientation: int = 1
    scans: list[int] = field(default_factory=list)
    bits: int = 8
    chunks: int = 1

    @property
    def data(self) -> bytes:
        """A copy of the parts, as one file."""
        return b"".join(self.parts)

    @property
    def decode_s(self) -> float:
        """An estimate of the processor time that decoding takes, in seconds. It depends on nothing but the file."""
        pixels = self.width * self.height
        per_pixel, per_byte, most = COSTS_NS[self.kind]
        cost_ns = min(pixels * per_pixel + sum(map(len, self.parts)) * per_byte, pixels * most)
        usual = min(len(self.scans), USUAL_SCANS)
        further = len(self.scans) - usual
        if len(self.scans) > 1:
            cost_ns += pixels * (usual * USUAL_SCAN_NS + further * FURTHER_SCAN_NS)
        return (cost_ns + self.chunks * PART_NS[self.kind]) * 1e-9


def read_file(data: bytes | memoryview, *, field: str = "image", max_scans: int = sys.maxsize) -> ImageFile:
    """Read the headers of a file, and leave out what is beside its pixels.

    Args:
        data: the file, or a view of it in a larger body. It is not copied.
        field: what errors call it.
        max_scans: the most scans that a JPEG file may have. Further ones are not looked for.

    Raises:
        InvalidImageError: it is of another kind, has no header, or is a picture that is never accepted: with 16 bits a
            channel, or animated. The error names `field`.
    """
    view = memoryview(data)
    head = bytes(view[:HEAD_BYTES])
    for kind, (begins, read) in READERS.items():
        if begins(head):
            try:
                return read(view, field, max_scans)
            except (struct.error, IndexError):
                raise InvalidImageError(
                    f"{field} is truncated or damaged: the header of the {kind} file is incomplete", field=field
                ) from None
    raise InvalidImageError(f"{field} is not a PNG, JPEG or WebP image", field=field)


def _read_png(view: memoryview, field: str, _max_scans: int) -> ImageFile:
    length, first, width, height, bits, color = struct.unpack_from(">I4sIIBB", view, len(PNG_SIGNATURE))
    if first != b"IHDR":
        raise InvalidImageError(f"{field} is truncated or damaged: the PNG file begins without IHDR", field=field)
    if bits > 8:
        raise _deep(field, bits)
    at = len(PNG_SIGNATURE) + 12 + length
    kept = [(0, at)]
    orientation, counts_frames, colors, chunks = 1, False, 0, 1
    for _ in _each_part(MAX_PARTS, field):
        if at + 8 > len(view):
            break
        chunks += 1
        length, name = struct.unpack_from(">I4s", view, at)
        end = at + 12 + length
        if name == b"PLTE":
            colors = length / 3
        elif name == b"IDAT" and color == PNG_PALETTE and colors not in range(1, 257):  # a browser shows nothing
            raise InvalidImageError(f"{field} is damaged: the colours of its palette are missing", field=field)
        if name in PNG_PIXELS or not name.isalpha():  # the decoder says what is wrong with the latter
            _keep(kept, at, end)
        elif name == b"eXIf" and zlib.crc32(view[at + 4 : end - 4]).to_bytes(4, "big") == view[end - 4 : end]:
            orientation = read_orientation(view[at + 8 : end - 4])
        elif name == b"acTL":
            counts_frames = True
        elif name == b"fdAT" and counts_frames:  # a frame beside the picture; a browser plays it
            raise _animated(field)
        elif name == b"IEND":
            _keep(kept, at, end)
            break
        at = end
    return ImageFile("PNG", _cut(view, kept), width, height, orientation, bits=bits, chunks=chunks)


def png_is_whole(data: bytes) -> bool:
    """Return whether the compressed data of a PNG have all rows that its header states. It takes time, but no memory.

    The decoder stops where the data end, and leaves the rest of the picture black.
    """
    width, height, bits, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, len(PNG_SIGNATURE) + 8)
    passes = PNG_PASSES if interlaced else ((0, 0, 1, 1),)
    missing = 0
    for column, row, columns, rows in passes:
        across, down = -(-(width - column) // columns), -(-(height - row) // rows)
        if across > 0:
            missing += down * (1 + -(-across * bits * PNG_CHANNELS[color] // 8))
    inflater, at = zlib.decompressobj(), len(PNG_SIGNATURE)
    while missing > 0 and at + 8 <= len(data) and not inflater.eof:
        length, name = struct.unpack_from(">I4s", data, at)
        pending = data[at + 8 : at + 8 + length] if name == b"IDAT" else b""
        while pending and missing > 0:
            missing -= len(inflater.decompress(pending, SEARCH_BYTES))
            pending = inflater.unconsumed_tail
        at += 12 + length
    return missing <= 0


def _read_webp(view: memoryview, field: str, _max_scans: int) -> ImageFile:
    kind = view[12:16]
    if kind == b"VP8 ":
        sides = struct.unpack_from("<HH", view, 26)
        return ImageFile("WEBP", [view], sides[0] & 0x3FFF, sides[1] & 0x3FFF)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", view, 21)
        return ImageFile("WEBP", [view], (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1)
    (announced,) = struct.unpack_from("<I", view, 4)
    ends = min(len(view), 8 + announced)
    length, flags = struct.unpack_from("<IB", view, 16)
    width = int.from_bytes(view[24:27], "little") + 1
    height = int.from_bytes(view[27:30], "little") + 1
    at = 20 + length + length % 2
    kept = [(21, at)]
    orientation, frames, chunks = 1, 0, 1
    for _ in _each_part(MAX_PARTS, field):
        if at + 8 > ends:
            break
        chunks += 1
        name, length = struct.unpack_from("<4sI", view, at)
        end = at + 8 + length + length % 2
        if name in WEBP_PIXELS:
            _keep(kept, at, end)
            frames += name == b"ANMF"
        elif name == b"EXIF":
            orientation = read_orientation(view[at + 8 : end])
        at = end
    if frames > 1:
        raise _animated(field)
    parts: list[bytes | memoryview] = [view[12:20], bytes([flags & ~WEBP_BESIDE_FLAGS]), *_cut(view, kept)]
    head = struct.pack("<4sI4s", b"RIFF", 4 + sum(map(len, parts)), b"WEBP")
    return ImageFile("WEBP", [head, *parts], width, height, orientation, chunks=chunks)


def _read_jpeg(view: memoryview, field: str, max_scans: int) -> ImageFile:
    at, size, kept = 2, 2, [(0, 2)]
    orientation, frame, scans, segments = 1, None, list[int](), 0
    for _ in _each_part(MAX_SEGMENTS, field):
        segments += 1
        start = _find(JPEG_MARKER, view, at)  # bytes between segments mean nothing
        if start == len(view):
            break
        marker = view[start + 1]
        if marker == JPEG_END:
            _keep(kept, start, start + 2)
            break
        end = start + 2 + struct.unpack_from(">H", view, start + 2)[0]
        if marker in JPEG_FRAMES and frame is None:
            frame = (marker, *struct.unpack_from(">BHHB", view, start + 4))
            if frame[1] > 8:
                raise _deep(field, frame[1])
        if marker == JPEG_SCAN:
            if frame is None:
                raise InvalidImageError(f"{field} is truncated or damaged: no size before the pixels", field=field)
            if len(scans) == max_scans:
                raise InvalidImageError(
                    f"{field} is a JPEG file with more than {max_scans} scans; save it again", field=field
                )
            scans.append(size)
            # A scan with all components of a picture that is not progressive is the only one. What follows is not read.
            alone = frame[0] not in JPEG_PROGRESSIVE and view[start + 4] == frame[4]
            end = len(view) if alone else _find(JPEG_SCAN_END, view, end)
        if marker == JPEG_QUANTIZATION:  # of a thousand tables perhaps, which the decoder reads one by one
            segments += (end - start) // QUANTIZATION_BYTES
        if marker == JPEG_EXIF and view[start + 4 : start + 10] == b"Exif\0\0":
            orientation = read_orientation(view[start + 10 : end])
        if not _is_beside(marker, view[start + 4 : end]):
            _keep(kept, start, end)
            size += min(end, len(view)) - start
        at = end
    if frame is None or not scans:
        raise InvalidImageError(f"{field} is truncated or damaged: the JPEG file ends before its pixels", field=field)
    marker, _, height, width, _ = frame
    # Each block of 8x8 pixels takes at least a bit.
    if marker in JPEG_HUFFMAN and 8 * (size - scans[0]) < (width // 8) * (height // 8):
        raise InvalidImageError(
            f"{field} is truncated or damaged: its header states {width}x{height}, which its {len(view)} bytes "
            "cannot hold",
            field=field,
        )
    return ImageFile("JPEG", _cut(view, kept), width, height, orientation, scans, chunks=segments)


def _each_part(most: int, field: str) -> Iterator[None]:
    """Count the parts of a file, with rests between many.

    Raises:
        InvalidImageError: there are more than `most`.
    """
    for number in range(1, most + 1):
        yield
        if number % PARTS_WITHOUT_REST == 0:
            time.sleep(REST_S)
    raise InvalidImageError(f"{field} has more than {most} parts; save it again", field=field)


def _keep(kept: list[tuple[int, int]], start: int, end: int) -> None:
    """Add a piece of the file to those that the decoder gets. Neighbours become one."""
    if kept[-1][1] == start:
        start = kept.pop()[0]
    kept.append((start, end))


def _cut(view: memoryview, kept: Sequence[tuple[int, int]]) -> list[memoryview]:
    parts = [view[start:end] for start, end in kept]
    is_wasteful = len(parts) > MAX_VIEWS or len(parts) * VIEW_BYTES > sum(map(len, parts))
    return [memoryview(b"".join(parts))] if is_wasteful else parts


def _find(pattern: re.Pattern[bytes], view: memoryview, start: int) -> int:
    """Return where the pattern, of at most two bytes, is found next; the end of the file if nowhere."""
    for step in range(start, len(view), SEARCH_BYTES):
        found = pattern.search(view, step, step + SEARCH_BYTES + 1)
        if found:
            return found.start()
    return len(view)


def _is_beside(marker: int, segment: memoryview) -> bool:
    """Return whether a JPEG's segment has no part in its pixels. Those of JFIF and Adobe tell what its channels are."""
    if marker == 0xE0 and segment[:5] == b"JFIF\0":
        return len(segment) < 14
    if marker == 0xEE and segment[:5] == b"Adobe":
        return len(segment) < 12
    return marker >= 0xE0


def _deep(field: str, bits: int) -> InvalidImageError:
    return InvalidImageError(f"{field} has {bits} bits a channel; convert it to 8-bit RGB first", field=field)


def _animated(field: str) -> InvalidImageError:
    return InvalidImageError(f"{field} is animated; send one of its frames", field=field)


READERS: dict[str, tuple[Callable[[bytes], bool], Callable[[memoryview, str, int], ImageFile]]] = {
    "PNG": (lambda head: head.startswith(PNG_SIGNATURE), _read_png),
    "JPEG": (lambda head: head.startswith(b"\xff\xd8\xff"), _read_jpeg),
    "WEBP": (lambda head: head[:4] == b"RIFF" and head[8:16] in WEBP_BEGINS, _read_webp),
}
