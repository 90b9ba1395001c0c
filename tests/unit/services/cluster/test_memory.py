"""Memory that a process has freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
import psutil
from drpo_rewards.cluster import memory

def resident():
    return psutil.Process().memory_info().rss // 2**20

memory.CHECK_S, memory.LONGEST_CHECKS = 0.1, int(sys.argv[1])
memory.return_free_memory_when_idle()
memory.return_free_memory_when_idle()  # changes nothing
time.sleep(0.3)
return_free_memory, memory.return_free_memory = memory.return_free_memory, lambda: None  # not before it is looked at
before = resident()
blocks = [bytes(60_000) for _ in range(4000)]
last = blocks[-1]  # the top of the heap stays in use, so nothing goes back by itself
del blocks
kept = resident()
memory.return_free_memory = return_free_memory
for _ in range(100):
    if int(sys.argv[1]) == 1:  # a process that never rests
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass
    else:
        time.sleep(0.1)
    if resident() < kept - 150:
        break
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps it")
@pytest.mark.parametrize("longest_checks", [1, 1_000_000], ids=["under load", "when idle"])
def test_free_memory_goes_back(longest_checks: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(longest_checks)]
    kept, after = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert kept > 150
    assert after < 50


FAULTS = """
import resource, sys
from drpo_rewards.cluster import memory

def faults(size):
    \"\"\"Pages that the system had to map for a buffer that is taken and freed 20 times.\"\"\"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

memory.keep_ordinary_buffers()
print(faults(6_300_000), faults(20_000_000))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_buffers_of_ordinary_groups_are_kept_and_larger_ones_go_back() -> None:
    answer = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=60)
    kept, large = map(int, answer.stdout.split())
    assert kept < 3 * 6_300_000 / 4096
    assert large > 19 * 20_000_000 / 4096
