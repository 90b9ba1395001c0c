"""Memory of the gateway, the process through which pictures pass.

The C library of Linux (glibc) keeps freed memory for later, in a pool for each of several threads. After a load of
large requests that is a gigabyte or more, although nothing uses it. With another C library all this does nothing.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Mapping

ORDINARY_BYTES = 8_000_000  # above the body of an ordinary group: 8 pictures of 512x512 as plain pixels have 6.3 MB

# What the C library reads when the gateway's process starts. It keeps the memory of ordinary groups for the next ones,
# and returns larger buffers at once: memory that comes from the system anew is cleared and mapped page by page. By
# itself it would soon keep all of it, up to 32 MB for a buffer; with one setting alone, the end of the pool would go
# back above 128 kB, which took a third of the gateway's time. What is kept goes back after the load, see below, and all
# of it only from the first pool: each of the others would keep its end.
#
# Memory that comes from the system comes in pages of 2 MB where Linux has them for those that ask (`madvise`). A group
# of eight pictures of 4096x4096 takes a fifth to a quarter less processor time with them.
TUNABLES = "GLIBC_TUNABLES"
ENVIRONMENT = {
    TUNABLES: "glibc.malloc.hugetlb=1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(ORDINARY_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 20),  # so much of the end of the pool is kept
}

CHECK_S = 5.0
IDLE_SHARE = 0.1  # of a core; Ray's processes are never quite idle
LONGEST_CHECKS = 12  # under a lasting load, memory goes back after this many checks

_started = threading.Lock()


def gateway_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the gateway's process, whose job has the given ones.

    Where both set a variable, the gateway has its own: the limits on its memory rest on it. Only the library's
    tunables, which are many in one variable, are joined, and what the user says of one of them holds.
    """
    of_user = given.get(TUNABLES, os.environ.get(TUNABLES, ""))
    tunables = ":".join(filter(None, (ENVIRONMENT[TUNABLES], of_user)))
    return {**given, **ENVIRONMENT, TUNABLES: tunables}


def return_free_memory() -> None:
    """Return all free memory of this process to the system, without Python's lock.

    It takes milliseconds after a load, and 0.2 ms if there is nothing to return. Other threads that need memory wait.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


def return_free_memory_when_idle() -> None:
    """Start a thread that returns free memory while nothing is done, and once a minute otherwise. Once per process.

    It goes on after a load: calls that waited for a reward meanwhile free theirs later, with hardly any work.
    """
    if _started.acquire(blocking=False):
        threading.Thread(target=_watch, name="return-memory", daemon=True).start()


def _watch() -> None:
    before = time.process_time()
    checks = 0
    while True:
        time.sleep(CHECK_S)
        now = time.process_time()
        checks += 1
        is_idle = now - before < IDLE_SHARE * CHECK_S
        if is_idle or checks >= LONGEST_CHECKS:
            return_free_memory()
            checks = 0
        before = now
