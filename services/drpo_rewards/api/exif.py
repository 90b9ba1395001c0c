"""The orientation of a picture, the one thing that Exif data say of its pixels."""

from __future__ import annotations

import struct

INTEGERS = {3: "H", 4: "I"}  # as Exif numbers its types: 16 bits, as its standard says, or 32, as some write
ORIENTATION_TAG = 0x0112
MAX_ENTRIES = 1_000


def read_orientation(exif: memoryview) -> int:
    """Return the orientation that Exif data states; 1 if it states none or cannot be read."""
    try:
        if exif[:6] == b"Exif\0\0":  # WebP files may repeat the prefix of JPEG
            exif = exif[6:]
        order = {b"II": "<", b"MM": ">"}[bytes(exif[:2])]
        (at,) = struct.unpack_from(f"{order}4xI", exif)
        (entries,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(min(entries, MAX_ENTRIES)):
            tag, kind = struct.unpack_from(f"{order}HH", exif, at + 2 + 12 * entry)
            if tag == ORIENTATION_TAG:
                (value,) = struct.unpack_from(f"{order}{INTEGERS[kind]}", exif, at + 10 + 12 * entry)
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1
