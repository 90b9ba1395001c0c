"""Random seeds that depend only on the run's seed and on the position in the run where they are used.

So the noise and the pairs of a group are the same in a resumed run, and with any number of workers.
"""

from __future__ import annotations

import hashlib


def derive_seed(*path: int | str, bits: int = 63) -> int:
    """A seed in [0, 2^bits) for a named position, for example `derive_seed(run_seed, step, group, "noise")`."""
    digest = hashlib.sha256("/".join(str(part) for part in path).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)
