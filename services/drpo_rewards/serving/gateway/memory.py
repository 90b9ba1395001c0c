"""Memory that requests are finished with goes back to the system."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # <malloc.h>
_LARGE_BYTES = 1_000_000


def return_large_buffers() -> None:
    """Have the C library give every buffer above a megabyte back as soon as it is free.

    Bodies and pictures are such buffers, and threads read and decode them. By itself glibc learns from the first ones
    to keep those that follow, up to 64 MB in each thread. Does nothing where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
