"""Data-parallel pretraining on the cores of one machine: gradients are averaged over processes, one thread each.

One thread a process is the better use of a few cores: two threads in one process gain a fifth, two processes a whole.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def run_on(processes: int, main: Callable[..., None], *arguments: object) -> None:
    """Calls `main(*arguments)` in this process, or in `processes` new ones that average their gradients."""
    if processes == 1:
        return main(*arguments)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_start, args=(processes, port, main, arguments), nprocs=processes)


def _start(rank: int, processes: int, port: int, main: Callable[..., None], arguments: Sequence[object]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    try:
        main(*arguments)
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """One all-reduce of the flattened gradients."""
    if not dist.is_initialized():
        return
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
