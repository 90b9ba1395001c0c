"""Memory that a process has freed goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from drpo_rewards.cluster.memory import ENVIRONMENT, TUNABLES, gateway_environment

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
import resource
import psutil

def resident():
    return psutil.Process().memory_info().rss

def faults(size):
    \"\"\"Pages that the system had to map for a buffer that is taken and freed 20 times.\"\"\"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * size
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = resident()
print(faults(6_300_000), faults(20_000_000), resident() - before)
"""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_buffers_of_ordinary_groups_are_kept_and_larger_ones_go_back() -> None:
    command, environment = [sys.executable, "-c", FAULTS], os.environ | ENVIRONMENT
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    kept, _, resident = map(int, answer.stdout.split())
    assert kept < 3 * 6_300_000 / 4096
    assert resident < 10_000_000  # one of the smaller ones


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text(), reason="only of those that ask"
)
@pytest.mark.skipif(platform.libc_ver()[1] < "2.35", reason="only newer libraries ask for large pages")
def test_large_buffers_come_in_large_pages_unless_the_user_says_otherwise() -> None:
    faults = []
    for of_user in ({}, {TUNABLES: "glibc.malloc.hugetlb=0"}):
        environment = os.environ | gateway_environment(of_user)
        command = [sys.executable, "-c", FAULTS]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        faults.append(int(answer.stdout.split()[1]))
    assert faults[0] < faults[1] / 2


def test_the_gateway_has_its_own_variables_and_the_tunables_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TUNABLES, raising=False)
    given = {TUNABLES: "glibc.cpu.x86_ibt=off", "MALLOC_ARENA_MAX": "8", "PATH": "p"}
    both = f"{ENVIRONMENT[TUNABLES]}:glibc.cpu.x86_ibt=off"
    assert gateway_environment(given) == given | ENVIRONMENT | {TUNABLES: both}
    assert gateway_environment({}) == ENVIRONMENT
    monkeypatch.setenv(TUNABLES, "glibc.cpu.x86_ibt=off")
    assert gateway_environment({}) == ENVIRONMENT | {TUNABLES: both}


POOLS = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import psutil
from drpo_rewards.cluster.memory import return_free_memory

def resident():
    return psutil.Process().memory_info().rss // 2**20

def work(letter):
    barrier.wait()  # so that there are 8 of them, each with a pool of its own if there are several
    lower, top = letter * 7_000_000, letter * 7_000_000
    del top, lower  # from the end down, so that both join the free end of their pool
    barrier.wait()

barrier = Barrier(8)
before = resident()
with ThreadPoolExecutor(8) as threads:
    list(threads.map(work, (bytes([index]) for index in range(8))))
    return_free_memory()
    print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")
def test_the_memory_of_all_threads_goes_back() -> None:
    command, environment = [sys.executable, "-c", POOLS], os.environ | ENVIRONMENT
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert int(answer.stdout) < 10
