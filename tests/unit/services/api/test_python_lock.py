"""Files of many parts: reading them gives Python's lock to other threads in between."""

from __future__ import annotations

import struct
import sys
import threading
import time

import pytest
from PIL import Image
from support.images import PICTURE, encode
from support.odd_files import add_to_png, add_to_webp, png_chunk

from drpo_rewards.api.image_files import PARTS_WITHOUT_REST, read_file

RESTS = 30
PHOTO = Image.fromarray(PICTURE)
MANY = RESTS * PARTS_WITHOUT_REST + 10
WEBP = add_to_webp(PHOTO, b"abCd", b"") + (b"abCd" + bytes(4)) * MANY


@pytest.mark.parametrize(
    "file",
    [
        add_to_png(encode(PHOTO), *[png_chunk(b"abCd", b"")] * MANY),
        WEBP[:4] + struct.pack("<I", len(WEBP) - 8) + WEBP[8:],
    ],
    ids=["PNG", "WebP"],
)
def test_other_threads_go_on_while_a_file_of_many_parts_is_read(file: bytes) -> None:
    """Nothing takes the lock from a thread here, so that others go on only where the reader gives it away."""
    counted, is_over = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not is_over.is_set():
            counted += 1
            time.sleep(1e-4)

    usual = sys.getswitchinterval()
    other = threading.Thread(target=count)
    sys.setswitchinterval(100)
    try:
        other.start()
        before = counted
        read_file(file)
        during = counted - before
    finally:
        sys.setswitchinterval(usual)
        is_over.set()
        other.join()
    assert read_file(file).chunks > MANY
    assert during >= RESTS / 2
