"""Describe the machine on which a benchmark runs. Its numbers mean nothing without this line."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe_hardware() -> str:
    """Processor, cores, memory, GPU, load, and versions of Python and the main packages."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    processor = names[0].partition(":")[2].strip() if names else platform.machine()
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "grpcio"))
    return (
        f"{processor}, {os.cpu_count()} cores, {gigabytes:.0f} GiB, {_gpu()}, load before the run {load:.1f}; "
        f"Python {platform.python_version()}, {versions}"
    )


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
