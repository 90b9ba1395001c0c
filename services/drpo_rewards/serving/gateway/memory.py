"""Settings of the memory allocator of the gateway's process."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # <malloc.h>
_LARGE_BYTES = 1_000_000


def return_large_buffers() -> None:
    """Make the C library return every buffer above a megabyte to the system as soon as it is free.

    Bodies and pictures are such buffers, and several threads allocate them. By default glibc keeps free ones, up to
    64 MB in each thread, after the first few. With another C library this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
