"""One local Ray for all integration tests, because a start takes half of the time of most tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.service import Served, serve

from drpo_rewards.cluster.local_ray import start_local_ray

RAY_STARTS = 3


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray that only this test session uses, with 4 logical CPUs on any machine. Initialised in this process."""
    import ray

    for attempt in range(1, RAY_STARTS + 1):
        try:
            start_local_ray(num_cpus=4)
            break
        except Exception as error:  # Ray raises a bare Exception if its node is not up in 30 s
            ray.shutdown()
            if attempt == RAY_STARTS or "timed out during startup" not in str(error):
                raise
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that the command line has started, for tests of the command line and of the web page."""
    with serve(tmp_path_factory.mktemp("served")) as running:
        yield running
