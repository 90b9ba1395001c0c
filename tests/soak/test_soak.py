"""Hours of use in short: a mixed load on a service whose replicas are killed, and what its memory does.

`make soak` runs it for 30 minutes, `make thorough` for 3; $DRPO_SOAK_MINUTES sets another length.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import psutil
import pytest
from support.service import Served, serve_config
from support.soak import PROCESSES, Memory, Tally, kill_replicas, print_table, put_load

MINUTES = float(os.environ.get("DRPO_SOAK_MINUTES", "3"))
OVERHEAD_S = 75.0  # of the length: starting the service, warming it up, and letting it come to rest
WARM_UP_S, REST_S = 15.0, 20.0
KILL_EVERY_S = 10.0
CONFIG = """
rewards:
  corner: {type: "support.rewards:Corner", num_replicas: 2, num_cpus: 0.1, batch_size: 32, max_queued: 256}
"""


@pytest.mark.thorough
@pytest.mark.integration
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_a_long_mixed_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "soak.yaml").write_text(CONFIG)
    with serve_config(tmp_path, tmp_path / "soak.yaml") as served:
        tally, memory, warm, after, killed = asyncio.run(soak(served))
    with capsys.disabled():
        print_table(tally, memory, warm, after, len(killed))
    assert not tally.wrong, "\n".join(tally.wrong[:10])
    assert killed
    assert all(latencies for latencies in tally.latencies_s.values())
    for name in PROCESSES:
        assert after[name] <= 1.3 * warm[name], f"the memory of the {name} did not come back"
        quarters = memory.quarters(name)
        grows = all(later > 1.05 * before for before, later in itertools.pairwise(quarters))
        assert not grows, f"the memory of the {name} grows from quarter to quarter: {quarters}"


async def soak(served: Served) -> tuple[Tally, Memory, dict[str, float], dict[str, float], list[int]]:
    """Returns the tally, the memory under load, what it was after warming up and after the load, and who was killed."""
    service = psutil.Process(served.process.pid)
    memory, tally, killed = Memory(service), Tally(), []
    await put_load(served.http_url, served.grpc_url, WARM_UP_S, Tally())
    await asyncio.sleep(REST_S)
    warm = memory.read()
    beside = [
        asyncio.create_task(memory.keep_sampling()),
        asyncio.create_task(kill_replicas(service, KILL_EVERY_S, killed)),
    ]
    await put_load(served.http_url, served.grpc_url, max(60.0, MINUTES * 60 - OVERHEAD_S), tally)
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    await asyncio.sleep(REST_S)
    return tally, memory, warm, memory.read(), killed
