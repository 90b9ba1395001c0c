"""Give memory back to the system when requests no longer need it."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # <malloc.h>
_LARGE_BYTES = 1_000_000


def return_large_buffers() -> None:
    """Make the C library return every buffer above a megabyte to the system as soon as it is free.

    Bodies and pictures are such buffers, and several threads read and decode them. By default glibc starts to keep
    them after the first few, up to 64 MB in each thread. This does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
