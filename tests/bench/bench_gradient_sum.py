"""Compare adding up the gradients of two workers while a backward pass runs with adding them up after it.

Launch: python tests/bench/bench_gradient_sum.py [--layers 40] [--width 1024] [--batch 256] [--rounds 7]

Two processes on this machine, with gloo, alternate both ways. The script prints the seconds of the pass and of the sum
together, and

    ratio      during the pass / after it, which should be below 1
    shortest   the pass alone / after it: what would be left if the sum took no time

On two cores the sum itself takes time from the pass. Between machines, where it mostly waits, it is hidden further.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from tempfile import TemporaryDirectory

import torch
from hardware import describe_hardware

WORKERS = 2


def measure(worker: int, folder: str, arguments: argparse.Namespace) -> None:
    """Runs the steps of one worker; the first one prints."""
    import torch.distributed as dist

    from drpo.training.gradient_sum import GradientSum

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=worker, world_size=WORKERS)
    width = arguments.width
    layers = [
        layer for _ in range(arguments.layers) for layer in (torch.nn.Linear(width, width, bias=False), torch.nn.Tanh())
    ]
    network = torch.nn.Sequential(*layers)
    gradient_sum = GradientSum(list(network.parameters()))
    inputs_ND = torch.randn(arguments.batch, width)
    kinds = {"alone": nullcontext, "after": nullcontext, "during": gradient_sum.begun_early}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for passed in range(arguments.rounds + 2):
        for kind, around in kinds.items():
            network.zero_grad()
            loss = network(inputs_ND).square().mean()
            dist.barrier()
            started = time.perf_counter()
            with around():
                loss.backward()
            if kind != "alone":
                gradient_sum.finish(0.5)
            if passed >= 2:  # the first pass shows the order in which gradients are complete
                seconds[kind].append(time.perf_counter() - started)
    if worker == 0:
        alone, after, during = (statistics.median(seconds[kind]) for kind in kinds)
        megabytes = sum(one.numel() for one in network.parameters()) * 4 / 1e6
        print(
            f"{megabytes:.0f} MB of gradients: pass {alone:.3f} s, sum after it {after:.3f} s, during it {during:.3f} s"
        )
        print(f"ratio {during / after:.2f}, shortest {alone / after:.2f}")
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(describe_hardware())
    with TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(measure, (folder, arguments), nprocs=WORKERS)


if __name__ == "__main__":
    main()
