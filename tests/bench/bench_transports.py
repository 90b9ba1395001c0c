"""Images/s over HTTP and gRPC, compared with the same reward in this process and with a plain FastAPI server.

Launch: python tests/bench/bench_transports.py [--seconds 15] [--side 256] [--group-size 4] [--clients 1 4 16]

Two rewards are measured, one after the other.

    accelerator    sleeps for 20 ms per batch and 10 ms per image, as the host does while a GPU runs a large model
    encoder        a transformer over patches, on a GPU if there is one; otherwise clients and gateway take
                   time from its cores

Every round measures each kind of call once, so that a busy machine slows down all of them. The output is images/s, and
their ratio to the reward in this process on full batches, which should be at least 0.9 when clients fill the batches.
The ratio of HTTP to the plain server should be above 1 at 16 clients.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hardware import describe_hardware

from drpo_rewards.cluster.local_ray import start_local_ray
from drpo_rewards.rewards.base import Reward, Score, ScoreItem

PATCH, WIDTH, LAYERS = 32, 384, 6
KINDS = ["HTTP", "gRPC", "plain"]


class Encoder:
    """A small vision transformer, pooled to one number."""

    version = "encoder-1"

    def __init__(self) -> None:
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 6, 4 * WIDTH, batch_first=True)
        self.patches = torch.nn.Conv2d(3, WIDTH, PATCH, PATCH).eval().to(self.device)
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).eval().to(self.device)

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        import numpy as np
        import torch

        with torch.inference_mode():
            images_NHWC = torch.from_numpy(np.stack([item.image for item in items])).to(self.device)
            tokens_NTD = self.patches(images_NHWC.permute(0, 3, 1, 2).float() / 255).flatten(2).transpose(1, 2)
            return [Score(value) for value in self.layers(tokens_NTD).amax(1).mean(1).tolist()]


class Accelerator:
    """Takes as long as a model on a GPU, and no time of the host's processor."""

    version = "accelerator-1"
    batch_s, image_s = 0.020, 0.010

    def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        time.sleep(self.batch_s + self.image_s * len(items))
        return [Score(float(item.image[0, 0, 0])) for item in items]


REWARDS: dict[str, type[Reward]] = {"accelerator": Accelerator, "encoder": Encoder}


class PlainClient:
    """A client of the plain server, with the methods that run_load calls."""

    def __init__(self, port: int) -> None:
        import httpx

        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False)

    async def rank(self, prompt: str, images: Sequence[Any], rewards: dict[str, float]) -> None:
        parts = [("images", (str(index), image.tobytes())) for index, image in enumerate(images)]
        for name in rewards:
            (await self.http.post(f"/score/{name}", files=parts)).raise_for_status()

    async def close(self) -> None:
        await self.http.aclose()


def start_plain_server(port: int) -> subprocess.Popen[bytes]:
    import httpx

    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("plain_server.py")), str(port)])
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/docs", trust_env=False)
            return server
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError("the plain server did not start")


def measure_in_process(reward: Reward, groups: Sequence[Sequence[Any]], batch: int, seconds: float) -> float:
    """Images/s of the reward on full batches of the same images."""
    images = [image for group in groups for image in group]
    items = [ScoreItem(images[index % len(images)], "p") for index in range(batch)]
    started, scored = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        reward.score(items)
        scored += batch
    return scored / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rewards", choices=REWARDS, nargs="+", default=list(REWARDS))
    parser.add_argument("--seconds", type=float, default=15.0, help="seconds for each measurement, connecting included")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    arguments = parser.parse_args()

    print(describe_hardware())
    start_local_ray(num_cpus=4)

    from drpo_rewards.client import AsyncRankingClient
    from drpo_rewards.client.load import draw_groups, run_load
    from drpo_rewards.serving import ServiceConfig, start
    from drpo_rewards.serving.listeners import free_port

    groups = draw_groups(8, arguments.group_size, arguments.side)
    rewards = {name: REWARDS[name]() for name in arguments.rewards}
    config = ServiceConfig.model_validate({"rewards": {name: settings_of(name, arguments) for name in rewards}})
    port = free_port()
    plain = start_plain_server(port)
    try:
        with start(config, http_port=0, grpc_port=0) as service:
            http, grpc = str(service.http_url), str(service.grpc_address)
            connects: dict[str, Any] = {
                "HTTP": lambda: AsyncRankingClient(http, timeout_s=120),
                "gRPC": lambda: AsyncRankingClient(grpc, timeout_s=120),
                "plain": lambda: PlainClient(port),
            }
            for name, reward in rewards.items():
                rates: dict[tuple[str, int], list[float]] = defaultdict(list)
                weights = {"rewards": {name: 1.0}}
                for connect in connects.values():  # warm up
                    asyncio.run(run_load(connect, "p", groups, clients=2, requests=4, **weights))
                measure_in_process(reward, groups, arguments.batch_size, 0.5)
                for _ in range(arguments.rounds):
                    rates["in process", 0].append(
                        measure_in_process(reward, groups, arguments.batch_size, arguments.seconds)
                    )
                    for clients in arguments.clients:
                        for kind, connect in connects.items():
                            load = run_load(connect, "p", groups, clients=clients, seconds=arguments.seconds, **weights)
                            result = asyncio.run(load)
                            assert not result.errors, result.first_error
                            rates[kind, clients].append(result.images_per_s)
                report(name, rates, arguments)
    finally:
        plain.terminate()
        plain.wait()


def settings_of(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    gpus = 0.5 if name == "encoder" and torch.cuda.is_available() else 0
    served = {"num_cpus": 0.1, "num_gpus": gpus, "batch_wait_s": 0.005, "batch_size": arguments.batch_size}
    return {"type": f"bench_transports:{REWARDS[name].__name__}", **served}


def report(name: str, rates: dict[tuple[str, int], list[float]], arguments: argparse.Namespace) -> None:
    """Prints a table with a row for each number of clients."""
    median = {key: statistics.median(values) for key, values in rates.items()}
    in_process = median["in process", 0]
    print(f"\n{name}: groups of {arguments.group_size} images of {arguments.side}x{arguments.side}, as plain pixels")
    print(f"in this process, batches of {arguments.batch_size}: {in_process:.1f} images/s")
    print(f"{'clients':>8} {'HTTP':>16} {'gRPC':>16} {'plain FastAPI':>16} {'HTTP / plain':>13}")
    for clients in arguments.clients:
        cells = [f"{median[kind, clients]:8.1f} ({median[kind, clients] / in_process:4.2f})" for kind in KINDS]
        ahead = median["HTTP", clients] / median["plain", clients]
        print(f"{clients:>8} " + " ".join(f"{cell:>16}" for cell in cells) + f" {ahead:13.2f}", flush=True)


if __name__ == "__main__":
    main()
