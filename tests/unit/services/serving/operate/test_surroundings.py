"""What a service needs from the machine around it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

# In a process of its own: what the tests' process has open may be more than the limit.
LIMITED = """
import json, resource, sys
from drpo_rewards.serving.operate.surroundings import check_surroundings

limit, value = json.loads(sys.argv[1])
if value is not None:
    resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
print(json.dumps([[finding.about, finding.state, finding.found, finding.fix] for finding in check_surroundings()]))
"""


def _find(limit: int, value: int | None, about: str) -> list[list[str]]:
    arguments = [sys.executable, "-c", LIMITED, json.dumps([limit, value])]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    return [finding for finding in json.loads(done.stdout) if finding[0] == about]


@pytest.mark.parametrize(
    ("limit", "value", "about", "words", "fix"),
    [
        (resource.RLIMIT_NOFILE, 255, "open files", "only 255; Ray's need 256 or more", "ulimit -n 4096"),
        (resource.RLIMIT_AS, 8_000_000_000, "address space", "only 8 GB; Ray's reserve ", "ulimit -v unlimited"),
    ],
)
def test_limits_under_which_ray_hangs(limit: int, value: int, about: str, words: str, fix: str) -> None:
    """With 64 open files or 6 GB, the service would be given up after five minutes, without a reason."""
    assert _find(limit, None, about) == []
    ((_, state, found, told),) = _find(limit, value, about)
    assert state == "wrong"
    assert words in found
    assert told.startswith(fix)
