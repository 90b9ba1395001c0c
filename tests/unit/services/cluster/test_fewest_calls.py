"""Which replica gets a call, by Ray Serve's own kind of router."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID

from drpo_rewards.cluster.fewest_calls import FewestCalls

DEPLOYMENT = DeploymentID(name="reward-x", app_name="ranking")
FIRST, SECOND = (ReplicaID(name, DEPLOYMENT) for name in ("first", "second"))


def make_router() -> FewestCalls:
    return FewestCalls(DEPLOYMENT, DeploymentHandleSource.REPLICA)


async def choose(router: FewestCalls) -> list[ReplicaID]:
    replicas: list[Any] = [SimpleNamespace(replica_id=one) for one in (FIRST, SECOND)]
    return [one.replica_id for (one,) in await router.choose_replicas(replicas)]


async def test_the_replica_with_the_fewest_calls_comes_first_whichever_handle_sent_them() -> None:
    by_value, by_reference = make_router(), make_router()
    for _ in range(2):
        by_value.on_send_request(FIRST)
    by_reference.on_send_request(SECOND)
    for router in (by_value, by_reference):
        assert await choose(router) == [SECOND, FIRST]
    by_value.on_request_completed(FIRST, "1")
    by_value.on_request_completed(FIRST, "2")
    for router in (by_value, by_reference):
        assert await choose(router) == [FIRST, SECOND]
    by_reference.on_request_completed(SECOND, "3")
    assert not FewestCalls._calls  # replicas that are gone leave nothing behind


async def test_equal_ones_are_taken_in_any_order() -> None:
    firsts = Counter([(await choose(make_router()))[0].unique_id for _ in range(200)])
    assert min(firsts[one.unique_id] for one in (FIRST, SECOND)) > 50
