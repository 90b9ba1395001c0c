"""Check what a service needs from the machine around it: ports, a folder for Ray, open files, shared memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

from drpo_rewards.cluster.ray_folder import find_ray_folder
from drpo_rewards.errors import ConfigError
from drpo_rewards.findings import Finding
from drpo_rewards.process import find_hidden_module
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.ports import reserve_port

SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_MB = 1000  # a few of the largest groups: one has up to 134 million pixels, 400 MB
SHARED_FIX = "free some, or give a container more: docker run --shm-size 2g; a larger emptyDir of medium Memory"

LEAST_OPEN_FILES = 256  # Ray's processes hang at 64; each client of a gateway needs one more
LEAST_ADDRESSES_GB = 9  # beside Ray's object store, which is mapped whole; measured: 7.5 for its node, 4 for a worker
STORE_SHARE, STORE_MOST_GB = 0.3, 200  # of the machine's memory, as Ray chooses


def check_ports(settings: ServiceConfig) -> Iterator[Finding]:
    """Check that nobody has the ports, and that this user may listen on them."""
    if settings.http_port == settings.grpc_port != 0:
        found = f"http_port and grpc_port are both {settings.http_port}"
        yield Finding("ports", "grpc_port", "wrong", found, "choose another --grpc-port (0: a free one)")
    told = set()
    for label, port in (("http_port", settings.http_port), ("grpc_port", settings.grpc_port)):
        try:
            reserve_port(settings.host, port).close()
        except ConfigError as error:
            if str(error) in told:  # an address that neither can have
                continue
            told.add(str(error))
            option = label.removeprefix("http_").replace("_", "-")
            fix = f"--{option} PORT or {label} in the config chooses another port, --host or host another address"
            yield Finding("ports", label, "wrong", str(error), fix)
            continue
        yield Finding("ports", label, "ok", f"{settings.host}:{port} is free" if port else "a free one will be used")


def check_surroundings() -> Iterator[Finding]:
    """Check the current folder, that for Ray's sockets and logs, limits, and the shared memory of groups."""
    if problem := find_hidden_module([os.getcwd()]):  # where Ray's workers look before they look elsewhere
        yield Finding("folders", "the current folder", "wrong", problem)
    try:
        yield Finding("folders", "Ray", "ok", f"{find_ray_folder()}/ray will have its sockets and logs")
    except ConfigError as error:
        yield Finding("folders", "Ray", "wrong", str(error), "export RAY_TMPDIR=FOLDER")
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < LEAST_OPEN_FILES:
        found = f"a process may have only {most}; Ray's need {LEAST_OPEN_FILES} or more"
        yield Finding("limits", "open files", "wrong", found, "ulimit -n 4096, or docker run --ulimit nofile=4096")
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    least_gb = LEAST_ADDRESSES_GB + min(STORE_SHARE * psutil.virtual_memory().total / 1e9, STORE_MOST_GB)
    if addresses != resource.RLIM_INFINITY and addresses < least_gb * 1e9:
        found = f"a process may have only {addresses / 1e9:.3g} GB; Ray's reserve {least_gb:.3g}, mostly unused"
        yield Finding("limits", "address space", "wrong", found, "ulimit -v unlimited, or ask the scheduler for more")
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        found = f"Ray keeps images there, and it cannot be used: {error.strerror}"
        yield Finding("shared memory", str(SHARED_MEMORY), "wrong", found, "mount a tmpfs there")
        return
    free_mb = status.f_bavail * status.f_frsize / 1e6
    if free_mb < LEAST_SHARED_MB:
        found = f"only {free_mb:.0f} MB free; Ray then keeps large groups on disk, which is slower"
        yield Finding("shared memory", str(SHARED_MEMORY), "warning", found, SHARED_FIX)
    else:
        yield Finding("shared memory", str(SHARED_MEMORY), "ok", f"{free_mb:.0f} MB free")
