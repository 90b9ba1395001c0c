"""Where the processor time of a ranking request goes: by process, and in gateway and reward by function.

Launch: make profile-way, or python tests/bench/profile_way.py [--transport http] [--clients 4] [--seconds 20]

Clients send groups of 8 pictures of 512x512 as plain pixels to a tiny PickScore. The first table has the milliseconds
of each process for one group. Then py-spy (which needs the right to read other processes: root, or ptrace_scope 0)
samples gateway and reward: for each the functions with the most time of their own, what they call in C included, and
the function of this project that called them.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psutil
from bench_way import SIDE, cpu_s, served, service_family
from hardware import describe_hardware

from drpo_rewards.cluster.local_ray import start_local_ray, stop_ray

sys.path.append(str(Path(__file__).parents[1]))  # for `support`
SAMPLED = {"gateway": ":gateway", "reward": ":reward-"}
ROWS = 15


def describe(process: psutil.Process) -> str:
    words = process.cmdline()
    name = Path(words[0]).name if words else process.name()
    script = next((Path(word).name for word in words[1:] if word.endswith(".py")), "")
    return f"{name} {script}".strip() if "ServeReplica" not in name else words[0].partition(".")[0]


def read_stacks(file: Path) -> tuple[Counter[str], int]:
    """Read py-spy's raw format, lines of `outer;...;inner COUNT`: samples by innermost function and our caller."""
    functions: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        ours = next((frame for frame in reversed(frames) if "drpo_rewards" in frame), "")
        inner = frames[-1].split(" (")[0]
        functions[f"{inner:<40} {ours.replace('drpo_rewards/', '')}"] += int(count)
    return functions, sum(functions.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transport", choices=["http", "grpc"], default="http")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=20)
    arguments = parser.parse_args()
    from support.tiny.clip import write_clip

    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import LoadResult, draw_groups, run_load

    print(describe_hardware(), flush=True)
    groups = draw_groups(4, 8, SIDE)
    start_local_ray(num_cpus=4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clip(folder)
        reward = {"type": "pickscore", "options": {"model": name}, "batch_size": 64}
        with served({"pickscore": reward}) as service:
            address = str(service.http_url if arguments.transport == "http" else service.grpc_address)
            family = service_family()

            def load(seconds: float) -> LoadResult:
                connect = lambda: AsyncRankingClient(address, timeout_s=120)  # noqa: E731
                return asyncio.run(run_load(connect, "p", groups, clients=arguments.clients, seconds=seconds))

            load(5.0)  # warm up
            before = {process.pid: cpu_s([process]) for process in family}
            result = load(arguments.seconds)
            answered = len(result.latencies_s)
            print(f"\n{arguments.transport}, {arguments.clients} clients: {result.images_per_s:.1f} images/s")
            print("processor time for one group of 8, in ms:")
            costs = {process: (cpu_s([process]) - before[process.pid]) / answered * 1e3 for process in family}
            print(f"{sum(costs.values()):8.1f} in total")
            for process, cost in sorted(costs.items(), key=lambda item: -item[1])[:8]:
                print(f"{cost:8.1f} {describe(process)}", flush=True)
            samplers = {}
            for part, mark in SAMPLED.items():
                pid = next(process.pid for process in family if mark in " ".join(process.cmdline()))
                command = ["py-spy", "record", "--format", "raw", "--nonblocking"]
                command += ["--rate", "200", "--duration", str(arguments.seconds), "--pid", str(pid)]
                command += ["--output", str(folder / part)]
                samplers[part] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            load(arguments.seconds + 2.0)
            for part, sampler in samplers.items():
                sampler.wait(60)
                functions, total = read_stacks(folder / part)
                print(f"\n{part}: share of its busy time")
                for function, count in functions.most_common(ROWS):
                    print(f"{count / total:7.1%} {function}", flush=True)
    stop_ray()


if __name__ == "__main__":
    main()
