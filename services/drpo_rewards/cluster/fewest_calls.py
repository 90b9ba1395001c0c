"""Which replica gets a call: the one with the fewest calls from this process.

Ray Serve's own router compares the queues of two replicas as it last heard of them. A client that sends its next group
as soon as it has the answer to the last one is sent by old numbers, and now and then a replica had nothing to do for
seconds while the calls of all clients waited for another one. A process knows its own calls exactly. Where several
processes call the same replicas, each spreads its own calls evenly.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import ClassVar

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)


class FewestCalls(FIFOMixin, RequestRouter):
    """A request router of Ray Serve for deployments that `Caller` calls."""

    # A Caller has two handles, and each has a router of its own. They run in the same event loop.
    _calls: ClassVar[Counter[str]] = Counter()  # in progress, by replica

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas in order of their calls, equal ones in any order. A full one is passed over by Serve."""
        shuffled = random.sample(candidate_replicas, len(candidate_replicas))
        return [[one] for one in sorted(shuffled, key=lambda one: self._calls[one.replica_id.unique_id])]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a call that is sent."""
        super().on_send_request(replica_id)
        self._calls[replica_id.unique_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Count a call no longer. Serve calls this once for each one, however it ended."""
        key = replica_id.unique_id
        self._calls[key] -= 1
        if self._calls[key] <= 0:
            del self._calls[key]
