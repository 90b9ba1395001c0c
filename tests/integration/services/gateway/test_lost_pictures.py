"""Pictures whose owner dies while a reward on another machine is asked about them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio

import numpy as np
import ray
from ray import serve
from ray.cluster_utils import Cluster

from drpo_rewards.cluster.handles import SharedImages
from drpo_rewards.errors import RewardsError
from drpo_rewards.serving.config import ServiceConfig
from drpo_rewards.serving.gateway.admission import Admission
from drpo_rewards.serving.gateway.metrics import Metrics
from drpo_rewards.serving.gateway.reward_calls import RewardCalls
from drpo_rewards.serving.replica.replica import RewardReplica

SIZES = {"num_cpus": 2, "object_store_memory": 200_000_000}
IMAGES = [np.zeros((1200, 1200, 3), np.uint8)] * 2

cluster = Cluster(initialize_head=True, head_node_args={**SIZES, "resources": {"here": 10}})
cluster.add_node(**SIZES, resources={"there": 10})
ray.init(address=cluster.address)


@serve.deployment(ray_actor_options={"num_cpus": 0.1, "resources": {"there": 1}})
class Reward:
    def score(self, images):
        return len(images)


@ray.remote(num_cpus=0.1, resources={"here": 1})
class Owner:
    def place(self):
        return [ray.put(IMAGES)]


async def main(handle):
    config = ServiceConfig.model_validate({"rewards": {"x": {"type": "colorfulness"}}})
    calls = RewardCalls(config, {"x": handle}, Metrics("gateway", Admission(config.limits)))
    print(await calls._call("x", RewardReplica.score, IMAGES))
    owner = Owner.remote()
    (reference,) = ray.get(owner.place.remote())
    ray.kill(owner)
    try:
        await calls._call("x", RewardReplica.score, SharedImages(IMAGES, reference))
    except RewardsError as error:
        print(type(error).__name__, error.reward, error)


asyncio.run(main(serve.run(Reward.bind(), name="x", route_prefix=None)))
serve.shutdown()
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.thorough
def test_pictures_that_are_lost_are_no_fault_of_the_reward() -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=180)
    lines = [line for line in answer.stdout.splitlines() if line.startswith(("2", "ServiceUnavailableError"))]
    assert lines == ["2", "ServiceUnavailableError None the images were lost on their way: OwnerDiedError"], answer
