"""Random seeds that depend on where in a run they are used and on nothing else.

The noise and the pairs of group `g` of step `s` are the same whether the run is the first or a resumed one, and
whether one worker or four of them share the step.
"""

from __future__ import annotations

import hashlib


def derive_seed(*path: int | str, bits: int = 63) -> int:
    """A seed in [0, 2^bits) for a named place, e.g. `derive_seed(run_seed, step, group, "noise")`."""
    digest = hashlib.sha256("/".join(str(part) for part in path).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)
