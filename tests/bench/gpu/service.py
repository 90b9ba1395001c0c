"""The service's images per second over HTTP and gRPC, with PickScore on the GPU."""

from __future__ import annotations

import asyncio
from functools import partial

from bench.gpu.checkpoints import PROMPT, pickscore_folder
from bench.gpu.measure import Bench

from drpo_rewards.client import AsyncRankingClient
from drpo_rewards.client.load import draw_groups, run_load
from drpo_rewards.cluster.local_ray import start_local_ray
from drpo_rewards.serving import ServiceConfig, start

CLIENTS = (1, 4, 16)
GROUP = 8


def run(bench: Bench) -> None:
    """Starts the service, and sends groups of eight pictures from 1, 4 and 16 clients."""
    start_local_ray()
    pickscore = {"type": "pickscore", "options": {"model": str(pickscore_folder(bench))}, "num_cpus": 0.5}
    pickscore |= {"num_gpus": 0.5 if bench.device == "cuda" else 0, "batch_size": 64, "deadline_s": 120}
    config = ServiceConfig.model_validate({"rewards": {"pickscore": pickscore}})
    groups = draw_groups(8, GROUP, 64 if bench.small else 512)
    with start(config, http_port=0, grpc_port=0) as service:
        for transport, address in (("HTTP", service.http_url), ("gRPC", service.grpc_address)):
            connect = partial(AsyncRankingClient, str(address), timeout_s=120)
            asyncio.run(run_load(connect, PROMPT, groups, clients=2, requests=4))  # warm up
            for clients in CLIENTS[:1] if bench.small else CLIENTS:
                seconds = 0.5 if bench.small else 4.0
                load = asyncio.run(run_load(connect, PROMPT, groups, clients=clients, seconds=seconds))
                latencies_ms = sorted(1e3 * second for second in load.latencies_s)
                bench.record.row(
                    "groups of 8 pictures of 512x512, as RGB",
                    transport=transport,
                    clients=clients,
                    images_per_s=load.images_per_s,
                    median_ms=latencies_ms[len(latencies_ms) // 2],
                    errors=sum(load.errors.values()),
                )
